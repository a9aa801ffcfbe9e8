"""What is to be made out of what: the whole of a folder is looked at before anything is written."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Literal, NoReturn

from avb_hf.data.contents import file_stamp
from avb_hf.data.locations import AUDIO_SUFFIXES
from avb_hf.data.prepare.arguments import PrepareArguments
from avb_hf.data.prepare.path_tables import Columns, Moves, find_path_column, followed, is_table, new_columns
from avb_hf.data.prepare.path_texts import PathFinder, is_text
from avb_hf.data.problems import raise_together

Kind = Literal["clip", "copy", "table"]
RECORD = "prepare.json"
OUTPUT_SUFFIX = ".wav"


@dataclass(frozen=True)
class Step:
    """One file to be made.

    Attributes:
        source: What it is made of: a path below RAW, or the absolute path of a manifest elsewhere.
        output: Its path below OUT.
        kind: `clip` is decoded, `table` gets new columns, `copy` stays as it is.
        bytes: Size of the source.
        mtime_ns: Time of the source's last change, in nanoseconds.
        columns: The new columns of a table.
        warning: What is remarkable about a copy; empty if nothing is.
    """

    source: str
    output: str
    kind: Kind
    bytes: int
    mtime_ns: int
    columns: Columns = field(default_factory=dict)
    warning: str = ""


def make_plan(raw: Path, out: Path, args: PrepareArguments) -> list[Step]:
    """List the files to be made, in order of their names.

    Files and folders whose name starts with a dot are left out.

    Args:
        raw: The folder with the recordings, absolute, without symbolic links.
        out: The folder for the prepared clips, likewise.
        args: `manifest`, `path_column` and `id_column` are looked at.

    Raises:
        ValueError: If a folder is unfit, two files would become one, a link leads out of RAW, or a table would name
            clips that are no longer there.
    """
    check_folders(raw, out)
    names = list_files(raw)
    outputs = {name: prepared_name(name) for name in names if is_audio(name)}
    if not outputs:
        raise ValueError(f"no audio file is below {raw}; its suffix must be one of {sorted(AUDIO_SUFFIXES)}")
    moves = Moves(raw, out, outputs)
    manifests = _find_manifests(raw, args)
    _check_other_tables(raw, [name for name in names if is_table(Path(name)) and name not in manifests], moves)
    steps = [_step(raw, name, output, "clip") for name, output in outputs.items()]
    finder = PathFinder({name: output for name, output in outputs.items() if name != output})
    steps += [_copy(raw, name, finder) for name in names if name not in outputs and name not in manifests]
    for name, path in manifests.items():
        columns = new_columns(path, moves, args)
        output = path.name if Path(name).is_absolute() else name
        steps.append(_step(raw, name, output, "table" if columns else "copy", columns))
    _check_clashes(steps)
    return sorted(steps, key=lambda step: step.output)


def check_folders(raw: Path, out: Path) -> None:
    """Check that RAW is a folder, and that OUT may be one apart from it; both are absolute.

    Raises:
        ValueError: If not.
    """
    if not raw.is_dir():
        raise ValueError(f"RAW {raw} is not a folder")
    if out.exists() and not out.is_dir():
        raise ValueError(f"OUT {out} is not a folder")
    if raw.is_relative_to(out) or out.is_relative_to(raw):
        raise ValueError(f"neither of RAW {raw} and OUT {out} may be inside the other")


def is_audio(name: str) -> bool:
    """Whether a file's suffix is that of a recording."""
    return PurePosixPath(name).suffix.lower() in AUDIO_SUFFIXES


def prepared_name(name: str) -> str:
    """Return the path of a prepared clip below OUT: that of its recording below RAW, as a wav file."""
    return str(PurePosixPath(name).with_suffix(OUTPUT_SUFFIX))


def list_files(raw: Path) -> list[str]:
    """Return the paths of all files below a folder, relative to it and sorted.

    Raises:
        ValueError: If there are symbolic links to folders or out of the folder, or what is neither file nor folder.
        OSError: If a folder cannot be read.
    """
    names, problems = [], []
    for folder, subfolders, files in os.walk(raw, onerror=_fail):
        subfolders[:] = [name for name in subfolders if not name.startswith(".")]
        links = [path for name in subfolders if (path := Path(folder, name)).is_symlink()]
        problems += [f"{path} is a link to a folder" for path in links]
        for path in (Path(folder, name) for name in files if not name.startswith(".")):
            if path.is_symlink() and not followed(path).is_relative_to(raw):
                problems.append(f"{path} is a link that leads out")
            elif not path.is_file():
                problems.append(f"{path} is no file")
            else:
                names.append(path.relative_to(raw).as_posix())
    raise_together(sorted(problems), f"{raw} must hold the files themselves")
    return sorted(names)


def _fail(error: OSError) -> NoReturn:
    raise error


def _find_manifests(raw: Path, args: PrepareArguments) -> dict[str, Path]:
    missing = [name for name in args.manifest or [] if not Path(name).is_file()]
    raise_together(missing, "--manifest: these tables do not exist")
    paths = [followed(name) for name in args.manifest or []]
    return {path.relative_to(raw).as_posix() if path.is_relative_to(raw) else str(path): path for path in paths}


def _check_other_tables(raw: Path, names: Sequence[str], moves: Moves) -> None:
    columns = {name: find_path_column(raw / name, moves) for name in names}
    problems = [
        f"{raw / name}: give --manifest {raw / name} --path_column {column!r}, and --id_column if there is one"
        for name, column in columns.items()
        if column is not None
    ]
    raise_together(problems, "tables name clips by paths that change in OUT, where every clip is a wav file")


def _step(raw: Path, source: str, output: str, kind: Kind, columns: Columns | None = None) -> Step:
    return Step(source, output, kind, *file_stamp(raw / source), columns or {})


def _copy(raw: Path, name: str, finder: PathFinder) -> Step:
    moved = finder.find((raw / name).read_bytes()) if is_text(name) else None
    warning = "" if moved is None else f"is copied as it is, and names {moved[0]}, which is {moved[1]} in OUT"
    return replace(_step(raw, name, name, "copy"), warning=warning)


def _check_clashes(steps: Sequence[Step]) -> None:
    sources = defaultdict(list)
    for step in steps:
        sources[step.output].append(step.source)
    problems = [f"{output}: {' and '.join(names)}" for output, names in sources.items() if len(names) > 1]
    if RECORD in sources:
        problems.append(f"{RECORD}: is the record of `avb prepare`, and RAW has a file of this name")
    raise_together(problems, "several files would become one")
