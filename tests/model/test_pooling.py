import copy

import numpy as np
import pytest
import torch

from avb_hf.model import POOLINGS, Wav2Vec2ForVocalBurst
from avb_hf.model.masks_vocal_burst import frame_mask

NUM_FRAMES = torch.tensor([7, 1, 4, 2])
WIDE = tuple(name for name, pooling in POOLINGS.items() if pooling.widening > 1)


def mean_std_by_hand(frames, shares):
    """Weighted mean and deviation of each feature, frame by frame; a deviation of less than 1e-6 counts as that."""
    mean = sum(share * frame for share, frame in zip(shares, frames, strict=True))
    variance = sum(share * (frame - mean) ** 2 for share, frame in zip(shares, frames, strict=True))
    return np.concatenate([mean, np.maximum(np.sqrt(variance), 1e-6)])


def attentive_by_hand(frames, pooling):
    """One attention over frames for each feature, from the frame beside the clip's mean and deviation."""
    weights = {name: value.detach().numpy() for name, value in pooling.named_parameters()}
    matrix = np.concatenate([weights["frame.weight"], weights["context.weight"]], axis=1)
    context = mean_std_by_hand(frames, [1 / len(frames)] * len(frames))
    scores = [
        weights["attention.weight"] @ np.tanh(matrix @ np.concatenate([frame, context]) + weights["frame.bias"])
        for frame in frames
    ]
    shares = np.exp(scores) / np.exp(scores).sum(axis=0)
    return mean_std_by_hand(frames, shares)


# Each takes the true frames of one clip, `(frames, features)`, and the module.
BY_HAND = {
    "first": lambda frames, _: frames[0],
    "last": lambda frames, _: frames[len(frames) - 1],
    "max": lambda frames, _: [max(column) for column in frames.T],
    "mean": lambda frames, _: [sum(column) / len(column) for column in frames.T],
    "mean_std": lambda frames, _: mean_std_by_hand(frames, [1 / len(frames)] * len(frames)),
    "attentive": attentive_by_hand,
}


def make(name, features=3, dtype=torch.float64):
    """Make a pooling whose attention, if any, is far from even."""
    pooling = POOLINGS[name](features).to(dtype)
    for parameter in pooling.parameters():
        parameter.data *= 3
    return pooling


@pytest.fixture
def states():
    return torch.randn(4, 7, 3, dtype=torch.float64) - 3  # below zero: padding that counts as 0 would be the maximum


@pytest.mark.parametrize("name", POOLINGS)
def test_pooling_is_a_loop_over_the_true_frames(name, states):
    pooling = make(name)
    pooled = pooling(states, NUM_FRAMES).detach()
    expected = [BY_HAND[name](clip[:count].numpy(), pooling) for clip, count in zip(states, NUM_FRAMES, strict=True)]
    np.testing.assert_allclose(pooled.numpy(), np.array(expected), rtol=1e-10)


def test_attention_is_uneven_and_another_for_each_feature(states):
    moments = make("attentive")(states, NUM_FRAMES) - make("mean_std")(states, NUM_FRAMES)
    assert moments[0].abs().min() > 1e-3
    states[:, :, 1] = states[:, :, 0]  # two features that only shares of their own can tell apart
    attentive = make("attentive")
    shared = copy.deepcopy(attentive)
    shared.attention.weight.data[:] = attentive.attention.weight[0]
    several = NUM_FRAMES > 1
    first, second = (shared(states, NUM_FRAMES)[:, feature::3] for feature in (0, 1))
    torch.testing.assert_close(first, second)
    first, second = (attentive(states, NUM_FRAMES)[:, feature::3] for feature in (0, 1))
    assert (first - second)[several].abs().min() > 1e-4
    torch.testing.assert_close(first, shared(states, NUM_FRAMES)[:, ::3])


@pytest.mark.parametrize("name", POOLINGS)
@pytest.mark.parametrize("padding", [1e6, -1e6, float("inf"), float("nan")])
def test_padding_does_not_matter(name, padding, states):
    pooling = make(name)
    other = states.where(frame_mask(NUM_FRAMES, 7)[:, :, None], padding)
    assert torch.equal(pooling(other, NUM_FRAMES), pooling(states, NUM_FRAMES))


@pytest.mark.parametrize("name", POOLINGS)
def test_gradients_are_those_of_the_clip_alone_and_padding_has_none(name, states):
    pooling, weights = make(name), torch.randn(4, make(name).out_features, dtype=torch.float64)
    states.requires_grad_()
    (pooling(states, NUM_FRAMES) * weights).sum().backward()
    for clip, gradient, count, weight in zip(states, states.grad, NUM_FRAMES, weights, strict=True):
        alone = clip.detach()[None, :count].requires_grad_()
        (pooling(alone, count[None])[0] * weight).sum().backward()
        torch.testing.assert_close(gradient[:count], alone.grad[0])
        assert gradient[:count].any()
        assert (gradient[count:] == 0).all()


