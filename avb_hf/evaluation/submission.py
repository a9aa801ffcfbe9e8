"""Check a contest file, line by line, against the organisers' format and, if given, their template."""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from avb_hf.evaluation.contest import TEAM_NAME
from avb_hf.tasks import TaskSpec, check_choice

ID_COLUMN, SPLIT_COLUMN, TEST_SPLIT = "File_ID", "Split", "Test"
BRACKETED = re.compile(r"\[([^\[\],\"\s]+)\]")
NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
# What a plain reader of the format would stumble over.
FORBIDDEN = {"\ufeff": "a byte order mark", "\r": "a carriage return", '"': "a quotation mark"}


@dataclass(frozen=True)
class Problem:
    """Something wrong with a contest file.

    Attributes:
        message: What it is.
        line: The line, counted from 1; None if it is no line's.
        file_id: The clip, without brackets; None if it is no clip's.
    """

    message: str
    line: int | None = None
    file_id: str | None = None

    def __str__(self) -> str:
        line = None if self.line is None else f"line {self.line}"
        clip = None if self.file_id is None else f"File_ID {self.file_id}"
        return ": ".join(filter(None, (", ".join(filter(None, (line, clip))), self.message)))


@dataclass(frozen=True)
class Template:
    """What the organisers gave to be filled in.

    Attributes:
        header: Columns that a file may have instead of the official ones.
        file_ids: The clips, without brackets.
    """

    header: tuple[str, ...]
    file_ids: tuple[str, ...]


def read_template(path: Path, task: TaskSpec) -> Template:
    """Read a template, or a table of labels, of whose rows those of the test split count.

    Args:
        path: A CSV file with the column `File_ID`, and maybe label columns, misspelt ones included.
        task: The task that it should be of.

    Raises:
        ValueError: If it is no such table, of another task, or names no clip or one twice.
    """
    try:
        lines = list(csv.reader(path.read_text(encoding="utf-8-sig").splitlines(), strict=True))
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"template {path} is no CSV table: {error}") from error
    header, rows = (lines[0], [row for row in lines[1:] if row]) if lines else ([], [])
    labels = [column for column in header if _spelt_right(column, task) in task.label_columns]
    if ID_COLUMN not in header or (labels and len(labels) < len(task.label_columns)):
        expected = [ID_COLUMN, *task.label_columns]
        raise ValueError(f"template {path}: columns must be {expected} or {[ID_COLUMN]}, got {header}")
    misfits = [number for number, row in enumerate(rows, start=2) if len(row) != len(header)]
    if misfits:
        raise ValueError(f"template {path}: rows must have {len(header)} cells as the header, see lines {misfits[:10]}")
    if SPLIT_COLUMN in header:
        rows = [row for row in rows if row[header.index(SPLIT_COLUMN)] == TEST_SPLIT]
    file_ids = [row[header.index(ID_COLUMN)].removeprefix("[").removesuffix("]") for row in rows]
    distinct = len(set(file_ids))
    if not file_ids or distinct < len(file_ids):
        raise ValueError(f"template {path} must name each test clip once, got {len(file_ids)} rows of {distinct} clips")
    return Template((ID_COLUMN, *(labels or task.label_columns)), tuple(file_ids))


