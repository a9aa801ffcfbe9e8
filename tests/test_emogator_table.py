"""The table of systems on EmoGator: what is made of runs, and which clips the folds are made of."""

import argparse
import csv
import importlib
import json
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats

from avb_hf import Wav2Vec2ForVocalBurst
from avb_hf.baselines import run_functionals
from avb_hf.cli import run, train
from avb_hf.data.arguments import DataArguments
from avb_hf.data.clips import ClipReader
from avb_hf.evaluation.prediction_files import write_predictions
from avb_hf.tasks import TASKS

TASK = TASKS["emogator"]
SCRIPTS = Path(__file__).resolve().parents[1] / "examples" / "emogator"
CONTRIBUTORS = [f"{number:06d}" for number in range(101, 113)]


@pytest.fixture
def table(monkeypatch):
    """The script, as a module."""
    monkeypatch.syspath_prepend(SCRIPTS)
    yield importlib.import_module("table")
    for path in SCRIPTS.glob("*.py"):
        sys.modules.pop(path.stem, None)


def leave_predictions(folder, num_right, contributors=CONTRIBUTORS):
    """Write what a run leaves: of each contributor's 30 clips so many are right; half validate, half test."""
    file_ids = [f"{name}-{category:02d}-1" for name in contributors for category in range(1, 31)]
    right = [position < count for count in num_right for position in range(30)]
    answers = [(row % 30 + (not is_right)) % 30 for row, is_right in enumerate(right)]
    half = len(file_ids) // 2
    splits = ["validation"] * half + ["test"] * half
    write_predictions(folder / "predictions.csv", file_ids, splits, np.eye(30)[answers], TASK)


def table_of(table, folder):
    table.main(["--data_dir", "nowhere", "--output_dir", str(folder), "--only"])
    return json.loads((folder / "table.json").read_text()), (folder / "table.md").read_text().splitlines()


OURS = [9, 9, 9, 9, 9, 9, 12, 15, 9, 18, 12, 6]
CLOSE = [3, 3, 3, 3, 3, 3, 15, 12, 9, 15, 9, 9]
FAR = [6, 6, 6, 6, 6, 6, 3, 3, 3, 6, 3, 0]


def test_rows_are_compared_by_contributor(table, tmp_path):
    for name, right in {"fine_tuned": OURS, "emo18": CLOSE, "egemaps": FAR}.items():
        leave_predictions(tmp_path / name, right)
    (tmp_path / "costs.json").write_text('{"emo18": 12.34}')
    found, lines = table_of(table, tmp_path)
    assert list(found["systems"]) == ["egemaps", "emo18", "fine_tuned"]
    for name, right in {"emo18": CLOSE, "egemaps": FAR}.items():
        row = found["systems"][name]
        assert row["validation_uar"] == pytest.approx(np.mean(right[:6]) / 30)
        assert row["test_uar"] == pytest.approx(np.mean(right[6:]) / 30)
        expected = np.subtract(OURS[6:], right[6:]) / 30
        assert row["differences"] == pytest.approx(dict(zip(CONTRIBUTORS[6:], expected, strict=True)))
        interval = stats.ttest_rel(OURS[6:], right[6:]).confidence_interval()
        assert [row["low"], row["high"]] == pytest.approx(np.divide(interval, 30))
        assert row["mean_difference"] == pytest.approx(found["systems"]["fine_tuned"]["test_uar"] - row["test_uar"])
    assert [row.get("undecided") for row in found["systems"].values()] == [False, True, None]
    assert ["undecided" in line for line in lines[:5]] == [False, False, False, True, False]
    head = [cell.strip() for cell in lines[0].strip("|").split("|")]
    assert head[3:-1] == [f"Δ {name}" for name in [*CONTRIBUTORS[6:], "mean", "95 % interval"]]
    assert lines[5:7] == ["", lines[6]]
    for words in ("UAR of ours, fine-tuned, less that of the row", "6 test contributors", "(5 degrees of freedom)"):
        assert words in lines[6]
    assert lines[3].startswith("| Emo-18 | 0.100 | 0.383 | -0.100 | +0.100 | +0.000 | +0.100 | +0.100 | -0.100 |")
    assert [line.split(" | ")[-1] for line in lines[2:5]] == ["? |", "12.3 |", "? |"]


