"""Files that are there whole or not at all, also after the power went."""

from __future__ import annotations

import json
import os
import re
import uuid
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

_DRAFT = re.compile(r"\..+\.[0-9a-f]{32}\.tmp")
# Characters of a file's name that its draft keeps: the draft's own name must not become too long, at 255 bytes.
_KEPT = 50
# A disk takes what many ask for at once together.
_WAITING = 16
_ON_WINDOWS = os.name == "nt"


@contextmanager
def whole_file(path: Path, durable: bool = True) -> Iterator[Path]:
    """Give a path beside `path` to write to; the file gets its name once the block ends without an error.

    A reader finds the old file or the whole new one, and several processes may write at once: the last one wins. A
    draft that a killed process left is told by `is_draft`.

    Args:
        path: The file; its folder must exist.
        durable: Whether the block's end waits until content and name are on the disk. Of many files, `sync` does that
            faster.
    """
    draft = path.with_name(f".{path.name[:_KEPT]}.{uuid.uuid4().hex}.tmp")
    try:
        yield draft
        if durable:
            sync([draft])
        os.replace(draft, path)
        if durable:
            sync([path.parent])
    finally:
        draft.unlink(missing_ok=True)


def is_draft(path: Path) -> bool:
    """Whether a file's name is one that `whole_file` gives to unfinished files."""
    return _DRAFT.fullmatch(path.name) is not None


def write_json(path: str | Path, content: Any) -> None:
    """Write a JSON file in one stroke: a reader finds the old one or the whole new one.

    Args:
        path: The file; its folder must exist.
        content: What to write; what JSON does not know is written as text.
    """
    with whole_file(Path(path)) as draft:
        draft.write_text(json.dumps(content, indent=2, default=str) + "\n", encoding="utf-8")


def read_json(path: str | Path) -> Any:
    """Read a JSON file.

    Raises:
        ValueError: If it is damaged; the message names it.
    """
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is damaged: {error}") from error


def sync(paths: Iterable[Path]) -> None:
    """Force the content of files onto the disk, and the entries of folders where the system can: Windows cannot."""
    with ThreadPoolExecutor(_WAITING) as pool:
        for _ in pool.map(_sync, paths):
            pass


def _sync(path: Path) -> None:
    if _ON_WINDOWS and path.is_dir():
        return
    # Windows forces out only what is open for writing; elsewhere a file that is read-only must do as well.
    descriptor = os.open(path, os.O_RDWR if _ON_WINDOWS else os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
