"""From flags to a model and its feature extractor."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from transformers import PreTrainedModel

from avb_hf.model import VocalBurstConfig, VocalBurstFeatureExtractor, Wav2Vec2ForVocalBurst
from avb_hf.model.loading_vocal_burst import read_commit, read_model_type
from avb_hf.tasks import TaskSpec
from avb_hf.training.arguments import Freeze, ModelArguments, RunArguments

# Flags that are fields of the model's configuration; of a checkpoint of ours, those of the loss may be changed.
LOSS_FIELDS = ("loss", "ccc_reduction")
HEAD_FIELDS = (
    "feature_layer", "states_norm", "rnn", "rnn_hidden_size", "rnn_num_layers", "pooling", "pool_over", "pooling_mask",
    "output_norm", "output_activation", "activation_before_pooling", "masked_group_norm",
)  # fmt: skip

FREEZERS: dict[str, str | None] = {
    "none": None,
    "feature_encoder": "freeze_feature_encoder",
    "backbone": "freeze_base_model",
}

# Makes a model and its feature extractor of task, model's flags, run's flags, and training labels where it is trained.
ModelBuilder = Callable[
    [TaskSpec, Any, RunArguments, Sequence[Any] | None], tuple[PreTrainedModel, VocalBurstFeatureExtractor]
]


def build_for_run(
    task: TaskSpec, args: ModelArguments, run_args: RunArguments, train_labels: Sequence[Any] | None = None
) -> tuple[Wav2Vec2ForVocalBurst, VocalBurstFeatureExtractor]:
    """Build the proposed model, frozen as the run's flags say; see `build_model`."""
    return build_model(
        task, args, run_args.freeze, train_labels, run_args.freeze_blocks, keep_dropout=run_args.frozen_dropout
    )


def build_model(
    task: TaskSpec,
    args: ModelArguments,
    freeze: Freeze,
    train_labels: Sequence[Any] | None = None,
    freeze_blocks: int = 0,
    keep_dropout: bool = False,
) -> tuple[Wav2Vec2ForVocalBurst, VocalBurstFeatureExtractor]:
    """Load or make the model that the flags describe, and the feature extractor that belongs to it.

    Args:
        task: What the model predicts.
        args: The model's flags.
        freeze: What is not trained.
        train_labels: Labels of the training split, from which balanced class weights follow; None if not trained.
        freeze_blocks: Transformer blocks that are not trained either.
        keep_dropout: Whether what is not trained keeps its dropout in training.

    Raises:
        ValueError: If there is neither a name nor a configuration, or a checkpoint is of another task.
    """
    name = args.model_name_or_path
    if (name is None) == (args.encoder_config is None):
        raise ValueError(
            "give one of --model_name_or_path (a backbone or checkpoint) and --encoder_config (random weights)"
        )
    if args.model_revision is not None and (name is None or Path(name).is_dir()):
        raise ValueError(f"--model_revision {args.model_revision} is for a model of the Hub, got {name}")
    if name is not None and read_model_type(name, _at(args)) == VocalBurstConfig.model_type:
        model = _load_checkpoint(name, task, args, train_labels)
    else:
        model = _put_head_on_backbone(name, task, args, train_labels)
    freezer = FREEZERS[freeze]
    if freezer is not None:
        getattr(model, freezer)(keep_dropout)
    if freeze_blocks:
        model.freeze_blocks(freeze_blocks, keep_dropout)
    return model, model.feature_extractor


def _put_head_on_backbone(
    name: str | None, task: TaskSpec, args: ModelArguments, train_labels: Sequence[Any] | None
) -> Wav2Vec2ForVocalBurst:
    fields = _given(args, HEAD_FIELDS + LOSS_FIELDS) | task_fields(task, args, train_labels)
    if name is None:
        encoder_config = read_encoder_config(str(args.encoder_config))
        model = Wav2Vec2ForVocalBurst(VocalBurstConfig(encoder_config=encoder_config, **fields))
    else:
        model = Wav2Vec2ForVocalBurst.from_pretrained(name, **_at(args), **fields)
    if args.do_normalize is not None:
        model.feature_extractor.do_normalize = args.do_normalize
    return model


def _load_checkpoint(
    name: str, task: TaskSpec, args: ModelArguments, train_labels: Sequence[Any] | None
) -> Wav2Vec2ForVocalBurst:
    commit = read_commit(name, _at(args))
    at = {} if commit is None else {"revision": commit}
    config = VocalBurstConfig.from_pretrained(name, **at)
    extractor = VocalBurstFeatureExtractor.from_pretrained(name, **at)
    _require_task(config, task, name)
    _require_head(config.to_dict() | {"do_normalize": extractor.do_normalize}, args, name)
    changed = _given(args, LOSS_FIELDS)
    class_weights = task_fields(task, args, train_labels)["class_weights"]
    if class_weights is not None:
        changed["class_weights"] = class_weights
    if commit is not None:
        changed |= {"base_model": name, "base_model_revision": commit}
    return Wav2Vec2ForVocalBurst.from_pretrained(name, **at, **changed)


def _at(args: ModelArguments) -> dict[str, str]:
    """Return the loading arguments that say which revision of the model is meant."""
    return {} if args.model_revision is None else {"revision": args.model_revision}


def _given(args: ModelArguments, flags: tuple[str, ...]) -> dict[str, Any]:
    return {flag: getattr(args, flag) for flag in flags if getattr(args, flag) is not None}


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


def task_fields(task: TaskSpec, args: Any, train_labels: Sequence[Any] | None) -> dict[str, Any]:
    """Return what a model's configuration says of the task and its loss.

    Args:
        task: What the model predicts.
        args: The model's flags; of them `loss`, which None leaves to the task, and `class_weights`.
        train_labels: Labels of the training split, from which balanced class weights follow; None if not trained.

    Raises:
        ValueError: If balanced class weights are asked for without classes, or a class has no clip.
    """
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


def _require_head(stored: dict[str, Any], args: ModelArguments, name: str) -> None:
    given = _given(args, (*HEAD_FIELDS, "do_normalize"))
    asked = VocalBurstConfig.from_dict(stored | given)  # resolves what follows from other fields
    for flag, value in given.items():
        if getattr(asked, flag) != stored[flag]:
            raise ValueError(f"--{flag} {value}: {name} was made with {stored[flag]}: leave the flag out")


def _require_task(config: VocalBurstConfig, task: TaskSpec, name: str) -> None:
    stored_range = None if config.label_range is None else tuple(config.label_range)
    if stored_range != task.label_range:
        raise ValueError(f"{name} has label_range {stored_range}, but task {task.name!r} has {task.label_range}")
    if config.label_names != list(task.labels) or config.problem_type != task.problem_type:
        raise ValueError(
            f"{name} predicts {config.label_names} ({config.problem_type}), "
            f"but task {task.name!r} has {list(task.labels)} ({task.problem_type})"
        )
