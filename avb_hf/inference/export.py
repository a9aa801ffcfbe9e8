"""Export a fine-tuned model to an ONNX file, which is written only if it says what the model says."""

from __future__ import annotations

import logging
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from transformers import PreTrainedModel

from avb_hf.inference.onnx_file import SUFFIX, describe_model, read_metadata, require_onnx, set_metadata
from avb_hf.inference.onnx_graph import trace_to_onnx
from avb_hf.inference.onnx_int8 import (
    DYNAMIC_KINDS,
    STORED_KINDS,
    Layer,
    find_layers,
    quantise_dynamically,
    quantise_weights,
)
from avb_hf.inference.onnx_parity import LEAST_CCC, TOLERANCE, Agreement, Reference
from avb_hf.inference.scorer import digest_model
from avb_hf.model import VocalBurstFeatureExtractor, Wav2Vec2ForVocalBurst
from avb_hf.tasks import check_choice
from avb_hf.whole_files import whole_file

logger = logging.getLogger(__name__)

LEAST_INT8_CLIPS = 200
# Clips that are enough to tell which layers are weak.
_FEW_CLIPS = 32
# What a file in eight bits is refused for.
_ASKED = f"each label is asked for a CCC of {LEAST_CCC} with the model"


class ParityError(ValueError):
    """A file that does not say what the model says, and so was not written."""


@dataclass(frozen=True)
class ExportReport:
    """What was exported.

    Attributes:
        output: The file.
        precision: Key of `PRECISIONS`.
        agreement: How far its outputs are from the model's.
        size: Bytes of the file.
        float32_layers: Layers with weights that stayed in float32; all of a file in that precision, so then none is
            listed.
    """

    output: Path
    precision: str
    agreement: Agreement
    size: int
    float32_layers: tuple[str, ...]


@dataclass(frozen=True)
class _Candidate:
    """A file that says what the model says."""

    path: Path
    agreement: Agreement
    float32_layers: tuple[str, ...] = ()


def export_onnx(
    model: PreTrainedModel,
    feature_extractor: VocalBurstFeatureExtractor,
    clips: Sequence[np.ndarray],
    output: str | Path,
    precision: str = "fp32",
    overwrite: bool = False,
) -> ExportReport:
    """Write a model to an ONNX file, if its scores agree with the model's on clips.

    In `fp32` no score, or probability of a class, may differ by more than `TOLERANCE`, of the width of a `label_range`
    where there is one; in `int8` and `int8_weights` each label must have a CCC of at least `LEAST_CCC`.

    Inputs are `input_values` (float32) and `attention_mask` (int64), both `(batch, samples)` of any size, as the
    feature extractor makes them; the output `logits` is the model's. The file's metadata is what `describe_model` says,
    and `precision`, `float32_layers`, `parity`, and `checkpoint`, the SHA-256 of what was exported.

    Args:
        model: A fine-tuned model; it is brought to the CPU, to float32 and to evaluation mode.
        feature_extractor: Normalises and pads the clips.
        clips: Waveforms of shape `(samples,)` at 16 kHz on which file and model are compared, in ragged batches.
        output: The file; it appears when it is complete.
        precision: Key of `PRECISIONS`.
        overwrite: Whether a file of another model or precision may be replaced.

    Raises:
        ImportError: If a package of the extra `onnx` is not installed.
        ParityError: If the file does not agree with the model; none is written.
        ValueError: If the model or the clips cannot be used, or there is another file.
    """
    require_onnx("onnx", "onnxruntime")
    output = Path(output)
    check_choice("precision", precision, tuple(PRECISIONS))
    if not isinstance(model, Wav2Vec2ForVocalBurst):
        raise ValueError(f"only a Wav2Vec2ForVocalBurst can be exported, got a {type(model).__name__}")
    _check_number(clips, precision)
    model = model.cpu().float().eval()
    identity = {"precision": precision, "checkpoint": digest_model(model, feature_extractor)}
    _check_output(output, identity, overwrite)
    reference = Reference(model, feature_extractor, clips)
    output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=output.parent, prefix=f".{output.name}-") as folder:
        source = Path(folder) / f"source{SUFFIX}"
        trace_to_onnx(model, source)
        candidate = PRECISIONS[precision](source, reference)
        description = describe_model(model.config, feature_extractor)
        facts = identity | {"float32_layers": candidate.float32_layers, "parity": _as_fact(candidate.agreement)}
        _write(candidate.path, output, description | facts)
    return ExportReport(output, precision, candidate.agreement, output.stat().st_size, candidate.float32_layers)


def _check_number(clips: Sequence[np.ndarray], precision: str) -> None:
    least = 1 if precision == "fp32" else LEAST_INT8_CLIPS
    if len(clips) < least:
        raise ValueError(f"{precision} is compared with the model on {least} clips or more, got {len(clips)}")


