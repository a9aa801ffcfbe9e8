"""Strict reading of label tables: every cell stays the text that the file holds, every row knows its line."""

import csv
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain, count, islice
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa

from avb_hf.data.findings import CorpusError, Finding
from avb_hf.tasks import check_choice

SEPARATORS = {".csv": ",", ".tsv": "\t"}
# So many rows at a time are Python objects, which take ten times as much memory as their text.
_CHUNK = 4096

# Where a row stands in its file, and its cells.
_Record = tuple[str, list[str]]


class Row(NamedTuple):
    """One row of a table.

    Attributes:
        place: Where the row stands (`high_info.csv, line 7`), for messages.
        cells: Text of each cell by column; empty where a Parquet file has a null.
    """

    place: str
    cells: dict[str, str]


@dataclass(frozen=True)
class Table:
    """A table of text.

    Attributes:
        path: The file it was read from.
        places: Where each row stands, as in `Row`.
        cells: Text of the cells, in the file's order of columns and rows.
    """

    path: Path
    places: list[str]
    cells: pa.Table

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the columns in the file's order."""
        return tuple(self.cells.column_names)

    @property
    def rows(self) -> Iterator[Row]:
        """The rows in the file's order, each made when it is its turn."""
        columns, batches = self.columns, self.cells.to_batches()
        records = chain.from_iterable(zip(*map(as_texts, batch.columns), strict=True) for batch in batches)
        for place, cells in zip(self.places, records, strict=True):
            yield Row(place, dict(zip(columns, cells, strict=True)))

    def __len__(self) -> int:
        return len(self.places)

    def column(self, name: str) -> list[str]:
        """Return the cells of one column."""
        return as_texts(self.cells[name])

    def take(self, columns: Sequence[str], rows: Sequence[int]) -> pa.Table:
        """Return the cells of these columns in the rows of these numbers."""
        return self.cells.select(list(columns)).take(pa.array(rows, pa.int64()))

    def select(self, columns: Sequence[str]) -> "Table":
        """Return the table with these columns alone, in this order."""
        return replace(self, cells=self.cells.select(list(columns)))


def as_texts(column: pa.Array | pa.ChunkedArray) -> list[str]:
    """Return the cells of a column of text as Python's own; `to_pylist` does the same in ten times the time."""
    return column.to_numpy(zero_copy_only=False).tolist()


def to_texts(batch: pa.RecordBatch) -> list[list[str]]:
    """Return the cells of columns of any kind as text, column by column, empty where there is none."""
    return [["" if value is None else str(value) for value in column.to_pylist()] for column in batch.columns]


def read_table(path: Path, findings: list[Finding] | None = None) -> Table:
    """Read a CSV, TSV or Parquet file; the suffix says which.

    Args:
        path: The file.
        findings: Takes up the rows that do not fit the header, which the table is then without; None makes them an
            error.

    Raises:
        CorpusError: If the file is missing, empty, not UTF-8, or has rows that do not fit its header.
        ValueError: If it is of an unknown kind.
    """
    check_choice(f"{path}: suffix of a table", path.suffix.lower(), tuple(READERS))
    if not path.is_file():
        raise refuse_table(path, "the table does not exist")
    records = READERS[path.suffix.lower()](path)
    _, columns = next(records, ("", []))
    if not columns:
        raise refuse_table(path, "the table is empty")
    misfits: list[Finding] = []
    table = _pack(path, columns, records, misfits)
    repeated = sorted({column for column in columns if columns.count(column) > 1})
    if repeated:
        raise refuse_table(path, f"columns must be distinct, these appear more than once: {repeated}", "wrong_columns")
    if not table.places and not misfits:
        raise refuse_table(path, "the table has a header and no rows")
    if misfits and findings is None:
        raise CorpusError(misfits, f"{path}: rows do not fit the header")
    if findings is not None:
        findings += misfits
    return table


