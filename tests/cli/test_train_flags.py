"""What flags do to a run: dry runs, used folders, fewer clips, early stopping, class weights."""

import json

import numpy as np
import pandas as pd
import pytest
from sklearn.utils.class_weight import compute_class_weight

from avb_hf.cli import run
from avb_hf.tasks import TASKS


def load(folder, name):
    return json.loads((folder / name).read_text())


@pytest.fixture
def command(corpus_dir, tiny_flags, tmp_path):
    """Give a function that runs the task two with further flags and returns the exit code."""
    base = ["--data_dir", corpus_dir, "--task", "two", "--output_dir", tmp_path / "out", *tiny_flags]
    return lambda *flags: run("train", [str(word) for word in [*base, "--num_train_epochs", "1", *flags]])


def test_the_screen_ends_with_tables(command, capsys):
    assert command() == 0
    out = capsys.readouterr().out
    assert out.index("eval_ccc (mean of 2 labels)") < out.index("test_ccc (mean of 2 labels)")
    assert "Valence" in out


def test_a_dry_run_writes_nothing(command, tmp_path, monkeypatch, capsys):
    (tmp_path / "cwd").mkdir()
    monkeypatch.chdir(tmp_path / "cwd")
    assert command("--dry_run") == 0
    assert [path.name for path in tmp_path.rglob("*")] == ["cwd"]
    out = capsys.readouterr().out
    for word in ("task two", "train: 18 clips", "3 steps of 8 clips", "one batch of 8 clips: loss", "peak memory"):
        assert word in out


def test_a_dry_run_checks_the_output_folder_too(command, tmp_path, capsys):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "config.json").write_text("old")
    assert command("--dry_run") == 2
    assert command("--dry_run", "--overwrite") == 2, "no run of ours left it"
    (tmp_path / "out" / "resolved_config.json").write_text("{}")
    assert command("--dry_run", "--overwrite") == 0
    assert (tmp_path / "out" / "config.json").read_text() == "old"


@pytest.mark.slow
def test_a_used_folder_is_refused_and_overwritten_on_request(command, tmp_path, capsys):
    assert command() == 0
    stamp = (tmp_path / "out" / "model.safetensors").stat().st_mtime_ns
    assert command() == 2
    assert "--overwrite" in capsys.readouterr().err
    assert (tmp_path / "out" / "model.safetensors").stat().st_mtime_ns == stamp
    assert command("--overwrite", "--do_train", "--do_eval") == 0
    assert not (tmp_path / "out" / "test_results.json").exists(), "left of the run before"
    (tmp_path / "out" / "notes.txt").write_text("mine")
    assert command("--overwrite") == 2
    assert "notes.txt" in capsys.readouterr().err
    assert (tmp_path / "out" / "eval_results.json").exists()


@pytest.mark.parametrize("team", ["a_b", "a b"])
def test_a_team_name_is_refused_before_training(command, tmp_path, team):
    assert command("--team_name", team) == 2
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_max_train_samples(command, tmp_path, capsys):
    assert command("--max_train_samples", "5", "--max_eval_samples", "4") == 0
    audio = load(tmp_path / "out", "resolved_config.json")["audio"]
    assert [audio[name]["clips"] for name in ("train", "validation", "test")] == [5, 4, 4]
    assert "train: 5 clips" in capsys.readouterr().out


@pytest.mark.slow
def test_early_stopping_by_flag(command, tmp_path):
    still = ["--learning_rate", "0", "--backbone_learning_rate", "0", "--num_train_epochs", "9"]
    assert command(*still, "--early_stopping_patience", "1") == 0
    assert load(tmp_path / "out", "trainer_state.json")["epoch"] == 2


@pytest.mark.slow
def test_balanced_class_weights_by_flag(command, tmp_path, make_corpus):
    corpus, classes = make_corpus(tmp_path / "corpus"), TASKS["type"].labels
    table = pd.read_csv(corpus / "labels" / "type_info.csv")
    train = table["Split"] == "Train"
    table.loc[train, "Voc_Type"] = [*classes, *classes[:3] * 3, classes[0]]
    table.to_csv(corpus / "labels" / "type_info.csv", index=False)
    assert command("--task", "type", "--class_weights", "balanced", "--data_dir", corpus) == 0
    expected = compute_class_weight("balanced", classes=np.array(classes), y=table.loc[train, "Voc_Type"])
    np.testing.assert_allclose(load(tmp_path / "out", "config.json")["class_weights"], expected)