def check_submission(path: Path, task: TaskSpec, template: Template | None = None) -> list[Problem]:
    """Return all that is wrong with a contest file.

    Args:
        path: The file, named as a contest file.
        task: The task that it should answer.
        template: What it is to agree with; None checks it by itself.
    """
    if task.submission_name is None:
        raise ValueError(f"task {task.name!r} is no task of the A-VB contest (it has no submission_name)")
    problems = []
    name = f"A-VB-{task.submission_name}_<team>_<n>.csv"
    if not re.fullmatch(rf"A-VB-{task.submission_name}_{TEAM_NAME.pattern}_[1-9][0-9]*\.csv", path.name):
        problems.append(Problem(f"the file must be named {name}, got {path.name}"))
    try:
        text = path.read_bytes().decode("utf-8")
    except UnicodeDecodeError as error:
        return [*problems, Problem(f"the file must be UTF-8 text: {error}")]
    if not text.endswith("\n"):
        problems.append(Problem("the last line must end with a line break", text.count("\n") + 1))
    lines = text.removesuffix("\n").split("\n")
    problems += _check_characters(lines)
    header, rows = lines[0].split(","), [line.split(",") for line in lines[1:]]
    problems += _check_header(header, task, template)
    if not rows:
        return [*problems, Problem("the file has no rows")]
    problems += [problem for number, row in enumerate(rows, start=2) for problem in _check_row(number, row, task)]
    return problems + list(_check_ids([row[0] for row in rows], template))


def _spelt_right(column: str, task: TaskSpec) -> str:
    return task.accepted_spellings.get(column, column)


def _check_characters(lines: Sequence[str]) -> Iterator[Problem]:
    for number, line in enumerate(lines, start=1):
        for character, what in FORBIDDEN.items():
            if character in line:
                yield Problem(f"{what} ({character!r}) does not belong there", number)


def _check_header(header: Sequence[str], task: TaskSpec, template: Template | None) -> Iterator[Problem]:
    official = [ID_COLUMN, *task.label_columns]
    if list(header) == official or (template is not None and tuple(header) == template.header):
        return
    for place, (column, expected) in enumerate(zip(header, official, strict=False), start=1):
        if column != expected:
            yield Problem(f"column {place} must be {expected!r}, got {column!r}", 1)
    if len(header) != len(official):
        yield Problem(f"there must be {len(official)} columns, got {len(header)}", 1)


def _check_row(number: int, row: Sequence[str], task: TaskSpec) -> Iterator[Problem]:
    match = BRACKETED.fullmatch(row[0])
    file_id = match[1] if match else row[0]
    if match is None:
        yield Problem(f"a File_ID must stand in brackets, as [00001], got {row[0]!r}", number, file_id)
    if len(row) != len(task.label_columns) + 1:
        yield Problem(f"there must be {len(task.label_columns) + 1} cells, got {len(row)}", number, file_id)
        return
    check = _check_class if task.is_classification else _check_number
    for label, cell in zip(task.label_columns, row[1:], strict=True):
        message = check(label, cell, task)
        if message is not None:
            yield Problem(message, number, file_id)


def _check_number(label: str, cell: str, task: TaskSpec) -> str | None:
    low, high = task.label_range or (-math.inf, math.inf)
    if NUMBER.fullmatch(cell) and low <= float(cell) <= high and math.isfinite(float(cell)):
        return None
    return f"{label} must be a number in [{low:g}, {high:g}], got {cell!r}"


def _check_class(label: str, cell: str, task: TaskSpec) -> str | None:
    try:
        check_choice(label, cell, task.labels)
    except ValueError as error:
        return str(error)
    return None


def _check_ids(cells: Sequence[str], template: Template | None) -> Iterator[Problem]:
    ids = [cell.removeprefix("[").removesuffix("]") for cell in cells]
    first_line: dict[str, int] = {}
    for number, file_id in enumerate(ids, start=2):
        if file_id in first_line:
            yield Problem(f"the clip is in line {first_line[file_id]} already", number, file_id)
        elif number > 2 and file_id < ids[number - 3]:
            yield Problem(f"rows must be sorted by File_ID, this one follows {ids[number - 3]}", number, file_id)
        first_line.setdefault(file_id, number)
    if template is None:
        return
    known = set(template.file_ids)
    for file_id, number in first_line.items():
        if file_id not in known:
            yield Problem("the template does not have this clip", number, file_id)
    for file_id in template.file_ids:
        if file_id not in first_line:
            yield Problem("the clip is missing, which the template has", file_id=file_id)
