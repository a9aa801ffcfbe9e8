"""Strict reading of label tables: every cell stays the text that the file holds, every row knows its line."""

import csv
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from avb_hf.data.findings import CorpusError, Finding
from avb_hf.tasks import check_choice

SEPARATORS = {".csv": ",", ".tsv": "\t"}


@dataclass(frozen=True, slots=True)
class Row:
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
        columns: Names of the columns in the file's order.
        rows: Rows in the file's order.
    """

    path: Path
    columns: tuple[str, ...]
    rows: list[Row]

    def column(self, name: str) -> list[str]:
        """Return the cells of one column."""
        return [row.cells[name] for row in self.rows]


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
    columns, records = READERS[path.suffix.lower()](path)
    repeated = sorted({column for column in columns if columns.count(column) > 1})
    if repeated:
        raise refuse_table(path, f"columns must be distinct, these appear more than once: {repeated}", "wrong_columns")
    if not records:
        raise refuse_table(path, "the table has a header and no rows")
    misfits = [
        Finding("bad_row", f"{len(cells)} cells, the header has {len(columns)}", place=f"{path.name}, {place}")
        for place, cells in records
        if len(cells) != len(columns)
    ]
    if misfits and findings is None:
        raise CorpusError(misfits, f"{path}: rows do not fit the header")
    if findings is not None:
        findings += misfits
    rows = [
        Row(f"{path.name}, {place}", dict(zip(columns, cells, strict=True)))
        for place, cells in records
        if len(cells) == len(columns)
    ]
    return Table(path, tuple(columns), rows)


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
    if not spellings.keys() & set(table.columns):
        return table
    names = {column: spellings.get(column, column) for column in table.columns}
    rows = [Row(row.place, {names[column]: cell for column, cell in row.cells.items()}) for row in table.rows]
    return replace(table, columns=tuple(names.values()), rows=rows)


def _read_delimited(path: Path) -> tuple[list[str], list[tuple[str, list[str]]]]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, delimiter=SEPARATORS[path.suffix.lower()], strict=True)
            lines = [(f"line {reader.line_num}", cells) for cells in reader if cells]
    except UnicodeDecodeError as error:
        raise refuse_table(path, f"the table must be UTF-8 text ({error})") from error
    except csv.Error as error:
        raise refuse_table(path, f"line {reader.line_num}: {error}") from error
    if not lines:
        raise refuse_table(path, "the table is empty")
    return lines[0][1], lines[1:]


def _read_parquet(path: Path) -> tuple[list[str], list[tuple[str, list[str]]]]:
    import pyarrow
    from pyarrow import parquet

    try:
        # A ParquetFile, because `read_table` would guess further columns from the names of the folders above.
        content = parquet.ParquetFile(path).read()
    except (pyarrow.ArrowException, OSError) as error:
        raise refuse_table(path, f"not a readable Parquet file ({error})") from error
    nested = [field.name for field in content.schema if pyarrow.types.is_nested(field.type)]
    if nested:
        raise refuse_table(path, f"columns must hold text or numbers, these are nested: {nested}", "wrong_columns")
    columns = [["" if value is None else str(value) for value in column.to_pylist()] for column in content.columns]
    records = zip(*columns, strict=True)
    return content.column_names, [(f"row {number}", list(cells)) for number, cells in enumerate(records, start=1)]


READERS: dict[str, Callable[[Path], tuple[list[str], list[tuple[str, list[str]]]]]] = {
    ".csv": _read_delimited,
    ".tsv": _read_delimited,
    ".parquet": _read_parquet,
}
