import pytest
import torch

from avb_hf.model import POOLINGS
from avb_hf.model.pooling_vocal_burst import frame_mask

NUM_FRAMES = torch.tensor([7, 1, 4, 2])


def column(frames, feature):
    return [float(frame[feature]) for frame in frames]


# Each takes the true frames of one clip.
BY_HAND = {
    "first": lambda frames: [float(x) for x in frames[0]],
    "last": lambda frames: [float(x) for x in frames[len(frames) - 1]],
    "max": lambda frames: [max(column(frames, feature)) for feature in range(3)],
    "mean": lambda frames: [sum(column(frames, feature)) / len(frames) for feature in range(3)],
}


@pytest.fixture
def states():
    return torch.randn(4, 7, 3, dtype=torch.float64) - 3  # below zero: padding that counts as 0 would be the maximum


@pytest.mark.parametrize("name", POOLINGS)
def test_pooling_is_a_loop_over_the_true_frames(name, states):
    pooled = POOLINGS[name](3)(states, NUM_FRAMES)
    expected = [BY_HAND[name](clip[:count]) for clip, count in zip(states, NUM_FRAMES, strict=True)]
    torch.testing.assert_close(pooled, torch.tensor(expected, dtype=torch.float64))


@pytest.mark.parametrize("name", POOLINGS)
@pytest.mark.parametrize("padding", [1e6, -1e6, float("inf"), float("nan")])
def test_padding_does_not_matter(name, padding, states):
    pooling = POOLINGS[name](3)
    other = states.where(frame_mask(NUM_FRAMES, 7)[:, :, None], padding)
    assert torch.equal(pooling(other, NUM_FRAMES), pooling(states, NUM_FRAMES))


@pytest.mark.parametrize("name", POOLINGS)
def test_padding_has_no_gradient(name, states):
    states.requires_grad_()
    POOLINGS[name](3)(states, NUM_FRAMES).sum().backward()
    valid = frame_mask(NUM_FRAMES, 7)
    assert (states.grad[~valid] == 0).all()
    assert (states.grad.sum(dim=(1, 2)) - 3).abs().max() < 1e-12  # each clip's features have a weight of 1 in all


@pytest.mark.parametrize("name", POOLINGS)
def test_width_is_announced(name, states):
    pooling = POOLINGS[name](3)
    assert pooling(states, NUM_FRAMES).shape == (4, pooling.out_features)


def test_frame_mask():
    assert frame_mask(torch.tensor([0, 2, 3]), 3).tolist() == [[False] * 3, [True, True, False], [True] * 3]
