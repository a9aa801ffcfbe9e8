"""Any CSV, TSV or Parquet table with one clip a row."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from avb_hf.data.arguments import DataArguments
from avb_hf.data.classes import find_numbered_classes
from avb_hf.data.findings import Finding
from avb_hf.data.labels import is_missing
from avb_hf.data.listing import Clip, Listing
from avb_hf.data.locations import LinkFollower, corpus_folder
from avb_hf.data.splits import draw_by_class, draw_by_group, parse_split
from avb_hf.data.tables import Row, Table, read_table, refuse_table, rename_columns, require_columns
from avb_hf.tasks import TaskSpec, load_task, task_from_mapping

TASK_FLAGS = ("label_columns", "class_names", "problem_type", "label_range")


def infer_task(args: DataArguments) -> TaskSpec:
    """Return the task that `args.task` names, or make one from the label columns.

    One column of text is a classification; columns of numbers are a regression with the CCC loss and no range. Cells of
    test rows do not count: they may be placeholders.

    Raises:
        ValueError: If flags are missing or contradict each other or the table.
    """
    described = [flag for flag in TASK_FLAGS if getattr(args, flag) is not None]
    if args.task is not None:
        if described:
            raise ValueError(f"--task {args.task} says what the labels are; leave out --{' and --'.join(described)}")
        return load_task(args.task)
    if not args.label_columns:
        raise ValueError("--source manifest needs --task, or --label_columns with the table's label columns")
    elsewhere: list[Finding] = []  # `list_clips` reads the table again and reports its rows
    table = _read(args, elsewhere)
    require_columns(table, args.label_columns)
    splits = _read_splits(table, args, elsewhere) if args.split_column else ["train"] * len(table)
    cells = {column: _rated_cells(table, column, splits) for column in args.label_columns}
    problem_type = args.problem_type or _infer_problem_type(cells, args)
    fields = _class_fields(cells, args) if problem_type == "single_label_classification" else _number_fields(args)
    fields |= {"problem_type": problem_type, "allow_missing": args.allow_missing_labels}
    return task_from_mapping(fields, str(args.manifest))


def draws_split(args: DataArguments) -> bool:
    """Whether the manifest has no split column, so that `list_clips` draws the split."""
    return args.split_column is None


def list_clips(task: TaskSpec, args: DataArguments, findings: list[Finding]) -> Listing:
    """Read the manifest.

    Args:
        task: What the label columns mean.
        args: Which columns to read, what relative paths are relative to (`data_dir`, else the manifest's folder), and
            the seed of the split where there is no split column: 70/15/15, disjoint by speaker where there is a speaker
            column, else the same in every class.
        findings: Takes up what is wrong with the table's rows.

    Returns:
        The clips in the manifest's order.

    Raises:
        ValueError: If the table cannot be read, lacks a column, or no split can be drawn.
    """
    table = rename_columns(_read(args, findings), task.accepted_spellings)
    named = [args.path_column, args.id_column, args.split_column, args.speaker_column, *task.label_columns]
    require_columns(table, [column for column in named if column is not None])
    splits = _draw_splits(table, task, args) if draws_split(args) else _read_splits(table, args, findings)
    findings += _find_numbered_classes(table, splits, task, args)
    folder = table.path.parent if args.data_dir is None else corpus_folder(args)
    clips, kept, links = [], [], LinkFollower()
    for number, (row, split) in enumerate(zip(table.rows, splits, strict=True)):
        problem = _check_row(row, args, folder, links)
        if problem is None:
            clips.append(_make_clip(row, split, args, folder))
            kept.append(number)
        else:
            findings.append(problem)
    cells = table.take(task.label_columns, kept)
    return Listing(clips, cells, table.path, draws_split(args), folder if args.data_dir is not None else None)


def _read(args: DataArguments, findings: list[Finding]) -> Table:
    if args.manifest is None:
        raise ValueError("--source manifest needs --manifest, a CSV, TSV or Parquet table")
    return read_table(Path(args.manifest), findings)


def _infer_problem_type(cells: dict[str, list[str]], args: DataArguments) -> str:
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
            raise refuse_table(Path(str(args.manifest)), message, "bad_label")
    with_text = [column for column in cells if texts[column]]
    if with_text and len(cells) > 1:
        raise ValueError(f"{args.manifest}: several label columns must hold numbers, these hold text: {with_text}")
    return "single_label_classification" if with_text else "regression"


def _rated_cells(table: Table, column: str, splits: Sequence[str | None]) -> list[str]:
    return [cell for cell, split in zip(table.column(column), splits, strict=True) if split != "test"]


def _find_numbered_classes(
    table: Table, splits: Sequence[str | None], task: TaskSpec, args: DataArguments
) -> Iterable[Finding]:
    was_said = any(value is not None for value in (args.task, args.problem_type, args.label_range))
    if was_said or task.is_classification or len(task.labels) > 1:
        return ()
    return find_numbered_classes(task.labels[0], _rated_cells(table, task.labels[0], splits))


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _class_fields(cells: dict[str, list[str]], args: DataArguments) -> dict[str, Any]:
    if len(cells) != 1:
        raise ValueError(f"a classification has one label column, got --label_columns {list(cells)}")
    if args.label_range is not None:
        raise ValueError("--label_range belongs to a regression, the label column holds classes")
    ((column, values),) = cells.items()
    found = sorted({value for value in values if not is_missing(value)})
    if not args.class_names and len(found) < 2:
        message = f"column {column} holds the classes {found}; a classification needs two or more"
        raise refuse_table(Path(str(args.manifest)), message, "too_few_classes")
    return {"labels": args.class_names or found, "class_column": column}


def _number_fields(args: DataArguments) -> dict[str, Any]:
    if args.class_names is not None:
        raise ValueError("--class_names belongs to a classification, the labels are a regression's")
    if args.label_range is not None and len(args.label_range) != 2:
        raise ValueError(f"--label_range takes the lowest and the highest label, got {args.label_range}")
    return {"labels": args.label_columns, "label_range": args.label_range}


def _read_splits(table: Table, args: DataArguments, findings: list[Finding]) -> list[str | None]:
    require_columns(table, [str(args.split_column)])
    splits: list[str | None] = []
    for row in table.rows:
        try:
            splits.append(parse_split(row.cells[str(args.split_column)]))
        except ValueError as error:
            splits.append(None)
            findings.append(Finding("unknown_split", str(error), place=row.place))
    return splits


def _draw_splits(table: Table, task: TaskSpec, args: DataArguments) -> list[str]:
    if args.speaker_column is not None:
        return draw_by_group(table.column(args.speaker_column), args.split_seed)
    classes = table.column(task.label_columns[0]) if task.is_classification else [""] * len(table)
    return draw_by_class(classes, args.split_seed)


def _check_row(row: Row, args: DataArguments, folder: Path, links: LinkFollower) -> Finding | None:
    for column in (args.path_column, args.id_column, args.speaker_column):
        if column is not None and not row.cells[column].strip():
            return Finding("bad_row", f"{column} is empty", place=row.place)
    file_id = row.cells[args.id_column or args.path_column]
    path = Path(row.cells[args.path_column])
    if "\0" in str(path):
        return Finding("bad_row", f"{args.path_column} holds a NUL, which no path does", file_id, place=row.place)
    if not path.is_absolute() and not links.is_inside(folder / path, folder):
        remedy = "give --data_dir, the folder that holds all clips, or absolute paths"
        message = f"{folder / path} leads out of the data folder {folder}; {remedy}"
        return Finding("escaping_path", message, file_id, place=row.place)
    return None


def _make_clip(row: Row, split: str | None, args: DataArguments, folder: Path) -> Clip:
    return Clip(
        file_id=row.cells[args.id_column or args.path_column],
        path=str(folder / row.cells[args.path_column]),
        split=split,
        place=row.place,
        speaker=row.cells[args.speaker_column] if args.speaker_column else None,
    )
