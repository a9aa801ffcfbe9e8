"""Where the Parquet files of a dataset are: in a folder, or on the Hugging Face Hub, and then in its client's cache."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from avb_hf.data.contents import PARQUET_SUFFIX
from avb_hf.data.dataset_facts import FACTS_FILE

# Files of which hardly any dataset has none, and which are small.
_ANY = (FACTS_FILE, ".gitattributes")


def find_dataset(name: str, revision: str | None = None) -> Path:
    """Return the folder of a dataset; one of the Hub is downloaded, unless it is in the cache as it is there.

    The network is asked only where `name` is no folder and has the form of an id.

    Args:
        name: A folder, or the id of a dataset on the Hub (`user/name`).
        revision: Branch, tag or commit on the Hub; None is its main branch.

    Raises:
        ValueError: If there is no such dataset, or it may not be read.
        OSError: If the Hub cannot be reached, and the dataset is not in the cache.
    """
    return Path(name) if _is_folder(name, revision) else download_dataset(name, revision)


def find_commit(name: str, revision: str | None = None) -> str | None:
    """Return the commit that a dataset of the Hub is at, of which nothing large is downloaded; None of a folder.

    Args:
        name: A folder, or the id of a dataset on the Hub (`user/name`).
        revision: Branch, tag or commit on the Hub; None is its main branch.

    Raises:
        ValueError: If there is no such dataset, or it may not be read.
        OSError: If the Hub cannot be reached, and the dataset is not in the cache.
    """
    return None if _is_folder(name, revision) else _download(name, revision, _ANY).name


def download_dataset(name: str, revision: str | None = None) -> Path:
    """Return the folder with the files of a dataset of the Hub, in its client's cache; what is not there is downloaded.

    Args:
        name: Its id, `user/name`.
        revision: Branch, tag or commit; None is the main branch.

    Raises:
        ValueError: If there is no such dataset, or it may not be read.
        OSError: If the Hub cannot be reached, and the dataset is not in the cache.
    """
    return _download(name, revision, (f"*{PARQUET_SUFFIX}", FACTS_FILE))


def _is_folder(name: str, revision: str | None) -> bool:
    if Path(name).is_dir() and revision is not None:
        raise ValueError(f"--dataset_revision is for the Hub, and --dataset_name {name} is a folder")
    return Path(name).is_dir()


def _download(name: str, revision: str | None, patterns: Sequence[str]) -> Path:
    """Return the folder of a commit, which has the commit's name, with the files of some patterns."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import RepositoryNotFoundError, RevisionNotFoundError

    from avb_hf.data.hub_account import check_id
    from avb_hf.data.hub_errors import asking_the_hub

    try:
        check_id(name, with_owner=True)
    except ValueError as error:
        raise ValueError(f"{name!r} is no folder here, and {error}") from error
    with asking_the_hub(f"for dataset {name}"):
        try:
            return Path(snapshot_download(name, repo_type="dataset", revision=revision, allow_patterns=list(patterns)))
        except RepositoryNotFoundError as error:
            raise ValueError(
                f"{name} is no folder here, and no dataset on the Hub that may be read (a private one: `hf auth login`)"
            ) from error
        except RevisionNotFoundError as error:
            raise ValueError(f"dataset {name} has no branch, tag or commit {revision!r}") from error
