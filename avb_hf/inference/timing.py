"""How many clips to run together, and in which precision, measured on the machine and the clips themselves."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass

import numpy as np
import torch
from transformers import BatchFeature

from avb_hf.data.audio import SAMPLING_RATE
from avb_hf.inference.clip_list import ClipList
from avb_hf.inference.clip_scorer import ClipScorer
from avb_hf.inference.predict_arguments import PredictArguments

logger = logging.getLogger(__name__)

# Sizes that are timed. On a CPU the backbone runs clip by clip, and only the head has the clips of a batch at once.
CPU_SIZES = (4, 8, 16)
ACCELERATOR_SIZES = (1, 4, 16, 32, 64, 128, 256)
DEFAULT_SIZES = {"cpu": CPU_SIZES}
_QUANTILES = (0.25, 0.5, 0.75)  # lengths of the clips that are timed
_REPEATS = 2  # the fastest of them counts: other programs only ever slow one down
_LEAST_BUDGET, _BUDGET = 2.0, 0.02  # seconds, and share of the time that all clips will take
_GIVE_UP = 1.1  # larger batches are not tried once one takes so much more time than the best
_WORTHWHILE_BF16 = 0.9  # the lower precision costs accuracy, so it must take at most this share of the time


@dataclass(frozen=True)
class Choice:
    """How clips are run.

    Attributes:
        batch_size: Largest number of clips in a batch.
        max_samples: Most samples of a batch, padding included; None for no limit.
        precision: `fp32` or `bf16`.
    """

    batch_size: int
    max_samples: int | None
    precision: str


def choose(scorer: ClipScorer, clips: ClipList, samples: np.ndarray, args: PredictArguments) -> Choice:
    """Settle what the flags leave open by timing it.

    Args:
        scorer: The model.
        clips: The clips that will be scored.
        samples: Length of each in samples at 16 kHz, of shape `(clips,)`; 0 if it cannot be used.
        args: What is given; `batch_size` None and `precision` `auto` are measured.
    """
    # With far longer clips a batch would need far more memory than those that are timed.
    limit = None if args.batch_size is not None else 2 * int(np.median(samples[samples > 0])) if samples.any() else 1
    precisions = scorer.precisions(args.precision)
    if (args.batch_size is not None and len(precisions) == 1) or not samples.any():
        return Choice(args.batch_size or 1, limit and limit * (args.batch_size or 1), precisions[0])
    timer = _Timer(scorer, clips, samples, limit)
    if args.batch_size is not None:
        sizes: tuple[int, ...] = (args.batch_size,)
    else:
        sizes = DEFAULT_SIZES.get(scorer.device.type, ACCELERATOR_SIZES)
    best = {precision: timer.fastest(precision, sizes) for precision in precisions}
    precision = precisions[0]
    if len(precisions) > 1 and best["bf16"][1] < _WORTHWHILE_BF16 * best["fp32"][1]:
        precision = "bf16"
    size, cost = best[precision]
    logger.info("batches of %d in %s: %.1f audio-seconds a second where measured", size, precision, 1 / cost)
    return Choice(size, limit and limit * size, precision)


class _Timer:
    """Times batches of clips that stand close to each other in order of length."""

    def __init__(self, scorer: ClipScorer, clips: ClipList, samples: np.ndarray, limit: int | None) -> None:
        self.scorer, self.clips, self.samples, self.limit = scorer, clips, samples, limit
        usable = np.flatnonzero(samples)
        self.order = usable[np.argsort(samples[usable], kind="stable")]
        self.total_seconds = float(samples.sum()) / SAMPLING_RATE

    def fastest(self, precision: str, sizes: tuple[int, ...]) -> tuple[int, float]:
        """Return the best size and its seconds per second of audio; larger ones are tried while they gain."""
        best, lowest, started = sizes[0], np.inf, time.monotonic()
        for size in sizes:
            if size > max(sizes[0], len(self.order)):
                break
            try:
                cost = self._cost(precision, size)
            except torch.OutOfMemoryError:
                break
            if cost > _GIVE_UP * lowest:
                break
            if cost < lowest:
                best, lowest = size, cost
            if time.monotonic() - started > max(_LEAST_BUDGET, _BUDGET * lowest * self.total_seconds):
                break
        return best, lowest

    def _cost(self, precision: str, size: int) -> float:
        groups = [self._group(quantile, size) for quantile in _QUANTILES]
        with self.scorer.running(precision):
            if self.scorer.device.type != "cpu":
                inputs, _ = self._group(1.0, size)  # whether there is memory for it
                self.scorer.run(inputs)
            costs = [min(self._seconds(inputs) for _ in range(_REPEATS)) / seconds for inputs, seconds in groups]
        return float(np.mean(costs))

    def _seconds(self, inputs: BatchFeature) -> float:
        started = time.perf_counter()
        self.scorer.run(inputs)  # its scores are brought to the CPU, so an accelerator has done its work
        return time.perf_counter() - started

    def _group(self, quantile: float, size: int) -> tuple[BatchFeature, float]:
        """Load so many clips around a quantile of the lengths; noise stands in, what a clip holds takes no time."""
        centre = int(quantile * (len(self.order) - 1))
        start = max(0, min(centre - size // 2, len(self.order) - size))
        lengths = self.samples[self.order[start : start + size]]
        if self.limit is not None:
            lengths = lengths.clip(max=self.limit)
        rng = np.random.default_rng(0)
        noise = [rng.standard_normal(length, dtype=np.float32) for length in lengths.tolist()]
        return self.scorer.prepare(noise), float(lengths.sum()) / SAMPLING_RATE
