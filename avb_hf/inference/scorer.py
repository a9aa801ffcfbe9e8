"""Scores by the model itself, on whatever device it is."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils import parametrize
from torch.nn.utils.rnn import pad_sequence
from transformers import BatchFeature, PreTrainedModel

from avb_hf.bf16_speed import bf16_is_emulated
from avb_hf.inference.clip_scorer import ClipScorer
from avb_hf.inference.load_model import load_fine_tuned
from avb_hf.inference.onnx_file import SUFFIX, OnnxModel
from avb_hf.inference.onnx_scorer import OnnxScorer
from avb_hf.inference.packed_linear import packed_linears
from avb_hf.inference.predict_arguments import PredictArguments
from avb_hf.inference.quantities import scores_of
from avb_hf.model import VocalBurstFeatureExtractor, Wav2Vec2ForVocalBurst

# What of a configuration says where it came from, and where its code is, not what it computes: saving changes it.
_PROVENANCE = ("_name_or_path", "transformers_version", "dtype", "architectures", "auto_map", "custom_pipelines")


class Scorer(ClipScorer):
    """A model with all that is needed to score clips.

    Args:
        model: The model; it is brought to float32 and to evaluation mode, and runs where it is.
        feature_extractor: Normalises and pads the clips.
        args: How clips are read.
    """

    def __init__(
        self, model: PreTrainedModel, feature_extractor: VocalBurstFeatureExtractor, args: PredictArguments
    ) -> None:
        self.model = model.float().eval()
        super().__init__(model.config, feature_extractor, args, model.device)

    def digest(self) -> str:
        """Return the SHA-256 of weights, configuration and preprocessing, as hexadecimal text."""
        return digest_model(self.model, self.feature_extractor)

    def precisions(self, asked: str) -> tuple[str, ...]:
        """Return what is asked for; where that is `auto`, `fp32`, and `bf16` unless the CPU only emulates it."""
        if asked != "auto":
            return (asked,)
        return ("fp32",) if self.device.type == "cpu" and bf16_is_emulated() else ("fp32", "bf16")

    @contextmanager
    def running(self, precision: str) -> Iterator[None]:
        """Let `run` compute without gradients, and the backbone in bfloat16 if `precision` is `bf16`.

        Weights are cast, laid out, and computed from others, once while this lasts, so it should not be entered for
        every batch.
        """
        dtype = torch.bfloat16 if precision == "bf16" else torch.float32
        reduced = torch.autocast(self.model.device.type, dtype=torch.bfloat16, enabled=dtype != torch.float32)
        packed = packed_linears(self.model.encoder, dtype) if self._gains_by_clips_alone() else nullcontext()
        with torch.inference_mode(), reduced, parametrize.cached(), packed:
            yield

    def run(self, inputs: BatchFeature) -> Tensor:
        """Score a prepared batch: `(clips, labels)`, float32, probabilities where the labels are classes."""
        on_device = {name: tensor.to(self.device, non_blocking=True) for name, tensor in inputs.items()}
        alone = self._gains_by_clips_alone()
        logits = self._run_clips_alone(**on_device) if alone else self.model(**on_device).logits
        return scores_of(logits, self.config).float().cpu()

    def _gains_by_clips_alone(self) -> bool:
        has_backbone = isinstance(self.model, Wav2Vec2ForVocalBurst)
        return has_backbone and not self.config.pools_padding and self.device.type == "cpu"

    def _run_clips_alone(self, input_values: Tensor, attention_mask: Tensor) -> Tensor:
        """Run the backbone clip by clip, since padding costs a CPU more than a batch gains it, and the head at once."""
        lengths = attention_mask.sum(dim=1)
        clips = zip(input_values, lengths, strict=True)
        parts = [self.model.encoder(clip[None, :length], length[None]) for clip, length in clips]
        states = pad_sequence([states[0] for states, _ in parts], batch_first=True)
        with torch.autocast("cpu", enabled=False):
            return self.model.score_states(states, torch.cat([num_frames for _, num_frames in parts]))


def digest_model(model: PreTrainedModel, feature_extractor: VocalBurstFeatureExtractor) -> str:
    """Return the SHA-256 of a model's weights, configuration and preprocessing, as hexadecimal text."""
    digest = hashlib.sha256()
    for part in (model.config, feature_extractor):
        digest.update(json.dumps(_without_provenance(part.to_dict()), sort_keys=True, default=str).encode())
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _without_provenance(fields: dict[str, Any]) -> dict[str, Any]:
    """Leave provenance out of a configuration, and of those in it."""
    kept = {name: value for name, value in fields.items() if name not in _PROVENANCE}
    return {name: _without_provenance(value) if isinstance(value, dict) else value for name, value in kept.items()}


def make_scorer(
    model: PreTrainedModel | str | os.PathLike,
    feature_extractor: VocalBurstFeatureExtractor | None,
    args: PredictArguments,
    device: torch.device,
) -> ClipScorer:
    """Load a fine-tuned model, unless it is one already.

    Args:
        model: A model, Hub id or folder of one, or an ONNX file of one, which always runs on the CPU.
        feature_extractor: The extractor of a model that is given itself.
        args: How clips are read.
        device: Where a loaded model runs.

    Raises:
        ValueError: If the checkpoint is no fine-tuned one, cannot be loaded, or a model comes without extractor.
    """
    if isinstance(model, PreTrainedModel):
        if feature_extractor is None:
            raise ValueError("a model that is given itself needs its feature_extractor beside it")
        return Scorer(model, feature_extractor, args)
    if str(model).endswith(SUFFIX):
        if args.model_revision is not None:
            raise ValueError(f"--model_revision {args.model_revision} is for a model of the Hub, got {model}")
        return OnnxScorer(OnnxModel(Path(model)), args)
    loaded, own_extractor = load_fine_tuned(str(model), args.model_revision)
    return Scorer(loaded.to(device), feature_extractor or own_extractor, args)
