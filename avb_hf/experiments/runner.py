"""Carry out jobs one after another: skip what is finished, go on behind what fails, stop when told to."""

from __future__ import annotations

import fcntl
import logging
import shutil
import signal
import subprocess
import sys
import traceback
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from types import FrameType
from typing import Self, TextIO

from tqdm.auto import tqdm

from avb_hf.experiments.jobs import Job
from avb_hf.training.checkpoints import PREFIX
from avb_hf.whole_files import is_draft

logger = logging.getLogger(__name__)

DONE, NOT_RUN = "done", "not run"
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)

# Calls `avb` with arguments, its output going to a file, and returns its exit code.
Execute = Callable[[list[str], TextIO], int]


class StoppedError(Exception):
    """A run was told to stop, and so are those behind it.

    Args:
        exit_code: 128 and the signal's number.
    """

    def __init__(self, exit_code: int) -> None:
        super().__init__(f"stopped by {signal.Signals(exit_code - 128).name}; the same call goes on")
        self.exit_code = exit_code


def find_finished(jobs: Sequence[Job], clear: bool = False) -> dict[Job, str]:
    """Tell of each job whether it is finished, as `done` or `not run`.

    Args:
        jobs: Where to look.
        clear: Whether to delete the checkpoints of finished runs, which nothing needs any more.
    """
    bar = tqdm(jobs, desc="looking for finished runs", unit="run", leave=False, disable=None)
    outcomes = {job: DONE if job.is_finished() else NOT_RUN for job in bar}
    for job in (job for job, outcome in outcomes.items() if clear and outcome == DONE):
        _delete_checkpoints(job)
    return outcomes


def carry_out(jobs: Sequence[Job], execute: Execute) -> dict[Job, str]:
    """Carry out the jobs that are not finished, and tell what became of each.

    A run that was cut off goes on; one that fails is told of, and tried again by the next call. One whose log another
    process writes, such as another call of this or the child of a grid that was killed, is waited for when all others
    are done; one that a process without that log is at is refused by `avb`, and so fails. Checkpoints of finished runs
    are deleted.

    Args:
        jobs: What is to be done, in this order.
        execute: Runs `avb`, here or in another process.

    Returns:
        `done`, or `failed: ` and why, for each job.

    Raises:
        StoppedError: If a run was stopped by a signal.
    """
    outcomes = find_finished(jobs, clear=True)
    missing = deque((job, False) for job in jobs if outcomes[job] != DONE)
    logger.info("%d of %d runs are finished", len(jobs) - len(missing), len(jobs))
    with tqdm(total=len(missing), unit="run", disable=None) as bar:
        while missing:
            job, waits = missing.popleft()
            bar.set_description(job.run.label)
            outcome = _attempt(job, execute, waits)
            if outcome is None:
                missing.append((job, True))
                continue
            outcomes[job] = outcome
            bar.update()
            if outcome != DONE:
                tqdm.write(f"{job.name} {outcome} ({job.log})", file=sys.stderr)
    return outcomes


def in_this_process(call: Callable[[list[str]], int]) -> Execute:
    """Return an `execute` that calls `avb` here, which saves the seconds in which torch is imported.

    Args:
        call: Takes the arguments of `avb`, and returns its exit code or raises an error.
    """

    def execute(argv: list[str], log: TextIO) -> int:
        with _into(log):
            return call(argv)

    return execute


def in_own_process(argv: list[str], log: TextIO) -> int:
    """Call `avb` in a process of its own, hand on to it what this one is told by signals, and wait for its end."""
    command = [sys.executable, "-m", "avb_hf", *argv]
    with (
        _SignalRelay() as relay,
        subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True) as child,
    ):
        relay.hand_on_to(child)
        code = child.wait()
    return 128 + relay.told[0] if relay.told else code


def _attempt(job: Job, execute: Execute, waits: bool) -> str | None:
    """Carry out a job and return what became of it; None if another process is at it, unless that is waited for."""
    job.folder.parent.mkdir(parents=True, exist_ok=True)
    code, problem = 0, ""
    with job.log.open("a", encoding="utf-8") as log:
        if not _lock(log, waits):
            return None
        if not job.is_finished():  # now that no other process can be at it
            _sweep(job)
            try:
                code = execute(job.argv, log)
            except Exception as error:
                log.write(traceback.format_exc())
                code, problem = 1, f"{type(error).__name__}: {error}"
    if code - 128 in SIGNALS:
        raise StoppedError(code)
    if code:
        return f"failed: {one_line(problem or _last_words(job, code))}"
    if not job.is_finished():
        return "failed: it left no complete results"
    _delete_checkpoints(job)
    return DONE


def _delete_checkpoints(job: Job) -> None:
    for checkpoint in job.folder.glob(f"{PREFIX}*"):
        shutil.rmtree(checkpoint, ignore_errors=True)  # another grid may be at it too


def _lock(log: TextIO, waits: bool) -> bool:
    """Lock a log; a run whose grid was killed may still write to its own, and so hold the lock."""
    if waits:
        logger.info("waiting for the process that writes to %s", log.name)
    try:
        fcntl.flock(log, fcntl.LOCK_EX | (0 if waits else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    except OSError:  # a file system that knows no locks
        pass
    return True


def _sweep(job: Job) -> None:
    """Delete drafts that a killed process left before anything else: a folder with nothing else is no run's."""
    content = list(job.folder.iterdir()) if job.folder.is_dir() else []
    if all(is_draft(path) for path in content):
        for path in content:
            path.unlink()


def _last_words(job: Job, code: int) -> str:
    if code < 0:
        return f"killed by {signal.Signals(-code).name}"
    lines = job.log.read_text(encoding="utf-8", errors="replace").split("\n")
    return next((line for line in reversed(lines) if line.strip()), f"exit code {code}")


def one_line(text: str) -> str:
    """Return a text as one line of at most 300 characters."""
    return " ".join(text.split())[:300]


@contextmanager
def _into(log: TextIO) -> Iterator[None]:
    """Send what is written, and what is logged, to a file."""
    root = logging.getLogger()
    before, handler = root.handlers[:], logging.StreamHandler(log)
    handler.setFormatter(logging.Formatter("%(levelname)s %(name)s: %(message)s"))
    root.handlers = [handler]
    try:
        with redirect_stdout(log), redirect_stderr(log):
            yield
    finally:
        root.handlers = before


class _SignalRelay:
    """Hands signals on to a child, which saves and ends, instead of dying of them."""

    def __init__(self) -> None:
        self.told: list[int] = []
        self._child: subprocess.Popen | None = None

    def __enter__(self) -> Self:
        self._before = {number: signal.signal(number, self._take) for number in SIGNALS}
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def hand_on_to(self, child: subprocess.Popen) -> None:
        """Send a child what comes, and what came while it was started."""
        self._child = child
        for number in self.told:
            child.send_signal(number)

    def _take(self, number: int, frame: FrameType | None) -> None:
        self.told.append(number)
        if self._child is not None:
            self._child.send_signal(number)
