"""From the text of label cells to numbers and classes."""

import math
from collections.abc import Collection, Mapping, Sequence

import numpy as np

from avb_hf.tasks import TaskSpec, check_choice

MISSING_CLASS = -100
# What a spreadsheet, pandas or R writes for a label that was not given.
MISSING_CELLS = ("", "nan", "na")

Labels = list[float] | int


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


def parse_labels(
    cells: Mapping[str, str], task: TaskSpec, allow_missing: bool, unranged: Collection[str] = ()
) -> Labels:
    """Parse the label cells of one row.

    Args:
        cells: Text by column; the task's label columns are among them.
        task: What the columns mean.
        allow_missing: Whether an empty or NaN cell means "not rated".
        unranged: Columns whose numbers may be outside the task's range.

    Returns:
        One number per label, NaN where missing; for a classification the class's index, -100 where missing.

    Raises:
        LabelError: If a label is missing but must not be, no number, out of range, or an unknown class.
    """
    if task.is_classification:
        return _parse_class(cells[task.label_columns[0]], task, allow_missing)
    return [
        _parse_number(label, cells[label], None if label in unranged else task.label_range, allow_missing)
        for label in task.labels
    ]


def missing_labels(task: TaskSpec) -> Labels:
    """Return the labels of a row that has none."""
    return MISSING_CLASS if task.is_classification else [math.nan] * len(task.labels)


def columns_on_1_9_scale(rows: Sequence[Mapping[str, str]], task: TaskSpec) -> list[str]:
    """Return the label columns that look rated on a scale of 1-9 though the task's range is [0, 1].

    They are those of which nine in ten numbers or more lie in 1-9, and not all of these at 1.
    """
    if task.label_range != (0, 1):
        return []
    columns = []
    for label in task.labels:
        numbers = _numbers([row[label] for row in rows])
        on_scale = numbers[(numbers >= 1) & (numbers <= 9)]
        if on_scale.size and on_scale.max() > 1 and on_scale.size >= 0.9 * numbers.size:
            columns.append(label)
    return columns


def labels_vary(labels: Sequence[Labels]) -> bool:
    """Whether any column of labels holds two different values, missing ones left out: placeholders do not."""
    columns = np.asarray(labels, dtype=np.float64).reshape(len(labels), -1)
    columns = np.where(columns == MISSING_CLASS, np.nan, columns) if isinstance(labels[0], int) else columns
    return any(len(np.unique(column[~np.isnan(column)])) > 1 for column in columns.T)


def _parse_class(cell: str, task: TaskSpec, allow_missing: bool) -> int:
    if cell not in task.labels and is_missing(cell):
        if not allow_missing:
            raise _missing(str(task.class_column), cell)
        return MISSING_CLASS
    try:
        check_choice(f"class {task.class_column}", cell, task.labels)
    except ValueError as error:
        raise LabelError("unknown_class", str(error)) from None
    return task.labels.index(cell)


def _parse_number(label: str, cell: str, label_range: tuple[float, float] | None, allow_missing: bool) -> float:
    low, high = label_range or (-math.inf, math.inf)
    value = _number(cell)
    if value is not None and low <= value <= high:
        return value
    if is_missing(cell):
        if not allow_missing:
            raise _missing(label, cell)
        return math.nan
    if value is None:
        raise LabelError("bad_label", f"label {label} must be a finite number, got {cell!r}")
    hint = "; labels on a scale of 1-9 must be mapped to [0, 1] first" if (low, high) == (0, 1) and value <= 9 else ""
    message = f"label {label} = {value:g} is outside label_range [{low:g}, {high:g}] (--label_range){hint}"
    raise LabelError("label_out_of_range", message)


def _number(cell: str) -> float | None:
    try:
        value = float(cell)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _numbers(cells: Sequence[str]) -> np.ndarray:
    """Return the finite numbers among cells, in their order."""
    try:
        numbers = np.array(cells, dtype=np.float64)
    except ValueError:
        numbers = np.array([value for cell in cells if (value := _number(cell)) is not None])
    return numbers[np.isfinite(numbers)]


def _missing(column: str, cell: str) -> LabelError:
    message = f"label {column} is missing ({cell!r}), which task and --allow_missing_labels do not allow"
    return LabelError("missing_label", message)
