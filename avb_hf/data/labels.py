"""From the text of label cells to numbers and classes."""

import math
from collections.abc import Mapping, Sequence

import numpy as np

from avb_hf.tasks import TaskSpec, check_choice

MISSING_CLASS = -100
# What a spreadsheet, pandas or R writes for a label that was not given.
MISSING_CELLS = ("", "nan", "na")

Labels = list[float] | int


def is_missing(cell: str) -> bool:
    """Whether a cell says that a label was not given."""
    return cell.strip().lower() in MISSING_CELLS


def parse_labels(cells: Mapping[str, str], task: TaskSpec, allow_missing: bool) -> Labels:
    """Parse the label cells of one row.

    Args:
        cells: Text by column; the task's label columns are among them.
        task: What the columns mean.
        allow_missing: Whether an empty or NaN cell means "not rated".

    Returns:
        One number per label, NaN where missing; for a classification the class's index, -100 where missing.

    Raises:
        ValueError: If a label is missing but must not be, no number, out of range, or an unknown class.
    """
    if task.is_classification:
        return _parse_class(cells[task.label_columns[0]], task, allow_missing)
    return [_parse_number(label, cells[label], task, allow_missing) for label in task.labels]


def missing_labels(task: TaskSpec) -> Labels:
    """Return the labels of a row that has none."""
    return MISSING_CLASS if task.is_classification else [math.nan] * len(task.labels)


def labels_vary(labels: Sequence[Labels]) -> bool:
    """Whether any column of labels holds two different values, missing ones left out: placeholders do not."""
    columns = np.asarray(labels, dtype=np.float64).reshape(len(labels), -1)
    columns = np.where(columns == MISSING_CLASS, np.nan, columns) if isinstance(labels[0], int) else columns
    return any(len(np.unique(column[~np.isnan(column)])) > 1 for column in columns.T)


def _parse_class(cell: str, task: TaskSpec, allow_missing: bool) -> int:
    if cell not in task.labels and is_missing(cell):
        if not allow_missing:
            raise ValueError(_refuse_missing(str(task.class_column), cell))
        return MISSING_CLASS
    check_choice(f"class {task.class_column}", cell, task.labels)
    return task.labels.index(cell)


def _parse_number(label: str, cell: str, task: TaskSpec, allow_missing: bool) -> float:
    if is_missing(cell):
        if not allow_missing:
            raise ValueError(_refuse_missing(label, cell))
        return math.nan
    try:
        value = float(cell)
    except ValueError:
        raise ValueError(f"label {label} must be a number, got {cell!r}") from None
    if not math.isfinite(value):
        raise ValueError(f"label {label} must be finite, got {cell!r}")
    low, high = task.label_range or (-math.inf, math.inf)
    if not low <= value <= high:
        hint = (
            "; labels on a scale of 1-9 must be mapped to [0, 1] first" if (low, high) == (0, 1) and value <= 9 else ""
        )
        raise ValueError(f"label {label} = {value:g} is outside label_range [{low:g}, {high:g}] (--label_range){hint}")
    return value


def _refuse_missing(column: str, cell: str) -> str:
    return f"label {column} is missing ({cell!r}), which task and --allow_missing_labels do not allow"
