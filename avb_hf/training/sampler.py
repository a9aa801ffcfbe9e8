"""The order of training clips: random in every epoch, yet clips of like length side by side."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch.utils.data import Sampler


class EpochLengthSampler(Sampler[int]):
    """Draw all clips once an epoch, in an order that follows from seed and epoch alone.

    Clips are shuffled and cut into pools of some batches; each pool is sorted by length and cut into batches, and the
    batches of the epoch are shuffled. So a batch has little padding, and the order can be made again after a resume.

    Args:
        lengths: Duration of each clip, in any unit.
        batch_size: Clips in one step of all devices.
        seed: Seed of the order.
        pool: Batches that are cut from one sorted pool; 1 leaves them random.
    """

    def __init__(self, lengths: Sequence[float], batch_size: int, seed: int, pool: int = 50) -> None:
        self.lengths = torch.as_tensor(lengths)
        self.batch_size = batch_size
        self.seed = seed
        self.pool = pool
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch, counted from 0, whose order is drawn next."""
        self.epoch = int(epoch)

    def __len__(self) -> int:
        return len(self.lengths)

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self.epoch)
        shuffled = torch.randperm(len(self.lengths), generator=generator)
        pools = shuffled.split(self.batch_size * self.pool)
        batches = [
            batch for pool in pools for batch in pool[self.lengths[pool].argsort(stable=True)].split(self.batch_size)
        ]
        # A short batch must stay last: behind it, batches would be cut at other places.
        full = [batch for batch in batches if len(batch) == self.batch_size]
        short = [batch for batch in batches if len(batch) < self.batch_size]
        for index in torch.randperm(len(full), generator=generator).tolist():
            yield from full[index].tolist()
        for batch in short:
            yield from batch.tolist()
