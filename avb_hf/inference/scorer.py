"""From batches of clips to their scores: threads decode ahead of the model."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
from collections import deque
from collections.abc import Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils import parametrize
from torch.nn.utils.rnn import pad_sequence
from transformers import BatchFeature, PreTrainedConfig, PreTrainedModel

from avb_hf.data.arguments import DataArguments
from avb_hf.data.audio import SAMPLING_RATE, AudioFileError, load_clip
from avb_hf.inference.clip_list import ClipList
from avb_hf.inference.load_model import load_fine_tuned
from avb_hf.inference.predict_arguments import PredictArguments
from avb_hf.inference.quantities import scores_of
from avb_hf.model import VocalBurstFeatureExtractor, Wav2Vec2ForVocalBurst

NOT_FINITE = "the model's scores are not finite"
# What of a configuration says where it came from, not what it computes.
_PROVENANCE = ("_name_or_path", "transformers_version", "dtype")


@dataclass(frozen=True)
class LoadedBatch:
    """Decoded clips.

    Attributes:
        number: The batch's number in its plan.
        clips: Index of each clip.
        errors: Why a clip cannot be used, or None, for each clip.
        inputs: `input_values` and `attention_mask` of the clips that can be used; None if there are none.
        seconds: Length of these clips together.
    """

    number: int
    clips: np.ndarray
    errors: list[str | None]
    inputs: BatchFeature | None
    seconds: float


@dataclass(frozen=True)
class ScoredBatch:
    """Scores of a batch.

    Attributes:
        number: The batch's number in its plan.
        clips: Index of each clip.
        scores: One score per label for each clip; None for a clip that has none.
        errors: Why a clip has no scores, or None, for each clip.
        seconds: Length of the scored clips together.
    """

    number: int
    clips: np.ndarray
    scores: list[list[float] | None]
    errors: list[str | None]
    seconds: float


class Scorer:
    """A model with all that is needed to score clips.

    Args:
        model: The model; it is brought to float32 and to evaluation mode, and runs where it is.
        feature_extractor: Normalises and pads the clips.
        args: How clips are read.
    """

    def __init__(
        self, model: PreTrainedModel, feature_extractor: VocalBurstFeatureExtractor, args: PredictArguments
    ) -> None:
        self.model, self.feature_extractor = model.float().eval(), feature_extractor
        self.num_workers = args.num_workers or min(4, os.cpu_count() or 1)
        self.stops_at_bad_audio = args.on_bad_audio == "error"
        self.data_args = DataArguments(
            channels=args.channels,
            max_duration=min(args.max_duration, (self.config.max_samples or np.inf) / SAMPLING_RATE),
            long_clips=args.long_clips,
            trim_db=args.trim_db,
        )

    @property
    def config(self) -> PreTrainedConfig:
        """The model's configuration."""
        return self.model.config

    def digest(self) -> str:
        """Return the SHA-256 of weights, configuration and preprocessing, as hexadecimal text."""
        digest = hashlib.sha256()
        for part in (self.config, self.feature_extractor):
            fields = {name: value for name, value in part.to_dict().items() if name not in _PROVENANCE}
            digest.update(json.dumps(fields, sort_keys=True, default=str).encode())
        for name, tensor in sorted(self.model.state_dict().items()):
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
            digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
        return digest.hexdigest()

    @contextmanager
    def running(self, precision: str) -> Iterator[None]:
        """Let `run` compute without gradients, and the backbone in bfloat16 if `precision` is `bf16`.

        Weights are cast, and what they are computed from is computed, once while this lasts, so it should not be
        entered for every batch.
        """
        reduced = torch.autocast(self.model.device.type, dtype=torch.bfloat16, enabled=precision == "bf16")
        with torch.inference_mode(), reduced, parametrize.cached():
            yield

    def run(self, inputs: BatchFeature) -> Tensor:
        """Score a prepared batch: `(clips, labels)`, float32, probabilities where the labels are classes."""
        on_device = {name: tensor.to(self.model.device, non_blocking=True) for name, tensor in inputs.items()}
        alone = self._gains_by_clips_alone()
        logits = self._run_clips_alone(**on_device) if alone else self.model(**on_device).logits
        return scores_of(logits, self.config).float().cpu()

    def _gains_by_clips_alone(self) -> bool:
        has_backbone = isinstance(self.model, Wav2Vec2ForVocalBurst)
        return has_backbone and not self.config.pools_padding and self.model.device.type == "cpu"

    def _run_clips_alone(self, input_values: Tensor, attention_mask: Tensor) -> Tensor:
        """Run the backbone clip by clip, since padding costs a CPU more than a batch gains it, and the head at once."""
        lengths = attention_mask.sum(dim=1)
        clips = zip(input_values, lengths, strict=True)
        parts = [self.model.encoder(clip[None, :length], length[None]) for clip, length in clips]
        states = pad_sequence([states[0] for states, _ in parts], batch_first=True)
        with torch.autocast("cpu", enabled=False):
            return self.model.score_states(states, torch.cat([num_frames for _, num_frames in parts]))

    def score(self, batch: LoadedBatch) -> ScoredBatch:
        """Score what can be scored of a loaded batch."""
        scores: list[list[float] | None] = [None] * len(batch.clips)
        errors = list(batch.errors)
        if batch.inputs is not None:
            usable = [row for row, error in enumerate(errors) if error is None]
            # The shortest text of each float32 as a double, which is short in every file and reads back as the same.
            values = self.run(batch.inputs).numpy().astype(str).astype(float)
            for row, clip_scores in zip(usable, values, strict=True):
                if np.isfinite(clip_scores).all():
                    scores[row] = clip_scores.tolist()
                else:
                    errors[row] = NOT_FINITE
        return ScoredBatch(batch.number, batch.clips, scores, errors, batch.seconds)

    def load(self, clips: ClipList, number: int, batch: np.ndarray) -> LoadedBatch:
        """Decode, normalise and pad the clips of a batch.

        Raises:
            AudioFileError: If a clip cannot be used, and that is not to be a row of its own.
        """
        waveforms, errors = [], []
        for index in batch.tolist():
            error = None
            try:
                waveforms.append(self._decode(clips.paths[index], clips.files[index]))
            except AudioFileError as problem:
                if self.stops_at_bad_audio:
                    raise
                error = problem.reason
            errors.append(error)
        inputs = self.prepare(waveforms) if waveforms else None
        return LoadedBatch(number, batch, errors, inputs, sum(map(len, waveforms)) / SAMPLING_RATE)

    def prepare(self, waveforms: list[np.ndarray]) -> BatchFeature:
        """Normalise and pad waveforms `(samples,)`, of which there must be one at least."""
        inputs = self.feature_extractor(waveforms, sampling_rate=SAMPLING_RATE, return_tensors="pt")
        if self.model.device.type == "cuda":
            inputs = BatchFeature({name: tensor.pin_memory() for name, tensor in inputs.items()})
        return inputs

    def load_ahead(
        self, clips: ClipList, batches: Iterable[tuple[int, np.ndarray]]
    ) -> Generator[LoadedBatch, None, None]:
        """Load batches in threads, in order, a few ahead of the one that is asked for."""
        waiting: deque[Future[LoadedBatch]] = deque()
        remaining = iter(batches)
        pool = ThreadPoolExecutor(self.num_workers)
        try:
            while True:
                for number, batch in itertools.islice(remaining, self.num_workers + 1 - len(waiting)):
                    waiting.append(pool.submit(self.load, clips, number, batch))
                if not waiting:
                    return
                yield waiting.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)

    def _decode(self, path: str, file: str) -> np.ndarray:
        return load_clip(path, file, self.data_args, SAMPLING_RATE, self.config.min_samples)


def make_scorer(
    model: PreTrainedModel | str | os.PathLike,
    feature_extractor: VocalBurstFeatureExtractor | None,
    args: PredictArguments,
    device: torch.device,
) -> Scorer:
    """Load a fine-tuned model, unless it is one already.

    Args:
        model: A model, or Hub id or folder of one.
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
    loaded, own_extractor = load_fine_tuned(str(model))
    return Scorer(loaded.to(device), feature_extractor or own_extractor, args)
