"""A short run by the command line, what tells two models apart, and a small model."""

import hashlib

import pytest

from avb_hf.cli import run
from avb_hf.model import VocalBurstConfig, Wav2Vec2ForVocalBurst


@pytest.fixture
def four_epochs(corpus_dir, tiny_flags, tmp_path):
    """Give a function that runs four epochs of three steps of the task two, with dropout, into a folder."""

    def go(folder, *flags):
        base = ["--data_dir", corpus_dir, "--task", "two", "--output_dir", tmp_path / folder, *tiny_flags]
        return run("train", [str(word) for word in [*base, "--num_train_epochs", "4", *flags]])

    return go


@pytest.fixture(scope="session")
def digest():
    """Give a function that digests the weights in a folder."""
    return lambda folder: hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()


@pytest.fixture(scope="session")
def checkpoint(tiny_backbone, tmp_path_factory):
    """A small checkpoint of ours with two labels."""
    folder = tmp_path_factory.mktemp("checkpoint")
    labels = {"id2label": {0: "calm", 1: "wild"}, "label2id": {"calm": 0, "wild": 1}}
    config = VocalBurstConfig(encoder_config=dict(tiny_backbone), rnn_hidden_size=8, label_range=(0, 1), **labels)
    Wav2Vec2ForVocalBurst(config).save_pretrained(folder)
    return folder
