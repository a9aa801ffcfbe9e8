"""From batches of clips to their scores, whatever computes them: threads decode ahead of it."""

from __future__ import annotations

import itertools
import os
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor
from transformers import BatchFeature, PreTrainedConfig

from avb_hf.data.arguments import DataArguments
from avb_hf.data.audio import SAMPLING_RATE, AudioFileError, load_clip
from avb_hf.inference.clip_list import ClipList
from avb_hf.inference.predict_arguments import PredictArguments
from avb_hf.model import VocalBurstFeatureExtractor

NOT_FINITE = "the model's scores are not finite"


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


class ClipScorer(ABC):
    """Reads clips and hands them to what scores them.

    Args:
        config: Configuration of the model.
        feature_extractor: Normalises and pads the clips.
        args: How clips are read.
        device: Where the model runs.

    Attributes:
        packages: Python packages that compute the scores, beside those that every scorer uses.
    """

    packages: ClassVar[tuple[str, ...]] = ()

    def __init__(
        self,
        config: PreTrainedConfig,
        feature_extractor: VocalBurstFeatureExtractor,
        args: PredictArguments,
        device: torch.device,
    ) -> None:
        self.config, self.feature_extractor, self.device = config, feature_extractor, device
        self.num_workers = args.num_workers or min(4, os.cpu_count() or 1)
        self.stops_at_bad_audio = args.on_bad_audio == "error"
        self.data_args = DataArguments(
            channels=args.channels,
            max_duration=min(args.max_duration, (config.max_samples or np.inf) / SAMPLING_RATE),
            long_clips=args.long_clips,
            trim_db=args.trim_db,
        )

    @abstractmethod
    def digest(self) -> str:
        """Return the SHA-256 of all that makes the scores of a clip, as hexadecimal text."""

    @abstractmethod
    def precisions(self, asked: str) -> tuple[str, ...]:
        """Return the precisions to choose from where the flag `--precision` has a value; the first is the default."""

    @abstractmethod
    def running(self, precision: str) -> AbstractContextManager[None]:
        """Let `run` compute in a precision while this lasts; it should not be entered for every batch."""

    @abstractmethod
    def run(self, inputs: BatchFeature) -> Tensor:
        """Score a prepared batch: `(clips, labels)`, float32, probabilities where the labels are classes."""

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
        if self.device.type == "cuda":
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
