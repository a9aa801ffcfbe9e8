"""From a folder or Hub id to what is audited of it."""

from __future__ import annotations

from typing import Any

from avb_hf.model import VocalBurstConfig, VocalBurstFeatureExtractor, Wav2Vec2ForVocalBurst
from avb_hf.model.loading_vocal_burst import read_model_type


def load_audited(
    name_or_path: str,
    attn_implementation: str | None = None,
    feature_layer: int | None = None,
    masked_group_norm: bool | None = None,
) -> tuple[Wav2Vec2ForVocalBurst, VocalBurstFeatureExtractor, str]:
    """Load a checkpoint of ours, or a backbone under an untrained head, in float32.

    Args:
        name_or_path: Hub id or folder.
        attn_implementation: `eager` or `sdpa`; None takes the model's default.
        feature_layer: Block of a backbone, counted from 1; None as in `VocalBurstConfig`.
        masked_group_norm: Whether a backbone's group norm leaves padding out; None as in `VocalBurstConfig`.

    Returns:
        Model, feature extractor, and the key of `QUANTITIES` that is audited: `scores` of a checkpoint, `states` of a
        backbone.

    Raises:
        ValueError: If it is neither, it cannot be loaded, or a checkpoint is given fields of a backbone.
    """
    given: dict[str, Any] = {"feature_layer": feature_layer, "masked_group_norm": masked_group_norm}
    fields = {name: value for name, value in given.items() if value is not None}
    attention = {} if attn_implementation is None else {"attn_implementation": attn_implementation}
    if read_model_type(name_or_path, {}) == VocalBurstConfig.model_type:
        if fields:
            raise ValueError(f"--{next(iter(fields))} is for a bare backbone: {name_or_path} holds its own")
        model = Wav2Vec2ForVocalBurst.from_pretrained(name_or_path, **attention)
        return model, VocalBurstFeatureExtractor.from_pretrained(name_or_path), "scores"
    model = Wav2Vec2ForVocalBurst.from_pretrained(name_or_path, rnn="none", num_labels=1, **fields, **attention)
    return model, VocalBurstFeatureExtractor.for_backbone(name_or_path, model.config), "states"
