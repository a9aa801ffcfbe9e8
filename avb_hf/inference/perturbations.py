"""Ways of running the same clips that must not change what a model says of any of them."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Batch:
    """Clips that are run together.

    Attributes:
        clips: Index of each clip, in the order of the batch.
        samples: Length in samples that all are padded to at least; 0 pads to the longest.
    """

    clips: tuple[int, ...]
    samples: int = 0


def alone(lengths: Sequence[int], batch_size: int, rng: np.random.Generator) -> list[Batch]:
    """Run each clip alone and unpadded: what all else is compared with."""
    return [Batch((clip,)) for clip in range(len(lengths))]


def behind_silence(lengths: Sequence[int], batch_size: int, rng: np.random.Generator) -> list[Batch]:
    """Run each clip alone, followed by padding of half to all of its own length."""
    return [Batch((clip,), n + int(rng.integers(n // 2, n + 1))) for clip, n in enumerate(lengths)]


def among_others(lengths: Sequence[int], batch_size: int, rng: np.random.Generator) -> list[Batch]:
    """Run each clip among clips drawn at random."""
    return list(_cut(rng.permutation(len(lengths)), itertools.repeat(batch_size)))


def reversed_order(lengths: Sequence[int], batch_size: int, rng: np.random.Generator) -> list[Batch]:
    """Run the batches of `among_others`, given the same generator, each back to front."""
    return [Batch(batch.clips[::-1]) for batch in among_others(lengths, batch_size, rng)]


def other_sizes(lengths: Sequence[int], batch_size: int, rng: np.random.Generator) -> list[Batch]:
    """Run batches of 2, 3, ... `batch_size` clips drawn at random."""
    return list(_cut(rng.permutation(len(lengths)), itertools.cycle(range(2, batch_size + 1))))


def two_processes(lengths: Sequence[int], batch_size: int, rng: np.random.Generator) -> list[Batch]:
    """Run the batches of two processes to which a distributed sampler deals the clips in turn."""
    order = np.arange(len(lengths))
    return [batch for rank in range(2) for batch in _cut(order[rank::2], itertools.repeat(batch_size))]


def longest_with_shortest(lengths: Sequence[int], batch_size: int, rng: np.random.Generator) -> list[Batch]:
    """Run the longest clip with the shortest, the second longest with the second shortest, and so on."""
    order = np.argsort(lengths, kind="stable").tolist()
    pairs = itertools.islice(zip(order, order[::-1], strict=True), (len(order) + 1) // 2)
    return [Batch(pair) for pair in pairs]


def _cut(order: np.ndarray, sizes: Iterable[int]) -> Iterator[Batch]:
    clips = iter(order.tolist())
    for size in sizes:
        part = tuple(itertools.islice(clips, size))
        if not part:
            return
        yield Batch(part)


Perturbation = Callable[[Sequence[int], int, np.random.Generator], list[Batch]]

# Each takes the clips' lengths in samples, a batch size of at least 2 and a generator, and runs every clip.
PERTURBATIONS: dict[str, Perturbation] = {
    "padding": behind_silence,
    "batch mates": among_others,
    "order in the batch": reversed_order,
    "batch size": other_sizes,
    "two processes": two_processes,
    "longest with shortest": longest_with_shortest,
}
