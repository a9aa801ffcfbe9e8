import csv

import numpy as np
import pytest

from avb_hf.evaluation.prediction_files import read_predictions, write_predictions
from avb_hf.tasks import TASKS

IDS = ["00007", "00001", "a, b/né.wav"]
SPLITS = ["validation", "test", "test"]


def probabilities(rows, columns, seed=0):
    weights = np.random.default_rng(seed).random((rows, columns))
    return (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)


def cells(path):
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.reader(file))


@pytest.mark.parametrize("task", TASKS.values(), ids=TASKS)
def test_columns_and_every_bit_of_the_scores_come_back(task, tmp_path):
    scores = probabilities(3, len(task.labels))
    path = tmp_path / "new" / "predictions.csv"
    write_predictions(path, IDS, SPLITS, scores, task)
    header, *rows = cells(path)
    assert header == ["file_id", "split", *task.labels] + ["prediction"] * task.is_classification
    assert [row[:2] for row in rows] == [list(pair) for pair in zip(IDS, SPLITS, strict=True)]
    written = np.array([row[2 : 2 + len(task.labels)] for row in rows], dtype=np.float32)
    np.testing.assert_array_equal(written, scores)
    if task.is_classification:
        assert [row[-1] for row in rows] == [task.labels[max(range(len(s)), key=list(s).__getitem__)] for s in scores]
    table = read_predictions(path, task)
    assert table["file_id"].tolist() == IDS
    np.testing.assert_array_equal(table[list(task.labels)].to_numpy().astype(np.float32), scores)


def test_double_precision_comes_back_too(tmp_path):
    scores = np.array([[1 / 3, 1e-17], [0.1 + 0.2, 1 - 2**-53]])
    write_predictions(tmp_path / "p.csv", ["a", "b"], ["test"] * 2, scores, TASKS["two"])
    table = read_predictions(tmp_path / "p.csv", TASKS["two"])
    np.testing.assert_array_equal(table[["Valence", "Arousal"]].to_numpy(), scores)


def test_a_file_id_called_na_stays_text(tmp_path):
    write_predictions(tmp_path / "p.csv", ["NA", "null"], ["test"] * 2, np.ones((2, 2)), TASKS["two"])
    assert read_predictions(tmp_path / "p.csv", TASKS["two"])["file_id"].tolist() == ["NA", "null"]


def test_an_old_file_is_replaced_and_nothing_else_stays(tmp_path):
    path = tmp_path / "predictions.csv"
    path.write_text("old")
    write_predictions(path, IDS, SPLITS, np.zeros((3, 2)), TASKS["two"])
    assert path.read_bytes().startswith(b"file_id,split,Valence,Arousal\n00007,validation,0.0,0.0\n")
    assert [file.name for file in tmp_path.iterdir()] == ["predictions.csv"]


def test_an_old_file_survives_a_write_that_fails(tmp_path, monkeypatch):
    path = tmp_path / "predictions.csv"
    path.write_text("old")

    def full_disk(source, target):
        raise OSError("no space left")

    monkeypatch.setattr("os.replace", full_disk)
    with pytest.raises(OSError, match="no space"):
        write_predictions(path, IDS, SPLITS, np.zeros((3, 2)), TASKS["two"])
    assert [(file.name, file.read_text()) for file in tmp_path.iterdir()] == [("predictions.csv", "old")]


@pytest.mark.parametrize(
    ("ids", "splits", "scores", "message"),
    [
        (IDS[:2], SPLITS, np.zeros((3, 2)), "equally many, got 3 and 2"),
        (IDS, SPLITS[:2], np.zeros((3, 2)), "splits and File_IDs must be equally many, got 2 and 3"),
        (["a", "b", "a"], SPLITS, np.zeros((3, 2)), r"several rows of \['a'\]"),
        (IDS, SPLITS, np.zeros((3, 3)), r"shape \(num_samples, 2\), got \(3, 3\)"),
        (IDS, SPLITS, np.array([[0, 0], [0, np.nan], [0, 0]]), "1 of 3 rows: 00001"),
    ],
)
def test_rows_that_do_not_fit_are_errors(ids, splits, scores, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        write_predictions(tmp_path / "p.csv", ids, splits, scores, TASKS["two"])
    assert not (tmp_path / "p.csv").exists()


@pytest.mark.parametrize("row", [[2.0] + [-1.0] + [0.0] * 6, [0.5] * 8])
def test_logits_are_no_probabilities(row, tmp_path):
    scores = np.vstack([probabilities(1, 8), row])
    with pytest.raises(ValueError, match=r"softmax.* for 00001"):
        write_predictions(tmp_path / "p.csv", IDS[:2], SPLITS[:2], scores, TASKS["type"])


def test_half_precision_probabilities_pass(tmp_path):
    write_predictions(tmp_path / "p.csv", IDS, SPLITS, probabilities(3, 30).astype(np.float16), TASKS["emogator"])
    assert len(cells(tmp_path / "p.csv")) == 4


def test_reading_another_task_or_text_for_numbers_is_an_error(tmp_path):
    path = tmp_path / "p.csv"
    write_predictions(path, IDS, SPLITS, np.zeros((3, 2)), TASKS["two"])
    with pytest.raises(ValueError, match="columns must be"):
        read_predictions(path, TASKS["high"])
    path.write_text("file_id,split,Valence,Arousal\na,test,0.1,high\n")
    with pytest.raises(ValueError, match="scores must be numbers"):
        read_predictions(path, TASKS["two"])
