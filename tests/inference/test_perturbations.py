import numpy as np
import pytest
from torch.utils.data import DistributedSampler

from avb_hf.inference.perturbations import PERTURBATIONS, alone

LENGTHS = [500, 900, 201, 700, 600, 900, 1_300, 400, 800, 1_000, 300]
NUMBERS = list(range(len(LENGTHS)))


def batches(name, lengths=LENGTHS, batch_size=4, seed=0):
    return PERTURBATIONS[name](lengths, batch_size, np.random.default_rng(seed))


@pytest.mark.wide
@pytest.mark.parametrize("name", PERTURBATIONS)
@pytest.mark.parametrize("count", [2, 3, 10, 11])
@pytest.mark.parametrize("batch_size", [2, 3, 8, 64])
def test_every_clip_is_run_in_batches_that_are_no_larger(name, count, batch_size):
    made = batches(name, LENGTHS[:count], batch_size)
    assert {clip for batch in made for clip in batch.clips} == set(range(count))
    assert max(len(batch.clips) for batch in made) <= batch_size


def test_alone_is_one_clip_unpadded():
    assert [(batch.clips, batch.samples) for batch in alone(LENGTHS, 1, np.random.default_rng(0))] == [
        ((clip,), 0) for clip in NUMBERS
    ]


def test_silence_is_half_of_a_clip_to_all_of_it():
    made = batches("padding")
    assert [batch.clips for batch in made] == [(clip,) for clip in NUMBERS]
    factors = [batch.samples / length for batch, length in zip(made, LENGTHS, strict=True)]
    assert 1.49 < min(factors) < max(factors) <= 2


def test_mates_are_drawn_by_the_seed():
    assert batches("batch mates") == batches("batch mates")
    assert batches("batch mates") != batches("batch mates", seed=1)
    assert [len(batch.clips) for batch in batches("batch mates")] == [4, 4, 3]


def test_order_is_that_of_the_mates_back_to_front():
    mates = batches("batch mates")
    assert [batch.clips for batch in batches("order in the batch")] == [tuple(reversed(b.clips)) for b in mates]


def test_sizes_grow_and_begin_again():
    assert [len(batch.clips) for batch in batches("batch size")] == [2, 3, 4, 2]


@pytest.mark.parametrize("count", [10, 11])
def test_two_processes_get_what_torchs_sampler_deals(count):
    made = batches("two processes", LENGTHS[:count], batch_size=3)
    dealt = []
    for rank in range(2):
        sampler = DistributedSampler(range(count), num_replicas=2, rank=rank, shuffle=False, drop_last=False)
        dealt += list(sampler)
    assert [clip for batch in made for clip in batch.clips] == dealt[:count]  # the sampler repeats a clip at an odd end


def test_the_longest_goes_with_the_shortest():
    pairs = [sorted(LENGTHS[clip] for clip in batch.clips) for batch in batches("longest with shortest")]
    assert pairs == [[201, 1_300], [300, 1_000], [400, 900], [500, 900], [600, 800], [700, 700]]
