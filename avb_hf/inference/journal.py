"""The journal beside a file of scores: what is to be done, fixed at the first start, and what has been done so far.

`job.json` holds what binds the job and how it is cut into batches, `lengths.npy` the clips' lengths, and
`batches-<rank>.jsonl` a line for each batch that a process has scored.
"""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

import numpy as np

from avb_hf.folder_lock import lock, locked
from avb_hf.inference.clip_scorer import ScoredBatch
from avb_hf.inference.score_files import WRITERS
from avb_hf.whole_files import is_draft, read_json, write_json

logger = logging.getLogger(__name__)

_JOB, _LENGTHS, _BATCHES, _DRAFT = "job.json", "lengths.npy", "batches-*.jsonl", "draft"
_SYNC_EVERY = 5.0  # seconds; only a machine that fails, not a process that is killed, loses what is not synchronised


class Journal:
    """A folder that holds the work so far on one file of scores.

    Args:
        folder: The folder; it may not exist yet.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._places: dict[int, tuple[Path, int]] = {}
        self._file: IO[bytes] | None = None
        self._synchronised = time.monotonic()

    def read_job(self) -> dict[str, Any] | None:
        """Return what `begin` was given; None if there is no journal, or its start was cut off.

        Raises:
            ValueError: If it is damaged, or no journal of ours.
        """
        path = self.folder / _JOB
        job = read_json(path) if path.is_file() else None
        if job is not None and not (isinstance(job, dict) and "choice" in job):
            raise ValueError(f"{path} was not written by `avb predict`: choose another --output, or move it")
        return job

    def draft(self, suffix: str) -> Path:
        """Return where the file of scores is to be written until it is whole.

        Args:
            suffix: That of the file.
        """
        return self.folder / f"{_DRAFT}{suffix}"

    def read_lengths(self) -> np.ndarray:
        """Return the clips' lengths in samples, of shape `(clips,)`."""
        return np.load(self.folder / _LENGTHS, allow_pickle=False)

    @contextmanager
    def claimed(self) -> Iterator[None]:
        """Keep other calls away from the folder, which is made and, if nothing comes to lie in it, taken away again.

        Raises:
            ValueError: If another call works on it, or it holds what no journal does.
        """
        with locked(self.folder):
            others = sorted(path.name for path in self.folder.iterdir() if not _is_ours(path))
            if others:
                raise ValueError(
                    f"{self.folder} is for work so far, but holds {others[:10]}: move them or choose another --output"
                )
            yield

    def begin(self, job: dict[str, Any], lengths: np.ndarray) -> None:
        """Start over with a new job; it is there once all of it is.

        Args:
            job: What is to be done; JSON must know it.
            lengths: Length of each clip in samples, of shape `(clips,)`.
        """
        self._empty()
        self.folder.mkdir(parents=True, exist_ok=True)
        np.save(self.folder / _LENGTHS, lengths)
        write_json(self.folder / _JOB, job)

    def delete(self) -> None:
        """Delete the journal."""
        self._empty()
        with suppress(OSError):  # something else has come to lie in it, or it was never there
            self.folder.rmdir()

    def _empty(self) -> None:
        (self.folder / _JOB).unlink(missing_ok=True)  # first, so that what is left is no journal
        for path in filter(_is_ours, self.folder.glob("*")):
            path.unlink()

    def open(self, rank: int) -> None:
        """Make ready to add to the part of one process; what a kill left half-written there is cut off.

        Raises:
            ValueError: If another process is adding to it.
        """
        path = self.folder / _BATCHES.replace("*", str(rank))
        self._file = path.open("ab")
        try:
            lock(self._file.fileno(), self.folder)
        except ValueError:
            self._file.close()
            raise
        whole = max((end for _, end, _ in _read_lines(path)), default=0)
        if whole < path.stat().st_size:
            logger.warning("%s: what follows byte %d was cut off; it is computed again", path, whole)
            self._file.truncate(whole)

    def add(self, batch: ScoredBatch) -> None:
        """Write down a scored batch."""
        if self._file is None:
            raise ValueError(f"{self.folder} must be opened before a batch is added")
        self._file.write(_as_line(batch))
        self._file.flush()
        if time.monotonic() - self._synchronised > _SYNC_EVERY:
            os.fsync(self._file.fileno())
            self._synchronised = time.monotonic()

    def close(self) -> None:
        """Force what was added onto the disk."""
        if self._file is not None:
            os.fsync(self._file.fileno())
            self._file.close()
            self._file = None

    def find_batches(self) -> float:
        """Look up which batches are done, by whichever process.

        Returns:
            Seconds of audio in them.
        """
        self._places, seconds = {}, 0.0
        for path in sorted(self.folder.glob(_BATCHES)):
            for start, _, record in _read_lines(path):
                if record["batch"] not in self._places:
                    self._places[record["batch"]] = (path, start)
                    seconds += record["seconds"]
        return seconds

    def __contains__(self, number: int) -> bool:
        """Whether a batch was done when `find_batches` looked."""
        return number in self._places

    def read(self, number: int) -> tuple[list[list[float] | None], list[str | None]]:
        """Return scores and errors of a batch's clips, in the batch's order.

        Raises:
            ValueError: If the batch was not done when `find_batches` looked.
        """
        if number not in self._places:
            raise ValueError(f"{self.folder} lacks batch {number}: do all processes see the same folder?")
        path, start = self._places[number]
        with path.open("rb") as file:
            file.seek(start)
            record = json.loads(file.readline())
        return record["scores"], record["errors"]


def _is_ours(path: Path) -> bool:
    is_part = any(path.match(pattern) for pattern in (_JOB, _LENGTHS, _BATCHES))
    is_scores = path.stem == _DRAFT and path.suffix.lower() in WRITERS
    return path.is_file() and (is_part or is_scores or is_draft(path))


def _as_line(batch: ScoredBatch) -> bytes:
    record = {"batch": batch.number, "seconds": batch.seconds, "scores": batch.scores, "errors": batch.errors}
    return json.dumps(record).encode() + b"\n"


def _read_lines(path: Path) -> Iterator[tuple[int, int, dict[str, Any]]]:
    """Yield start, end and content of each line up to the first that is not whole."""
    start = 0
    with path.open("rb") as file:
        for line in file:
            try:
                record = json.loads(line) if line.endswith(b"\n") else None
            except ValueError:
                record = None
            if record is None:
                return
            yield start, start + len(line), record
            start += len(line)
