"""The digest of a model: the same wherever the model lies, and another for another model."""

import json

import pytest
import torch

from avb_hf.inference.scorer import digest_model
from avb_hf.model import VocalBurstConfig, VocalBurstPipeline, Wav2Vec2ForVocalBurst


@pytest.fixture
def model(tiny_backbone):
    config = VocalBurstConfig(encoder_config=tiny_backbone, num_labels=2, label_range=(0, 1), rnn_hidden_size=8)
    return Wav2Vec2ForVocalBurst(config)


def digest(model):
    return digest_model(model, model.feature_extractor)


def test_saving_and_loading_leave_the_digest_as_it_was(model, tmp_path):
    before = digest(model)
    model.save_pretrained(tmp_path)
    assert digest(model) == before
    loaded = VocalBurstPipeline(tmp_path).model
    assert digest(loaded) == before
    loaded.save_pretrained(tmp_path / "again")
    assert digest(Wav2Vec2ForVocalBurst.from_pretrained(tmp_path / "again")) == before


@pytest.mark.parametrize("change", ["weight", "configuration", "backbone", "preprocessing"])
def test_what_computes_otherwise_has_another_digest(change, model, tmp_path):
    before = digest(model)
    if change == "weight":
        with torch.no_grad():
            model.classifier.bias[0] += 1e-3
    elif change == "preprocessing":
        model.feature_extractor.do_normalize = not model.feature_extractor.do_normalize
    else:
        model.save_pretrained(tmp_path)
        fields = json.loads((tmp_path / "config.json").read_text())
        fields |= {"label_range": [0, 2]} if change == "configuration" else {}
        fields["encoder_config"] |= {"layer_norm_eps": 1e-3} if change == "backbone" else {}
        (tmp_path / "config.json").write_text(json.dumps(fields))
        model = Wav2Vec2ForVocalBurst.from_pretrained(tmp_path)
    assert digest(model) != before
