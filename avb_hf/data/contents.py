"""The bytes of a clip: those of a file of its own, or of a row of a Parquet file that holds many clips.

A row has a path as a file has: `train.parquet/17` is row 17, counted from 1, of a file, below which no file can be.
"""

from __future__ import annotations

import functools
import io
import os
import stat
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from pyarrow import compute, parquet

PARQUET_SUFFIX = ".parquet"
AUDIO_COLUMN = "audio"
# Groups of rows that stay in memory for the clips beside the one that was asked for.
_GROUPS_KEPT = 2


class ParquetRow(NamedTuple):
    """A row of a Parquet file.

    Attributes:
        file: The file.
        number: Number of the row, the first of which is 1.
    """

    file: str
    number: int


class _Layout(NamedTuple):
    metadata: parquet.FileMetaData
    column: str
    ends: np.ndarray


def row_path(file: str | Path, number: int) -> str:
    """Return the path by which a clip in a Parquet file is read."""
    return f"{os.fspath(file)}{os.sep}{number}"


def find_row(path: str | Path) -> ParquetRow | None:
    """Return the row of a Parquet file that a path names; None if it names a file of its own, be it there or not."""
    text = os.fspath(path)
    if not text[-1:].isdecimal():  # of nearly all paths that is all there is to ask
        return None
    file, name = os.path.split(text)
    is_row = file.lower().endswith(PARQUET_SUFFIX) and name.isdecimal() and os.path.isfile(file)
    return ParquetRow(file, int(name)) if is_row else None


def exists(path: str | Path) -> bool:
    """Whether there is such a file, or a Parquet file for such a row."""
    return find_row(path) is not None or os.path.exists(path)


def file_stamp(path: str | Path) -> tuple[int, int]:
    """Return size in bytes and time of the last change in nanoseconds of a clip's file, which a row shares with others.

    Raises:
        OSError: If there is no such file.
    """
    row = find_row(path)
    status = os.stat(path if row is None else row.file)
    return status.st_size, status.st_mtime_ns


def open_content(path: str | Path) -> io.BufferedReader | io.BytesIO:
    """Open the bytes of a clip for reading, those of a row in memory.

    Raises:
        FileNotFoundError: If there is no such file, or the row's cell is empty.
        OSError: If it cannot be read.
    """
    row = find_row(path)
    if row is None:
        _require_file(path)
        return open(path, "rb")
    content = read_row(row)
    if content is None:
        raise FileNotFoundError("its row holds no audio")
    return io.BytesIO(content)


def read_row(row: ParquetRow) -> bytes | None:
    """Return the bytes of a clip in a Parquet file; None where its cell is empty.

    The group of rows that it stands in is read as a whole, and kept for the next call.

    Raises:
        OSError: If there is no such row, or it cannot be read.
    """
    status = os.stat(row.file)
    version = row.file, status.st_size, status.st_mtime_ns
    try:
        layout = _read_layout(*version)
        if not 1 <= row.number <= layout.metadata.num_rows:
            raise FileNotFoundError(f"the file has {layout.metadata.num_rows} rows")
        group = int(np.searchsorted(layout.ends, row.number))
        first = int(layout.ends[group - 1]) if group else 0
        return _read_group(*version, group)[row.number - first - 1].as_py()
    except (pa.ArrowException, OSError, ValueError) as error:
        raise OSError(f"row {row.number} of {row.file} cannot be read: {error}") from error


def find_audio_column(schema: pa.Schema) -> str | None:
    """Return the column of a Parquet file that holds the bytes of audio files, as `datasets` lays them out.

    Args:
        schema: Columns of the file.

    Returns:
        Name of a column of structs with a field `bytes`; None if there is none.

    Raises:
        ValueError: If there are several, and none of them is called `audio`.
    """
    names = [field.name for field in schema if _holds_bytes(field.type)]
    if len(names) > 1 and AUDIO_COLUMN not in names:
        raise ValueError(f"of several columns with audio, {names}, one must be called {AUDIO_COLUMN!r}")
    return AUDIO_COLUMN if AUDIO_COLUMN in names else next(iter(names), None)


def _require_file(path: str | Path) -> None:
    """Refuse what is no file before it is opened: a pipe would be waited for."""
    try:
        is_file = stat.S_ISREG(os.stat(path).st_mode)
    except (FileNotFoundError, NotADirectoryError):
        is_file = False
    except ValueError as error:
        raise OSError(f"cannot be the path of a file: {error}") from error
    if not is_file:
        raise FileNotFoundError("the file is missing")


def _holds_bytes(kind: pa.DataType) -> bool:
    if not pa.types.is_struct(kind) or kind.get_field_index("bytes") < 0:
        return False
    content = kind.field("bytes").type
    return pa.types.is_binary(content) or pa.types.is_large_binary(content)


@functools.lru_cache(maxsize=256)
def _read_layout(file: str, size: int, mtime_ns: int) -> _Layout:
    metadata = parquet.read_metadata(file)
    column = find_audio_column(metadata.schema.to_arrow_schema())
    if column is None:
        raise ValueError("the file has no column with audio")
    groups = (metadata.row_group(index).num_rows for index in range(metadata.num_row_groups))
    return _Layout(metadata, column, np.cumsum(list(groups)))


@functools.lru_cache(maxsize=_GROUPS_KEPT)
def _read_group(file: str, size: int, mtime_ns: int, group: int) -> pa.ChunkedArray:
    layout = _read_layout(file, size, mtime_ns)
    # Neither threads nor read-ahead: a loader's process may be a fork of one that had both.
    with parquet.ParquetFile(file, metadata=layout.metadata, pre_buffer=False) as content:
        rows = content.read_row_group(group, columns=[f"{layout.column}.bytes"], use_threads=False)
    return compute.struct_field(rows.column(0), "bytes")
