"""The challenge's own layout: `labels/<task>_info.csv` and `audio/*/<id>.<ext>`."""

import os
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from avb_hf.data.arguments import DataArguments
from avb_hf.data.findings import Finding
from avb_hf.data.listing import Clip, Listing
from avb_hf.data.locations import LinkFollower, corpus_folder
from avb_hf.data.tables import (
    Row,
    Table,
    forbid_other_columns,
    read_table,
    refuse_table,
    rename_columns,
    require_columns,
)
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


def list_clips(task: TaskSpec, args: DataArguments, findings: list[Finding]) -> Listing:
    """Read the task's label table and find its clips.

    Args:
        task: One with a `label_file`.
        args: `data_dir` is the folder with `labels/` and `audio/`.
        findings: Takes up what is wrong with the table's rows.

    Returns:
        The clips in the table's order.

    Raises:
        ValueError: If the table cannot be read, or has other columns than the task's.
    """
    folder = corpus_folder(args)
    if task.label_file is None:
        raise ValueError(f"task {task.name!r} has no label_file, which --source {args.source} needs")
    table = rename_columns(read_table(folder / "labels" / task.label_file, findings), task.accepted_spellings)
    require_columns(table, ("File_ID", "Split", *task.label_columns))
    forbid_other_columns(table, ("File_ID", "Split", *task.label_columns, *SPEAKER_COLUMNS))
    order = [column for column in table.columns if column in task.label_columns]
    if order != list(task.label_columns):
        message = f"label columns should stand in the order {list(task.label_columns)}, they stand as {order}"
        findings.append(Finding("columns_out_of_order", message, path=str(table.path)))
    return _find_clips(table, task, folder, findings)


def parse_file_id(cell: str) -> str:
    """Return a File_ID without its brackets.

    Raises:
        ValueError: If it has other characters than letters, digits, `_`, `.` and `-`, which could leave the folder.
    """
    match = FILE_ID.fullmatch(cell)
    if match is None:
        raise ValueError(f"File_ID must be of letters, digits, '_', '.' and '-', in brackets or not, got {cell!r}")
    return match[1] or match[2]


def _find_clips(table: Table, task: TaskSpec, folder: Path, findings: list[Finding]) -> Listing:
    speaker_columns = [column for column in SPEAKER_COLUMNS if column in table.columns]
    if len(speaker_columns) > 1:
        raise refuse_table(table.path, f"one speaker column at most, got {speaker_columns}", "wrong_columns")
    index = _index_audio(folder)
    links = LinkFollower()
    clips: list[Clip] = []
    others: list[str] = []
    kept: list[int] = []
    for number, row in enumerate(table.select(["File_ID", "Split", *speaker_columns]).rows):
        cell = row.cells["File_ID"]
        try:
            file_id = parse_file_id(cell)
        except ValueError as error:
            kind = "escaping_path" if {"/", "\\"} & set(cell) else "bad_file_id"
            findings.append(Finding(kind, str(error), place=row.place))
            continue
        # Where there is none, a pattern that names no file: the audio's inspection will miss it.
        paths = index.get(file_id) or [str(folder / "audio" / "*" / f"{file_id}.*")]
        split = SPLIT_VALUES.get(row.cells["Split"])
        speaker = row.cells[speaker_columns[0]] if speaker_columns else None
        clips.append(Clip(file_id, paths[0], split, row.place, speaker))
        kept.append(number)
        others += paths[1:]
        findings += [
            Finding(kind, message, file_id, place=row.place)
            for kind, message in _check_row(row, paths, folder, speaker, links)
        ]
    cells = table.take(task.label_columns, kept)
    return Listing(clips, cells, table.path, folder=folder / "audio", others=tuple(others))


def _index_audio(folder: Path) -> dict[str, list[str]]:
    index = defaultdict(list)
    for parent in sorted(path for path in (folder / "audio").glob("*") if path.is_dir()):
        with os.scandir(parent) as entries:  # it knows without a further call which entries are files
            names = sorted(entry.name for entry in entries if not entry.name.startswith(".") and _is_file(entry))
        prefix = os.path.join(parent, "")
        for name in names:
            index[os.path.splitext(name)[0]].append(prefix + name)
    return index


def _is_file(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_file()
    except OSError:  # such as a link to itself: let the audio's inspection tell
        return True


def _check_row(
    row: Row, paths: list[str], folder: Path, speaker: str | None, links: LinkFollower
) -> Iterator[tuple[str, str]]:
    try:
        check_choice("Split", row.cells["Split"], tuple(SPLIT_VALUES))
    except ValueError as error:
        yield "unknown_split", str(error)
    if len(paths) > 1:
        yield "ambiguous_audio", f"has more than one audio file: {', '.join(paths)}"
    if not links.is_inside(paths[0], folder):
        yield "escaping_path", f"{paths[0]} leads out of the data folder {folder}"
    if speaker is not None and not speaker.strip():
        yield "bad_row", "the cell of the speaker is empty"
