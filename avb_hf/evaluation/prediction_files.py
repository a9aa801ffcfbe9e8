"""`predictions.csv`: every predicted clip with its scores."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from avb_hf.evaluation.metrics import check_scores
from avb_hf.tasks import TaskSpec
from avb_hf.whole_files import whole_file

CLASS_COLUMN = "prediction"
# Half-precision softmax outputs miss a sum of 1 by a few thousandths; logits miss it by far more.
PROBABILITY_TOLERANCE = 0.01


def check_rows(file_ids: Sequence[str], scores: np.ndarray, task: TaskSpec) -> None:
    """Refuse predictions that do not belong to distinct clips.

    Args:
        file_ids: File_ID of each row, without brackets.
        scores: Predictions of shape `(num_samples, num_labels)`.
        task: What was predicted.

    Raises:
        ValueError: If the lengths differ, a File_ID occurs twice, or `check_scores` refuses the scores.
    """
    if len(file_ids) != len(scores):
        raise ValueError(f"predictions and File_IDs must be equally many, got {len(scores)} and {len(file_ids)}")
    twice = pd.Index(file_ids)[pd.Index(file_ids).duplicated()].unique().tolist()
    if twice:
        raise ValueError(f"every File_ID must be predicted once, got several rows of {twice[:10]}")
    check_scores(scores, task, file_ids)


def write_atomically(path: Path, table: pd.DataFrame) -> None:
    """Write a table as CSV, so that a reader finds the old file or the whole new one; folders are made as needed.

    Floating-point numbers get the shortest text that reads back as the same number of their type.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(path) as draft:
        table.to_csv(draft, index=False, encoding="utf-8", lineterminator="\n")


def write_predictions(
    path: Path, file_ids: Sequence[str], splits: Sequence[str], scores: np.ndarray, task: TaskSpec
) -> None:
    """Write the predictions of a task: `file_id`, `split`, one column per label and, for classes, `prediction`.

    Args:
        path: File to write; an older one is replaced.
        file_ids: File_ID of each row, without brackets.
        splits: Split of each row.
        scores: Final scores of a regression, or class probabilities, of shape `(num_samples, num_labels)`.
        task: Names the columns.

    Raises:
        ValueError: If the rows do not fit together, occur twice, are not finite, or are no probabilities, or a label
            is called like another column.
    """
    check_rows(file_ids, scores, task)
    if len(splits) != len(file_ids):
        raise ValueError(f"{path}: splits and File_IDs must be equally many, got {len(splits)} and {len(file_ids)}")
    table = pd.DataFrame(scores, columns=list(task.labels))
    table.insert(0, "file_id", list(file_ids))
    table.insert(1, "split", list(splits))
    if task.is_classification:
        _check_probabilities(path, file_ids, scores)
        table.insert(len(table.columns), CLASS_COLUMN, predicted_classes(scores, task))
    write_atomically(path, table)


def predicted_classes(scores: np.ndarray, task: TaskSpec) -> list[str]:
    """Name of the class with the largest score in each row of `scores`, `(num_samples, num_labels)`."""
    return [task.labels[index] for index in scores.argmax(axis=1)]


def read_predictions(path: Path, task: TaskSpec) -> pd.DataFrame:
    """Read what `write_predictions` wrote; File_IDs, splits and classes are text, the rest float64.

    Raises:
        ValueError: If the columns are not those of the task, or a score is no number.
    """
    expected = ["file_id", "split", *task.labels] + [CLASS_COLUMN] * task.is_classification
    table = pd.read_csv(path, dtype=str, keep_default_na=False, encoding="utf-8")
    if list(table.columns) != expected:
        raise ValueError(f"{path}: columns must be {expected}, got {list(table.columns)}")
    try:
        return table.astype(dict.fromkeys(task.labels, np.float64))
    except ValueError as error:
        raise ValueError(f"{path}: scores must be numbers: {error}") from error


def _check_probabilities(path: Path, file_ids: Sequence[str], scores: np.ndarray) -> None:
    is_row = np.isclose(scores.sum(axis=1, dtype=np.float64), 1, atol=PROBABILITY_TOLERANCE) & (scores >= 0).all(axis=1)
    if not is_row.all():
        row = int(np.argmin(is_row))
        raise ValueError(
            f"{path}: class probabilities must be at least 0 and sum to 1 (softmax of the logits), "
            f"got {scores[row].tolist()} for {file_ids[row]}"
        )
