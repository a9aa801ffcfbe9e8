"""The Parquet files of a dataset, a row a clip: their names, columns and cells, all but the audio."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
from pyarrow import parquet

from avb_hf.data.contents import PARQUET_SUFFIX, find_audio_column, row_path
from avb_hf.data.dataset_facts import read_facts
from avb_hf.data.findings import CorpusError, Finding, raise_errors
from avb_hf.data.tables import refuse_table, to_texts

# What a published corpus calls them.
ID_COLUMN, SPEAKER_COLUMN = "file_id", "speaker"
_CHUNK = 4096  # rows that are Python objects at a time
# As `datasets` and we number the files of a split: train-00000-of-00003.parquet.
_NUMBERED = re.compile(r"(.*)-\d+-of-(\d+)")


@dataclass(frozen=True)
class Part:
    """A Parquet file with audio.

    Attributes:
        file: The file.
        name: Its path below the dataset's folder, with slashes.
        columns: Names of its columns.
        num_rows: Number of its rows.
        group_bytes: Size of its largest group of rows, which is read whole for any clip in it.
    """

    file: Path
    name: str
    columns: tuple[str, ...]
    num_rows: int
    group_bytes: int

    def path(self, number: int) -> str:
        """Return the path by which the clip of a row is read; the first row has number 1."""
        return row_path(self.file, number)


def find_parts(folder: Path) -> list[Part]:
    """Return the Parquet files below a folder, sorted by name.

    Raises:
        CorpusError: If there is none, one cannot be read or holds no audio, or files of the dataset are not there: of
            those that it lists itself, or of as many as the numbers in their names say.
    """
    files = sorted(path for path in folder.rglob(f"*{PARQUET_SUFFIX}") if path.is_file())
    if not files:
        raise CorpusError([Finding("no_clips", "no Parquet file is in this folder", path=str(folder))])
    names = {file.relative_to(folder).as_posix(): file for file in files}
    absent = [*_find_unlike(names, read_facts(folder).files), *_find_gaps(names)]
    raise_errors(absent, f"{folder} is not the whole dataset")
    return [read_part(file, name) for name, file in names.items()]


def holds_audio(file: Path) -> bool:
    """Whether a file is a Parquet file with the audio of its clips, rather than a table with their paths."""
    if file.suffix.lower() != PARQUET_SUFFIX or not file.is_file():
        return False
    try:
        schema = parquet.read_schema(file)
    except (pa.ArrowException, OSError):
        return False
    return find_audio_column(schema) is not None


def read_part(file: Path, name: str) -> Part:
    """Look at a Parquet file's columns.

    Args:
        file: The file.
        name: What it is called.

    Raises:
        CorpusError: If it cannot be read or holds no audio.
    """
    try:
        metadata = parquet.read_metadata(file)
        schema = metadata.schema.to_arrow_schema()
        audio = find_audio_column(schema)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise refuse_table(file, f"not a readable Parquet file of clips ({error})") from error
    if audio is None:
        message = f"no column holds audio, as structs with a field `bytes`; it has {schema.names}"
        raise refuse_table(file, message, "wrong_columns")
    groups = map(metadata.row_group, range(metadata.num_row_groups))
    largest = max((group.total_byte_size for group in groups), default=0)
    return Part(file, name, tuple(schema.names), metadata.num_rows, largest)


def read_cells(parts: Sequence[Part], columns: Sequence[str]) -> pa.Table:
    """Read some columns of all files, as text that is empty where there is none.

    Args:
        parts: The files.
        columns: Names of the columns.

    Raises:
        CorpusError: If a file lacks a column, or cannot be read.
    """
    schema = pa.schema([(column, pa.string()) for column in columns])
    batches = [batch for part in parts for batch in _read_batches(part, schema)]
    return pa.Table.from_batches(batches, schema)


def list_rows(parts: Sequence[Part]) -> Iterator[tuple[str, str]]:
    """Yield File_ID and path of each clip; the File_ID is its place where a file has no column `file_id`.

    Raises:
        CorpusError: If a file cannot be read, or a File_ID is empty.
    """
    for part in parts:
        given = read_cells([part], [ID_COLUMN])[ID_COLUMN].to_pylist() if ID_COLUMN in part.columns else None
        for number in range(1, part.num_rows + 1):
            file_id = f"{part.name}/{number}" if given is None else given[number - 1]
            if not file_id.strip():
                raise refuse_table(part.file, f"row {number}: {ID_COLUMN} is empty", "bad_row")
            yield file_id, part.path(number)


def _find_unlike(files: Mapping[str, Path], written: Mapping[str, int]) -> Iterator[Finding]:
    """Find the files that are not there as they were written, of so many bytes each."""
    for name, size in written.items():
        if name not in files:
            yield Finding("unreadable_table", "is missing", path=name)
        elif (found := files[name].stat().st_size) != size:
            yield Finding("unreadable_table", f"has {found} bytes, and was written with {size}", path=name)


def _find_gaps(names: Iterable[str]) -> Iterator[Finding]:
    """Find numbered files of which there are fewer than their names say."""
    runs = Counter(match.groups() for match in map(_NUMBERED.match, names) if match)
    for (start, total), found in runs.items():
        if found < int(total):
            message = f"{found} of these {int(total)} files are there"
            yield Finding("unreadable_table", message, path=f"{start}-*-of-{total}{PARQUET_SUFFIX}")


def _read_batches(part: Part, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    absent = [column for column in schema.names if column not in part.columns]
    if absent:
        message = f"the file lacks the columns {absent}; it has {list(part.columns)}"
        raise refuse_table(part.file, message, "wrong_columns")
    try:
        with parquet.ParquetFile(part.file) as content:
            for batch in content.iter_batches(_CHUNK, columns=schema.names):
                cells = to_texts(batch.select(schema.names))
                yield pa.record_batch([pa.array(column, pa.string()) for column in cells], schema=schema)
    except (pa.ArrowException, OSError) as error:
        raise refuse_table(part.file, f"not a readable Parquet file ({error})") from error
