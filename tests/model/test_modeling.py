import itertools
import math

import numpy as np
import pytest
import torch
from torch import nn

from avb_hf.model import VocalBurstConfig, Wav2Vec2ForVocalBurst
from avb_hf.model.configuration_vocal_burst import RNNS

WIDTH, FRAMES = 16, 9
NUM_FRAMES = torch.tensor([9, 1, 4, 6])
ORDERS = {
    "activate last": {"pool_over": "logits"},
    "activate frames": {"pool_over": "logits", "activation_before_pooling": True},
    "pool states": {"pool_over": "states"},
}
POOL = {
    "first": lambda frames: frames[0],
    "last": lambda frames: frames[-1],
    "max": lambda frames: frames.max(axis=0),
    "mean": lambda frames: frames.mean(axis=0),
}


def numpy_of(module):
    return {name: value.detach().numpy() for name, value in module.state_dict().items()}


def by_hand(model, states, num_frames):
    """The head, clip by clip and step by step; the LSTM is PyTorch's, run on one clip."""
    config = model.config
    linear = numpy_of(model.classifier)
    low, high = config.label_range
    clips, counts = [], num_frames.tolist()

    def pool(frames, count):
        return POOL[config.pooling](frames[:count] if config.pooling == "last" else frames)

    for row, count in zip(states, counts, strict=True):
        if config.pooling_mask:
            row = row[:count]
        x = row.numpy()
        if config.states_norm == "layer":
            norm = numpy_of(model.states_norm)
            x = (x - x.mean(axis=1, keepdims=True)) / np.sqrt(x.var(axis=1, keepdims=True) + 1e-5)
            x = x * norm["weight"] + norm["bias"]
        if config.rnn != "none":
            x = model.rnn(torch.from_numpy(x)[None])[0][0].detach().numpy()
        if config.pool_over == "states":
            x = pool(x, count)[None]
        clips.append(x @ linear["weight"].T + linear["bias"])
    if config.output_norm == "batch":
        batch_norm, everything = numpy_of(model.output_norm), np.concatenate(clips)
        mean = everything.mean(axis=0) if model.training else batch_norm["running_mean"]
        var = everything.var(axis=0) if model.training else batch_norm["running_var"]
        scale = batch_norm["weight"] / np.sqrt(var + 1e-5)
        clips = [(clip - mean) * scale + batch_norm["bias"] for clip in clips]

    def activate(scores):
        return scores if config.output_activation == "none" else low + (high - low) / (1 + np.exp(-scores))

    if config.pool_over == "states":
        return np.concatenate([activate(clip) for clip in clips])
    if config.activation_before_pooling:
        return np.stack([pool(activate(clip), count) for clip, count in zip(clips, counts, strict=True)])
    return np.stack([activate(pool(clip, count)) for clip, count in zip(clips, counts, strict=True)])


def shake(model):
    """Move every weight of the head, batch norm's memory included, away from where it starts."""
    for name, value in itertools.chain(model.named_parameters(), model.named_buffers()):
        if value.is_floating_point() and not name.startswith("encoder."):
            value.data += 0.2 * torch.rand_like(value)


@pytest.mark.wide
@pytest.mark.parametrize("pooling_mask", [True, False])
@pytest.mark.parametrize("output_norm", ["none", "batch"])
@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("pooling", POOL)
def test_head_is_the_computation_by_hand(make_model, pooling, order, output_norm, pooling_mask):
    model = make_model(
        pooling=pooling, output_norm=output_norm, pooling_mask=pooling_mask, label_range=(1, 9), states_norm="layer",
        **ORDERS[order],
    )  # fmt: skip
    shake(model)
    states = torch.randn(4, FRAMES, WIDTH)
    expected = by_hand(model, states, NUM_FRAMES)
    scores = model.score_states(states, NUM_FRAMES).detach().numpy()
    np.testing.assert_allclose(scores, expected, atol=2e-5)
    assert len(np.unique(expected.round(3))) == expected.size


@pytest.mark.wide
@pytest.mark.parametrize("pooling_mask", [True, False])
@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("pooling", POOL)
def test_batch_norm_in_training_sees_padding_where_nothing_is_masked(make_model, pooling, order, pooling_mask):
    fields = {"pooling": pooling, "pooling_mask": pooling_mask, **ORDERS[order]}
    model = make_model(output_norm="batch", label_range=(0, 1), **fields).train()
    shake(model)
    states = torch.randn(4, FRAMES, WIDTH)
    expected = by_hand(model, states, NUM_FRAMES)
    np.testing.assert_allclose(model.score_states(states, NUM_FRAMES).detach().numpy(), expected, atol=2e-5)
    other_padding = states.masked_fill((torch.arange(FRAMES) >= NUM_FRAMES[:, None])[:, :, None], 100.0)
    scores = model.score_states(other_padding, NUM_FRAMES).detach().numpy()
    reads_padding = not pooling_mask and (order != "pool states" or pooling in ("max", "mean"))
    assert np.allclose(scores, expected, atol=2e-5) != reads_padding


