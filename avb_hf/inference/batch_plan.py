"""Which clips are run together: those of like length, out of a bounded stretch of the list."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

# Sorted among as many, even batches of 64 hold next to no padding; their scores are small enough to be held.
WINDOW = 4_096


@dataclass(frozen=True)
class BatchPlan:
    """How a list of clips is cut into batches; the same plan cuts the same list alike, whoever runs which batch.

    Attributes:
        samples: Length of each clip in samples at 16 kHz, of shape `(clips,)`.
        batch_size: Largest number of clips in a batch.
        max_samples: Most samples of a batch, padding included, unless it is a single clip; None for no limit.
        window: Number of successive clips that are sorted by length together.
    """

    samples: np.ndarray
    batch_size: int
    max_samples: int | None = None
    window: int = WINDOW

    def windows(self) -> Iterator[tuple[range, list[tuple[int, np.ndarray]]]]:
        """Yield each window's clips with its batches: number, counted through all windows, and clips, longest first."""
        number = 0
        for start in range(0, len(self.samples), self.window):
            clips = range(start, min(start + self.window, len(self.samples)))
            batches = list(enumerate(self._cut(clips), start=number))
            number += len(batches)
            yield clips, batches

    def batches(self) -> Iterator[tuple[int, np.ndarray]]:
        """Yield all batches: number and indices of the clips."""
        for _, batches in self.windows():
            yield from batches

    def _cut(self, clips: range) -> Iterator[np.ndarray]:
        lengths = self.samples[clips.start : clips.stop]
        order = clips.start + np.argsort(-lengths, kind="stable")
        start = 0
        while start < len(order):
            count = self.batch_size
            if self.max_samples is not None:
                longest = max(1, int(self.samples[order[start]]))
                count = max(1, min(count, self.max_samples // longest))
            yield order[start : start + count]
            start += count
