"""Checkpoints that say whether they are whole: sealed when written, verified before they are resumed from."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from pathlib import Path

logger = logging.getLogger(__name__)

SEAL = "avb_complete.json"
PREFIX = "checkpoint-"


def seal(folder: str | Path) -> None:
    """Force a checkpoint's files onto the disk, then write down their sizes and digests, in one stroke and last.

    Args:
        folder: A checkpoint that is completely written.
    """
    folder = Path(folder)
    contents = {}
    for path in _files(folder):
        with path.open("rb") as file:
            os.fsync(file.fileno())
        contents[str(path.relative_to(folder))] = {"size": path.stat().st_size, "sha256": _digest(path)}
    draft = folder / f"{SEAL}.tmp"
    with draft.open("w", encoding="utf-8") as file:
        json.dump(contents, file, indent=2)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(folder / SEAL)
    _sync_folder(folder)
    _sync_folder(folder.parent)


def find_damage(folder: str | Path) -> str | None:
    """Tell what is wrong with a checkpoint, or return None if it is as it was sealed."""
    folder = Path(folder)
    try:
        contents = json.loads((folder / SEAL).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return f"it was not completely written: {SEAL} is missing"
    except ValueError:
        return f"{SEAL} is damaged"
    for name, expected in contents.items():
        path = folder / name
        if not path.is_file():
            return f"{name} is missing"
        if path.stat().st_size != expected["size"] or _digest(path) != expected["sha256"]:
            return f"{name} is not as it was written"
    return None


def newest_whole(folder: str | Path) -> str | None:
    """Return the newest checkpoint below a run's folder that is whole; newer ones that are not are named in the log."""
    numbered = [path for path in Path(folder).glob(f"{PREFIX}*") if path.name.removeprefix(PREFIX).isdigit()]
    for path in sorted(numbered, key=lambda path: int(path.name.removeprefix(PREFIX)), reverse=True):
        damage = find_damage(path)
        if damage is None:
            return str(path)
        logger.warning("skipping %s: %s", path, damage)
    return None


def _files(folder: Path) -> list[Path]:
    return [path for path in sorted(folder.rglob("*")) if path.is_file() and not path.name.startswith(SEAL)]


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
