"""Every clip once an epoch, an order that can be made again, and little padding."""

import numpy as np
import pytest
import torch

from avb_hf.training.sampler import EpochLengthSampler


def batched(indices, size):
    return [tuple(indices[start : start + size]) for start in range(0, len(indices), size)]


def order(lengths, batch_size=8, seed=0, epoch=0, **fields):
    sampler = EpochLengthSampler(lengths, batch_size, seed, **fields)
    sampler.set_epoch(epoch)
    return list(sampler)


@pytest.fixture
def lengths():
    return np.random.default_rng(5).gamma(4.0, 0.5, 2003)


def padding(lengths, indices, batch_size):
    """Share of a padded batch's samples that are padding, over an epoch."""
    batches = [lengths[list(batch)] for batch in batched(indices, batch_size)]
    return 1 - lengths.sum() / sum(batch.max() * len(batch) for batch in batches)


@pytest.mark.parametrize("count", [1, 7, 8, 9, 401, 2003])
def test_each_clip_is_drawn_once(lengths, count):
    for epoch in range(3):
        assert sorted(order(lengths[:count], epoch=epoch)) == list(range(count))


def test_epochs_and_seeds_differ_and_repeat(lengths):
    orders = [order(lengths, seed=seed, epoch=epoch) for seed in (0, 1) for epoch in (0, 1, 2)]
    assert len({tuple(one) for one in orders}) == len(orders)
    assert order(lengths, seed=1, epoch=2) == orders[-1]


@pytest.mark.parametrize("count", [2003, 368], ids=["several pools", "one pool"])
def test_epochs_differ_in_batches_too(lengths, count):
    first, second = (
        {frozenset(batch) for batch in batched(order(lengths[:count], epoch=epoch), 8)} for epoch in (0, 1)
    )
    assert len(first & second) < 0.1 * len(first)


def test_the_order_owes_nothing_to_global_random_numbers(lengths):
    expected = order(lengths)
    torch.manual_seed(99)
    assert order(lengths) == expected


def test_padding_is_below_a_tenth(lengths):
    ours = padding(lengths, order(lengths, 16), 16)
    chance = padding(lengths, np.random.default_rng(0).permutation(len(lengths)), 16)
    assert ours < 0.1
    assert chance > 0.3, "random batches would waste as little: the lengths prove nothing"


def test_a_pool_of_one_batch_leaves_batches_random(lengths):
    waste = padding(lengths, order(lengths, 16, pool=1), 16)
    chance = padding(lengths, np.random.default_rng(0).permutation(len(lengths)), 16)
    assert waste == pytest.approx(chance, abs=0.05)


def test_batches_are_not_in_the_order_of_their_lengths(lengths):
    means = np.array([lengths[list(batch)].mean() for batch in batched(order(lengths, 16), 16)])
    assert abs(np.corrcoef(means, np.arange(len(means)))[0, 1]) < 0.3


def test_the_short_batch_comes_last_and_is_cut_out_anywhere():
    # One pool, so each batch holds neighbours, but for the blur; a short batch further ahead would shift the cuts.
    shorts = []
    for epoch in range(9):
        *full, short = batched(order(np.arange(100.0, 130.0), 4, epoch=epoch), 4)
        assert max(max(batch) - min(batch) for batch in (*full, short)) < 15
        assert len(short) == 2
        shorts.append(np.mean(short))
    assert min(shorts) < 10 < 20 < max(shorts)


def test_length_is_the_number_of_clips(lengths):
    assert len(EpochLengthSampler(lengths, 8, 0)) == 2003
