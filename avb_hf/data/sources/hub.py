"""A dataset whose Parquet files hold the audio itself, on the Hugging Face Hub or in a folder."""

import logging
import re
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from avb_hf.data.arguments import DataArguments
from avb_hf.data.dataset_facts import read_facts
from avb_hf.data.dataset_folder import find_commit, find_dataset
from avb_hf.data.findings import CorpusError, Finding
from avb_hf.data.listing import Clip, Listing
from avb_hf.data.parquet_parts import ID_COLUMN, SPEAKER_COLUMN, Part, find_parts, read_cells
from avb_hf.data.sources.label_columns import describes_task, find_classes_as_numbers, make_task
from avb_hf.data.splits import SPLIT_NAMES, draw_by_class, draw_by_group
from avb_hf.data.tables import Row, Table, refuse_table
from avb_hf.tasks import TaskSpec, load_task

logger = logging.getLogger(__name__)

# Bytes of a group of rows above which a clip takes tens of milliseconds to read.
LARGE_GROUP = 32_000_000
_DRAWN = "dataset %s has no validation split: %d of its %d train clips become one, drawn by --split_seed %d"
_SLOW = "%s: a clip is read with its group of rows, and groups of up to %.0f MB make that slow in training"


def infer_task(args: DataArguments) -> TaskSpec:
    """Return the task that `args.task` names, make one from the label columns, or take the one that was published.

    Raises:
        ValueError: If flags are missing or contradict each other or the dataset, or there is no such dataset.
    """
    folder, is_described = _find_folder(args), describes_task(args)
    tasks = read_facts(folder).tasks
    if args.task is not None:
        return tasks.get(args.task) or load_task(args.task)
    if not is_described and len(tasks) == 1:
        return next(iter(tasks.values()))
    if not args.label_columns:
        there = f"; it holds the labels of the tasks {list(tasks)}" if tasks else ", or --label_columns"
        raise ValueError(f"--dataset_name {args.dataset_name} needs --task{there}")
    parts = _find_split_parts(folder)
    return make_task(_read(parts, args.label_columns, args), _splits_of(parts), args)


def resolve_commit(args: DataArguments) -> str | None:
    """Return the commit that the dataset is at, of which nothing large is downloaded; None where it is a folder.

    Raises:
        ValueError: If flags are missing or contradict each other, or there is no such dataset.
        OSError: If the Hub cannot be reached, and the dataset is not in the cache.
    """
    return find_commit(_check_name(args), args.dataset_revision)


def draws_split(args: DataArguments) -> bool:
    """Whether the dataset has no validation split, so that `list_clips` draws one."""
    return "validation" not in _splits_of(_find_split_parts(_find_folder(args)))


def list_clips(task: TaskSpec, args: DataArguments, findings: list[Finding]) -> Listing:
    """List the rows of a dataset's files.

    Args:
        task: What the label columns mean.
        args: Which dataset, and its columns; File_IDs stand in the column `file_id` and speakers in `speaker`, unless
            flags name others. Without a column, a clip's File_ID is its place. Where no file is of the validation
            split, `split_seed` draws 15 % of the train split for it, disjoint by speaker where speakers are known, else
            the same of every class.
        findings: Takes up what is wrong with the rows.

    Returns:
        The clips in the order of the files' names and rows.

    Raises:
        ValueError: If there is no such dataset, a file cannot be read or lacks a column, its name says no split, or no
            file is of the train split, or too little to draw from it.
    """
    folder = _find_folder(args)
    logger.info("dataset %s is in %s", args.dataset_name, folder)
    parts = _find_split_parts(folder)
    largest = max(part.group_bytes for part in parts)
    if largest > LARGE_GROUP:
        logger.warning(_SLOW, args.dataset_name, largest / 1e6)
    id_column = args.id_column or _if_everywhere(ID_COLUMN, parts)
    speaker_column = args.speaker_column or _if_everywhere(SPEAKER_COLUMN, parts)
    named = [column for column in (id_column, speaker_column) if column is not None]
    table = _read(parts, [*named, *task.label_columns], args)
    splits = _fill_validation(_splits_of(parts), table, task, speaker_column, args)
    findings += find_classes_as_numbers(table, splits, task, args)
    paths = [part.path(number) for part in parts for number in range(1, part.num_rows + 1)]
    places = [f"{part.name}/{number}" for part in parts for number in range(1, part.num_rows + 1)]
    clips, kept = [], []
    for number, row in enumerate(table.rows):
        problem = _check_row(row, named)
        if problem is None:
            file_id = row.cells[id_column] if id_column else places[number]
            speaker = row.cells[speaker_column] if speaker_column else None
            clips.append(Clip(file_id, paths[number], splits[number], row.place, speaker))
            kept.append(number)
        else:
            findings.append(problem)
    cells = table.take(task.label_columns, kept)
    return Listing(clips, cells, table.path, task.name in read_facts(folder).scored_tests, folder)


