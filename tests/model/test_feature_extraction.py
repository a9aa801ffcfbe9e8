import json
import logging

import numpy as np
import pytest
import torch
from transformers import Wav2Vec2FeatureExtractor, WhisperFeatureExtractor

from avb_hf.model import VocalBurstConfig, VocalBurstFeatureExtractor

LENGTHS = (1_000, 400, 4_321)


@pytest.fixture
def waves():
    rng = np.random.default_rng(3)
    return [(0.3 + size / 1_000 * rng.standard_normal(size)).astype(np.float32) for size in LENGTHS]


@pytest.fixture
def extractor():
    return VocalBurstFeatureExtractor()


def test_each_clip_is_normalised_over_its_true_samples(extractor, waves):
    batch = extractor(waves, sampling_rate=16_000, return_tensors="np")
    for row, wave in zip(batch["input_values"], waves, strict=True):
        exact = wave.astype(np.float64)
        expected = (exact - exact.mean()) / np.sqrt(exact.var() + 1e-7)
        np.testing.assert_allclose(row[: len(wave)], expected, atol=1e-5)
        assert (row[len(wave) :] == 0).all()


def test_batch_mates_do_not_matter(extractor, waves):
    batch = extractor(waves, return_tensors="np")["input_values"]
    for row, wave in zip(batch, waves, strict=True):
        alone = extractor(wave, return_tensors="np")["input_values"]
        assert np.array_equal(alone[0], row[: len(wave)])


def test_masked_stock_extractor_gives_the_same(extractor, waves):
    stock = Wav2Vec2FeatureExtractor(return_attention_mask=True)
    expected = stock(waves, sampling_rate=16_000, padding=True, return_tensors="pt")
    batch = extractor(waves, sampling_rate=16_000, return_tensors="pt")
    torch.testing.assert_close(batch["input_values"], expected["input_values"], atol=1e-5, rtol=1e-5)
    assert batch["attention_mask"].tolist() == expected["attention_mask"].tolist()


def test_mask_marks_the_true_samples(extractor, waves):
    batch = extractor(waves, return_tensors="pt")
    assert batch["input_values"].shape == batch["attention_mask"].shape == (3, max(LENGTHS))
    assert batch["attention_mask"].sum(dim=1).tolist() == list(LENGTHS)
    assert (batch["attention_mask"].diff(dim=1) <= 0).all()


def test_input_values_are_float32(extractor, waves):
    assert (
        extractor([wave.astype(np.float64) for wave in waves], return_tensors="pt").input_values.dtype == torch.float32
    )


def test_without_normalisation_clips_stay_as_they_are(waves):
    batch = VocalBurstFeatureExtractor(do_normalize=False)(waves, return_tensors="np")
    for row, wave in zip(batch["input_values"], waves, strict=True):
        assert np.array_equal(row[: len(wave)], wave)


def test_padding_to_a_multiple_and_without_padding(extractor, waves):
    assert extractor(waves, return_tensors="pt", pad_to_multiple_of=1_000).input_values.shape == (3, 5_000)
    assert [len(row) for row in extractor(waves, padding=False)["input_values"]] == list(LENGTHS)


def test_one_clip_may_be_given_in_any_form(extractor, waves):
    expected = extractor(waves[0], return_tensors="np")["input_values"]
    for form in (waves[0].tolist(), [waves[0]], torch.from_numpy(waves[0])):
        assert np.array_equal(extractor(form, return_tensors="np")["input_values"], expected)


def test_a_constant_clip_becomes_silence(extractor):
    for level in (0.0, 0.1):
        batch = extractor(np.full(500, level, np.float32), return_tensors="np")
        assert np.abs(batch["input_values"]).max() < 1e-3  # rounding is not amplified


@pytest.mark.parametrize(
    ("clips", "message"),
    [
        (np.zeros((500, 2)), r"clip 0 must be a mono waveform.*\(500, 2\)"),
        ([np.zeros(500), np.zeros((500, 2))], r"clip 1 must be a mono waveform.*\(500, 2\)"),
        (np.zeros(0), r"clip 0 .*\(0,\)"),
        ([], r"clip 0 .*\(0,\)"),
        ([np.zeros(500), np.array([0.0, np.nan])], "clip 1 has samples that are not finite"),
        (np.array([np.inf, 0.0]), "clip 0 has samples that are not finite"),
    ],
)
def test_what_is_no_clip_is_refused(extractor, clips, message):
    with pytest.raises(ValueError, match=message):
        extractor(clips)


