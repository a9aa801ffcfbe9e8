"""Files of scores: one row a clip, a column `file`, one per label, and `error`, which is empty where all is well."""

from __future__ import annotations

import csv
import hashlib
import itertools
import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from avb_hf.tasks import check_choice

FILE_COLUMN, ERROR_COLUMN = "file", "error"
_ROW_GROUP = 4_096

# What a clip is called, its scores in label order or None, and why it has none.
ScoreRow = tuple[str, list[float] | None, str | None]


def columns_of(labels: Sequence[str]) -> list[str]:
    """Name the columns of a file of scores.

    Raises:
        ValueError: If a label is called like another column.
    """
    columns = [FILE_COLUMN, *labels, ERROR_COLUMN]
    if len(set(columns)) < len(columns):
        raise ValueError(f"labels must be distinct and not {FILE_COLUMN!r} or {ERROR_COLUMN!r}, got {list(labels)}")
    return columns


def as_mapping(row: ScoreRow, labels: Sequence[str]) -> dict[str, Any]:
    """Give a row's values by column; scores are None where there are none."""
    file, scores, error = row
    by_label = dict.fromkeys(labels) if scores is None else dict(zip(labels, scores, strict=True))
    return {FILE_COLUMN: file, **by_label, ERROR_COLUMN: error}


def write_scores(path: Path, labels: Sequence[str], rows: Iterable[ScoreRow]) -> None:
    """Write rows to a CSV, JSONL or Parquet file, whichever the suffix says, holding few of them at a time.

    Empty scores and errors are empty cells in CSV, null in the others.
    """
    WRITERS[path.suffix.lower()](path, labels, rows)


def check_suffix(path: Path) -> None:
    """Refuse a file of a kind that cannot be written.

    Raises:
        ValueError: If there is no such kind.
    """
    check_choice(f"{path}: suffix of a file of scores", path.suffix.lower(), tuple(WRITERS))


def digest_file(path: Path) -> str:
    """Return the SHA-256 of a file's content as hexadecimal text."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _write_csv(path: Path, labels: Sequence[str], rows: Iterable[ScoreRow]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns_of(labels))
        writer.writerows(as_mapping(row, labels).values() for row in rows)


def _write_jsonl(path: Path, labels: Sequence[str], rows: Iterable[ScoreRow]) -> None:
    with path.open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(as_mapping(row, labels), ensure_ascii=False) + "\n" for row in rows)


def _write_parquet(path: Path, labels: Sequence[str], rows: Iterable[ScoreRow]) -> None:
    import pyarrow
    from pyarrow import parquet

    types = [pyarrow.string(), *[pyarrow.float32()] * len(labels), pyarrow.string()]
    schema = pyarrow.schema(list(zip(columns_of(labels), types, strict=True)))
    remaining = iter(rows)
    with parquet.ParquetWriter(path, schema) as writer:
        while group := list(itertools.islice(remaining, _ROW_GROUP)):
            writer.write_table(pyarrow.Table.from_pylist([as_mapping(row, labels) for row in group], schema))


WRITERS: dict[str, Callable[[Path, Sequence[str], Iterable[ScoreRow]], None]] = {
    ".csv": _write_csv,
    ".jsonl": _write_jsonl,
    ".parquet": _write_parquet,
}
