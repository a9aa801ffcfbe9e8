"""The order of clips: in training random in every epoch, yet of like length side by side; else the longest first."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from datasets import Dataset
from torch.utils.data import Sampler

# By what share lengths are blurred before they are sorted, where one pool holds all clips; by less where there are more
# pools, since those are drawn anew in every epoch.
BLUR = 0.05


class EpochLengthSampler(Sampler[int]):
    """Draw all clips once an epoch, in an order that follows from seed and epoch alone.

    Clips are shuffled and cut into pools of some batches; each pool is sorted by slightly blurred lengths and cut into
    batches, and the batches of the epoch are shuffled; what does not fill a batch comes last. So a batch has little
    padding and other mates in every epoch, and the order can be made again after a resume.

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
        num_batches, rest = divmod(len(shuffled), self.batch_size)
        turns = torch.randperm(num_batches, generator=generator).tolist()
        pools = shuffled.split(self.batch_size * self.pool)
        blur = 1 + BLUR / len(pools) * (2 * torch.rand(len(self.lengths), generator=generator) - 1)
        blurred = self.lengths * blur
        *ordered, last = (pool[blurred[pool].argsort()] for pool in pools)
        # What does not fill a batch is cut out anywhere, and must come last: behind it, batches would be cut otherwise.
        place = self.batch_size * int(torch.randint(len(last) // self.batch_size + 1, (), generator=generator))
        filled = torch.cat([*ordered, last[:place], last[place + rest :]]).split(self.batch_size)
        for turn in turns:
            yield from filled[turn].tolist()
        yield from last[place : place + rest].tolist()


def longest_first(split: Dataset) -> list[int]:
    """Return the indices of a split's clips by falling duration."""
    durations = torch.tensor(split.with_format(None)["duration"][:])
    return durations.argsort(descending=True, stable=True).tolist()
