"""What of a model is audited: the scores that a user gets, or the raw states of a backbone."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import Tensor
from transformers import PreTrainedConfig, PreTrainedModel

from avb_hf.model import VocalBurstConfig


@dataclass(frozen=True)
class Quantity:
    """Something that a model says of each clip of a batch.

    Attributes:
        measure: Function of model and batch (`input_values`, `attention_mask`) to one tensor per clip.
        tolerance: Function of the model's configuration to the largest difference that is allowed.
        is_relative: Whether the tolerance is a share of the largest absolute value over all clips.
        causes: Function of the configuration to what in it is known to break the independence of clips.
    """

    measure: Callable[[PreTrainedModel, Mapping[str, Tensor]], list[Tensor]]
    tolerance: Callable[[PreTrainedConfig], float]
    is_relative: bool
    causes: Callable[[PreTrainedConfig], list[str]]


def measure_scores(model: PreTrainedModel, batch: Mapping[str, Tensor]) -> list[Tensor]:
    """Return each clip's scores after the output activation, `(num_labels,)`: probabilities where these are classes."""
    return list(scores_of(model(**batch).logits, model.config))


def scores_of(logits: Tensor, config: PreTrainedConfig) -> Tensor:
    """Turn a model's `logits` into scores of the same shape: probabilities where labels are classes."""
    return logits.softmax(dim=-1) if config.problem_type == "single_label_classification" else logits


def measure_states(model: PreTrainedModel, batch: Mapping[str, Tensor]) -> list[Tensor]:
    """Return each clip's raw states of block `feature_layer` on its valid frames, `(frames, hidden)`."""
    states, num_frames = model.encoder(batch["input_values"], batch["attention_mask"].sum(dim=1))
    return [clip[:count] for clip, count in zip(states, num_frames, strict=True)]


def _has_backbone(config: PreTrainedConfig) -> bool:
    return config.model_type == VocalBurstConfig.model_type


def _score_tolerance(config: PreTrainedConfig) -> float:
    # Whisper's raw states reach 500: without LayerNorm or bounded recurrent states their rounding reaches the scores.
    raw_whisper = ("whisper", "none", "none")
    if _has_backbone(config) and (config.encoder_config.model_type, config.rnn, config.states_norm) == raw_whisper:
        return 2e-4
    return 1e-5


def _state_tolerance(config: PreTrainedConfig) -> float:
    return 5e-5


def _score_causes(config: PreTrainedConfig) -> list[str]:
    return config.causes_of_padded_scores if _has_backbone(config) else []


QUANTITIES: dict[str, Quantity] = {
    "scores": Quantity(measure_scores, _score_tolerance, is_relative=False, causes=_score_causes),
    "states": Quantity(
        measure_states, _state_tolerance, is_relative=True, causes=lambda config: config.causes_of_padded_states
    ),
}
