"""What is frozen, to any depth: the same states in any batch, no gradient, never in training mode."""

import pytest
import torch

DEPTHS = range(4)  # the front end, and each of the three blocks
NO_DROPOUT = dict.fromkeys(("hidden_dropout", "attention_dropout", "activation_dropout", "feat_proj_dropout"), 0.0)
DROPOUT = {
    "wav2vec2-layer-stable": dict.fromkeys(NO_DROPOUT, 0.5),
    "hubert-group": dict.fromkeys(NO_DROPOUT, 0.5),
    "wavlm-layer": dict.fromkeys(NO_DROPOUT, 0.5),
    "whisper": dict.fromkeys(("dropout", "attention_dropout", "activation_dropout"), 0.5),
}


def frozen_at(model, depth):
    model.freeze_blocks(depth)
    return model


def blocks_of(encoder):
    return encoder.layers if hasattr(encoder, "layers") else encoder.encoder.layers


def names_up_to(backbone, depth):
    """Beginnings of the names, below the encoder, of all that makes the output of block `depth`, by hand."""
    is_whisper = backbone == "whisper"
    names = ["conv1", "conv2"] if is_whisper else ["feature_extractor"]
    if depth == 0:
        return tuple(names)
    if is_whisper:
        names += ["embed_positions", "embedding_dropout"]
    else:
        names += ["feature_projection", "encoder.pos_conv_embed", "encoder.dropout"]
        names += [] if "stable" in backbone else ["encoder.layer_norm"]
    prefix = "" if is_whisper else "encoder."
    return tuple(names + [f"{prefix}layers.{index}." for index in range(depth)])


def is_below(name, backbone, depth):
    return f"{name}.".startswith(
        tuple(part if part.endswith(".") else f"{part}." for part in names_up_to(backbone, depth))
    )


def batches_of(clips, pad):
    """The same clips together, behind loud padding, back to front, and with fewer mates; with their numbers."""
    numbers = list(range(len(clips)))
    return [
        (numbers, pad(clips)),
        (numbers, pad(clips, value=50.0, extra=4_321)),
        (numbers[::-1], pad(clips[::-1])),
        (numbers[2:], pad(clips[2:])),
    ]


def gradients_of(model):
    return {name: parameter.grad for name, parameter in model.named_parameters()}


@pytest.mark.wide
def test_no_batch_moves_a_bit_of_the_states(attended, make_model, clips, pad):
    backbone, attention = attended
    model = make_model(backbone, attn_implementation=attention)
    for depth in DEPTHS:
        model.freeze_blocks(depth)
        alone = [model.run_frozen(clip[None])[0][0] for clip in clips]
        assert not torch.equal(alone[3][:20], alone[4][:20])  # the clips do differ
        for numbers, batch in batches_of(clips, pad):
            states, num_frames = model.run_frozen(*batch)
            assert states.shape[1] == num_frames.max()
            for number, row, count in zip(numbers, states, num_frames, strict=True):
                assert torch.equal(row[:count], alone[number]), depth
                assert (row[count:] == 0).all()


@pytest.mark.wide
def test_states_are_what_a_hook_sees_on_the_clip_alone(backbone, make_model, clips, pad):
    model = make_model(backbone)
    seen = []
    hooks = [
        block.register_forward_hook(lambda module, args, output: seen.append(output))
        for block in blocks_of(model.encoder)
    ]
    with torch.no_grad():
        for clip in clips:
            model.encoder(clip[None], torch.tensor([len(clip)]))
    for hook in hooks:
        hook.remove()
    for depth in DEPTHS[1:]:
        states, num_frames = frozen_at(model, depth).run_frozen(*pad(clips))
        for expected, row, count in zip(seen[depth - 1 :: 3], states, num_frames, strict=True):
            assert torch.equal(row[:count], (expected[0] if isinstance(expected, tuple) else expected)[0]), depth


@pytest.mark.wide
def test_scores_from_states_are_those_from_waveforms(backbone, make_model, clips, pad):
    model = make_model(backbone)
    values, mask = pad(clips, extra=999)
    with torch.no_grad():
        unfrozen = model(values, mask).logits
        assert (unfrozen - unfrozen[0]).abs().max() > 1e-4
        for depth in DEPTHS:
            frozen_at(model, depth)
            live = model(values, mask).logits
            states, num_frames = model.run_frozen(values, mask)
            assert torch.equal(model(frozen_states=states, num_frames=num_frames).logits, live), depth
            assert (live - unfrozen).abs().max() < 1e-5, depth


