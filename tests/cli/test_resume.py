"""A run that was cut off and resumed ends where one that was not cut off ends."""

import json

import pytest

from avb_hf.cli import run

pytestmark = pytest.mark.slow


@pytest.fixture
def cut_run(four_epochs, cut_after, tmp_path):
    """A run that was cut off in its third epoch, after two checkpoints."""
    cut_after(7, lambda: four_epochs("cut"))
    assert {path.name for path in (tmp_path / "cut").glob("checkpoint-*")} == {"checkpoint-3", "checkpoint-6"}
    return tmp_path / "cut"


@pytest.mark.parametrize("flag", ["--resume", "--resume_from_checkpoint"])
def test_resumed_is_uninterrupted(four_epochs, cut_run, digest, tmp_path, flag):
    assert four_epochs("whole") == 0
    value = "auto" if flag == "--resume" else cut_run / "checkpoint-6"
    assert four_epochs("cut", flag, value) == 0
    assert digest(cut_run) == digest(tmp_path / "whole")
    results = [json.loads((folder / "eval_results.json").read_text()) for folder in (cut_run, tmp_path / "whole")]
    assert results[0]["eval_ccc"] == results[1]["eval_ccc"]
    assert json.loads((cut_run / "trainer_state.json").read_text())["global_step"] == 12


@pytest.mark.slow
def test_another_seed_ends_elsewhere(four_epochs, digest, tmp_path):
    assert four_epochs("one") == four_epochs("two", "--seed", "7") == 0
    assert digest(tmp_path / "one") != digest(tmp_path / "two")


@pytest.mark.slow
def test_two_runs_with_one_seed_end_alike(four_epochs, digest, tmp_path):
    assert four_epochs("one") == four_epochs("two") == 0
    assert digest(tmp_path / "one") == digest(tmp_path / "two")


def test_a_checkpoint_that_is_not_there(four_epochs, cut_run, capsys):
    assert four_epochs("cut", "--resume", cut_run / "checkpoint-99") == 2
    assert "checkpoint-99" in capsys.readouterr().err


def test_a_cut_run_is_not_written_over(four_epochs, cut_run, capsys):
    assert four_epochs("cut") == 2
    assert "--resume auto" in capsys.readouterr().err


def test_auto_begins_where_there_is_no_checkpoint(four_epochs, tmp_path):
    assert four_epochs("fresh", "--resume", "auto", "--num_train_epochs", "1") == 0
    assert (tmp_path / "fresh" / "all_results.json").exists()


def test_a_resume_with_other_flags_is_refused_and_writes_nothing(corpus_dir, tiny_flags, tmp_path, capsys):
    flags = [*tiny_flags, "--data_dir", str(corpus_dir), "--output_dir", str(tmp_path / "run"), "--task", "two"]
    assert run("train", flags) == 0
    before = {path: path.read_bytes() for path in (tmp_path / "run").glob("*.json")}
    assert run("train", [*flags, "--resume", "auto", "--learning_rate", "0.5"]) == 2
    message = capsys.readouterr().err
    assert "flags.learning_rate: 0.01 is now 0.5" in message
    assert "--allow_changed_args" in message
    assert run("train", [*flags, "--resume", "auto", "--task", "high"]) == 2
    assert before == {path: path.read_bytes() for path in (tmp_path / "run").glob("*.json")}
    assert run("train", [*flags, "--resume", "auto", "--weight_decay", "0.5", "--allow_changed_args"]) == 0
