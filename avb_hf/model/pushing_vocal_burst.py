"""Uploading what is saved, whole and in one commit."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi

from .card_vocal_burst import CARD_FILE, tag_card

# Arguments of transformers' `save_pretrained` that it hands on to the Hub.
PUSH_ARGUMENTS = (
    "commit_description", "commit_message", "create_pr", "private", "repo_id", "revision", "tags", "token",
)  # fmt: skip


def push_saved(
    save: Callable[..., Any],
    name: str,
    repo_id: str,
    private: bool | None,
    token: bool | str | None = None,
    revision: str | None = None,
    create_pr: bool = False,
    commit_message: str | None = None,
    commit_description: str | None = None,
    tags: list[str] | None = None,
    **kwargs: Any,
) -> str:
    """Upload what `save_pretrained` leaves, in one commit; the card that a repository holds stays.

    transformers would put an empty template in the place of the card.

    Args:
        save: `save_pretrained` of a model or pipeline.
        name: What that is, for the title of the commit.
        repo_id: Name of the repository, which is made if it does not exist.
        private: Whether it must be private; None leaves it as it is, and is the owner's default for a new one.
        token: As huggingface_hub takes it.
        revision: Branch to upload to, which is made if it does not exist; None is the main one.
        create_pr: Whether to ask for the change by a pull request.
        commit_message: Title of the commit.
        commit_description: What it says besides.
        tags: Tags to add to the card.
        **kwargs: Arguments of `save`.

    Returns:
        URL of the commit.

    Raises:
        ValueError: If it is to be private, and a public repository of that name exists.
    """
    api = HfApi(token=token)
    repo_id = api.create_repo(repo_id, private=private, exist_ok=True).repo_id
    if private and not api.repo_info(repo_id).private:
        raise ValueError(f"{repo_id} exists and is public: push with private=False, or choose another name")
    if revision is not None and not revision.startswith("refs/"):
        api.create_branch(repo_id, branch=revision, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        if api.file_exists(repo_id, CARD_FILE, revision=revision):
            api.hf_hub_download(repo_id, CARD_FILE, revision=revision, local_dir=folder)
        save(folder, **kwargs)
        if tags:
            tag_card(Path(folder) / CARD_FILE, tags)
        return api.upload_folder(
            repo_id=repo_id,
            folder_path=folder,
            revision=revision,
            create_pr=create_pr,
            commit_message=commit_message or f"Upload {name}",
            commit_description=commit_description,
            ignore_patterns=[".cache/*"],  # where the client keeps notes of its downloads
        )