@pytest.mark.parametrize("activation", ["none", "sigmoid"])
@pytest.mark.parametrize("rnn", RNNS)
def test_every_recurrent_layer(make_model, rnn, activation):
    model = make_model(rnn=rnn, rnn_num_layers=2, output_activation=activation, label_range=(0, 1))
    states = torch.randn(4, FRAMES, WIDTH)
    scores = model.score_states(states, NUM_FRAMES).detach().numpy()
    np.testing.assert_allclose(scores, by_hand(model, states, NUM_FRAMES), atol=1e-5)


@pytest.mark.parametrize("pooling", POOL)
def test_pooling_without_mask_pools_over_padding_except_where_one_frame_is_picked(make_model, pooling):
    model = make_model(pooling=pooling, pooling_mask=False)
    states = torch.randn(1, FRAMES, WIDTH)
    longer = torch.cat([states, 5 * torch.randn(1, 4, WIDTH)], dim=1)
    count = torch.tensor([FRAMES])
    same = torch.allclose(model.score_states(states, count), model.score_states(longer, count), atol=1e-6)
    assert same == (pooling in ("first", "last"))


@pytest.mark.parametrize("rnn", ["lstm", "gru"])
def test_head_starts_as_pytorch_starts_it(make_model, rnn):
    model = make_model(rnn=rnn, rnn_hidden_size=64, rnn_num_layers=2, num_labels=20)
    bound = 1 / math.sqrt(64)  # of nn.LSTM, nn.GRU and of nn.Linear with 64 inputs
    for name, value in [*model.rnn.named_parameters(), *model.classifier.named_parameters()]:
        assert value.abs().max() <= bound, name
        assert value.abs().max() > 0.8 * bound, name
        uniform = bound / math.sqrt(3)
        assert value.std().item() == pytest.approx(uniform, rel=0.35), name
        assert (value != 0).all(), name


def test_random_head_on_a_loaded_backbone_starts_the_same_way(stock_dir, make_model):
    fields = {"num_labels": 3, "rnn_hidden_size": 64, "rnn_num_layers": 1}
    model = type(make_model()).from_pretrained(stock_dir("wav2vec2-layer"), **fields)
    for name, value in [*model.rnn.named_parameters(), *model.classifier.named_parameters()]:
        assert 0.5 / 8 < value.abs().max() <= 1 / 8, name


@pytest.mark.wide
def test_every_trainable_parameter_gets_a_gradient(backbone, make_model, clips, pad):
    model = make_model(backbone, label_range=(0, 1), states_norm="layer").train()
    model(*pad(clips), labels=torch.rand(5, 3)).loss.backward()
    trainable = {name: value for name, value in model.named_parameters() if value.requires_grad}
    without = [name for name, value in trainable.items() if value.grad is None or not value.grad.isfinite().all()]
    # A key's bias moves all of a query's scores alike, so its gradient is zero but for rounding.
    zero = [name for name, value in trainable.items() if "k_proj.bias" not in name and not value.grad.any()]
    assert without == []
    assert zero == []
    assert len(trainable) > len(list(model.encoder.parameters())) - 2


@pytest.mark.parametrize("freezer", ["freeze_feature_encoder", "freeze_base_model"])
def test_what_is_frozen_has_no_gradient_and_stays_in_evaluation_mode(one_of_each, freezer, make_model, clips, pad):
    model = make_model(one_of_each)
    front_end = ("encoder.conv1.", "encoder.conv2.", "encoder.feature_extractor.")
    prefix = front_end if freezer == "freeze_feature_encoder" else ("encoder.",)
    getattr(model, freezer)()
    model.train()
    model(*pad(clips), labels=torch.rand(5, 3)).loss.backward()
    positions = "encoder.embed_positions.weight"
    for name, value in model.named_parameters():
        is_fixed = name.startswith(prefix) or name == positions
        assert value.requires_grad != is_fixed, name
        assert (value.grad is None) == is_fixed, name
    for name, module in model.named_modules():
        if name:
            assert module.training != f"{name}.".startswith(prefix), name


def test_a_frozen_backbone_has_no_dropout(make_model, clips, pad):
    model = make_model(backbone_changes={"hidden_dropout": 0.5, "feat_proj_dropout": 0.5}).train()
    batch = pad(clips)
    assert not torch.equal(model(*batch).logits, model(*batch).logits)
    model.freeze_base_model()
    assert torch.equal(model(*batch).logits, model(*batch).logits)
    assert torch.equal(model.eval()(*batch).logits, model.train()(*batch).logits)


@pytest.mark.parametrize("label_range", [(0, 1), (-1, 1), (1, 9)])
@pytest.mark.parametrize("order", ORDERS)
def test_scores_lie_in_the_label_range(make_model, order, label_range, clips, pad):
    model = make_model(label_range=label_range, **ORDERS[order])
    model.classifier.weight.data *= 1e4  # saturates the sigmoid
    scores = model(*pad(clips)).logits
    assert scores.min() >= label_range[0]
    assert scores.max() <= label_range[1]
    assert scores.max() - scores.min() > 0.9 * (label_range[1] - label_range[0])


