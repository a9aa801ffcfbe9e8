"""Every clip once an epoch, and the same clips in every optimizer step however it is cut."""

import pytest
import torch

from avb_hf.training.loader import ProcessBatchSampler
from avb_hf.training.sampler import EpochLengthSampler

EFFECTIVE = 16
LAYOUTS = [(16, 1, 1), (4, 4, 1), (8, 1, 2), (4, 2, 2), (1, 16, 1), (2, 2, 4)]


def steps(clips, batch_size, accumulation, world_size, epoch=0):
    """Return the clips of each optimizer step, batch by batch, process by process."""
    lengths = torch.rand(clips, generator=torch.Generator().manual_seed(5)) + 0.2
    ranks = []
    for rank in range(world_size):
        order = EpochLengthSampler(lengths, EFFECTIVE, seed=1)
        sampler = ProcessBatchSampler(order, batch_size, accumulation, world_size, rank)
        sampler.set_epoch(epoch)
        batches = list(sampler)
        assert len(sampler) == len(batches)
        ranks.append([batches[start : start + accumulation] for start in range(0, len(batches), accumulation)])
    assert len({len(rank) for rank in ranks}) == 1
    return [sum((rank[index] for rank in ranks), []) for index in range(len(ranks[0]))]


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
@pytest.mark.parametrize("clips", [16, 17, 18, 35, 41, 48, 49])
def test_a_step_holds_the_same_clips_however_it_is_cut(clips, layout):
    expected = [sorted(sum(step, [])) for step in steps(clips, EFFECTIVE, 1, 1, epoch=2)]
    found = steps(clips, *layout, epoch=2)
    if clips % EFFECTIVE >= layout[2]:  # fewer clips than processes join the step before
        assert [sorted(sum(step, [])) for step in found] == expected
    assert sorted(clip for step in found for batch in step for clip in batch) == list(range(clips))
    assert all(batch for step in found for batch in step)
    assert max(len(batch) for step in found for batch in step) <= layout[0] + 1


def test_a_single_last_clip_joins_the_step_before():
    assert [len(sum(step, [])) for step in steps(33, 16, 1, 1)] == [16, 17]


def test_epochs_differ_and_repeat():
    assert steps(40, 8, 1, 2, epoch=0) != steps(40, 8, 1, 2, epoch=1)
    assert steps(40, 8, 1, 2, epoch=1) == steps(40, 8, 1, 2, epoch=1)


def test_too_few_clips_are_refused():
    with pytest.raises(ValueError, match="at least 4 clips, got 3"):
        steps(3, 1, 1, 4)
