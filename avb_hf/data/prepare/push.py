"""A dataset to the Hub: asked before the work, shown, and then sent in one commit."""

from __future__ import annotations

import tempfile
from pathlib import Path

from huggingface_hub.constants import REPOCARD_NAME

from avb_hf import __version__
from avb_hf.data.contents import PARQUET_SUFFIX
from avb_hf.data.dataset_facts import FACTS_FILE, read_facts
from avb_hf.data.hub_account import HubRepo, check_repo
from avb_hf.data.hub_commit import Head, commit_files, find_head
from avb_hf.data.prepare.publish_arguments import PublishArguments

LICENCE_QUESTION = """May these recordings be passed on? Look at their licence, and at what their speakers agreed to,
before you let others in. HUME-VB, the corpus of the A-VB challenge, may not be redistributed."""
# Files of a new repository.
_EMPTY = {".gitattributes", REPOCARD_NAME}


def find_repo(publish: PublishArguments) -> HubRepo | None:
    """Check the repository that is pushed to, so that what keeps it from being written is known at once; make nothing.

    Args:
        publish: Where to push; None is returned where it says nowhere.

    Raises:
        ValueError: If the Hub cannot be written to, as `avb_hf.data.hub_account.check_repo` says, or the repository
            holds something else.
        OSError: If the Hub refuses, or is not reached.
    """
    if publish.push_to_hub is None:
        return None
    repo = check_repo(HubRepo(publish.push_to_hub, is_private=not publish.public, kind="dataset"))
    head = find_head(repo)
    if head is not None:
        _list_data(head)
    return repo


def describe_dataset(folder: Path, repo: HubRepo | None, licence: str | None) -> str:
    """Return what is pushed, and whether it may be, as lines of text.

    Args:
        folder: The folder of the dataset.
        repo: Where it is pushed to; None where it stays.
        licence: In the Hub's words; None if none was named.
    """
    target = "is not pushed" if repo is None else f"is pushed to {repo.repo_id}, a {repo.visibility} dataset"
    lines = [f"{folder} {target}; licence: {licence or 'none named'}"]
    lines += [f"  {name}  {path.stat().st_size:,} bytes" for name, path in _files_of(folder).items()]
    return "\n".join([*lines, LICENCE_QUESTION])


def push_dataset(folder: Path, repo: HubRepo) -> str:
    """Push a dataset in one commit, in place of an earlier one, and tell where it is.

    Args:
        folder: The folder of the dataset.
        repo: Where to; it is made if it does not exist.

    Raises:
        ValueError: If a file holds a token, or the repository has come to hold something else.
        OSError: If the Hub refuses or does not answer; nothing of the dataset has changed there, and what was uploaded
            whole is not uploaded again.
    """
    files = _files_of(folder)
    title = f"Publish a corpus prepared by avb_hf {__version__}"
    try:
        commit = commit_files(repo, files, title, lambda head: sorted(_list_data(head) - files.keys()))
    except OSError as error:
        raise OSError(f"{error}; nothing has changed there, {folder} is whole, and the same call goes on") from error
    return f"pushed to {commit.repo_url} ({repo.visibility}), commit {commit.oid}"


def _files_of(folder: Path) -> dict[str, Path]:
    """Return the files of a dataset, and nothing that lies beside them."""
    return {name: folder / name for name in (REPOCARD_NAME, FACTS_FILE, *read_facts(folder).files)}


def _list_data(head: Head) -> set[str]:
    """Return the Parquet files of the dataset that a repository holds, if it holds one.

    Raises:
        ValueError: If it holds something else, or Parquet files beside it, which would be read as part of it.
    """
    repo_id, present = head.repo.repo_id, set(head.names)
    if FACTS_FILE not in present:
        if present <= _EMPTY:
            return set()
        raise ValueError(f"dataset {repo_id} holds files, and no corpus of ours ({FACTS_FILE}): choose another name")
    with tempfile.TemporaryDirectory() as folder:
        ours = set(read_facts(head.fetch(FACTS_FILE, folder).parent).files)
    others = sorted(name for name in present - ours if name.endswith(PARQUET_SUFFIX))
    if others:
        raise ValueError(f"dataset {repo_id} also holds {others[:10]}, which would be read as part of it: remove them")
    return ours & present
