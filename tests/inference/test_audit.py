import math

import pytest
import torch
from transformers.modeling_outputs import SequenceClassifierOutput

from avb_hf.inference.audit import AuditReport, Effect, audit
from avb_hf.inference.load_model import load_audited
from avb_hf.inference.perturbations import PERTURBATIONS
from avb_hf.inference.quantities import QUANTITIES, measure_scores
from avb_hf.model import VocalBurstFeatureExtractor, Wav2Vec2ForVocalBurst


class BatchNormalisingExtractor(VocalBurstFeatureExtractor):
    """Divides by the deviation of the whole batch, as if padding and mates were part of the clip."""

    def __call__(self, *args, **kwargs):
        batch = super().__call__(*args, **kwargs)
        batch["input_values"] = batch["input_values"] / batch["input_values"].std()
        return batch


def relative_difference(effect, report):
    return effect.difference / report.largest_value


@pytest.mark.wide
def test_a_backbone_passes(family, stock_dir, clips):
    model, extractor, quantity = load_audited(str(stock_dir(family)))
    report = audit(model, extractor, clips, quantity, batch_size=3)
    assert (report.quantity, report.is_relative, report.tolerance) == ("states", True, 5e-5)
    assert [effect.perturbation for effect in report.effects] == list(PERTURBATIONS)
    assert report.passed
    assert all(relative_difference(effect, report) < 5e-5 for effect in report.effects)
    alone = []
    for clip in clips.values():
        inputs = extractor(clip, return_tensors="pt")["input_values"]
        with torch.no_grad():
            states, num_frames = model.encoder(inputs, torch.tensor([inputs.shape[1]]))
        alone.append(states[:, : num_frames.item()].abs().max())
    assert report.largest_value == pytest.approx(float(max(alone)))


@pytest.mark.wide
@pytest.mark.parametrize("fields", [{"label_range": (0, 1)}, {"problem_type": "single_label_classification"}], ids=str)
def test_a_checkpoint_passes(family, fields, make_model, clips, tmp_path):
    for part in make_model(family, **fields):
        part.save_pretrained(tmp_path)
    model, extractor, quantity = load_audited(str(tmp_path))
    report = audit(model, extractor, clips, quantity, batch_size=3)
    assert (report.quantity, report.is_relative, report.tolerance) == ("scores", False, 1e-5)
    assert report.passed
    assert 0 < report.largest_value <= 1
    assert max(effect.difference for effect in report.effects) < 1e-5


@pytest.mark.wide
@pytest.mark.parametrize("pooling", ["max", "mean"])
def test_an_unmasked_pooling_is_caught_and_named(family, pooling, make_model, clips):
    report = audit(*make_model(family, pooling=pooling, pooling_mask=False), clips, batch_size=3)
    assert not report.passed
    assert report.probable_causes == (f"pooling_mask is false: {pooling} pooling reads padded frames",)


@pytest.mark.parametrize("pooling", ["first", "last"])
def test_a_pooling_that_picks_a_frame_has_nothing_to_mask(pooling, make_model, clips):
    report = audit(*make_model(pooling=pooling, pooling_mask=False), clips, batch_size=3)
    assert report.passed
    assert report.probable_causes == ()


@pytest.mark.parametrize("quantity", QUANTITIES)
def test_an_unmasked_group_norm_is_caught_and_named(quantity, make_model, clips):
    model, extractor = make_model("wav2vec2-group", masked_group_norm=False)
    report = audit(model, extractor, clips, quantity, batch_size=3)
    assert not report.passed
    assert "masked_group_norm is false" in report.probable_causes[0]
    untouched, extractor = make_model("wav2vec2-layer", masked_group_norm=False)
    assert audit(untouched, extractor, clips, quantity, batch_size=3).probable_causes == ()


@pytest.mark.parametrize("quantity", QUANTITIES)
def test_a_feature_extractor_that_normalises_the_batch_is_caught(quantity, make_model, clips):
    model, extractor = make_model("whisper")  # loudness does not pass the norms of the others' front ends
    planted = BatchNormalisingExtractor(do_normalize=False, min_samples=extractor.min_samples)
    assert audit(model, extractor, clips, quantity, batch_size=3).passed
    assert not audit(model, planted, clips, quantity, batch_size=3).passed


def test_an_encoder_that_normalises_over_the_batch_is_caught(make_model, clips, monkeypatch):
    model, extractor = make_model()
    blocks = type(model.encoder).blocks

    def normalised(self, *args, **kwargs):
        states = blocks(self, *args, **kwargs)
        return states - states.mean(dim=(0, 1))

    monkeypatch.setattr(type(model.encoder), "blocks", normalised)
    for quantity in QUANTITIES:
        report = audit(model, extractor, clips, quantity, batch_size=3)
        assert not report.passed
        assert report.probable_causes == ()


def test_a_batch_norm_over_the_outputs_is_fine(make_model, clips):
    assert audit(*make_model(output_norm="batch"), clips, batch_size=3).passed


def test_weights_stored_in_half_precision_are_audited_in_float32(make_model, clips, tmp_path):
    model, extractor = make_model("whisper")
    for part in (model.half(), extractor):
        part.save_pretrained(tmp_path)
    stored, extractor, quantity = load_audited(str(tmp_path))
    half = Wav2Vec2ForVocalBurst.from_pretrained(tmp_path, dtype=torch.float16).train()
    for given in (stored, half):
        assert audit(given, extractor, clips, quantity, batch_size=3).passed
        assert {parameter.dtype for parameter in given.parameters()} == {torch.float32}
        assert not given.training


