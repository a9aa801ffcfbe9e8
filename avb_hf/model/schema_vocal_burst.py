"""What the pipeline returns, as a JSON schema."""

from __future__ import annotations

import math
from typing import Any

from .configuration_vocal_burst import VocalBurstConfig

DIALECT = "https://json-schema.org/draft/2020-12/schema"


def output_schema(
    config: VocalBurstConfig, as_list: bool = False, segment: bool = False, trajectory: bool = False
) -> dict[str, Any]:
    """Describe what the pipeline returns for one recording.

    Args:
        config: Configuration of the checkpoint, which knows labels and their range.
        as_list: As in the pipeline's call.
        segment: As in the pipeline's call.
        trajectory: As in the pipeline's call.

    Returns:
        A JSON schema, draft 2020-12.
    """
    scores = _score_list(config) if as_list else _per_label(config, _score(config))
    result = _span(config, scores, trajectory) if segment or trajectory else scores
    if segment:
        result = {"type": "array", "items": result, "description": "the bursts in order; none may be found"}
    return {"$schema": DIALECT, **result}


def score_bounds(config: VocalBurstConfig) -> tuple[float, float]:
    """Return the lowest and highest score that the pipeline returns; infinite where scores have no bound.

    Args:
        config: Configuration of the checkpoint.
    """
    if config.problem_type == "single_label_classification":
        return 0, 1
    if getattr(config, "output_activation", None) == "sigmoid" and config.label_range is not None:
        low, high = config.label_range
        return low, high
    return -math.inf, math.inf


def _score(config: VocalBurstConfig) -> dict[str, Any]:
    is_class = config.problem_type == "single_label_classification"
    bounds = zip(("minimum", "maximum"), score_bounds(config), strict=True)
    told = {name: bound for name, bound in bounds if math.isfinite(bound)}
    what = "probability of the class" if is_class else "intensity, in the unit of the labels"
    return {"type": "number", **told, "description": what}


def _object(properties: dict[str, Any]) -> dict[str, Any]:
    """Describe an object that has these properties and no others."""
    return {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}


def _per_label(config: VocalBurstConfig, value: dict[str, Any]) -> dict[str, Any]:
    return _object({label: value for label in config.label_names})


def _score_list(config: VocalBurstConfig) -> dict[str, Any]:
    item = _object({"label": {"enum": config.label_names}, "score": _score(config)})
    length = config.num_labels
    return {"type": "array", "items": item, "minItems": length, "maxItems": length, "description": "highest first"}


def _span(config: VocalBurstConfig, scores: dict[str, Any], trajectory: bool) -> dict[str, Any]:
    second = {"type": "number", "minimum": 0, "description": "in seconds of the recording"}
    span = {"start": second, "end": second, "scores": scores}
    if trajectory:
        numbers = {"type": "array", "items": {"type": "number"}, "minItems": 1}
        outputs = _per_label(config, {**numbers, "description": "one of each frame"})
        times = {**numbers, "description": "middle of each frame, in seconds of the recording"}
        span["trajectory"] = _object({"times": times, "outputs": outputs})
    return _object(span)