def test_of_several_runs_the_best_on_validation_counts(table, tmp_path):
    first, second, *_ = table.RUNS["frozen"]
    leave_predictions(tmp_path / first, [3] * 6 + [30] * 6)
    leave_predictions(tmp_path / second, [6] * 6 + [0] * 6)
    (tmp_path / "costs.json").write_text(json.dumps({first: 1.0, second: 2.0}))
    found, lines = table_of(table, tmp_path)
    row = found["systems"]["frozen"]
    assert (row["choice"], row["test_uar"], row["cpu_minutes"]) == (second.split("/")[1], 0, 3.0)
    assert row["choice"] in lines[2]


@pytest.mark.slow
def test_every_contributor_is_tested_by_one_fold_that_has_not_heard_it(table, tmp_path, monkeypatch):
    for name in CONTRIBUTORS:
        (tmp_path / f"{name}-01-1.mp3").touch()
    best = list(table.RUNS["frozen"])[1]
    for head in table.RUNS["frozen"]:
        leave_predictions(tmp_path / "out" / head, [6 if head == best else 3] * 12)
    tested, commands = [], []

    def fake_avb(*flags):
        def run(options, folder):
            commands.append(flags)
            with open(flags[flags.index("--split_file") + 1]) as file:
                splits = {row["contributor"]: row["split"] for row in csv.DictReader(file)}
            names = {split: [name for name in splits if splits[name] == split] for split in ("train", "val", "test")}
            assert {split: len(part) for split, part in names.items()} == {"train": 8, "val": 2, "test": 2}
            tested.extend(names["test"])
            right = [CONTRIBUTORS.index(name) for name in names["test"]]
            leave_predictions(folder, [0, 0, *right], [*names["val"], *names["test"]])

        return run

    monkeypatch.setattr(table, "avb", fake_avb)
    table.main(["--data_dir", str(tmp_path), "--output_dir", str(tmp_path / "out"), "--only", "cross_validation"])
    assert sorted(tested) == CONTRIBUTORS
    assert all(set(table.HEADS[best.split("/")[1]]) < set(flags) for flags in commands)
    told = (tmp_path / "out" / "table.md").read_text().splitlines()[-1]
    assert "(11 degrees of freedom)" in told
    assert "The head is the one that is best on the table's validation contributors" in told
    found = json.loads((tmp_path / "out" / "table.json").read_text())["cross_validation"]
    assert found["contributors"] == pytest.approx({name: i / 30 for i, name in enumerate(CONTRIBUTORS)})
    assert found["uar"] == pytest.approx(5.5 / 30)
    interval = stats.ttest_1samp(np.arange(12) / 30, 0).confidence_interval()
    assert [found["low"], found["high"]] == pytest.approx(list(interval))
    assert found["cpu_minutes"] >= 0


@pytest.fixture
def understood(table, monkeypatch):
    """What the commands that would run are parsed to: flags by name, and of `avb` what is trained."""
    parsed = []

    def keep(system, *groups):
        parsed.append({name: value for group in groups for name, value in vars(group).items()} | {"system": system})

    def call(command, check):
        assert (command[:3], check) == ([sys.executable, "-m", "avb_hf"], True)
        assert run(command[3], command[4:]) == 0

    monkeypatch.setattr(train, "run", lambda *groups: keep(groups[4].usage.split(" [")[0], *groups[:4]))
    monkeypatch.setattr(run_functionals, "run_functionals", lambda system, *groups: keep(system, *groups))
    monkeypatch.setattr(table.subprocess, "run", call)
    return parsed


