"""Saving a model so that it can be used where this package is not installed."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel
from transformers.utils import CONFIG_NAME

from .card_vocal_burst import write_card
from .pipeline_vocal_burst import TASK, VocalBurstPipeline
from .pushing_vocal_burst import PUSH_ARGUMENTS


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
