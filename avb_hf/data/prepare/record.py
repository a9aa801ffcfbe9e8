"""`prepare.json` in OUT: the settings, and for each file what it is made of and what came out.

It names every file before the first one is made, so a file that it names is ours, and all others are somebody else's.
"""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from avb_hf import __version__
from avb_hf.data.prepare.arguments import PrepareArguments
from avb_hf.data.prepare.plan import RECORD, Step
from avb_hf.data.problems import raise_together
from avb_hf.whole_files import is_draft, sync, whole_file

logger = logging.getLogger(__name__)

Record = dict[str, Any]
PACKAGES = ("numpy", "soundfile", "librosa", "soxr", "scipy")


def begin(raw: Path, out: Path, steps: Sequence[Step], args: PrepareArguments) -> Record:
    """Take up the work in OUT: check what is there, keep what still holds, and write down what is to be made.

    Args:
        raw: The folder with the recordings, absolute.
        out: The folder for the prepared clips, absolute.
        steps: What is to be made.
        args: The settings, and whether to start over.

    Returns:
        The record; the `result` of a file that is still to be made is None.

    Raises:
        ValueError: If OUT was made with other settings or of files that are gone, or holds files that are not ours.
    """
    before = read_record(out)
    if before is None:
        _require_empty(out)
    files = {step.output: _entry(step) for step in steps}
    known = before["files"] if before else {}
    if before and not args.overwrite:
        _check_same(before, args, out)
        _check_files(out, known, files)
    _check_foreign(out, known, files)
    kept = {} if args.overwrite else _keep(out, known, files)
    for name, entry in known.items():
        if name not in kept and _is_made(entry):
            (out / name).unlink(missing_ok=True)
    for path in filter(is_draft, out.rglob("*")):
        path.unlink(missing_ok=True)
    versions = {"avb_hf": __version__, "python": sys.version.split()[0]} | {name: version(name) for name in PACKAGES}
    if kept and before and before["versions"] != versions:
        logger.warning("%s was begun with other versions: %s, now %s", out, before["versions"], versions)
    record = {"raw": str(raw), "settings": args.settings(), "versions": versions, "files": files | kept}
    out.mkdir(parents=True, exist_ok=True)
    save(out, record)
    return record


def save(out: Path, record: Record, made: Sequence[str] = ()) -> None:
    """Write the record, wholly or not at all, once all that it names is on the disk.

    Args:
        out: The folder for the prepared clips.
        record: The record.
        made: Paths below `out` of the files that were made since it was last written.
    """
    files = [out / name for name in made]
    sync({*files, *(path.parent for path in files)})
    with whole_file(out / RECORD) as path:
        path.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


def read_record(out: Path) -> Record | None:
    """Return settings, versions and files of what was made in a folder; None if nothing was.

    Args:
        out: The folder for the prepared clips.

    Raises:
        ValueError: If the record is damaged, or none of ours.
    """
    path = out / RECORD
    if not path.is_file():
        return None
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        return {name: record[name] for name in ("settings", "versions", "files")}
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is no record of `avb prepare` ({error!r}); choose another OUT") from error


def _require_empty(out: Path) -> None:
    names = [path.name for path in out.iterdir() if not is_draft(path)] if out.exists() else []
    if names:
        raise ValueError(f"OUT {out} has no {RECORD} and is not empty: {sorted(names)[:10]}; choose another one")


def _entry(step: Step) -> dict[str, Any]:
    source = {"source": step.source, "bytes": step.bytes, "mtime_ns": step.mtime_ns}
    return source | {"kind": step.kind, "result": None}


def _is_made(entry: dict[str, Any]) -> bool:
    """Whether a recorded file is ours, if it is there: made, or being made when the work was cut off."""
    return entry["result"] is None or "error" not in entry["result"]


def _check_same(before: Record, args: PrepareArguments, out: Path) -> None:
    now, then = args.settings(), before["settings"]
    changes = [
        f"{name}: {then.get(name)!r} is now {now.get(name)!r}"
        for name in sorted({*now, *then})
        if then.get(name) != now.get(name)
    ]
    raise_together(changes, f"{out} was made with other settings (--overwrite makes it anew)")


def _check_files(out: Path, known: Record, files: Record) -> None:
    gone = [known[name]["source"] for name in known if name not in files]
    raise_together(gone, f"{out} was made of files that are no longer there (--overwrite makes it anew)")
    changed = [
        str(out / name)
        for name, entry in known.items()
        if (size := (entry["result"] or {}).get("size")) is not None
        and (out / name).is_file()
        and (out / name).stat().st_size != size
    ]
    raise_together(changed, "files were changed after they were made; remove them to have them made again")


def _check_foreign(out: Path, known: Record, files: Record) -> None:
    foreign = [
        str(out / name)
        for name in files
        if os.path.lexists(out / name) and not (name in known and _is_made(known[name]))
    ]
    raise_together(foreign, "files are in the way that `avb prepare` did not make")


def _keep(out: Path, known: Record, files: Record) -> Record:
    """Return the entries whose file is there, made of what RAW holds now."""
    return {
        name: known[name]
        for name, entry in files.items()
        if name in known
        and known[name]["result"] is not None
        and known[name] | {"result": None} == entry
        and (out / name).is_file()
    }
