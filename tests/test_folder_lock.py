"""One process at a time works in a folder, also after another was killed, and where there are no locks."""

import errno
import os
import signal
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest

from avb_hf import folder_lock
from avb_hf.folder_lock import locked

ROOT = Path(__file__).resolve().parents[1]
# Holds a folder, beside a forked child as a loader's worker is one, which says its number once it runs.
HOLDER = """
import os, sys, time
from pathlib import Path
from avb_hf.folder_lock import locked

with locked(Path(sys.argv[1])):
    if not os.fork():
        print(os.getpid(), flush=True)
    time.sleep(60)
"""


@contextmanager
def held_by_another(folder):
    """Give the process that holds a folder, and the number of its child."""
    holder = subprocess.Popen([sys.executable, "-c", HOLDER, folder], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    child = int(holder.stdout.readline())
    try:
        yield holder, child
    finally:
        holder.kill()
        os.kill(child, signal.SIGKILL)
        holder.communicate()


def test_another_process_is_refused_until_it_is_killed_whatever_it_leaves_behind(tmp_path):
    with held_by_another(tmp_path) as (holder, child):
        with pytest.raises(ValueError, match=f"{tmp_path}: another process works on it"), locked(tmp_path):
            pass
        holder.kill()
        holder.wait()
        os.kill(child, 0)  # it still lives
        with locked(tmp_path):
            pass
    assert list(tmp_path.iterdir()) == []


def test_a_folder_is_made_and_goes_if_it_stays_empty(tmp_path):
    folder = tmp_path / "a" / "b"
    for content in (None, "file"):
        with locked(folder):
            assert folder.is_dir()
            if content is not None:
                (folder / content).touch()
        assert (tmp_path / "a").exists() == folder.exists() == (content is not None)


def test_a_folder_that_was_there_stays(tmp_path):
    with locked(tmp_path):
        pass
    assert tmp_path.is_dir()


def test_a_refused_one_does_not_take_the_folder_away(tmp_path):
    with locked(tmp_path / "run"):
        for _ in range(2):
            with pytest.raises(ValueError, match="another process works on it"), locked(tmp_path / "run"):
                pass
            assert (tmp_path / "run").is_dir()


def fail_with(number):
    def flock(*_):
        raise OSError(number, os.strerror(number))

    return flock


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_is_told_once(number, tmp_path, monkeypatch, caplog):
    folder_lock._warn_once.cache_clear()
    monkeypatch.setattr(folder_lock.fcntl, "flock", fail_with(number))
    for _ in range(2):
        with locked(tmp_path):
            pass
    (message,) = caplog.messages
    assert os.strerror(number) in message


@pytest.mark.parametrize("number", [errno.EWOULDBLOCK, errno.EACCES])
def test_a_lock_that_is_taken_is_refused(number, tmp_path, monkeypatch):
    monkeypatch.setattr(folder_lock.fcntl, "flock", fail_with(number))
    with pytest.raises(ValueError, match="another process works on it"), locked(tmp_path):
        pass


def test_a_system_without_locks_does_without(tmp_path, monkeypatch):
    monkeypatch.setattr(folder_lock, "fcntl", None)
    with locked(tmp_path / "run"), locked(tmp_path / "run"):
        pass
    assert not (tmp_path / "run").exists()
