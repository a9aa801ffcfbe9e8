"""Tiny backbones of every kind, as stock transformers makes them, and models of ours on top."""

import itertools

import pytest
import torch
from transformers import (
    HubertConfig,
    HubertModel,
    Wav2Vec2Config,
    Wav2Vec2Model,
    WavLMConfig,
    WavLMModel,
    WhisperConfig,
    WhisperModel,
)

from avb_hf.model import VocalBurstConfig, Wav2Vec2ForVocalBurst

STOCK = {
    "wav2vec2": (Wav2Vec2Config, Wav2Vec2Model),
    "hubert": (HubertConfig, HubertModel),
    "wavlm": (WavLMConfig, WavLMModel),
    "whisper": (WhisperConfig, WhisperModel),
}
BLOCKS = 3
CONVOLUTIONAL = {
    "conv_dim": [16, 16, 16],
    "conv_kernel": [80, 4, 4],
    "conv_stride": [40, 4, 2],
    "hidden_size": 16,
    "num_hidden_layers": BLOCKS,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "num_conv_pos_embeddings": 8,
    "num_conv_pos_embedding_groups": 2,
}
WHISPER = {
    "d_model": 16,
    "encoder_layers": BLOCKS,
    "encoder_attention_heads": 2,
    "encoder_ffn_dim": 32,
    "decoder_layers": 1,
    "decoder_attention_heads": 2,
    "decoder_ffn_dim": 16,
    "vocab_size": 32,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "decoder_start_token_id": 1,
}


def _name(model_type, norm, stable):
    return f"{model_type}-{norm}{'-stable' if stable else ''}"


BACKBONES = {
    _name(model_type, norm, stable): {
        "model_type": model_type,
        "feat_extract_norm": norm,
        "do_stable_layer_norm": stable,
        **CONVOLUTIONAL,
    }
    for model_type, norm, stable in itertools.product(
        ("wav2vec2", "hubert", "wavlm"), ("group", "layer"), (False, True)
    )
} | {"whisper": {"model_type": "whisper", **WHISPER}}
# transformers has eager attention only for WavLM.
ATTENDED = [(name, "eager") for name in BACKBONES] + [(name, "sdpa") for name in BACKBONES if "wavlm" not in name]
ONE_OF_EACH = ("wav2vec2-layer-stable", "hubert-group", "wavlm-layer", "whisper")


def pytest_generate_tests(metafunc):
    """Run a test once for every backbone (`backbone`), every convolutional one, or one of each model type.

    `attended` is every backbone with each attention that it has, as a pair.
    """
    convolutional = tuple(name for name in BACKBONES if name != "whisper")
    groups = {"backbone": tuple(BACKBONES), "convolutional": convolutional, "one_of_each": ONE_OF_EACH}
    for argument, names in groups.items():
        if argument in metafunc.fixturenames:
            metafunc.parametrize(argument, names)
    if "attended" in metafunc.fixturenames:
        metafunc.parametrize("attended", ATTENDED, ids="-".join)


def make_stock(name, **changes):
    """Build transformers' own model of a backbone with random weights."""
    fields = BACKBONES[name] | changes
    config_class, model_class = STOCK[fields.pop("model_type")]
    return model_class(config_class(**fields)).eval()


@pytest.fixture(scope="session")
def stock():
    """Give the function that builds a stock model by its name."""
    return make_stock


@pytest.fixture(scope="session")
def stock_dir(tmp_path_factory):
    """Give a function from a backbone's name to a folder with a stock model, written once."""
    written = {}

    def folder(name):
        if name not in written:
            torch.manual_seed(3)
            written[name] = tmp_path_factory.mktemp(name)
            make_stock(name).save_pretrained(written[name])
        return written[name]

    return folder


@pytest.fixture(scope="session")
def make_model():
    """Give a function that builds a small model of ours with random weights on a backbone, in evaluation mode."""

    def build(name="wav2vec2-layer-stable", backbone_changes=None, **fields):
        defaults = {"num_labels": 3, "rnn_hidden_size": 8, "rnn_num_layers": 1, "pooling": "mean"}
        encoder_config = BACKBONES[name] | (backbone_changes or {})
        return Wav2Vec2ForVocalBurst(VocalBurstConfig(encoder_config=encoder_config, **(defaults | fields))).eval()

    return build


@pytest.fixture(scope="session")
def pad():
    """Give a function from waveforms to `input_values` and `attention_mask`, padded with any value."""

    def padded(clips, value=0.0, extra=0):
        longest = max(map(len, clips)) + extra
        values = torch.stack([torch.cat([clip, torch.full((longest - len(clip),), value)]) for clip in clips])
        mask = torch.stack([(torch.arange(longest) < len(clip)).long() for clip in clips])
        return values, mask

    return padded


@pytest.fixture
def clips():
    """Five clips of ragged length, 0.1 s to 0.7 s, of unequal loudness."""
    lengths = (11_200, 5_000, 1_600, 8_003, 7_999)
    return [torch.randn(length) * loudness for length, loudness in zip(lengths, (1, 0.1, 2, 1, 0.5), strict=True)]