def _find_folder(args: DataArguments) -> Path:
    return find_dataset(_check_name(args), args.dataset_revision)


def _check_name(args: DataArguments) -> str:
    if args.dataset_name is None:
        raise ValueError("--source hub needs --dataset_name, an id on the Hub or a folder of Parquet files")
    if args.data_dir is not None:
        raise ValueError(f"--source hub takes no --data_dir, got {args.data_dir!r}; the folder is the --dataset_name")
    return args.dataset_name


def _find_split_parts(folder: Path) -> list[Part]:
    """Return the files of a dataset, those of each split in one folder, else they are several datasets."""
    parts = find_parts(folder)
    folders: dict[str, set[str]] = {}
    for part in parts:
        folders.setdefault(_split_of(part), set()).add(str(part.file.parent))
    for split, found in folders.items():
        if len(found) > 1:
            message = (
                f"holds several datasets: there are files of the {split} split in {sorted(found)}; name one folder"
            )
            raise CorpusError([Finding("unknown_split", message, path=str(folder))])
    return parts


def _split_of(part: Part) -> str:
    """Return the split with which the file's name begins, or that of a folder above it."""
    name = PurePosixPath(part.name)
    for word in (name.stem, *(folder.name for folder in name.parents)):
        letters = re.match("[a-z]*", word.lower())
        if letters is not None and letters[0] in SPLIT_NAMES:
            return SPLIT_NAMES[letters[0]]
    message = f"its name, or its folder's, must begin with the split, one of {list(SPLIT_NAMES)}"
    raise refuse_table(part.file, message, "unknown_split")


def _splits_of(parts: Sequence[Part]) -> list[str]:
    return [split for part in parts for split in [_split_of(part)] * part.num_rows]


def _fill_validation(
    splits: Sequence[str], table: Table, task: TaskSpec, speaker_column: str | None, args: DataArguments
) -> list[str]:
    """Draw a validation split out of the train split where there is none, as a manifest's is drawn."""
    if "train" not in splits:
        message = "no clip is in the train split: the name of a file, or its folder's, must begin with train"
        raise CorpusError([Finding("empty_split", message, path=str(table.path))])
    if "validation" in splits:
        return list(splits)
    column = speaker_column or (task.label_columns[0] if task.is_classification else None)
    keys = table.column(column) if column else [""] * len(splits)
    train = [number for number, split in enumerate(splits) if split == "train"]
    draw = draw_by_group if speaker_column else draw_by_class
    drawn = dict(zip(train, draw([keys[number] for number in train], args.split_seed), strict=True))
    held_out = {number for number, split in drawn.items() if split == "validation"}
    logger.warning(_DRAWN, args.dataset_name, len(held_out), len(train), args.split_seed)
    return ["validation" if number in held_out else split for number, split in enumerate(splits)]


def _if_everywhere(column: str, parts: Sequence[Part]) -> str | None:
    return column if all(column in part.columns for part in parts) else None


def _read(parts: Sequence[Part], columns: Sequence[str], args: DataArguments) -> Table:
    places = [f"{part.name}, row {number}" for part in parts for number in range(1, part.num_rows + 1)]
    return Table(Path(str(args.dataset_name)), places, read_cells(parts, columns))


def _check_row(row: Row, columns: Sequence[str]) -> Finding | None:
    empty = [column for column in columns if not row.cells[column].strip()]
    return Finding("bad_row", f"{empty[0]} is empty", place=row.place) if empty else None
