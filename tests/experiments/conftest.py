"""Runs that take no time: they leave what a run of ours leaves, made from the corpus's labels and noise."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from avb_hf.data.arguments import DataArguments
from avb_hf.evaluation.contest import write_contest_file
from avb_hf.evaluation.metrics import METRICS
from avb_hf.evaluation.prediction_files import write_predictions
from avb_hf.experiments.grid import EXTRACTORS, Settings, runs_of
from avb_hf.experiments.jobs import make_jobs
from avb_hf.experiments.published import read_published
from avb_hf.tasks import TASKS
from avb_hf.training.checkpoints import seal
from avb_hf.training.run_folder import MODEL_FILES

SPLITS = {"Val": ("validation", "eval"), "Test": ("test", "test")}


def flag_of(argv, name):
    """The last value of a flag."""
    return argv[len(argv) - 1 - argv[::-1].index(name) + 1]


def leave_results(argv, noise=0.1):
    """Leave what `avb train` would, for the labels of the corpus in `--data_dir` with noise on them."""
    folder, task = Path(flag_of(argv, "--output_dir")), TASKS[flag_of(argv, "--task")]
    table = pd.read_csv(Path(flag_of(argv, "--data_dir")) / "labels" / task.label_file, dtype={"File_ID": str})
    random = np.random.default_rng([int(flag_of(argv, "--seed")), sum(map(ord, "".join(argv[:20])))])
    results, parts = {}, []
    for word, (split, prefix) in SPLITS.items():
        rows = table[table["Split"] == word]
        if rows.empty:
            continue
        if task.is_classification:
            labels = rows[task.class_column].map(lambda name: task.labels.index(name) if name in task.labels else -100)
            labels = labels.to_numpy()
            scores = np.eye(len(task.labels))[labels.clip(0)] + 30 * noise * random.random(
                (len(rows), len(task.labels))
            )
            scores /= scores.sum(axis=1, keepdims=True)
        else:
            labels = rows[list(task.labels)].to_numpy(float)
            scores = np.nan_to_num(labels, nan=0.5) + random.normal(0, noise, labels.shape)
        if not (np.isnan(labels.astype(float)) | (labels == -100)).all():
            scored = METRICS[task.metric](scores, labels, task)
            results |= {f"{prefix}_{name}": value for name, value in scored.items()}
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{prefix}_results.json").write_text("{}")
        parts.append((rows["File_ID"].str.strip("[]").tolist(), split, scores))
    ids = [file_id for file_ids, _, _ in parts for file_id in file_ids]
    splits = [split for file_ids, split, _ in parts for _ in file_ids]
    write_predictions(folder / "predictions.csv", ids, splits, np.concatenate([part[2] for part in parts]), task)
    if len(parts) == 2:
        write_contest_file(folder, flag_of(argv, "--team_name"), 1, parts[1][0], parts[1][2], task)
    (folder / "all_results.json").write_text(json.dumps(results))
    for name in MODEL_FILES:
        (folder / name).write_text("what was trained")
    (folder / "checkpoint-1").mkdir(exist_ok=True)
    seal(folder, [path for path in folder.iterdir() if path.is_file() and path.name != "avb_complete.json"])
    return 0


@pytest.fixture(scope="session")
def unlabelled(make_corpus, tmp_path_factory):
    """A corpus in the official layout whose test rows have placeholders for labels, and no speakers."""
    folder = make_corpus(tmp_path_factory.mktemp("unlabelled"))
    for path in (folder / "labels").iterdir():
        table = pd.read_csv(path, dtype=str, keep_default_na=False)
        table.loc[table["Split"] == "Test", table.columns[2:]] = ""
        table.to_csv(path, index=False)
    return folder


class FakeAvb:
    """Stands for `avb`: leaves results, and can be told to do something else instead."""

    def __init__(self):
        self.calls, self.instead, self.leave = [], {}, leave_results

    def __call__(self, argv, log=None):
        """Do what was planned for this call, counted from 1, or leave results."""
        self.calls.append(argv)
        return self.instead.get(len(self.calls), self.leave)(argv)


@pytest.fixture(scope="session")
def new_avb():
    """Give the class of stand-ins for `avb` that count their calls."""
    return FakeAvb


@pytest.fixture
def fake_avb(new_avb):
    """A stand-in for `avb`."""
    return new_avb()


@pytest.fixture(scope="session")
def with_speakers(make_corpus, tmp_path_factory):
    """A corpus in the official layout whose 36 clips are spoken by nine speakers, three of them in the test split."""
    folder = make_corpus(tmp_path_factory.mktemp("speakers"))
    for path in (folder / "labels").iterdir():
        table = pd.read_csv(path, dtype={"File_ID": str})
        of_split = table.groupby("Split").cumcount() % 3
        table.insert(2, "Speaker", table["Split"] + of_split.astype(str))
        table.to_csv(path, index=False)
    return folder


@pytest.fixture(scope="session")
def settings_of():
    """Give a function that makes the settings of the paper's grid for a corpus."""

    def make(folder, **changes):
        tasks = {name: TASKS[name] for name in ("high", "two", "culture", "type")}
        data = {name: DataArguments(data_dir=str(folder), task=name) for name in tasks}
        return replace(Settings(tasks, data, "paper", EXTRACTORS), **changes)

    return make


@pytest.fixture
def some_jobs(settings_of, corpus_dir, tmp_path):
    """The four jobs of Table III with two seeds."""
    scores = [score for score in read_published() if score.table == "III"]
    return make_jobs(runs_of(scores, settings_of(corpus_dir))[:2], (1, 2), tmp_path)
