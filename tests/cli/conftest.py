"""A short run by the command line, and what tells two models apart."""

import hashlib

import pytest

from avb_hf.cli import run


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
