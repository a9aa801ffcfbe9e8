"""From flags to a model and its feature extractor."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from avb_hf.model import VocalBurstConfig, VocalBurstFeatureExtractor, Wav2Vec2ForVocalBurst
from avb_hf.model.loading_vocal_burst import read_model_type
from avb_hf.tasks import TaskSpec
from avb_hf.training.arguments import Freeze, ModelArguments

# Flags that are fields of the model's configuration.
HEAD_FIELDS = (
    "feature_layer", "states_norm", "rnn", "rnn_hidden_size", "rnn_num_layers", "pooling", "pool_over", "pooling_mask",
    "output_norm", "output_activation", "activation_before_pooling", "masked_group_norm",
)  # fmt: skip

FREEZERS: dict[str, str | None] = {
    "none": None,
    "feature_encoder": "freeze_feature_encoder",
    "backbone": "freeze_base_model",
}


def build_model(
    task: TaskSpec,
    args: ModelArguments,
    freeze: Freeze,
    train_labels: Sequence[Any] | None = None,
    freeze_blocks: int = 0,
) -> tuple[Wav2Vec2ForVocalBurst, VocalBurstFeatureExtractor]:
    """Load or make the model that the flags describe, and the feature extractor that belongs to it.

    Args:
        task: What the model predicts.
        args: The model's flags.
        freeze: What is not trained.
        train_labels: Labels of the training split, from which balanced class weights follow; None if not trained.
        freeze_blocks: Transformer blocks that are not trained either.

    Raises:
        ValueError: If there is neither a name nor a configuration, or a checkpoint is of another task.
    """
    name = args.model_name_or_path
    if (name is None) == (args.encoder_config is None):
        raise ValueError(
            "give one of --model_name_or_path (a backbone or checkpoint) and --encoder_config (random weights)"
        )
    given = {field: getattr(args, field) for field in HEAD_FIELDS if getattr(args, field) is not None}
    fields = given | _task_fields(task, args, train_labels)
    if name is None:
        encoder_config = read_encoder_config(str(args.encoder_config))
        model = Wav2Vec2ForVocalBurst(VocalBurstConfig(encoder_config=encoder_config, **fields))
        extractor = VocalBurstFeatureExtractor.for_backbone(None, model.config)
    elif _is_own_checkpoint(name):
        config = VocalBurstConfig.from_pretrained(name)
        _require_task(config, task, name)
        _require_head(config, given, name)
        losses = {"loss": args.loss, "class_weights": fields["class_weights"]}
        changed = {field: value for field, value in losses.items() if value is not None}
        model = Wav2Vec2ForVocalBurst.from_pretrained(name, **changed)
        extractor = VocalBurstFeatureExtractor.from_pretrained(name)
    else:
        model = Wav2Vec2ForVocalBurst.from_pretrained(name, **fields)
        extractor = VocalBurstFeatureExtractor.for_backbone(name, model.config)
    freezer = FREEZERS[freeze]
    if freezer is not None:
        getattr(model, freezer)()
    if freeze_blocks:
        model.freeze_blocks(freeze_blocks)
    return model, extractor


def read_encoder_config(text: str) -> dict[str, Any]:
    """Read a backbone's configuration from a JSON file or from inline JSON.

    Raises:
        ValueError: If it is neither, or not a mapping.
    """
    if not text.lstrip().startswith("{") and not Path(text).is_file():
        raise ValueError(f"encoder_config must be a JSON file or inline JSON, got {text!r}")
    try:
        config = json.loads(text if text.lstrip().startswith("{") else Path(text).read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ValueError(f"encoder_config is no valid JSON: {error}") from error
    if not isinstance(config, dict):
        raise ValueError(f"encoder_config must be a mapping, got {type(config).__name__}")
    return config


def balanced_class_weights(labels: Sequence[int], task: TaskSpec) -> list[float]:
    """Weigh each class by the inverse of its share, so that the weights' mean over clips is 1.

    Args:
        labels: Class index of each clip; -100 is left out.
        task: A classification.

    Raises:
        ValueError: If a class has no clip.
    """
    known = np.asarray([label for label in labels if label >= 0], dtype=np.int64)
    counts = np.bincount(known, minlength=len(task.labels))
    absent = [name for name, count in zip(task.labels, counts, strict=True) if count == 0]
    if absent:
        raise ValueError(f"--class_weights balanced needs a training clip of every class; none of {absent}")
    return (len(known) / (len(counts) * counts)).tolist()


def _task_fields(task: TaskSpec, args: ModelArguments, train_labels: Sequence[Any] | None) -> dict[str, Any]:
    if args.class_weights == "balanced" and not task.is_classification:
        raise ValueError(
            f"--class_weights balanced is for classifications; task {task.name!r} is a {task.problem_type}"
        )
    weights = None
    if args.class_weights == "balanced" and train_labels is not None:
        weights = balanced_class_weights(train_labels, task)
    return {
        "id2label": dict(enumerate(task.labels)),
        "label2id": {label: index for index, label in enumerate(task.labels)},
        "problem_type": task.problem_type,
        "label_range": task.label_range,
        "loss": args.loss or task.loss,
        "class_weights": weights,
    }


def _is_own_checkpoint(name_or_path: str) -> bool:
    return read_model_type(name_or_path, {}) == VocalBurstConfig.model_type


def _require_head(config: VocalBurstConfig, given: dict[str, Any], name: str) -> None:
    for field, value in given.items():
        stored = getattr(config, field)
        if value != stored:
            raise ValueError(f"--{field} {value}: {name} was made with {stored}: leave the flag out")


def _require_task(config: VocalBurstConfig, task: TaskSpec, name: str) -> None:
    stored_range = None if config.label_range is None else tuple(config.label_range)
    if stored_range != task.label_range:
        raise ValueError(f"{name} has label_range {stored_range}, but task {task.name!r} has {task.label_range}")
    if config.label_names != list(task.labels) or config.problem_type != task.problem_type:
        raise ValueError(
            f"{name} predicts {config.label_names} ({config.problem_type}), "
            f"but task {task.name!r} has {list(task.labels)} ({task.problem_type})"
        )
