"""Files that are there whole or not at all, also after the power went."""

from __future__ import annotations

import os
import re
import uuid
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

_DRAFT = re.compile(r"\..+\.[0-9a-f]{32}\.tmp")
# Characters of a file's name that its draft keeps: the draft's own name must not become too long, at 255 bytes.
_KEPT = 50
# A disk takes what many ask for at once together.
_WAITING = 16


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


def sync(paths: Iterable[Path]) -> None:
    """Force the content of files, and the entries of folders, onto the disk."""
    with ThreadPoolExecutor(_WAITING) as pool:
        for _ in pool.map(_sync, paths):
            pass


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