@pytest.mark.wide
@pytest.mark.parametrize("depth", DEPTHS)
def test_what_is_frozen_is_all_that_makes_the_states(backbone, depth, make_model, clips, pad):
    model = frozen_at(make_model(backbone), depth).train()
    values, mask = pad(clips)
    model(values, mask, labels=torch.rand(len(clips), 3)).loss.backward()
    for name, parameter in model.encoder.named_parameters():
        is_trained = parameter.requires_grad and parameter.grad is not None
        # transformers itself never trains Whisper's positions.
        assert is_trained != (is_below(name, backbone, depth) or name.startswith("embed_positions")), name
    for name, module in model.encoder.named_modules():
        if not list(module.children()):
            assert module.training != is_below(name, backbone, depth), name
    head = [parameter for name, parameter in model.named_parameters() if not name.startswith("encoder.")]
    assert len(head) > 2
    assert all(parameter.grad.abs().max() > 0 for parameter in head)


@pytest.mark.wide
@pytest.mark.parametrize("depth", DEPTHS)
def test_states_depend_on_the_weights_of_what_is_named_and_on_no_others(one_of_each, depth, make_model, clips, pad):
    model = frozen_at(make_model(one_of_each), depth)
    modules = model.encoder.modules_up_to(depth)
    named = {id(value) for module in modules for value in module.state_dict(keep_vars=True).values()}
    values = {id(value): value for value in model.state_dict(keep_vars=True).values()}
    batch = pad(clips)
    before, _ = model.run_frozen(*batch)
    for key in values.keys() - named:
        values[key].data.uniform_()
    assert torch.equal(model.run_frozen(*batch)[0], before)
    for key in named:
        values[key].data.uniform_()
    assert not torch.equal(model.run_frozen(*batch)[0], before)


@pytest.mark.wide
@pytest.mark.parametrize("depth", DEPTHS)
def test_dropout_comes_only_behind_what_is_frozen(one_of_each, depth, make_model, clips, pad):
    model = frozen_at(make_model(one_of_each, backbone_changes=DROPOUT[one_of_each]), depth).train()
    batch = pad(clips)
    assert torch.equal(model.run_frozen(*batch)[0], model.run_frozen(*batch)[0])
    assert torch.equal(model.run_frozen(*batch)[0], model.eval().run_frozen(*batch)[0])
    model.train()
    with torch.no_grad():
        assert torch.equal(model(*batch).logits, model(*batch).logits) == (depth == 3)


@pytest.mark.wide
@pytest.mark.parametrize("depth", DEPTHS)
def test_dropout_that_is_kept_is_drawn_in_every_step(one_of_each, depth, make_model, clips, pad):
    model = make_model(one_of_each, backbone_changes=DROPOUT[one_of_each])
    model.freeze_blocks(depth, keep_dropout=True)
    assert model.frozen_blocks is None  # nothing can be computed once
    values, mask = pad(clips)
    assert torch.equal(model(values, mask).logits, model(values, mask).logits)
    model.train()
    assert all(module.training for module in model.modules())
    first, second = (model(values, mask, labels=torch.rand(len(clips), 3)) for _ in range(2))
    assert not torch.equal(first.logits, second.logits)
    first.loss.backward()
    for name, parameter in model.encoder.named_parameters():
        is_trained = parameter.requires_grad and parameter.grad is not None
        assert is_trained != (is_below(name, one_of_each, depth) or name.startswith("embed_positions")), name


@pytest.mark.parametrize("freeze", ["freeze_feature_encoder", "freeze_base_model"])
def test_every_freezer_keeps_dropout_if_asked(freeze, make_model):
    model = make_model(backbone_changes=DROPOUT["wav2vec2-layer-stable"])
    getattr(model, freeze)(keep_dropout=True)
    model.train()
    assert model.frozen_blocks is None
    assert all(module.training for module in model.modules())
    assert not any(parameter.requires_grad for parameter in model.encoder.feature_extractor.parameters())


@pytest.mark.parametrize("depth", [-1, 4])
def test_a_block_that_is_not_there(make_model, depth):
    with pytest.raises(ValueError, match=rf"freeze_blocks must be from 0 to 3, got {depth}"):
        make_model().freeze_blocks(depth)


