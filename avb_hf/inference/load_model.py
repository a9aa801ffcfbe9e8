"""From a folder or Hub id to a model of ours: the one place that looks at what kind of model it is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from transformers import CONFIG_MAPPING, MODEL_FOR_AUDIO_CLASSIFICATION_MAPPING, PreTrainedModel

from avb_hf.model import VocalBurstFeatureExtractor, Wav2Vec2ForVocalBurst
from avb_hf.model.loading_vocal_burst import read_commit, read_model_type


def find_model_class(name_or_path: str, revision: str | None = None) -> type[PreTrainedModel] | None:
    """Return the class of a fine-tuned model of ours, as it was registered with transformers' Auto classes.

    Args:
        name_or_path: Hub id or folder.
        revision: Branch, tag or commit of a Hub id; None is the main branch.

    Returns:
        The class; None for anything else, such as a backbone.

    Raises:
        ValueError: If there is no checkpoint, no such folder, or a folder is asked for a revision.
    """
    is_folder = Path(name_or_path).is_dir()
    if revision is not None and is_folder:
        raise ValueError(f"--model_revision {revision} is for a model of the Hub, got the folder {name_or_path}")
    if not is_folder and _is_path(name_or_path):
        raise ValueError(f"{name_or_path}: there is no such folder")
    model_type = read_model_type(name_or_path, {"revision": revision})
    if model_type not in CONFIG_MAPPING:
        return None
    config_class = CONFIG_MAPPING[model_type]
    is_ours = hasattr(config_class, "min_samples")  # transformers' own do not tell how short a clip may be
    return MODEL_FOR_AUDIO_CLASSIFICATION_MAPPING[config_class] if is_ours else None


def _is_path(name: str) -> bool:
    """Whether a name is meant as a path: a Hub id has at most one slash, and none of our folders before it."""
    first, *others = Path(name).parts
    return (
        first.startswith((".", "~"))
        or Path(name).is_absolute()
        or len(others) > 1
        or (len(others) == 1 and Path(first).is_dir())
    )


def load_fine_tuned(
    name_or_path: str, revision: str | None = None, **loading: Any
) -> tuple[PreTrainedModel, VocalBurstFeatureExtractor]:
    """Load a fine-tuned model of ours, of whatever kind, in float32, and its feature extractor.

    Args:
        name_or_path: Hub id or folder.
        revision: Branch, tag or commit of a Hub id; None is the main branch. All files come from one commit.
        **loading: Arguments of the model's `from_pretrained`.

    Raises:
        ValueError: If it is none, or cannot be loaded.
    """
    model_class = find_model_class(name_or_path, revision)
    commit = read_commit(name_or_path, {"revision": revision})
    at = {} if commit is None else {"revision": commit}
    if model_class is None:
        model_type = read_model_type(name_or_path, at)
        hint = "" if model_type in CONFIG_MAPPING else "; one of a baseline is known once the baseline is imported"
        raise ValueError(f"{name_or_path} is no fine-tuned model of ours: its model_type is {model_type!r}{hint}")
    model = model_class.from_pretrained(name_or_path, **at, **loading)
    return model, VocalBurstFeatureExtractor.from_pretrained(name_or_path, **at)


def load_audited(
    name_or_path: str,
    attn_implementation: str | None = None,
    feature_layer: int | None = None,
    masked_group_norm: bool | None = None,
    revision: str | None = None,
) -> tuple[PreTrainedModel, VocalBurstFeatureExtractor, str]:
    """Load a checkpoint of ours, or a backbone under an untrained head, in float32.

    Args:
        name_or_path: Hub id or folder.
        attn_implementation: `eager` or `sdpa`; None takes the model's default.
        feature_layer: Block of a backbone, counted from 1; None as in `VocalBurstConfig`.
        masked_group_norm: Whether a backbone's group norm leaves padding out; None as in `VocalBurstConfig`.
        revision: Branch, tag or commit of a Hub id; None is the main branch.

    Returns:
        Model, feature extractor, and the key of `QUANTITIES` that is audited: `scores` of a checkpoint, `states` of a
        backbone.

    Raises:
        ValueError: If it is neither, it cannot be loaded, or a checkpoint is given fields of a backbone.
    """
    given: dict[str, Any] = {"feature_layer": feature_layer, "masked_group_norm": masked_group_norm}
    fields = {name: value for name, value in given.items() if value is not None}
    attention = {} if attn_implementation is None else {"attn_implementation": attn_implementation}
    if find_model_class(name_or_path, revision) is not None:
        if fields:
            raise ValueError(f"--{next(iter(fields))} is for a bare backbone: {name_or_path} holds its own")
        return *load_fine_tuned(name_or_path, revision, **attention), "scores"
    at = {} if revision is None else {"revision": revision}
    model = Wav2Vec2ForVocalBurst.from_pretrained(name_or_path, rnn="none", num_labels=1, **at, **fields, **attention)
    return model, model.feature_extractor, "states"