def test_another_rate_is_refused(extractor):
    with pytest.raises(ValueError, match="must be 16000 Hz, got 44100"):
        extractor(np.zeros(500), sampling_rate=44_100)


def test_a_short_clip_is_lengthened_with_a_warning(extractor, waves, caplog):
    short = waves[0][:150]
    with caplog.at_level(logging.WARNING, logger="avb_hf"):
        batch = extractor([waves[0], short], return_tensors="np")
    assert "clip 1 has 150 samples, lengthened by silence to 400" in caplog.text
    assert batch["attention_mask"].sum(axis=1).tolist() == [1_000, 400]
    assert (batch["input_values"][1, 150:] == 0).all()
    assert batch["input_values"][1, :150].std() == pytest.approx(1, abs=1e-3)


@pytest.mark.wide
def test_a_short_clip_goes_through_the_model(backbone, make_model, waves):
    model = make_model(backbone)
    extractor = VocalBurstFeatureExtractor.for_backbone(None, model.config)
    alone = model(**extractor(waves[0][:150], return_tensors="pt")).logits
    together = model(**extractor([waves[2], waves[0][:150]], return_tensors="pt")).logits
    assert alone.isfinite().all()
    assert (alone[0] - together[1]).abs().max() < 1e-5


def config_of(model_type):
    return VocalBurstConfig(encoder_config={"model_type": model_type})


@pytest.mark.parametrize("stored", [True, False])
@pytest.mark.parametrize("model_type", ["wav2vec2", "whisper"])
def test_a_backbone_says_whether_clips_are_normalised(tmp_path, model_type, stored):
    Wav2Vec2FeatureExtractor(do_normalize=stored).save_pretrained(tmp_path)
    assert VocalBurstFeatureExtractor.for_backbone(tmp_path, config_of(model_type)).do_normalize == stored


@pytest.mark.parametrize(
    ("model_type", "expected"), [("wav2vec2", True), ("hubert", True), ("wavlm", True), ("whisper", False)]
)
def test_a_silent_backbone_is_normalised_unless_it_is_whisper(tmp_path, model_type, expected, caplog):
    config = config_of(model_type)
    assert VocalBurstFeatureExtractor.for_backbone(None, config).do_normalize == expected
    assert VocalBurstFeatureExtractor.for_backbone(tmp_path, config).do_normalize == expected
    assert f"{tmp_path} has no preprocessor_config.json" in caplog.text
    (tmp_path / "preprocessor_config.json").write_text(json.dumps({"sampling_rate": 16_000}))
    assert VocalBurstFeatureExtractor.for_backbone(tmp_path, config).do_normalize == expected


def test_whispers_own_preprocessor_file_does_not_normalise(tmp_path):
    WhisperFeatureExtractor().save_pretrained(tmp_path)
    extractor = VocalBurstFeatureExtractor.for_backbone(tmp_path, config_of("whisper"))
    assert (extractor.do_normalize, extractor.min_samples, extractor.feature_size) == (False, 201, 1)


def test_min_samples_are_the_models(tiny_backbone):
    config = VocalBurstConfig(encoder_config=tiny_backbone)
    extractor = VocalBurstFeatureExtractor.for_backbone(None, config)
    assert (
        extractor.min_samples == config.min_samples == 80 + (4 + 3 * 4 - 1) * 40
    )  # 4 frames of 4 by stride 4, of 80 by 40


def test_saving_and_loading(tmp_path, waves):
    VocalBurstFeatureExtractor(do_normalize=False, min_samples=201, padding_value=0.5).save_pretrained(tmp_path)
    again = VocalBurstFeatureExtractor.from_pretrained(tmp_path)
    assert (again.do_normalize, again.min_samples, again.padding_value) == (False, 201, 0.5)
    assert again(waves, return_tensors="np")["input_values"][1, 400:].tolist() == [0.5] * (4_321 - 400)
    stored = json.loads((tmp_path / "preprocessor_config.json").read_text())
    assert stored["feature_extractor_type"] == "VocalBurstFeatureExtractor"
