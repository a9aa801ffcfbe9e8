"""One commit of files to a repository of the Hub, made again where the connection is at fault."""

from __future__ import annotations

import logging
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from json import JSONDecodeError
from pathlib import Path

from huggingface_hub import CommitInfo, CommitOperationAdd, CommitOperationDelete, HfApi
from huggingface_hub.constants import REPOCARD_NAME
from huggingface_hub.errors import RepositoryNotFoundError, RevisionNotFoundError

from avb_hf.card_marker import CARD_MARKER, is_ours
from avb_hf.data.hub_account import HubRepo, make_repo, require_no_token
from avb_hf.data.hub_errors import HubRefusalError, asking_the_hub, shorten

logger = logging.getLogger(__name__)

# Seconds before a commit that failed is made again; what was uploaded whole is not uploaded again.
PAUSES = (2.0, 20.0)


@dataclass(frozen=True)
class Head:
    """What a branch of a repository holds now.

    Attributes:
        repo: The repository and its branch.
        commit: The newest commit.
        names: Paths of the files.
    """

    repo: HubRepo
    commit: str
    names: tuple[str, ...]

    def fetch(self, name: str, folder: str | Path) -> Path:
        """Download a file into a folder, and return where it lies there.

        Raises:
            OSError: If the Hub refuses, or is not reached.
        """
        repo, commit = self.repo, self.commit
        with asking_the_hub(f"for {name} of {repo.repo_id}"):
            path = HfApi().hf_hub_download(repo.repo_id, name, repo_type=repo.kind, revision=commit, local_dir=folder)
        return Path(path)


def find_head(repo: HubRepo) -> Head | None:
    """Look what a repository holds; None if it, or its branch, does not exist.

    Raises:
        OSError: If the Hub refuses, or is not reached.
    """
    api = HfApi()
    with asking_the_hub(f"what {repo.repo_id} holds"):
        try:
            commit = api.repo_info(repo.repo_id, repo_type=repo.kind, revision=repo.revision).sha
            names = api.list_repo_files(repo.repo_id, repo_type=repo.kind, revision=commit)
        except (RepositoryNotFoundError, RevisionNotFoundError):
            return None
    return Head(repo, str(commit), tuple(names))


def commit_files(
    repo: HubRepo,
    files: Mapping[str, Path],
    title: str,
    find_stale: Callable[[Head], Iterable[str]] = lambda head: (),
) -> CommitInfo:
    """Make one commit of files; a card that somebody else has written there stays.

    Args:
        repo: Where to; the repository and its branch are made if they do not exist.
        files: The files, by their paths in the repository.
        title: Of the commit.
        find_stale: Names those of the files there that go with this commit.

    Raises:
        ValueError: If a file holds a token; or as `find_stale` does.
        HubRefusalError: If the Hub refuses; nothing has changed there, as below.
        ConnectionError: If it is not reached or cannot for now, and neither after each of `PAUSES`.
    """
    require_no_token(files)
    pauses = list(PAUSES)
    while True:
        try:
            return _commit(find_head(repo) or _make(repo), files, title, find_stale)
        except ConnectionError as error:
            if not pauses:
                raise
            logger.warning("%s; trying again in %g s", error, pauses[0])
        time.sleep(pauses.pop(0))


def _make(repo: HubRepo) -> Head:
    make_repo(repo)
    head = find_head(repo)
    if head is None:
        raise ConnectionError(f"the Hub has made {repo.repo_id}, and does not find it yet")
    return head


def _commit(
    head: Head, files: Mapping[str, Path], title: str, find_stale: Callable[[Head], Iterable[str]]
) -> CommitInfo:
    """Make a commit on what was looked at: where another one came between, the Hub refuses for now."""
    repo, stale = head.repo, find_stale(head)
    operations: list[CommitOperationAdd | CommitOperationDelete] = [
        *(CommitOperationAdd(name, str(path)) for name, path in _without_edited_card(files, head).items()),
        *(CommitOperationDelete(name, is_folder=False) for name in stale),
    ]
    what = f"to take {len(files)} files for {repo.repo_id}"
    with asking_the_hub(what):
        try:
            return HfApi().create_commit(
                repo.repo_id,
                operations,
                commit_message=title,
                repo_type=repo.kind,
                revision=repo.revision,
                parent_commit=head.commit,
            )
        except JSONDecodeError:
            raise
        except ValueError as error:  # of single files, and of a card's metadata
            raise HubRefusalError(f"the Hub was asked {what} and refused: {shorten(str(error))}") from error


def _without_edited_card(files: Mapping[str, Path], head: Head) -> dict[str, Path]:
    """Leave the card out where the one in the repository is not ours, and tell so."""
    files = dict(files)
    if REPOCARD_NAME not in files or REPOCARD_NAME not in head.names:
        return files
    with tempfile.TemporaryDirectory() as folder:
        there = head.fetch(REPOCARD_NAME, folder)
        if not is_ours(there) and there.read_bytes() != files[REPOCARD_NAME].read_bytes():
            message = "%s of %s was written by somebody else and stays: it lacks the line %s"
            logger.warning(message, REPOCARD_NAME, head.repo.repo_id, CARD_MARKER)
            del files[REPOCARD_NAME]
    return files
