"""Whether this machine may write to a repository of the Hub: asked before the work is done, not after.

Nothing here is downloaded; the Hub is HF_ENDPOINT's.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from huggingface_hub import HfApi, constants, get_token
from huggingface_hub.errors import RepositoryNotFoundError
from huggingface_hub.utils import validate_repo_id

from avb_hf.data.hub_errors import asking_the_hub

logger = logging.getLogger(__name__)

RepoKind = Literal["model", "dataset"]

LIKE_A_TOKEN = re.compile(rb"hf_[A-Za-z0-9]{20,}")
# Weights and sound hold no text, and any bytes by chance.
_NOT_TEXT = (".safetensors", ".parquet", ".onnx", ".wav")
# Roles in an organisation that write nothing.
_READERS = ("read", "no_access")


@dataclass(frozen=True)
class HubRepo:
    """A repository that may be written to.

    Attributes:
        repo_id: Its full name, `owner/name`.
        is_private: Whether only its owner sees it; so it is made if it does not exist yet.
        kind: What it holds.
        revision: Branch that is written to; None is the main one.
    """

    repo_id: str
    is_private: bool = True
    kind: RepoKind = "model"
    revision: str | None = None

    @property
    def visibility(self) -> str:
        """`private` or `public`."""
        return "private" if self.is_private else "public"


def check_repo(repo: HubRepo) -> HubRepo:
    """Ask the Hub whether a repository can be written to. Nothing is made yet.

    Args:
        repo: The repository as it was asked for; its name may lack the owner, who then is the user that is logged in.

    Returns:
        The same with its full name, and as visible as it is if it exists.

    Raises:
        ValueError: If the name cannot be one, HF_HUB_OFFLINE is set, nobody is logged in, the token may not write
            there, or the repository is to be private and is a public one already.
        OSError: If the Hub refuses, or is not reached.
    """
    check_id(repo.repo_id)
    if constants.HF_HUB_OFFLINE:
        raise ValueError(f"{repo.repo_id} cannot be pushed to offline: unset HF_HUB_OFFLINE")
    if get_token() is None:
        raise ValueError(
            f"{repo.repo_id} cannot be pushed to, since nobody is logged in: `hf auth login`, or set HF_TOKEN"
        )
    with asking_the_hub("who is logged in"):
        account = HfApi().whoami()
    groups = [group["name"] for group in account.get("orgs", ()) if group.get("roleInOrg") not in _READERS]
    owners = [account["name"], *groups]
    owner, slash, _ = repo.repo_id.rpartition("/")
    if slash and owner not in owners:
        raise ValueError(f"{repo.repo_id} cannot be pushed to: its owner must be one of {owners}")
    full = replace(repo, repo_id=repo.repo_id if slash else f"{owners[0]}/{repo.repo_id}")
    _check_token(account, full)
    with asking_the_hub(f"what {full.repo_id} is"):
        is_private = _is_private(full)
    if repo.is_private and not is_private:
        raise ValueError(f"{full.repo_id} is public already: say that it may be, or choose another name")
    if is_private and not repo.is_private:
        logger.warning("%s exists and is private, and stays so: only its settings make it public", full.repo_id)
    return replace(full, is_private=is_private)


def make_repo(repo: HubRepo) -> None:
    """Make a repository, and its branch, unless they exist; an existing one stays as visible as it is.

    Raises:
        OSError: If the Hub refuses, or is not reached.
    """
    api = HfApi()
    with asking_the_hub(f"to make {repo.repo_id}"):
        api.create_repo(repo.repo_id, private=repo.is_private, repo_type=repo.kind, exist_ok=True)
        if repo.revision is not None:
            api.create_branch(repo.repo_id, branch=repo.revision, repo_type=repo.kind, exist_ok=True)


def require_no_token(files: Mapping[str, Path]) -> None:
    """Refuse to hand over files with a token in them.

    Args:
        files: Files by the names that they are to have; those without text are not looked into.

    Raises:
        ValueError: If one holds the user's own token, or what looks like one; it is named, the token is not.
    """
    own = (get_token() or "").encode()
    for name, path in files.items():
        content = b"" if name.endswith(_NOT_TEXT) else path.read_bytes()
        if LIKE_A_TOKEN.search(content) or (own and own in content):
            raise ValueError(f"{path} holds a token of the Hub, so it is not pushed: remove it, and revoke the token")


def check_id(name: str, with_owner: bool = False) -> None:
    """Check that a repository may be called so.

    Args:
        name: Its id, `owner/name` or `name`.
        with_owner: Whether the owner must be named.

    Raises:
        ValueError: If it may not.
    """
    try:
        validate_repo_id(name)
    except ValueError as error:
        raise ValueError(f"the Hub has no such names as {name!r}: {error}") from error
    if with_owner and "/" not in name:
        raise ValueError(f"the Hub has no such names as {name!r}: the owner must be named, as in user/name")


def _check_token(account: Mapping[str, Any], repo: HubRepo) -> None:
    """Refuse a token that may read only, or write elsewhere only; what a token may do is not always told."""
    token = account.get("auth", {}).get("accessToken", {})
    named = f"the token {token.get('displayName', '')!r} of {account['name']}"
    if token.get("role") == "read":
        raise ValueError(f"{named} may only read: log in by another")
    if token.get("role") == "fineGrained":
        scopes = token.get("fineGrained", {}).get("scoped", ())
        writable = {scope["entity"].get("name") for scope in scopes if "repo.write" in scope["permissions"]}
        if not writable & {repo.repo_id, repo.repo_id.partition("/")[0], None}:
            raise ValueError(f"{named} may not write to {repo.repo_id}, only to {sorted(writable)}: log in by another")


def _is_private(repo: HubRepo) -> bool:
    """Tell whether a repository is private, or will be if it does not exist."""
    try:
        return bool(HfApi().repo_info(repo.repo_id, repo_type=repo.kind).private)
    except RepositoryNotFoundError:
        return repo.is_private
