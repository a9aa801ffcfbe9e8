"""From the text of label cells to numbers and classes."""

import math
from collections.abc import Collection, Sequence

import numpy as np
import pyarrow as pa

from avb_hf.data.tables import as_texts
from avb_hf.tasks import TaskSpec, check_choice

MISSING_CLASS = -100
# What a spreadsheet, pandas or R writes for a label that was not given.
MISSING_CELLS = ("", "nan", "na")


class LabelError(ValueError):
    """A label that cannot be used.

    Args:
        kind: Key of `avb_hf.data.findings.KINDS`.
        message: What is wrong with it.
    """

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(kind, message)
        self.kind, self.message = kind, message

    def __str__(self) -> str:
        return self.message


def is_missing(cell: str) -> bool:
    """Whether a cell says that a label was not given."""
    return cell.strip().lower() in MISSING_CELLS


def is_given(labels: np.ndarray, task: TaskSpec) -> np.ndarray:
    """Whether each number or class index is there, rather than missing."""
    return labels != MISSING_CLASS if task.is_classification else np.isfinite(labels)


def missing_label(task: TaskSpec) -> float | int:
    """Return what stands for a label that is missing."""
    return MISSING_CLASS if task.is_classification else math.nan


def parse_labels(cells: pa.Table, task: TaskSpec) -> np.ndarray:
    """Parse the label cells of all rows; `find_bad_labels` tells which of them cannot be used.

    Args:
        cells: Text by column; the task's label columns are among them.
        task: What the columns mean.

    Returns:
        Numbers of shape `(rows, labels)`, NaN where the cell holds no finite one; for a classification the class's
        index, `(rows,)`, -100 where the cell holds none of the task's.
    """
    if not task.is_classification:
        return np.column_stack([_numbers(as_texts(cells[label])) for label in task.labels])
    index = {name: number for number, name in enumerate(task.labels)}
    return np.array([index.get(cell, MISSING_CLASS) for cell in as_texts(cells[task.label_columns[0]])], dtype=np.int64)


def find_bad_labels(
    cells: pa.Table, labels: np.ndarray, task: TaskSpec, allow_missing: bool, unranged: Collection[str] = ()
) -> dict[int, LabelError]:
    """Find the rows whose labels cannot be used.

    Args:
        cells: Text by column.
        labels: What `parse_labels` makes of it.
        task: What the columns mean.
        allow_missing: Whether an empty or NaN cell means "not rated".
        unranged: Columns whose numbers may be outside the task's range.

    Returns:
        For each such row, in order, the error of the first label that is missing but must not be, no number, out of
        range, or an unknown class.
    """
    errors: dict[int, LabelError] = {}
    for column, values in zip(task.label_columns, np.atleast_2d(labels.T), strict=True):
        low, high = (None if column in unranged else task.label_range) or (-math.inf, math.inf)
        in_range = is_given(values, task) & (values >= low) & (values <= high)
        texts = as_texts(cells[column])
        for row in np.flatnonzero(~in_range).tolist():
            if row not in errors and not (allow_missing and is_missing(texts[row])):
                errors[row] = _explain(column, texts[row], values[row], task)
    return dict(sorted(errors.items()))


def columns_on_1_9_scale(labels: np.ndarray, task: TaskSpec) -> list[str]:
    """Return the label columns that look rated on a scale of 1-9 though the task's range is [0, 1].

    They are those of which nine in ten numbers or more lie in 1-9, and not all of these at 1.

    Args:
        labels: Numbers as `parse_labels` gives them.
        task: What they mean.
    """
    if task.label_range != (0, 1):
        return []
    columns = []
    for label, values in zip(task.labels, labels.T, strict=True):
        numbers = values[is_given(values, task)]
        on_scale = numbers[(numbers >= 1) & (numbers <= 9)]
        if on_scale.size and on_scale.max() > 1 and on_scale.size >= 0.9 * numbers.size:
            columns.append(label)
    return columns


def labels_vary(labels: np.ndarray, task: TaskSpec) -> bool:
    """Whether any column of labels holds two different values, missing ones left out: placeholders do not."""
    return any(len(np.unique(column[is_given(column, task)])) > 1 for column in np.atleast_2d(labels.T))


def _explain(column: str, cell: str, value: float, task: TaskSpec) -> LabelError:
    """Return what is wrong with a cell that is missing, holds no number or class, or a number out of range."""
    if is_missing(cell):
        message = f"label {column} is missing ({cell!r}), which task and --allow_missing_labels do not allow"
        return LabelError("missing_label", message)
    if task.is_classification:
        return _explain_class(column, cell, task)
    if task.label_range is None or math.isnan(value):
        return LabelError("bad_label", f"label {column} must be a finite number, got {cell!r}")
    low, high = task.label_range
    hint = "; labels on a scale of 1-9 must be mapped to [0, 1] first" if (low, high) == (0, 1) and value <= 9 else ""
    message = f"label {column} = {value:g} is outside label_range [{low:g}, {high:g}] (--label_range){hint}"
    return LabelError("label_out_of_range", message)


def _explain_class(column: str, cell: str, task: TaskSpec) -> LabelError:
    try:
        check_choice(f"class {column}", cell, task.labels)
    except ValueError as error:
        message = str(error)
    return LabelError("unknown_class", message)


def _numbers(cells: Sequence[str]) -> np.ndarray:
    """Return the number in each cell, NaN where there is no finite one."""
    try:
        numbers = np.array(cells, dtype=np.float64)
    except ValueError:
        numbers = np.array([_number(cell) for cell in cells])
    return np.where(np.isfinite(numbers), numbers, np.nan)


def _number(cell: str) -> float:
    try:
        return float(cell)
    except ValueError:
        return math.nan
