"""Tables that name clips by path: found, and rewritten for clips whose suffix has changed."""

from __future__ import annotations

import csv
import functools
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from avb_hf.data.prepare.arguments import PrepareArguments
from avb_hf.data.problems import raise_together
from avb_hf.data.tables import READERS, SEPARATORS, Table, read_table, require_columns

ID_COLUMN = "File_ID"
Columns = dict[str, list[str]]


@dataclass(frozen=True)
class Moves:
    """Where the clips of a folder go.

    Attributes:
        raw: The folder with the recordings, absolute.
        out: The folder for the prepared clips, absolute.
        outputs: Path of each prepared clip below `out`, by that of its recording below `raw`.
    """

    raw: Path
    out: Path
    outputs: Mapping[str, str]

    def recording(self, cell: str, table: Path) -> str | None:
        """Return the recording that a cell names by a path relative to its table or `raw`, or by an absolute one."""
        if "\0" in cell:
            return None  # no path does
        for base in (table.parent, self.raw):
            path = base / cell
            path = _followed_once(path.parent) / path.name
            if path.is_relative_to(self.raw) and (name := path.relative_to(self.raw).as_posix()) in self.outputs:
                return name
        return None

    def moved(self, cell: str, recording: str, table: Path) -> str:
        """Return what the prepared table says for the cell that names a recording."""
        output = self.outputs[recording]
        if Path(cell).is_absolute():
            return str(self.out / output)
        if not _followed_once(table.parent).is_relative_to(self.raw):
            return output  # the prepared table lies in `out` itself
        return cell if output == recording else Path(cell).with_suffix(Path(output).suffix).as_posix()


def followed(path: str | Path) -> Path:
    """Return an absolute path without symbolic links, but those that lead to themselves."""
    return Path(os.path.realpath(path))


_followed_once = functools.cache(followed)


def new_columns(path: Path, moves: Moves, args: PrepareArguments) -> Columns:
    """Return the columns of a manifest that change: the paths, and the File_IDs if they are the paths as given.

    Args:
        path: The manifest.
        moves: Where its clips go.
        args: `path_column` and `id_column` are looked at.

    Returns:
        Cells by column, in the manifest's order; nothing if all paths stay as they are.

    Raises:
        ValueError: If the table cannot be used or names a clip that is not in RAW.
    """
    table = read_table(path)
    require_columns(table, [column for column in (args.path_column, args.id_column) if column is not None])
    cells = table.column(args.path_column)
    recordings = [moves.recording(cell, path) for cell in cells]
    lost = [
        f"{row.place}: no audio file {cell!r} in {moves.raw}"
        for row, cell, recording in zip(table.rows, cells, recordings, strict=True)
        if recording is None
    ]
    raise_together(lost, f"{path}: column {args.path_column}")
    moved = [moves.moved(cell, str(recording), path) for cell, recording in zip(cells, recordings, strict=True)]
    if moved == cells:
        return {}
    if args.id_column is not None:
        return {args.path_column: moved}
    if ID_COLUMN in table.columns:
        raise ValueError(f"{path}: has a column {ID_COLUMN}; if it holds the File_IDs, give --id_column {ID_COLUMN}")
    return {ID_COLUMN: cells, args.path_column: moved}


def find_path_column(path: Path, moves: Moves) -> str | None:
    """Return a column of a table that names clips by paths that will not hold; None if there is none or no table."""
    try:
        table = read_table(path)
    except ValueError:
        return None  # not one of ours, so no command of ours reads it
    suffixes = tuple({Path(name).suffix for name in moves.outputs})
    for column in table.columns:
        for cell in table.column(column):
            if not cell.endswith(suffixes):
                continue
            recording = moves.recording(cell, path)
            if recording is not None and moves.moved(cell, recording, path) != cell:
                return column
    return None


def is_table(path: Path) -> bool:
    """Whether a file's suffix is that of a table."""
    return path.suffix.lower() in READERS


def write_with(source: Path, target: Path, columns: Columns) -> None:
    """Write a table again with some columns exchanged; new ones come first.

    Args:
        source: The table.
        target: The file to write, of any name.
        columns: Cells by column.
    """
    WRITERS[source.suffix.lower()](source, target, columns)


def _write_delimited(source: Path, target: Path, columns: Columns) -> None:
    table = read_table(source)
    cells = columns | {column: columns.get(column, table.column(column)) for column in table.columns}
    with target.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, delimiter=SEPARATORS[source.suffix.lower()], lineterminator="\n")
        writer.writerow(names := _order(columns, table))
        writer.writerows(zip(*(cells[name] for name in names), strict=True))


def _order(columns: Columns, table: Table) -> list[str]:
    return [*(name for name in columns if name not in table.columns), *table.columns]


def _write_parquet(source: Path, target: Path, columns: Columns) -> None:
    import pyarrow
    from pyarrow import parquet

    content = parquet.ParquetFile(source).read()
    for name, cells in columns.items():
        if name in content.column_names:
            content = content.set_column(content.column_names.index(name), name, pyarrow.array(cells))
        else:
            content = content.add_column(0, name, pyarrow.array(cells))
    parquet.write_table(content, target)


WRITERS: dict[str, Callable[[Path, Path, Columns], None]] = {
    ".csv": _write_delimited,
    ".tsv": _write_delimited,
    ".parquet": _write_parquet,
}
