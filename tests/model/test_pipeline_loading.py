"""What the pipeline can be made of, and when transformers asks for trust."""

import sys

import numpy as np
import pytest
import torch
from transformers import AutoModelForAudioClassification, pipeline

from avb_hf.baselines.emo18 import Emo18Config, Emo18ForVocalBurst
from avb_hf.model import VocalBurstFeatureExtractor, VocalBurstPipeline, Wav2Vec2ForVocalBurst

LABELS = ["zest", "awe", "mirth"]


@pytest.fixture(scope="module")
def model(make_model):
    torch.manual_seed(4)
    return make_model(id2label=dict(enumerate(LABELS)), label_range=(0, 1))


@pytest.fixture(scope="module")
def folder(model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("ours")
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def wave():
    return np.random.default_rng(6).standard_normal(9_000).astype(np.float32)


@pytest.fixture(scope="module")
def burst(wave):
    return {"array": wave, "sampling_rate": 16_000}


@pytest.fixture(scope="module")
def scores(model, wave):
    with torch.no_grad():
        logits = model(**model.feature_extractor(wave, return_tensors="pt")).logits[0]
    return dict(zip(LABELS, logits.tolist(), strict=True))


def close(one, other):
    return list(one) == list(other) and list(one.values()) == pytest.approx(list(other.values()), abs=1e-6)


def test_a_baseline_is_run_too(wave, burst, tmp_path):
    model = Emo18ForVocalBurst(Emo18Config(id2label=dict(enumerate(LABELS)))).eval()
    extractor = VocalBurstFeatureExtractor(do_normalize=False, min_samples=model.config.min_samples)
    scores = VocalBurstPipeline(model, extractor)(burst)
    with torch.no_grad():
        logits = model(**extractor(wave, return_tensors="pt")).logits[0]
    assert close(scores, dict(zip(LABELS, logits.tolist(), strict=True)))
    model.save_pretrained(tmp_path)
    extractor.save_pretrained(tmp_path)
    assert VocalBurstPipeline(tmp_path)(burst) == scores
    with pytest.raises(ValueError, match="trajectory needs a model with pool_over"):
        VocalBurstPipeline(tmp_path, trajectory=True)


def test_another_model_is_refused(stock):
    with pytest.raises(ValueError, match="model must be a fine-tuned vocal-burst model, got Wav2Vec2Model"):
        VocalBurstPipeline(stock("wav2vec2-layer"))


def test_a_folder_needs_no_trust_flag(folder, wave, burst, scores):
    auto = AutoModelForAudioClassification.from_pretrained(folder)
    for other in (
        VocalBurstPipeline(folder),
        VocalBurstPipeline(str(folder), device="cpu", local_files_only=True),
        VocalBurstPipeline(auto),
        pipeline("vocal-burst-emotion", model=str(folder), pipeline_class=VocalBurstPipeline),
        pipeline(model=str(folder), pipeline_class=VocalBurstPipeline),
        pipeline("vocal-burst-emotion", model=auto, feature_extractor=auto.feature_extractor),
    ):
        assert type(other) is VocalBurstPipeline
        assert type(other.model) is Wav2Vec2ForVocalBurst
        assert close(other(burst), scores)
    stock = pipeline("audio-classification", model=str(folder))
    assert close({item["label"]: item["score"] for item in sorted(stock(wave), key=by_label)}, scores)


def by_label(item):
    return LABELS.index(item["label"])


def test_the_stock_pipeline_asks_for_trust_and_then_gives_the_same(folder, burst, scores, tmp_path, monkeypatch):
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path))
    monkeypatch.setattr(sys, "path", [*sys.path])
    with pytest.raises(ValueError, match="trust_remote_code=True"):
        pipeline("vocal-burst-emotion", model=str(folder), trust_remote_code=False)
    trusted = pipeline("vocal-burst-emotion", model=str(folder), trust_remote_code=True)
    assert close(trusted(burst), scores)


def test_another_precision_is_run_in(folder, burst, scores):
    half = VocalBurstPipeline(folder, dtype=torch.bfloat16)
    assert half.model.dtype == torch.bfloat16
    assert list(half(burst).values()) == pytest.approx(list(scores.values()), abs=0.1)
