"""The challenge's own layout: `labels/<task>_info.csv` and `audio/*/<id>.<ext>`."""

import re
from collections import defaultdict
from pathlib import Path

from datasets import DatasetDict

from avb_hf.data.arguments import DataArguments
from avb_hf.data.clips import Clip, make_splits
from avb_hf.data.locations import check_inside, corpus_folder
from avb_hf.data.problems import raise_together
from avb_hf.data.tables import Row, Table, forbid_other_columns, read_table, rename_columns, require_columns
from avb_hf.tasks import TASKS, TaskSpec, check_choice, load_task

SPLIT_VALUES = {"Train": "train", "Val": "validation", "Test": "test"}
SPEAKER_COLUMNS = ("Speaker", "speaker")
FILE_ID = re.compile(r"\[([A-Za-z0-9_.-]+)\]|([A-Za-z0-9_.-]+)")


def infer_task(args: DataArguments) -> TaskSpec:
    """Return the task that `args.task` names.

    Raises:
        ValueError: If it names none.
    """
    if args.task is None:
        tasks = [name for name, task in TASKS.items() if task.label_file]
        raise ValueError(f"--source {args.source} needs --task, one of {tasks}")
    return load_task(args.task)


def load(task: TaskSpec, args: DataArguments) -> DatasetDict:
    """Read the task's label table, find its clips and check both.

    Args:
        task: One with a `label_file`.
        args: `data_dir` is the folder with `labels/` and `audio/`.

    Returns:
        The splits, as `make_splits` builds them, in the table's order.

    Raises:
        ValueError: If the table or any clip cannot be used; lists what is wrong.
    """
    folder = corpus_folder(args)
    if task.label_file is None:
        raise ValueError(f"task {task.name!r} has no label_file, which --source {args.source} needs")
    table = rename_columns(read_table(folder / "labels" / task.label_file), task.accepted_spellings)
    require_columns(table, ("File_ID", "Split", *task.label_columns))
    forbid_other_columns(table, ("File_ID", "Split", *task.label_columns, *SPEAKER_COLUMNS))
    return make_splits(_find_clips(table, task, folder), task, args, table.path)


def parse_file_id(cell: str) -> str:
    """Return a File_ID without its brackets.

    Raises:
        ValueError: If it has other characters than letters, digits, `_`, `.` and `-`, which could leave the folder.
    """
    match = FILE_ID.fullmatch(cell)
    if match is None:
        raise ValueError(f"File_ID must be of letters, digits, '_', '.' and '-', in brackets or not, got {cell!r}")
    return match[1] or match[2]


def _find_clips(table: Table, task: TaskSpec, folder: Path) -> list[Clip]:
    speaker_columns = [column for column in SPEAKER_COLUMNS if column in table.columns]
    if len(speaker_columns) > 1:
        raise ValueError(f"{table.path}: one speaker column at most, got {speaker_columns}")
    index = _index_audio(folder)
    clips, problems = [], []
    for row in table.rows:
        try:
            file_id = parse_file_id(row.cells["File_ID"])
            check_choice("Split", row.cells["Split"], tuple(SPLIT_VALUES))
            path = _only_file(index[file_id], file_id, folder)
            clips.append(
                Clip(
                    file_id,
                    path,
                    SPLIT_VALUES[row.cells["Split"]],
                    {column: row.cells[column] for column in task.label_columns},
                    row.place,
                    _speaker(row, speaker_columns),
                )
            )
        except ValueError as error:
            problems.append(f"{row.place}: {error}")
    raise_together(problems, str(table.path))
    return clips


def _index_audio(folder: Path) -> dict[str, list[Path]]:
    index = defaultdict(list)
    for path in sorted((folder / "audio").glob("*/*")):
        if not path.name.startswith(".") and path.is_file():
            index[path.stem].append(path)
    return index


def _only_file(paths: list[Path], file_id: str, folder: Path) -> Path:
    if not paths:
        raise ValueError(f"the audio file of File_ID {file_id} is missing: no {folder}/audio/*/{file_id}.*")
    if len(paths) > 1:
        raise ValueError(f"File_ID {file_id} has more than one audio file: {', '.join(map(str, paths))}")
    check_inside(paths[0], folder)
    return paths[0]


def _speaker(row: Row, columns: list[str]) -> str | None:
    if not columns:
        return None
    if not row.cells[columns[0]].strip():
        raise ValueError(f"{columns[0]} is empty")
    return row.cells[columns[0]]