def test_loss_is_that_of_the_scores(make_model, clips, pad):
    batch, labels = pad(clips), torch.rand(5, 3)
    labels[0, 0] = float("nan")
    output = make_model(loss="mse", label_range=(0, 1))(*batch, labels=labels)
    known = ~labels.isnan()
    expected = nn.functional.mse_loss(output.logits[known], labels[known])
    torch.testing.assert_close(output.loss, expected)
    assert make_model()(*batch).loss is None


def test_class_weights_of_the_configuration_count(make_model, clips, pad):
    classes, labels = {"problem_type": "single_label_classification"}, torch.tensor([0, 1, 2, -100, 1])
    model = make_model(class_weights=[1.0, 5.0, 0.2], **classes)
    output = model(*pad(clips), labels=labels)
    expected = nn.functional.cross_entropy(output.logits, labels, torch.tensor([1.0, 5.0, 0.2]), ignore_index=-100)
    torch.testing.assert_close(output.loss, expected)
    assert output.loss != nn.functional.cross_entropy(output.logits, labels, ignore_index=-100)


@pytest.mark.parametrize("shape", [(5,), (5, 2), (4, 3), (5, 3, 1)])
def test_regression_labels_of_another_shape_are_refused(make_model, clips, pad, shape):
    with pytest.raises(ValueError, match=r"labels must have shape \(5, 3\), got \(" + str(shape[0])):
        make_model()(*pad(clips), labels=torch.rand(shape))


@pytest.mark.parametrize("shape", [(5, 3), (5, 1), (4,)])
def test_class_labels_of_another_shape_are_refused(make_model, clips, pad, shape):
    model = make_model(problem_type="single_label_classification")
    with pytest.raises(ValueError, match=r"labels must have shape \(5,\), got"):
        model(*pad(clips), labels=torch.zeros(shape, dtype=torch.long))


def test_a_short_clip_is_refused_alone_and_among_others(backbone, make_model, pad):
    model = make_model(backbone)
    least = model.config.min_samples
    too_short = torch.randn(least - 1)
    for batch in ((too_short[None],), pad([torch.randn(8_000), too_short])):
        with pytest.raises(ValueError, match=f"at least {least} samples, got one of {least - 1}"):
            model(*batch)


def test_no_mask_means_no_padding(make_model):
    values = torch.randn(2, 6_000)
    model = make_model()
    assert torch.equal(model(values).logits, model(values, torch.ones(2, 6_000, dtype=torch.long)).logits)


def test_head_stays_in_float32_under_autocast(one_of_each, make_model, clips, pad):
    model = make_model(one_of_each, states_norm="layer", label_range=(0, 1))
    seen = {}
    for name in ("states_norm", "rnn", "pooling", "classifier"):
        getattr(model, name).register_forward_hook(lambda module, args, output, name=name: seen.update({name: output}))
    projection = next(
        module for name, module in model.named_modules() if name.endswith("fc1") or "intermediate" in name
    )
    projection.register_forward_hook(lambda module, args, output: seen.update(backbone=output))
    batch, labels = pad(clips), torch.rand(5, 3)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = model(*batch, labels=labels)
    dtypes = {name: (value[0] if isinstance(value, tuple) else value).dtype for name, value in seen.items()}
    assert dtypes.pop("backbone") == torch.bfloat16
    assert set(dtypes.values()) == {output.logits.dtype, output.loss.dtype} == {torch.float32}
    torch.testing.assert_close(output.logits, model(*batch).logits, atol=0.02, rtol=0)


def test_checkpointing_activations_changes_no_gradient(one_of_each, make_model, clips, pad):
    batch, labels = pad(clips), torch.rand(5, 3)
    model = make_model(one_of_each).train()
    gradients = []
    for is_on in (False, True):
        if is_on:
            model.gradient_checkpointing_enable()
            assert any(getattr(module, "gradient_checkpointing", False) for module in model.encoder.modules())
        torch.manual_seed(0)
        model.zero_grad()
        model(*batch, labels=labels).loss.backward()
        gradients.append({name: value.grad.clone() for name, value in model.named_parameters() if value.requires_grad})
    torch.testing.assert_close(*gradients)


WRONG_MASKS = {
    "padded on the left": (slice(0, 3_000), "padded on the right"),
    "shorter than the receptive field": (slice(100, 4_000), "at least .* samples, got one of 100"),
}


@pytest.mark.parametrize("case", WRONG_MASKS)
def test_a_mask_that_would_be_misread_is_refused(tiny_backbone, case):
    padding, message = WRONG_MASKS[case]
    model = Wav2Vec2ForVocalBurst(VocalBurstConfig(encoder_config=tiny_backbone, num_labels=2, rnn_hidden_size=4))
    mask = torch.ones(2, 4_000, dtype=torch.long)
    assert model(torch.randn(2, 4_000), mask).logits.shape == (2, 2)
    mask[1, padding] = 0
    with pytest.raises(ValueError, match=message):
        model(torch.randn(2, 4_000), mask)
