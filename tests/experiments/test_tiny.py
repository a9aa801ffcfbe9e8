import torch
from transformers import AutoConfig, AutoModel

from avb_hf.experiments.grid import EXTRACTORS
from avb_hf.experiments.tiny import tiny_extractors
from avb_hf.model import Wav2Vec2ForVocalBurst


def test_each_extractor_has_a_tiny_one_that_loads(tmp_path, monkeypatch):
    monkeypatch.setenv("AVB_HF_CACHE", str(tmp_path))
    folders = tiny_extractors()
    assert set(folders) == set(EXTRACTORS)
    shapes = set()
    for folder in folders.values():
        model = Wav2Vec2ForVocalBurst.from_pretrained(folder, num_labels=2, rnn="none")
        assert model.num_parameters() < 200_000
        encoder = model.config.encoder_config
        shapes.add((encoder.feat_extract_norm, encoder.do_stable_layer_norm, encoder.hidden_size, encoder.conv_dim[0]))
    assert len(shapes) == 4


def test_they_are_the_same_wherever_they_are_made_and_made_once(tmp_path, monkeypatch):
    weights = []
    for place in ("a", "b"):
        monkeypatch.setenv("AVB_HF_CACHE", str(tmp_path / place))
        before = torch.random.get_rng_state()
        folder = tiny_extractors()["xlsr53"]
        assert torch.equal(before, torch.random.get_rng_state())
        weights.append(AutoModel.from_pretrained(folder).state_dict())
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    config = tmp_path / "b" / "tiny-backbones-v1" / "base" / "config.json"
    config.write_text(config.read_text().replace('"hidden_size": 48', '"hidden_size": 52'))
    assert AutoConfig.from_pretrained(tiny_extractors()["base"]).hidden_size == 52