@pytest.mark.parametrize("name", POOLINGS)
@pytest.mark.parametrize("frames", [1, 5])
@pytest.mark.parametrize("value", [0.0, 0.1, 500.0])
def test_a_constant_clip_has_a_finite_gradient(name, frames, value):
    states = torch.full((2, frames, 3), value, requires_grad=True)
    pooled = make(name, dtype=torch.float32)(states, torch.tensor([frames, 1]))
    pooled.sum().backward()
    assert states.grad.isfinite().all()
    assert states.grad.any()
    assert pooled[:, :3].tolist() == pytest.approx(np.full((2, 3), value), rel=1e-6)
    if name in WIDE:
        assert pooled[:, 3:].max() < 1e-6 * max(1, value) + 2e-6


@pytest.mark.parametrize("name", POOLINGS)
def test_half_precision_in_and_out_but_not_between(name):
    """Around 100, where bfloat16 has steps of 0.5, sums and squares in it would be off by more than its last digit."""
    pooling, states = make(name, dtype=torch.float32), (100 + 4 * torch.randn(4, 7, 3)).bfloat16()
    for parameter in pooling.parameters():
        parameter.data = 0.01 * parameter.data.bfloat16().float()
    expected = pooling(states.float(), NUM_FRAMES)
    pooled = pooling.bfloat16()(states, NUM_FRAMES)
    assert pooled.dtype == torch.bfloat16
    torch.testing.assert_close(pooled.float(), expected, rtol=0.02, atol=0.02)


@pytest.mark.slow
@pytest.mark.wide
@pytest.mark.parametrize("name", POOLINGS)
def test_a_traced_and_an_exported_pooling_take_other_shapes(name, states):
    pooling = make(name)
    traced = torch.jit.trace(pooling, (states[:2, :5], NUM_FRAMES[2:]))
    batch, frames = torch.export.Dim("batch"), torch.export.Dim("frames")
    shapes = {"states": {0: batch, 1: frames}, "num_frames": {0: batch}}
    exported = torch.export.export(
        pooling, (states[:3, :6].clone(), NUM_FRAMES[1:].clone()), dynamic_shapes=shapes
    ).module()
    for graph in (traced, exported):
        torch.testing.assert_close(graph(states, NUM_FRAMES), pooling(states, NUM_FRAMES))


@pytest.mark.parametrize("name", POOLINGS)
def test_width_is_announced(name, states):
    pooling = make(name)
    assert pooling(states, NUM_FRAMES).shape == (4, pooling.out_features)


@pytest.mark.parametrize("name", WIDE)
@pytest.mark.parametrize("rnn", ["none", "lstm"])
def test_wide_rows_of_states_are_what_the_linear_layer_reads(name, rnn, make_model):
    model = make_model(pooling=name, pool_over="states", rnn=rnn, label_range=(0, 1), output_activation="none")
    states = torch.randn(4, 7, 16)
    frames = states if rnn == "none" else model.rnn(states)[0].detach()
    pooled = [
        BY_HAND[name](clip[:count].numpy(), model.pooling) for clip, count in zip(frames, NUM_FRAMES, strict=True)
    ]
    expected = np.array(pooled) @ model.classifier.weight.detach().numpy().T + model.classifier.bias.detach().numpy()
    np.testing.assert_allclose(model.score_states(states, NUM_FRAMES).detach().numpy(), expected, atol=1e-5)


@pytest.mark.parametrize("name", WIDE)
def test_wide_rows_of_logits_are_refused(name, make_model):
    with pytest.raises(ValueError, match=rf"'{name}' needs pool_over='states', got 'logits': it would make 6 .* of 3"):
        make_model(pooling=name)


def test_a_pooling_with_weights_is_saved_and_loaded(make_model, clips, pad, tmp_path):
    model = make_model(pooling="attentive", pool_over="states")
    model.save_pretrained(tmp_path)
    again = Wav2Vec2ForVocalBurst.from_pretrained(tmp_path)
    assert {name for name, _ in again.named_parameters() if name.startswith("pooling.")} == {
        "pooling.frame.weight", "pooling.frame.bias", "pooling.context.weight", "pooling.attention.weight",
    }  # fmt: skip
    batch = pad(clips)
    assert torch.equal(again(*batch).logits, model(*batch).logits)


def test_frame_mask():
    assert frame_mask(torch.tensor([0, 2, 3]), 3).tolist() == [[False] * 3, [True, True, False], [True] * 3]
