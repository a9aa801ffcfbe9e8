import os
import re
import threading

import pytest

from avb_hf import whole_files
from avb_hf.whole_files import is_draft, read_json, sync, whole_file, write_json


@pytest.fixture
def calls(monkeypatch):
    """What is asked of the disk, in order: `sync NAME` and `rename NAME`."""
    asked, names = [], {}
    lock, fsync, replace, os_open = threading.Lock(), os.fsync, os.replace, os.open

    def watch_open(path, *args, **kwargs):
        descriptor = os_open(path, *args, **kwargs)
        names[descriptor] = os.path.basename(path)
        return descriptor

    def watch_fsync(descriptor):
        with lock:
            asked.append(f"sync {re.sub('[0-9a-f]{32}', 'ID', names[descriptor])}")
        fsync(descriptor)

    def watch_replace(source, target):
        asked.append(f"rename {os.path.basename(target)}")
        replace(source, target)

    monkeypatch.setattr(whole_files.os, "open", watch_open)
    monkeypatch.setattr(whole_files.os, "fsync", watch_fsync)
    monkeypatch.setattr(whole_files.os, "replace", watch_replace)
    return asked


def test_content_is_on_the_disk_before_the_name_and_the_name_before_the_end(tmp_path, calls):
    with whole_file(tmp_path / "a.json") as draft:
        draft.write_text("new")
    assert calls == ["sync .a.json.ID.tmp", "rename a.json", f"sync {tmp_path.name}"]
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]


def test_what_need_not_last_does_not_wait_and_is_synced_together(tmp_path, calls):
    paths = [tmp_path / str(number) for number in range(40)]
    for path in paths:
        with whole_file(path, durable=False) as draft:
            draft.write_text("new")
    assert not any(call.startswith("sync") for call in calls)
    sync(paths)
    assert sorted(calls[40:]) == sorted(f"sync {path.name}" for path in paths)


def test_an_error_leaves_the_old_file_and_nothing_else(tmp_path):
    def fail(path):
        with whole_file(path) as draft:
            draft.write_text("ne")
            raise OSError("disk full")

    (tmp_path / "a").write_text("old")
    with pytest.raises(OSError, match="disk full"):
        fail(tmp_path / "a")
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"a": "old"}


def test_two_writers_do_not_disturb_each_other(tmp_path):
    with whole_file(tmp_path / "a") as one:
        one.write_text("one")
        with whole_file(tmp_path / "a") as other:
            other.write_text("other")
        assert (tmp_path / "a").read_text() == "other"
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"a": "one"}


@pytest.mark.parametrize("name", ["x" * 255, "ü" * 127])
def test_the_longest_name_that_a_file_may_have_is_no_error(tmp_path, name):
    with whole_file(tmp_path / name) as draft:
        draft.write_text("new")
        assert is_draft(draft)
    assert (tmp_path / name).read_text() == "new"


@pytest.mark.parametrize("name", ["a.tmp", ".a.tmp", ".a.123.tmp", f"a.{'0' * 32}.tmp", f".a.{'0' * 32}.tmp.csv"])
def test_files_of_others_are_no_drafts(tmp_path, name):
    assert not is_draft(tmp_path / name)


def test_a_file_that_cannot_be_synced_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        sync([tmp_path / "gone"])


def test_where_folders_cannot_be_opened_and_files_are_forced_out_by_writers_all_is_written(tmp_path, monkeypatch):
    fcntl = pytest.importorskip("fcntl")
    os_open, forced = os.open, []

    def open_files_alone(path, *args, **kwargs):
        if os.path.isdir(path):
            raise PermissionError(13, "Permission denied")
        return os_open(path, *args, **kwargs)

    def require_writer(descriptor):
        if fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_ACCMODE != os.O_RDWR:
            raise OSError(9, "Bad file descriptor")
        forced.append(descriptor)

    monkeypatch.setattr(whole_files, "_ON_WINDOWS", True)
    monkeypatch.setattr(whole_files.os, "open", open_files_alone)
    monkeypatch.setattr(whole_files.os, "fsync", require_writer)
    write_json(tmp_path / "a.json", {"a": 1})
    assert read_json(tmp_path / "a.json") == {"a": 1}
    assert len(forced) == 1


def test_json_that_is_damaged_is_named(tmp_path):
    (tmp_path / "a.json").write_text("{")
    with pytest.raises(ValueError, match=r"a\.json is damaged: Expecting"):
        read_json(tmp_path / "a.json")


def test_what_json_does_not_know_is_written_as_text(tmp_path):
    write_json(tmp_path / "a.json", {"ü": tmp_path})
    assert (tmp_path / "a.json").read_bytes().endswith(b"\n")
    assert read_json(str(tmp_path / "a.json")) == {"ü": str(tmp_path)}