def _pack(path: Path, columns: Sequence[str], records: Iterator[_Record], misfits: list[Finding]) -> Table:
    """Collect the records that fit the header, and why the others do not."""
    schema = pa.schema([(column, pa.string()) for column in columns])
    places: list[str] = []
    batches = []
    while chunk := list(islice(records, _CHUNK)):
        fitting = [(place, cells) for place, cells in chunk if len(cells) == len(columns)]
        misfits += [
            Finding("bad_row", f"{len(cells)} cells, the header has {len(columns)}", place=f"{path.name}, {place}")
            for place, cells in chunk
            if len(cells) != len(columns)
        ]
        places += [f"{path.name}, {place}" for place, _ in fitting]
        arrays = [pa.array([cells[index] for _, cells in fitting], pa.string()) for index in range(len(columns))]
        batches.append(pa.record_batch(arrays, schema=schema))
    return Table(path, places, pa.Table.from_batches(batches, schema))


def refuse_table(path: Path, message: str, kind: str = "unreadable_table") -> CorpusError:
    """Return the error of a table that cannot be used.

    Args:
        path: The table.
        message: What is wrong with it.
        kind: Key of `avb_hf.data.findings.KINDS`.
    """
    return CorpusError([Finding(kind, message, path=str(path))])


def require_columns(table: Table, required: Sequence[str]) -> None:
    """Check that columns exist.

    Raises:
        CorpusError: If a required column is absent; names the wrong separator where that is why.
    """
    absent = [column for column in required if column not in table.columns]
    if not absent:
        return
    for separator in ";\t,|":
        if len(table.columns) == 1 and separator in table.columns[0]:
            message = (
                f"the header {table.columns[0]!r} looks separated by {separator!r}; "
                f"a {table.path.suffix} file is separated by {SEPARATORS.get(table.path.suffix.lower())!r}"
            )
            raise refuse_table(table.path, message, "wrong_columns")
    message = f"the table lacks the columns {absent}; it has {list(table.columns)}"
    raise refuse_table(table.path, message, "wrong_columns")


def forbid_other_columns(table: Table, known: Iterable[str]) -> None:
    """Check that a table has no columns but the known ones.

    Raises:
        CorpusError: If there are others; lists them.
    """
    known = list(known)
    unknown = [column for column in table.columns if column not in known]
    if unknown:
        raise refuse_table(table.path, f"unknown columns {unknown}; allowed are {known}", "wrong_columns")


def rename_columns(table: Table, spellings: Mapping[str, str]) -> Table:
    """Give columns their right names.

    Args:
        table: The table as read.
        spellings: Accepted spelling to right name.

    Raises:
        CorpusError: If a column is there in both spellings.
    """
    both = [(wrong, right) for wrong, right in spellings.items() if {wrong, right} <= set(table.columns)]
    if both:
        raise refuse_table(table.path, f"two spellings of one column: {both}", "wrong_columns")
    names = [spellings.get(column, column) for column in table.columns]
    return replace(table, cells=table.cells.rename_columns(names))


def _read_delimited(path: Path) -> Iterator[_Record]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, delimiter=SEPARATORS[path.suffix.lower()], strict=True)
            yield from ((f"line {reader.line_num}", cells) for cells in reader if cells)
    except UnicodeDecodeError as error:
        raise refuse_table(path, f"the table must be UTF-8 text ({error})") from error
    except csv.Error as error:
        raise refuse_table(path, f"line {reader.line_num}: {error}") from error


def _read_parquet(path: Path) -> Iterator[_Record]:
    from pyarrow import parquet

    try:
        # A ParquetFile, because `read_table` would guess further columns from the names of the folders above.
        content = parquet.ParquetFile(path).read()
    except (pa.ArrowException, OSError) as error:
        raise refuse_table(path, f"not a readable Parquet file ({error})") from error
    nested = [field.name for field in content.schema if pa.types.is_nested(field.type)]
    if nested:
        raise refuse_table(path, f"columns must hold text or numbers, these are nested: {nested}", "wrong_columns")
    yield "header", content.column_names
    numbers = count(1)
    for batch in content.to_batches(_CHUNK):
        yield from ((f"row {next(numbers)}", list(cells)) for cells in zip(*to_texts(batch), strict=True))


# Each yields the header and then the rows that are not blank.
READERS: dict[str, Callable[[Path], Iterator[_Record]]] = {
    ".csv": _read_delimited,
    ".tsv": _read_delimited,
    ".parquet": _read_parquet,
}
