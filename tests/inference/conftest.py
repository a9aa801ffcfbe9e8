"""Tiny backbones of every family, and models of ours on them."""

import numpy as np
import pytest
import torch
from transformers import AutoModel

from avb_hf.model import VocalBurstConfig, VocalBurstFeatureExtractor, Wav2Vec2ForVocalBurst

GROUP = {"feat_extract_norm": "group", "do_stable_layer_norm": False}
CHANGES = {
    "wav2vec2-layer": {},
    "wav2vec2-group": GROUP,
    "hubert-layer": {"model_type": "hubert"},
    "hubert-group": {"model_type": "hubert", **GROUP},
    "wavlm-layer": {"model_type": "wavlm"},
    "wavlm-group": {"model_type": "wavlm", **GROUP},
}
WHISPER = {
    "model_type": "whisper", "d_model": 16, "encoder_layers": 2, "encoder_attention_heads": 2, "encoder_ffn_dim": 32,
    "decoder_layers": 1, "decoder_attention_heads": 2, "decoder_ffn_dim": 16, "vocab_size": 4, "pad_token_id": 0,
}  # fmt: skip
FAMILIES = (*CHANGES, "whisper")


def pytest_generate_tests(metafunc):
    """Run a test once for every family of backbones that it takes as `family`."""
    if "family" in metafunc.fixturenames:
        metafunc.parametrize("family", FAMILIES)


@pytest.fixture(scope="session")
def make_model(tiny_backbone):
    """Give a function that builds a small model of ours and its feature extractor."""

    def build(family="wav2vec2-layer", **fields):
        encoder_config = WHISPER if family == "whisper" else tiny_backbone | CHANGES[family]
        defaults = {"num_labels": 3, "rnn_hidden_size": 8, "rnn_num_layers": 1, "pooling": "mean"}
        model = Wav2Vec2ForVocalBurst(VocalBurstConfig(encoder_config=dict(encoder_config), **(defaults | fields)))
        return model.eval(), VocalBurstFeatureExtractor.for_backbone(None, model.config)

    return build


@pytest.fixture(scope="session")
def stock_dir(make_model, tmp_path_factory):
    """Give a function that writes a stock model of a family, with random weights, to a folder."""

    def folder(family):
        path = tmp_path_factory.mktemp(family)
        config = make_model(family)[0].config.encoder_config
        AutoModel.from_config(config).save_pretrained(path)
        return path

    return folder


@pytest.fixture
def clips():
    """Seven waveforms of 0.06 s to 0.7 s by name, of unequal loudness."""
    torch.manual_seed(4)
    lengths = (11_200, 5_000, 1_600, 8_003, 7_999, 960, 4_000)
    loudness = np.linspace(0.1, 1, len(lengths))
    return {f"clip {n}": scale * torch.randn(n).numpy() for n, scale in zip(lengths, loudness, strict=True)}


@pytest.fixture
def export(make_model, clips, tmp_path):
    """Give a function that builds a model, writes its ONNX file, and returns that, model and feature extractor."""
    from avb_hf.inference.export import export_onnx

    def go(family="wav2vec2-layer", **fields):
        model, extractor = make_model(family, **fields)
        path = tmp_path / "model.onnx"
        export_onnx(model, extractor, list(clips.values()), path)
        return path, model, extractor

    return go


@pytest.fixture(scope="module")
def many_clips():
    """As many tones in noise as an export in int8 asks for, of 0.06 s to 0.2 s, unlike in pitch and loudness."""
    rng = np.random.default_rng(5)
    times = (np.arange(int(rng.uniform(0.06, 0.2) * 16_000)) / 16_000 for _ in range(200))
    return [
        (rng.uniform(0, 1) * np.sin(2 * np.pi * rng.uniform(100, 4_000) * time) + 0.1 * rng.standard_normal(len(time)))
        for time in times
    ]


@pytest.fixture
def loud_model(make_model):
    """A model whose scores differ from clip to clip by more than random weights make them."""
    model, extractor = make_model(rnn_hidden_size=16)
    with torch.no_grad():
        for parameter in (*model.rnn.parameters(), *model.classifier.parameters()):
            parameter.mul_(3)
    return model, extractor
