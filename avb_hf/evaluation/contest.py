"""The file that an A-VB contestant hands in: one row per test clip, in the organisers' own format."""

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from avb_hf.evaluation.prediction_files import check_rows, predicted_classes, write_atomically
from avb_hf.tasks import TaskSpec

TEAM_NAME = re.compile(r"[A-Za-z0-9-]+")
# What needs quoting in a CSV, or would blur the brackets around a File_ID.
UNFIT_IN_FILE_ID = re.compile(r"[\[\]\",\r\n]")


def contest_file_name(team_name: str, submission: int, task: TaskSpec) -> str:
    """Name of a contest file, for instance `A-VB-High_team_1.csv`.

    Args:
        team_name: Name of the team: letters, digits and hyphens, since underscores part the fields.
        submission: Number of the attempt, from 1.
        task: One of the contest's tasks.

    Raises:
        ValueError: If the task is none of the contest's, or team name or number do not fit in a file name.
    """
    if task.submission_name is None:
        raise ValueError(f"task {task.name!r} is no task of the A-VB contest (it has no submission_name)")
    if not TEAM_NAME.fullmatch(team_name):
        raise ValueError(f"team_name must consist of the letters a-z and A-Z, digits and hyphens, got {team_name!r}")
    if isinstance(submission, bool) or not isinstance(submission, int) or submission < 1:
        raise ValueError(f"submission must be a whole number from 1, got {submission!r}")
    return f"A-VB-{task.submission_name}_{team_name}_{submission}.csv"


def write_contest_file(
    folder: Path, team_name: str, submission: int, file_ids: Sequence[str], scores: np.ndarray, task: TaskSpec
) -> Path:
    """Write the contest file of a task, sorted by File_ID, and return its path.

    Scores of a regression that no activation bounds are brought into the range of its labels.

    Args:
        folder: Where to write; made if needed.
        team_name: See `contest_file_name`.
        submission: See `contest_file_name`.
        file_ids: File_ID of each test clip, without brackets.
        scores: Final scores of shape `(num_samples, num_labels)`; of a classification, logits or probabilities.
        task: One of the contest's tasks.

    Raises:
        ValueError: If there is no row, a row is unfit (see `check_rows`), a File_ID holds a bracket, comma, quote or
            line break, or the name is refused.
    """
    path = folder / contest_file_name(team_name, submission, task)
    check_rows(file_ids, scores, task)
    if not len(file_ids):
        raise ValueError(f"{path}: a contest file needs the predictions of the test clips, got none")
    unfit = [file_id for file_id in file_ids if not file_id or UNFIT_IN_FILE_ID.search(file_id)]
    if unfit:
        raise ValueError(f"{path}: File_IDs must have no bracket, comma, quote or line break, got {unfit[:10]}")
    table = _answers(scores, task)
    table.insert(0, "File_ID", list(file_ids))
    table = table.sort_values("File_ID")
    table["File_ID"] = "[" + table["File_ID"] + "]"
    write_atomically(path, table)
    return path


def _answers(scores: np.ndarray, task: TaskSpec) -> pd.DataFrame:
    if task.is_classification:
        return pd.DataFrame({task.class_column: predicted_classes(scores, task)})
    if task.label_range is not None:
        scores = scores.clip(*task.label_range)
    return pd.DataFrame(scores, columns=list(task.labels))