@pytest.mark.slow
def test_every_command_line_is_one_that_avb_takes(table, understood, tmp_path):
    for name in CONTRIBUTORS:
        (tmp_path / f"{name}-01-1.mp3").touch()
    for head in table.RUNS["frozen"]:
        leave_predictions(tmp_path / "out" / head, [6 if head == "frozen/attentive_6" else 3] * 12)
    places = ["--data_dir", str(tmp_path), "--model_name_or_path", "whisper", "--output_dir", str(tmp_path / "out")]
    options = table.parse(places)
    by_us = ("chance", "duration", "whisper")
    runs = {
        name: command for system in table.RUNS if system not in by_us for name, command in table.RUNS[system].items()
    }
    for name, command in runs.items():
        command(options, tmp_path / "out" / name)
    assert {flags["source"] for flags in understood} == {"emogator"}
    assert {flags["data_dir"] for flags in understood} == {str(tmp_path)}
    assert [flags["output_dir"] for flags in understood] == [str(tmp_path / "out" / name) for name in runs]
    by_name = dict(zip(runs, understood, strict=True))
    assert [by_name[name]["system"] for name in ("egemaps", "compare")] == ["egemaps", "compare"]
    assert by_name["emo18"]["system"] == "avb baseline emo18"
    heads = [by_name[f"frozen/{head}"] for head in table.HEADS]
    assert [(flags["pooling"], flags["feature_layer"]) for flags in heads] == [
        ("mean_std", 5), ("mean_std", 6), ("attentive", 5), ("attentive", 6),
    ]  # fmt: skip
    folds = [by_name[name] for name in table.RUNS["cross_validation"]]
    assert {(flags["pooling"], flags["feature_layer"], flags["freeze"]) for flags in folds} == {
        ("attentive", 6, "backbone")
    }
    assert len({flags["split_file"] for flags in folds}) == 6
    assert {flags["model_name_or_path"] for flags in [*heads, *folds, by_name["fine_tuned"]]} == {"whisper"}


def test_folds_need_the_frozen_heads_first(table, tmp_path):
    with pytest.raises(SystemExit, match="make that first"):
        table.main(["--data_dir", str(tmp_path), "--output_dir", str(tmp_path), "--only", "cross_validation"])


@pytest.mark.slow
@pytest.mark.real_data
def test_systems_without_a_network_run_on_real_clips(table, emogator_dir, tmp_path):
    flags = ["--data_dir", str(emogator_dir), "--output_dir", str(tmp_path), "--only", "chance", "duration"]
    table.main(flags)
    made = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*/predictions.csv")}
    found = json.loads((tmp_path / "table.json").read_text())["systems"]
    assert len(made) == len(found) == 2
    assert set(found["chance"]["contributors"].values()) == {1 / 30}
    assert found["duration"]["choice"].startswith("seconds, C ")
    assert all(row["cpu_minutes"] >= 0 and len(row["contributors"]) == 6 for row in found.values())
    table.main(flags)
    assert {path: path.stat().st_mtime_ns for path in made} == made


@pytest.mark.slow
@pytest.mark.real_data
def test_state_statistics_are_those_that_hooks_see(table, emogator_dir, whisper_dir):
    logistic = importlib.import_module("logistic")
    options = argparse.Namespace(data_dir=str(emogator_dir), model_name_or_path=str(whisper_dir))
    split = logistic._corpus(options)["test"].select([0, 1])
    found = logistic._state_statistics(options, split)
    model = Wav2Vec2ForVocalBurst.from_pretrained(str(whisper_dir), num_labels=30)
    seen = []
    for block in model.encoder.layers:
        block.register_forward_hook(lambda module, inputs, output: seen.append(output[0].numpy()))
    for row in split.with_transform(ClipReader(DataArguments())):
        with torch.no_grad():
            model(torch.from_numpy(row["audio"])[None])
    expected = [np.concatenate([states.mean(axis=0), states.std(axis=0)]) for states in seen]
    assert found.shape == (6, 2, 1024)
    np.testing.assert_allclose(found, np.reshape(expected, (2, 6, 1024)).swapaxes(0, 1), rtol=1e-3, atol=1e-3)


def test_the_script_tells_what_is_no_clip_of_emogator(table, tmp_path):
    contributors = importlib.import_module("uar_by_contributor")
    write_predictions(tmp_path / "predictions.csv", ["a"], ["test"], np.eye(30)[:1], TASK)
    with pytest.raises(SystemExit, match="no EmoGator clips"):
        contributors.contributor_scores(tmp_path)


def test_a_runs_contributors_are_printed(table, tmp_path, capsys):
    leave_predictions(tmp_path, OURS)
    importlib.import_module("uar_by_contributor").main(tmp_path)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split() for line in lines[:-1]] == [
        [name, f"{count / 30}"] for name, count in zip(CONTRIBUTORS[6:], OURS[6:], strict=True)
    ]
    error = pd.Series(OURS[6:]).div(30).sem()
    assert lines[-1].startswith(f"mean 0.4000, standard error over 6 contributors {error:.4f}, 95 % t interval 0.")
