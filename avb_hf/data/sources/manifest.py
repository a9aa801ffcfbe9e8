"""Any CSV, TSV or Parquet table with one clip a row."""

from pathlib import Path

from avb_hf.data.arguments import DataArguments
from avb_hf.data.findings import Finding
from avb_hf.data.listing import Clip, Listing
from avb_hf.data.locations import LinkFollower, corpus_folder
from avb_hf.data.sources.label_columns import describes_task, find_classes_as_numbers, make_task
from avb_hf.data.splits import draw_by_class, draw_by_group, parse_split
from avb_hf.data.tables import Row, Table, read_table, rename_columns, require_columns
from avb_hf.tasks import TaskSpec, load_task


def infer_task(args: DataArguments) -> TaskSpec:
    """Return the task that `args.task` names, or make one from the label columns.

    Raises:
        ValueError: If flags are missing or contradict each other or the table.
    """
    if not describes_task(args) and args.task is not None:
        return load_task(args.task)
    if not args.label_columns:
        raise ValueError("--source manifest needs --task, or --label_columns with the table's label columns")
    elsewhere: list[Finding] = []  # `list_clips` reads the table again and reports its rows
    table = _read(args, elsewhere)
    require_columns(table, args.label_columns)
    splits = _read_splits(table, args, elsewhere) if args.split_column else ["train"] * len(table)
    return make_task(table, splits, args)


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
    findings += find_classes_as_numbers(table, splits, task, args)
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
