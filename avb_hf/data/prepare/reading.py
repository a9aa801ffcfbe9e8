"""How a prepared corpus is read back, and whose labels it holds."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from avb_hf.data.arguments import CorpusArguments, DataArguments
from avb_hf.data.prepare.arguments import PrepareArguments
from avb_hf.data.prepare.path_tables import ID_COLUMN, followed
from avb_hf.data.prepare.publish_arguments import PublishArguments
from avb_hf.data.prepare.record import read_record
from avb_hf.data.sources import infer_task, list_clips
from avb_hf.data.tables import read_table, require_columns
from avb_hf.tasks import TASKS, TaskSpec

_NO_LIMIT = 1e6  # seconds


def reading_arguments(raw: Path, out: Path, args: PrepareArguments, publish: PublishArguments) -> DataArguments:
    """Return the flags by which training would read a prepared corpus, whatever the length of its clips.

    Args:
        raw: The folder with the recordings, absolute.
        out: The folder with the prepared clips, absolute.
        args: How they were prepared, and by which manifest they are named.
        publish: What their labels are.

    Raises:
        ValueError: If the corpus is a manifest's, and not one manifest was prepared.
    """
    flags = _manifest_flags(raw, out, args) if publish.source == "manifest" else {}
    return _reading(out, publish, flags)


def check_reading(raw: Path, args: PrepareArguments, publish: PublishArguments) -> None:
    """Check, before the work, that the flags say how its result is read: by what RAW holds, of which no audio is read.

    Args:
        raw: The folder with the recordings, absolute.
        args: How they will be prepared, and by which manifest they are named.
        publish: What their labels are.

    Raises:
        ValueError: If a flag or a table cannot be used.
    """
    flags: dict[str, Any] = {}
    if publish.source == "manifest":
        flags = {"manifest": _one_manifest(args), "path_column": args.path_column, "id_column": args.id_column}
    reading = _reading(raw, publish, flags)
    for task in find_tasks(reading).values():
        if publish.source != "emogator":  # whose clips have their names, and suffix, only in OUT
            list_clips(task, reading, [])


def find_tasks(reading: DataArguments) -> dict[str, TaskSpec]:
    """Return the tasks whose labels a prepared corpus holds, by name: the one that flags say, or all in `labels/`.

    Args:
        reading: How the corpus is read.

    Raises:
        ValueError: If there is none, or flags contradict each other.
    """
    if reading.source != "avb" or reading.task is not None:
        tasks = [infer_task(reading)]
    else:
        folder = Path(str(reading.data_dir)) / "labels"
        tasks = [task for task in TASKS.values() if task.label_file and (folder / task.label_file).is_file()]
        if not tasks:
            names = [task.label_file for task in TASKS.values() if task.label_file]
            raise ValueError(f"{folder} has no table of labels, one of {names}; --source says what else the corpus is")
    if reading.allow_missing_labels:
        tasks = [dataclasses.replace(task, allow_missing=True) for task in tasks]
    return {task.name: task for task in tasks}


def _reading(folder: Path, publish: PublishArguments, more: dict[str, Any]) -> DataArguments:
    flags: dict[str, Any] = {item.name: getattr(publish, item.name) for item in dataclasses.fields(CorpusArguments)}
    flags |= {"on_bad_audio": publish.on_bad_audio, "max_bad_audio": publish.max_bad_audio}
    return DataArguments(**flags | {"data_dir": str(folder), "max_duration": _NO_LIMIT} | more)


def _one_manifest(args: PrepareArguments) -> str:
    manifests = args.manifest or []
    if len(manifests) != 1:
        raise ValueError(f"--source manifest publishes what one --manifest names, got {manifests}")
    return manifests[0]


def _manifest_flags(raw: Path, out: Path, args: PrepareArguments) -> dict[str, Any]:
    """Find the prepared manifest: its File_IDs, and whether its paths are relative to its own folder or to `out`."""
    given = followed(_one_manifest(args))
    name = given.relative_to(raw).as_posix() if given.is_relative_to(raw) else given.name
    record = read_record(out)
    was_rewritten = record is not None and record["files"][name]["kind"] == "table"
    id_column = args.id_column or (ID_COLUMN if was_rewritten else None)
    flags = {"manifest": str(out / name), "path_column": args.path_column, "id_column": id_column}
    table = read_table(out / name)
    require_columns(table, [args.path_column])
    # Not of every clip: some may not have been usable.
    is_beside = any((table.path.parent / cell).is_file() for cell in table.column(args.path_column))
    return flags | {"data_dir": None if is_beside else str(out)}
