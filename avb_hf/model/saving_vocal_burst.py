"""Saving a model so that it can be used where this package is not installed."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi
from transformers import PreTrainedModel
from transformers.utils import CONFIG_NAME

from .card_vocal_burst import CARD_FILE, tag_card, write_card
from .pipeline_vocal_burst import TASK, VocalBurstPipeline

# Arguments of transformers' `save_pretrained` that it hands on to the Hub.
PUSH_ARGUMENTS = (
    "commit_description", "commit_message", "create_pr", "private", "repo_id", "revision", "tags", "token",
)  # fmt: skip


def describe_pipeline() -> dict[str, dict[str, Any]]:
    """Describe our pipeline as `custom_pipelines` of a `config.json` does."""
    module = VocalBurstPipeline.__module__.split(".")[-1]
    implementation = f"{module}.{VocalBurstPipeline.__name__}"
    return {TASK: {"impl": implementation, "pt": ["AutoModelForAudioClassification"], "type": "audio"}}


def save_complete(
    model: PreTrainedModel,
    save: Callable[..., Any],
    folder: str | os.PathLike,
    is_main_process: bool = True,
    push_to_hub: bool = False,
    **kwargs: Any,
) -> None:
    """Save a model, its feature extractor, the code of both and of the pipeline, and a card where one is missing.

    transformers copies the files of registered classes and what these import, which the pipeline is part of.

    Args:
        model: A model of ours.
        save: transformers' `save_pretrained`, bound to it.
        folder: Where to.
        is_main_process: Whether this process writes.
        push_to_hub: Whether the same is uploaded too, by the model's `push_to_hub`.
        **kwargs: Further arguments of `save` and of `push_to_hub`.
    """
    push = {name: kwargs.pop(name) for name in PUSH_ARGUMENTS if name in kwargs}
    if kwargs.get("state_dict") is not None:  # which transformers empties
        push["state_dict"], kwargs["state_dict"] = kwargs["state_dict"], dict(kwargs["state_dict"])
    model.config.custom_pipelines = describe_pipeline()
    model.config.encoder_config.dtype = None  # the model's is the one that counts
    save(folder, is_main_process, **kwargs)
    if not is_main_process:
        return
    model.feature_extractor.save_pretrained(folder)
    for weights in Path(folder).glob("*.safetensors"):  # safetensors lets nobody else read them
        shutil.copymode(Path(folder) / CONFIG_NAME, weights)
    write_card(model.config, Path(folder))
    if push_to_hub:  # once all is there: transformers would upload no more than it has just written itself
        model.push_to_hub(push.pop("repo_id", Path(folder).name), **(kwargs | push))


def push_complete(
    model: PreTrainedModel,
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
        model: A model of ours.
        repo_id: Name of the repository, which is made if it does not exist.
        private: Whether it must be private; None leaves it as it is, and is the owner's default for a new one.
        token: As huggingface_hub takes it.
        revision: Branch to upload to, which is made if it does not exist; None is the main one.
        create_pr: Whether to ask for the change by a pull request.
        commit_message: Title of the commit.
        commit_description: What it says besides.
        tags: Tags to add to the card.
        **kwargs: Arguments of `save_pretrained`.

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
        model.save_pretrained(folder, **kwargs)
        if tags:
            tag_card(Path(folder) / CARD_FILE, tags)
        return api.upload_folder(
            repo_id=repo_id,
            folder_path=folder,
            revision=revision,
            create_pr=create_pr,
            commit_message=commit_message or f"Upload {type(model).__name__}",
            commit_description=commit_description,
            ignore_patterns=[".cache/*"],  # where the client keeps notes of its downloads
        )
