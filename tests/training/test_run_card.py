"""A card that a person has taken over is never replaced."""

import logging

import pytest

from avb_hf.card_marker import CARD_MARKER, is_ours
from avb_hf.cli import run


@pytest.fixture
def trained(corpus_dir, tiny_flags, tmp_path):
    """Give a function that trains, with further flags, into one and the same folder."""

    def train(*words):
        flags = ["--data_dir", corpus_dir, "--task", "two", *tiny_flags, "--use_cpu", "--num_train_epochs", "1", *words]
        assert run("train", [str(flag) for flag in (*flags, "--output_dir", tmp_path / "run")]) == 0
        return tmp_path / "run" / "README.md"

    return train


@pytest.mark.slow
def test_a_run_that_is_finished_again_leaves_an_edited_card(trained, caplog):
    card = trained()
    written = card.read_text()
    assert is_ours(card)
    assert trained("--resume", "auto").read_text() == written
    edited = written.replace(CARD_MARKER, "").replace("## Use", "## Use it gently")
    card.write_text(edited)
    (card.parent / "predictions.csv").unlink()
    with caplog.at_level(logging.WARNING):
        trained("--resume", "auto")
    assert card.read_text() == edited
    assert (card.parent / "predictions.csv").is_file()
    assert f"{card} was written by somebody else and stays" in caplog.text