def plant(model, monkeypatch, offset):
    """Make the model score each clip by `offset(batch)`."""

    def forward(input_values, attention_mask):
        return SequenceClassifierOutput(logits=torch.full((len(input_values), 1), float(offset(attention_mask))))

    monkeypatch.setattr(model, "forward", forward)


def test_differences_are_those_planted(make_model, clips, monkeypatch):
    model, extractor = make_model()
    plant(model, monkeypatch, lambda mask: 2 + len(mask) / 8)
    report = audit(model, extractor, clips, batch_size=4)
    assert {effect.perturbation: effect.difference for effect in report.effects} == {
        "padding": 0,
        "batch mates": 3 / 8,
        "order in the batch": 3 / 8,
        "batch size": 2 / 8,  # 2 + 3 of the 7 clips, and 2 are left over
        "two processes": 3 / 8,
        "longest with shortest": 1 / 8,
    }
    assert report.largest_value == 2.125
    assert [effect.perturbation for effect in report.effects if report.holds(effect)] == ["padding"]


def test_the_worst_clip_is_named(make_model, clips, monkeypatch):
    model, extractor = make_model()
    plant(model, monkeypatch, lambda mask: 1 + (mask.sum() == 960 and mask.shape[1] > 960))
    report = audit(model, extractor, clips)
    assert report.worst == Effect("padding", 1.0, "clip 960")


def test_a_score_that_is_not_finite_is_no_pass(make_model, clips, monkeypatch):
    model, extractor = make_model()
    plant(model, monkeypatch, lambda mask: math.nan if len(mask) == 3 else 1)
    report = audit(model, extractor, clips, batch_size=3)
    by_name = {effect.perturbation: effect for effect in report.effects}
    assert report.holds(by_name["padding"])
    assert math.isnan(report.worst.difference)
    assert not report.holds(by_name["batch mates"])
    assert not report.passed


def test_another_number_of_frames_is_no_pass(make_model, clips, monkeypatch):
    model, extractor = make_model()
    forward = type(model.encoder).forward

    def all_frames(self, input_values, num_samples):
        states, num_frames = forward(self, input_values, num_samples)
        return states, torch.full_like(num_frames, states.shape[1])

    monkeypatch.setattr(type(model.encoder), "forward", all_frames)
    report = audit(model, extractor, clips, "states", batch_size=3)
    assert report.worst.difference == math.inf
    assert not report.passed


def test_a_relative_tolerance_is_of_the_largest_value():
    effects = (Effect("padding", 0.04, "a"), Effect("batch mates", 0.06, "b"))
    report = AuditReport("states", 5e-5, True, 1_000.0, effects, ())
    assert [report.holds(effect) for effect in effects] == [True, False]
    assert report.relative(effects[0]) == pytest.approx(4e-5)
    assert report.worst is effects[1]
    silent = AuditReport("states", 5e-5, True, 0.0, effects, ())
    assert not silent.passed


def test_classes_are_audited_as_probabilities(make_model):
    model, _ = make_model(problem_type="single_label_classification")
    inputs = {"input_values": torch.randn(2, 5_000), "attention_mask": torch.ones(2, 5_000, dtype=torch.long)}
    probabilities = torch.stack(measure_scores(model, inputs))
    logits = model(**inputs).logits
    torch.testing.assert_close(probabilities, logits.exp() / logits.exp().sum(dim=1, keepdim=True))


@pytest.mark.parametrize(
    ("name", "fields", "tolerance"),
    [
        ("whisper", {"rnn": "none", "states_norm": "none"}, 2e-4),
        ("whisper", {"rnn": "none"}, 1e-5),
        ("whisper", {"states_norm": "none"}, 1e-5),
        ("wavlm-layer", {"rnn": "none", "states_norm": "none"}, 1e-5),
    ],
)  # fmt: skip
def test_only_raw_whisper_scores_have_more_room(name, fields, tolerance, make_model, clips):
    model, extractor = make_model(name, **fields)
    assert audit(model, extractor, dict(list(clips.items())[:2])).tolerance == tolerance


def test_what_cannot_be_audited(make_model, clips):
    model, extractor = make_model()
    one = dict(list(clips.items())[:1])
    with pytest.raises(ValueError, match="two clips and batches of two at least, got 1 clips in batches of 8"):
        audit(model, extractor, one)
    with pytest.raises(ValueError, match="got 7 clips in batches of 1"):
        audit(model, extractor, clips, batch_size=1)
    with pytest.raises(ValueError, match=r"quantity must be one of \['scores', 'states'\], got 'score'; did you mean"):
        audit(model, extractor, clips, "score")


def test_flags_of_a_backbone_are_not_for_a_checkpoint(make_model, tmp_path):
    make_model()[0].save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"--feature_layer is for a bare backbone: .* holds its own"):
        load_audited(str(tmp_path), feature_layer=1)


def test_flags_reach_the_backbone(stock_dir):
    folder = str(stock_dir("wav2vec2-group"))
    model, _, _ = load_audited(folder, attn_implementation="eager", feature_layer=1, masked_group_norm=False)
    config = model.config
    assert (config.feature_layer, config.masked_group_norm) == (1, False)
    assert config.encoder_config._attn_implementation == "eager"
