"""The training batches of each process: disjoint, of like size, and together the effective batch."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import islice

import numpy as np
from torch.utils.data import DataLoader, Sampler

from avb_hf.training.sampler import EpochLengthSampler


class ProcessBatchSampler(Sampler[list[int]]):
    """Cut an epoch's order into effective batches, and each of them evenly over accumulation steps and processes.

    The clips of an optimizer step do not depend on how it is cut. The last effective batch may be smaller; one of a
    single clip, or too small to give every process a clip, joins the one before it.

    Args:
        order: Draws the epoch's order.
        batch_size: Clips in one batch of one process.
        accumulation: Batches of one process in one optimizer step.
        world_size: Number of processes.
        rank: Which of them this is.

    Raises:
        ValueError: If there are too few clips for a CCC, or to give every process one.
    """

    def __init__(
        self, order: EpochLengthSampler, batch_size: int, accumulation: int, world_size: int, rank: int
    ) -> None:
        self.order = order
        self.batch_size, self.accumulation = batch_size, accumulation
        self.world_size, self.rank = world_size, rank
        self.fewest = max(2, world_size)
        if len(order) < self.fewest:
            raise ValueError(f"training in {world_size} processes needs at least {self.fewest} clips, got {len(order)}")

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch, counted from 0, whose batches are drawn next."""
        self.order.set_epoch(epoch)

    @property
    def num_steps(self) -> int:
        """Optimizer steps in an epoch."""
        return len(self._sizes())

    def __len__(self) -> int:
        return sum(self._num_batches(size) for size in self._sizes())

    def __iter__(self) -> Iterator[list[int]]:
        order = iter(self.order)
        for size in self._sizes():
            clips = list(islice(order, size))
            parts = np.array_split(clips, self._num_batches(size) * self.world_size)
            yield from (part.tolist() for part in parts[self.rank :: self.world_size])

    def _sizes(self) -> list[int]:
        """Clips of each effective batch of an epoch."""
        effective = self.batch_size * self.accumulation * self.world_size
        full, rest = divmod(len(self.order), effective)
        sizes = [effective] * full + [rest] * (rest > 0)
        if len(sizes) > 1 and sizes[-1] < self.fewest:
            sizes[-2:] = [sizes[-2] + sizes[-1]]
        return sizes

    def _num_batches(self, size: int) -> int:
        wanted = math.ceil(size / (self.batch_size * self.world_size))
        return min(wanted, self.accumulation, size // self.world_size)


class EpochDataLoader(DataLoader):
    """A DataLoader that hands the epoch on to its batch sampler."""

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch, counted from 0, whose batches are drawn next."""
        self.batch_sampler.set_epoch(epoch)