def _check_output(output: Path, identity: dict[str, str], overwrite: bool) -> None:
    if output.suffix != SUFFIX:
        raise ValueError(f"output must be a file {SUFFIX}, got {output}")
    if not output.exists() or overwrite:
        return
    found = read_metadata(output) if output.is_file() else {}
    changes = [name for name, value in identity.items() if found.get(name) != value]
    if changes:
        raise ValueError(
            f"{output} exists and is of another {' and '.join(changes)}; choose another output, or --overwrite it"
        )


def _write(source: Path, output: Path, metadata: dict[str, Any]) -> None:
    import onnx

    graph = onnx.load(source)
    set_metadata(graph, metadata)
    with whole_file(output) as draft:
        draft.write_bytes(graph.SerializeToString())


def _as_fact(agreement: Agreement) -> dict[str, Any]:
    ccc = {label: None if np.isnan(value) else round(value, 6) for label, value in agreement.ccc.items()}
    return asdict(agreement) | {"ccc": ccc}


def _in_float32(source: Path, reference: Reference) -> _Candidate:
    agreement = reference.compare(source)
    if not agreement.is_equal:
        raise ParityError(
            f"no file was written: it differs from the model by {agreement.difference:.1e} {agreement.unit}, "
            f"at most {TOLERANCE:g} is allowed"
        )
    return _Candidate(source, agreement)


def _in_int8(source: Path, reference: Reference) -> _Candidate:
    """Quantise all layers, and if that is too much leave the weakest parts of the model in float32."""
    layers, target = find_layers(source), source.with_name(f"int8{SUFFIX}")
    quantisable = [layer for layer in layers if layer.kind in DYNAMIC_KINDS]
    others = tuple(layer.name for layer in layers if layer not in quantisable)
    quantise_dynamically(source, target)
    whole = reference.compare(target)
    if whole.is_alike:
        return _Candidate(target, whole, others)
    logger.info("in int8 the lowest CCC is %s; looking for the layers that lose most", whole)
    mixed = []
    for kept in _weakest_first(source, quantisable, reference):
        quantise_dynamically(source, target, kept)
        agreement = reference.compare(target, _FEW_CLIPS)
        if agreement.is_alike:
            agreement = reference.compare(target)
        logger.info("with %d layers in float32 it is %s", len(kept), agreement)
        if agreement.is_alike:
            return _Candidate(target, agreement, (*others, *kept))
        mixed.append(agreement)
    quantise_weights(source, target)
    raise ParityError(_explain(whole, mixed, reference.compare(target)))


def _explain(whole: Agreement, mixed: list[Agreement], weights_only: Agreement) -> str:
    """Say how close each way to int8 came, and which precision passes."""
    way_out = "int8_weights (--weights_only) passes" if weights_only.is_alike else "export in fp32"
    found = [f"in int8 the lowest is {whole}"]
    if mixed:
        best = max(mixed, key=lambda agreement: np.nan_to_num(agreement.ccc[agreement.worst], nan=-1.0))
        found.append(f"with the weakest layers, up to half of the weights, in float32 {best}")
    found.append(f"with only the weights in int8 {weights_only}")
    return f"no file was written: {_ASKED}, but {'; '.join(found)}: {way_out}"


def _in_int8_weights(source: Path, reference: Reference) -> _Candidate:
    layers, target = find_layers(source), source.with_name(f"int8{SUFFIX}")
    quantise_weights(source, target)
    agreement = reference.compare(target)
    if not agreement.is_alike:
        raise ParityError(f"no file was written: {_ASKED}, but the lowest is {agreement}: export in fp32")
    return _Candidate(target, agreement, tuple(layer.name for layer in layers if layer.kind not in STORED_KINDS))


def _weakest_first(source: Path, layers: list[Layer], reference: Reference) -> Iterator[list[str]]:
    """Name more and more layers: one part of the model after another, but none that makes it more than half.

    The weakest part is the one by which scores lose most where it alone is in eight bits.
    """
    parts: dict[str, list[Layer]] = defaultdict(list)
    for layer in layers:
        parts[layer.part].append(layer)
    closeness, target = {}, source.with_name(f"part{SUFFIX}")
    for part in parts:
        quantise_dynamically(source, target, [layer.name for layer in layers if layer.part != part])
        closeness[part] = np.mean(list(reference.compare(target, _FEW_CLIPS).ccc.values()))
    kept: list[Layer] = []
    for part in sorted(parts, key=closeness.__getitem__):
        if 2 * _count_weights([*kept, *parts[part]]) <= _count_weights(layers):
            kept += parts[part]
            yield [layer.name for layer in kept]


def _count_weights(layers: list[Layer]) -> int:
    return sum(layer.weights for layer in layers)


# How a file holds weights, and what it computes with.
PRECISIONS: dict[str, Callable[[Path, Reference], _Candidate]] = {
    "fp32": _in_float32,
    "int8": _in_int8,
    "int8_weights": _in_int8_weights,
}
