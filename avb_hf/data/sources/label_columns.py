"""A task made of the label columns that flags name: what they hold decides what kind of task it is."""

from collections.abc import Iterable, Sequence
from typing import Any

from avb_hf.data.arguments import DataArguments
from avb_hf.data.classes import find_numbered_classes
from avb_hf.data.findings import Finding
from avb_hf.data.labels import is_missing
from avb_hf.data.tables import Table, refuse_table
from avb_hf.tasks import TaskSpec, task_from_mapping

TASK_FLAGS = ("label_columns", "class_names", "problem_type", "label_range")


def describes_task(args: DataArguments) -> bool:
    """Whether flags describe the labels.

    Raises:
        ValueError: If a task is named as well.
    """
    described = [flag for flag in TASK_FLAGS if getattr(args, flag) is not None]
    if args.task is not None and described:
        raise ValueError(f"--task {args.task} says what the labels are; leave out --{' and --'.join(described)}")
    return bool(described)


def make_task(table: Table, splits: Sequence[str | None], args: DataArguments) -> TaskSpec:
    """Make a task of a table's label columns.

    One column of text is a classification; columns of numbers are a regression with the CCC loss and no range. Cells of
    test rows do not count: they may be placeholders.

    Args:
        table: Has the label columns; its path names the task.
        splits: Split of each row.
        args: `label_columns`, which must be given, and what else describes them.

    Raises:
        ValueError: If flags contradict each other or the table.
    """
    cells = {column: _rated_cells(table, column, splits) for column in args.label_columns or ()}
    problem_type = args.problem_type or _infer_problem_type(cells, table, args)
    is_classification = problem_type == "single_label_classification"
    fields = _class_fields(cells, table, args) if is_classification else _number_fields(args)
    fields |= {"problem_type": problem_type, "allow_missing": args.allow_missing_labels}
    return task_from_mapping(fields, str(table.path))


def find_classes_as_numbers(
    table: Table, splits: Sequence[str | None], task: TaskSpec, args: DataArguments
) -> Iterable[Finding]:
    """Find out whether the one column of a regression that was inferred looks like classes.

    Args:
        table: Has the label column.
        splits: Split of each row.
        task: The task.
        args: What was said about the labels.
    """
    was_said = any(value is not None for value in (args.task, args.problem_type, args.label_range))
    if was_said or task.is_classification or len(task.labels) > 1:
        return ()
    return find_numbered_classes(task.labels[0], _rated_cells(table, task.labels[0], splits))


def _rated_cells(table: Table, column: str, splits: Sequence[str | None]) -> list[str]:
    return [cell for cell, split in zip(table.column(column), splits, strict=True) if split != "test"]


def _infer_problem_type(cells: dict[str, list[str]], table: Table, args: DataArguments) -> str:
    if args.class_names:
        return "single_label_classification"
    numbers, texts = {}, {}
    for column, values in cells.items():
        given = [value for value in values if not is_missing(value)]
        numbers[column] = [value for value in given if _is_number(value)]
        texts[column] = [value for value in given if not _is_number(value)]
    for column in cells:
        if numbers[column] and texts[column]:
            message = (
                f"column {column} mixes numbers with text ({texts[column][0]!r}); say with --problem_type what it is"
            )
            raise refuse_table(table.path, message, "bad_label")
    with_text = [column for column in cells if texts[column]]
    if with_text and len(cells) > 1:
        raise ValueError(f"{table.path}: several label columns must hold numbers, these hold text: {with_text}")
    return "single_label_classification" if with_text else "regression"


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _class_fields(cells: dict[str, list[str]], table: Table, args: DataArguments) -> dict[str, Any]:
    if len(cells) != 1:
        raise ValueError(f"a classification has one label column, got --label_columns {list(cells)}")
    if args.label_range is not None:
        raise ValueError("--label_range belongs to a regression, the label column holds classes")
    ((column, values),) = cells.items()
    found = sorted({value for value in values if not is_missing(value)})
    if not args.class_names and len(found) < 2:
        message = f"column {column} holds the classes {found}; a classification needs two or more"
        raise refuse_table(table.path, message, "too_few_classes")
    return {"labels": args.class_names or found, "class_column": column}


def _number_fields(args: DataArguments) -> dict[str, Any]:
    if args.class_names is not None:
        raise ValueError("--class_names belongs to a classification, the labels are a regression's")
    if args.label_range is not None and len(args.label_range) != 2:
        raise ValueError(f"--label_range takes the lowest and the highest label, got {args.label_range}")
    return {"labels": args.label_columns, "label_range": args.label_range}
