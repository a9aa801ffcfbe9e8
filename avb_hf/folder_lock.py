"""One process at a time works in a folder: by a lock that ends with its process, however that ends, and is no file."""

from __future__ import annotations

import errno
import functools
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

try:
    import fcntl
except ImportError:  # a system without them, where two processes in one folder are not noticed
    fcntl = None  # type: ignore[assignment]

logger = logging.getLogger(__name__)

_TAKEN = {errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES}
_held: set[int] = set()


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep other processes out of a folder, which is made and, if nothing comes to lie in it, taken away again.

    Args:
        folder: The folder; it may not exist yet.

    Raises:
        ValueError: If another process works on it.
    """
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    with _opened(folder) as descriptor:
        lock(descriptor, folder)
        try:
            yield
        finally:
            with suppress(OSError):
                for path in made:
                    path.rmdir()


def lock(descriptor: int | None, folder: Path) -> None:
    """Lock an open file or folder; where that cannot be done it is said once, and two processes are not noticed.

    Args:
        descriptor: The open file or folder; None where the system has no locks.
        folder: What is said to be taken.

    Raises:
        ValueError: If another process holds the lock.
    """
    if descriptor is None or fcntl is None:
        return
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in _TAKEN:
            raise ValueError(f"{folder}: another process works on it; wait for it or end it first") from error
        _warn_once(str(error))  # a file system without locks, such as Lustre and NFS may be


@contextmanager
def _opened(folder: Path) -> Iterator[int | None]:
    if fcntl is None:
        yield None
        return
    descriptor = os.open(folder, os.O_RDONLY)
    _held.add(descriptor)
    try:
        yield descriptor
    finally:
        if descriptor in _held:  # it is not in a forked child
            _held.remove(descriptor)
            os.close(descriptor)


@functools.cache
def _warn_once(reason: str) -> None:
    logger.warning("the file system knows no locks (%s): let no two processes work in one folder", reason)


def _let_go() -> None:
    """Leave the lock to the parent: a loader's worker outlives one that is killed, and must not keep it."""
    while _held:
        os.close(_held.pop())


if fcntl is not None:
    os.register_at_fork(after_in_child=_let_go)
