"""A second call: what is kept, what is made again, and what is never touched."""

import json
import os

import numpy as np
import pytest
import soundfile

from avb_hf.data.prepare import record as record_module
from avb_hf.data.prepare import run as run_module
from avb_hf.data.prepare.arguments import PrepareArguments
from avb_hf.data.prepare.run import prepare

pytestmark = pytest.mark.slow


def serial(**flags):
    return PrepareArguments(num_workers=1, **flags)


@pytest.fixture
def out(raw, tmp_path):
    """What a whole call made of `raw`."""
    prepare(raw, tmp_path / "out", serial())
    return tmp_path / "out"


def times(folder):
    return {path.name: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


def test_a_second_call_makes_nothing(raw, out, digests):
    before, then = digests(out), times(out)
    report = prepare(raw, out, serial())
    assert (report.prepared, report.skipped, report.other_files) == (0, 3, 2)
    assert report.hours == pytest.approx((0.5 + 0.25 + 0.5) / 3600, rel=1e-3)
    assert digests(out) == before
    assert {name for name, time in times(out).items() if time != then[name]} <= {"prepare.json"}


def test_what_is_missing_changed_or_new_is_made(raw, out, tmp_path, digests):
    (out / "b" / "two.wav").unlink()
    (out / "README").unlink()
    soundfile.write(raw / "one.flac", np.random.default_rng(5).uniform(-0.5, 0.5, 9_000), 48_000)
    soundfile.write(raw / "new.wav", np.random.default_rng(6).uniform(-0.5, 0.5, 9_000), 48_000)
    report = prepare(raw, out, serial())
    assert (report.prepared, report.skipped) == (3, 1)
    prepare(raw, tmp_path / "reference", serial())
    assert digests(out) == digests(tmp_path / "reference")


def test_a_source_of_the_same_size_and_another_time_is_made_again(raw, out):
    os.utime(raw / "one.flac", ns=(1, 1))
    assert prepare(raw, out, serial()).prepared == 1


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("name", ["one.wav", "README", "b/three.wav"])
def test_a_call_that_stopped_anywhere_ends_like_one_that_did_not(raw, out, tmp_path, digests, monkeypatch, name, when):
    """The process ends right before or right after a file gets its name, and records nothing any more."""
    half, replace = tmp_path / "half", os.replace

    def stop(source, target):
        if target != half / name:
            return replace(source, target)
        if when == "after":
            replace(source, target)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", stop)
        patch.setattr(run_module, "save", lambda out, record, made: None)
        with pytest.raises(KeyboardInterrupt):
            prepare(raw, half, serial())
    assert (half / name).exists() == (when == "after")
    prepare(raw, half, serial())
    assert digests(half) == digests(out)


def test_what_a_killed_call_left_unfinished_is_cleared(raw, out, digests):
    before = digests(out)
    (out / "one.wav").unlink()
    (out / f".one.wav.{'0' * 32}.tmp").write_bytes(b"RIFF")
    (out / "mine.tmp").write_text("kept")
    prepare(raw, out, serial())
    assert digests(out) == before | {"mine.tmp": digests(out)["mine.tmp"]}


def test_nothing_is_recorded_before_it_is_on_the_disk(raw, tmp_path, monkeypatch):
    out, synced = tmp_path / "out", set()

    def check(out, record, made):
        save(out, record, made)
        named = {out / name for name, entry in record["files"].items() if entry["result"] is not None}
        assert named | {path.parent for path in named} == synced

    save = run_module.save
    monkeypatch.setattr(record_module, "sync", lambda paths: synced.update(paths))
    monkeypatch.setattr(run_module, "save", check)
    monkeypatch.setattr(run_module, "_SAVE_EVERY", 0)
    prepare(raw, out, serial())
    assert out / "b" / "two.wav" in synced


def test_other_settings_are_refused_and_shown(raw, out, digests):
    before = digests(out)
    with pytest.raises(ValueError, match=r"2 problems\n  channels: 'mean' is now 'first'\n  peak_db: -3.0 is now -1.0"):
        prepare(raw, out, serial(channels="first", peak_db=-1.0))
    assert digests(out) == before
    assert prepare(raw, out, serial(channels="first", peak_db=-1.0, overwrite=True)).prepared == 3
    assert np.abs(soundfile.read(out / "one.wav")[0]).max() == pytest.approx(10 ** (-1 / 20), abs=1 / 32_768)


def test_the_number_of_processes_is_no_setting(raw, out):
    assert prepare(raw, out, PrepareArguments(num_workers=7)).prepared == 0


def test_sources_that_are_gone_are_told(raw, out):
    (raw / "one.flac").unlink()
    with pytest.raises(ValueError, match=r"no longer there[^\n]*: 1 problem\n  one\.flac"):
        prepare(raw, out, serial())
    assert (out / "one.wav").is_file()
    prepare(raw, out, serial(overwrite=True))
    assert not (out / "one.wav").exists()


def test_a_folder_with_other_files_is_refused(raw, tmp_path, digests):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.txt").write_text("years of work")
    for args in (serial(), serial(overwrite=True)):
        with pytest.raises(ValueError, match=r"not empty: \['thesis\.txt'\]"):
            prepare(raw, tmp_path / "out", args)
    assert list(digests(tmp_path / "out")) == ["thesis.txt"]


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_file_that_is_not_ours_is_never_overwritten(raw, out, overwrite):
    (out / "new.wav").write_text("somebody else's")
    assert prepare(raw, out, serial(overwrite=overwrite)).bad == {}
    soundfile.write(raw / "new.flac", np.full(4_000, 0.1), 16_000)
    with pytest.raises(ValueError, match=r"did not make: 1 problem\n  .*new\.wav"):
        prepare(raw, out, serial(overwrite=overwrite))
    assert (out / "new.wav").read_text() == "somebody else's"


def test_a_file_in_the_place_of_a_bad_recording_is_not_ours(raw, out):
    (raw / "bad.mp3").write_text("no audio")
    assert len(prepare(raw, out, serial()).bad) == 1
    (out / "bad.wav").write_text("made by hand")
    for args in (serial(), serial(overwrite=True)):
        with pytest.raises(ValueError, match=r"bad\.wav"):
            prepare(raw, out, args)
    assert (out / "bad.wav").read_text() == "made by hand"


@pytest.mark.parametrize("name", ["ids.csv", "one.wav"])
def test_a_file_that_was_edited_since_is_not_overwritten(raw, out, name):
    (out / name).write_bytes(b"edited")
    with pytest.raises(ValueError, match=f"changed after they were made[^\n]*\n  .*{name}"):
        prepare(raw, out, serial())
    assert (out / name).read_bytes() == b"edited"


@pytest.mark.parametrize("content", ["", "[]", '{"settings": {}}'])
def test_a_record_of_something_else_is_refused(raw, tmp_path, content):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "prepare.json").write_text(content)
    with pytest.raises(ValueError, match="no record of `avb prepare`"):
        prepare(raw, tmp_path / "out", serial())


def test_the_record_tells_settings_versions_and_sources(raw, out):
    record = json.loads((out / "prepare.json").read_text())
    assert record["raw"] == str(raw)
    assert record["settings"]["peak_db"] == -3.0
    assert {"avb_hf", "soxr", "soundfile"} <= set(record["versions"])
    entry = record["files"]["one.wav"]
    assert (entry["source"], entry["bytes"]) == ("one.flac", (raw / "one.flac").stat().st_size)
    assert entry["result"]["size"] == (out / "one.wav").stat().st_size