def test_only_blocks_that_were_built_can_be_frozen(make_model):
    model = make_model(feature_layer=2)
    model.freeze_blocks(2)
    with pytest.raises(ValueError, match="from 0 to 2, got 3"):
        model.freeze_blocks(3)
    assert model.frozen_blocks == 2


@pytest.mark.wide
def test_freezing_the_backbone_is_freezing_all_blocks(backbone, make_model, clips, pad):
    by_blocks, whole = make_model(backbone), make_model(backbone)
    whole.load_state_dict(by_blocks.state_dict())
    by_blocks.freeze_blocks(3)
    whole.freeze_base_model()
    assert by_blocks.frozen_blocks == whole.frozen_blocks == 3
    trained = [{name for name, p in model.named_parameters() if p.requires_grad} for model in (by_blocks, whole)]
    assert trained[0] == trained[1] == {name for name, _ in whole.named_parameters() if not name.startswith("encoder.")}
    batch = pad(clips)
    assert torch.equal(by_blocks.run_frozen(*batch)[0], whole.run_frozen(*batch)[0])


def test_freezing_less_thaws_nothing(make_model, clips, pad):
    model = frozen_at(frozen_at(make_model(), 2), 0)
    assert model.frozen_blocks == 2
    assert not any(parameter.requires_grad for parameter in blocks_of(model.encoder)[1].parameters())
    reference = make_model()
    reference.load_state_dict(model.state_dict())
    batch = pad(clips)
    assert torch.equal(model.run_frozen(*batch)[0], frozen_at(reference, 2).run_frozen(*batch)[0])


def test_where_nothing_is_frozen_the_front_end_is_trained(make_model, clips, pad):
    model = make_model().train()
    assert model.frozen_blocks is None
    states, _ = model.run_frozen(*pad(clips))
    states.sum().backward()
    assert any(parameter.grad is not None for parameter in model.encoder.feature_extractor.parameters())
    assert all(module.training for module in model.modules())


@pytest.mark.wide
@pytest.mark.parametrize("depth", DEPTHS)
def test_activation_checkpointing_gives_the_same_gradients(one_of_each, depth, make_model, clips, pad):
    changes = DROPOUT[one_of_each] if depth == 1 else {}
    plain = frozen_at(make_model(one_of_each, backbone_changes=changes), depth).train()
    saving = make_model(one_of_each, backbone_changes=changes)
    saving.load_state_dict(plain.state_dict())
    saving.gradient_checkpointing_enable()
    frozen_at(saving, depth).train()
    values, mask = pad(clips)
    labels = torch.rand(len(clips), 3)
    passes = {}
    for model in (plain, saving):
        count = [0]
        last = blocks_of(model.encoder)[-1].attention if one_of_each != "whisper" else blocks_of(model.encoder)[-1].fc1
        last.register_forward_hook(lambda *_, count=count: count.__setitem__(0, count[0] + 1))
        torch.manual_seed(4)
        model(values, mask, labels=labels).loss.backward()
        passes[model] = count[0]
    # A block that is trained is run again for its gradients: the switch does something.
    assert passes[saving] == (passes[plain] + 1 if depth < 3 else passes[plain])
    for name, gradient in gradients_of(plain).items():
        found = gradients_of(saving)[name]
        assert (found is None) == (gradient is None), name
        assert gradient is None or torch.equal(found, gradient), name


@pytest.mark.wide
@pytest.mark.parametrize("depth", DEPTHS)
def test_under_bf16_states_are_handed_on_without_loss(one_of_each, depth, make_model, clips, pad):
    """Computing the states in a step, or before it and keeping them in float32, makes one and the same scores."""
    model = frozen_at(make_model(one_of_each), depth)
    batch = pad(clips)
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        live = model(*batch).logits
        states, num_frames = model.run_frozen(*batch)
        kept = model(frozen_states=states.float(), num_frames=num_frames).logits
    assert torch.equal(kept, live)
    assert not torch.equal(model(*batch).logits, live)


def test_a_model_in_double_precision_has_such_states(make_model, clips, pad):
    model = frozen_at(make_model(), 2).double()
    values, mask = pad(clips)
    states, _ = model.run_frozen(values.double(), mask)
    assert states.dtype == torch.float64
    with torch.no_grad():
        assert model(values.double(), mask).logits.dtype == torch.float64
