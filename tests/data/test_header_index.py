import hashlib
import itertools
import multiprocessing
import os
import shutil

import numpy as np
import pandas as pd
import pytest
import soundfile

from avb_hf.data import header_index
from avb_hf.data.arguments import DataArguments
from avb_hf.data.audio import AudioFileError
from avb_hf.data.doctor import diagnose
from avb_hf.data.findings import CorpusError
from avb_hf.data.header_index import HeaderIndex
from avb_hf.data.sources import load_corpus
from avb_hf.tasks import TASKS

LONG_AGO = 1_600_000_000


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """A cache of the test's own, in which few headers are worth being kept."""
    monkeypatch.setenv("AVB_HF_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(header_index, "MIN_FRESH", 1)
    return tmp_path / "cache" / "headers"


def write(path, rate=16_000, channels=1, frames=1_600, time=LONG_AGO, **kwargs):
    soundfile.write(path, np.full((frames, channels), 0.1), rate, **kwargs)
    os.utime(path, (time, time))
    return path


@pytest.fixture
def paths(tmp_path):
    """Three files that differ in all that a header tells."""
    folder = tmp_path / "clips"
    folder.mkdir()
    return [
        write(folder / "a.wav"),
        write(folder / "b.flac", 48_000, 2, 4_321),
        write(folder / "é ü.mp3", 44_100, 1, 9_000),
    ]


def read_all(paths):
    """Read headers through an index that is opened and saved around it."""
    index = HeaderIndex(paths)
    headers = [index.read_header(path, path.name) for path in paths]
    index.save()
    return headers


@pytest.fixture
def opened(monkeypatch):
    """Names of the files whose headers were really read."""
    names, read = [], header_index.read_header
    monkeypatch.setattr(header_index, "read_header", lambda path, name: names.append(name) or read(path, name))
    return names


def test_a_file_is_opened_once_and_its_header_is_the_same_each_time(paths, opened, caplog):
    for _ in range(3):
        for path, header in zip(paths, read_all(paths), strict=True):
            info = soundfile.info(path)
            facts = (info.samplerate, info.channels, info.frames, info.format)
            assert (header.sampling_rate, header.channels, header.num_frames, header.format) == facts
    assert opened == [path.name for path in paths]
    assert not caplog.records


def test_relative_paths_are_the_same_files(paths, opened, monkeypatch):
    read_all(paths)
    monkeypatch.chdir(paths[0].parent)
    read_all([path.relative_to(paths[0].parent) for path in paths])
    assert len(opened) == len(paths)


@pytest.mark.parametrize("fields", [{"time": LONG_AGO + 1}, {"frames": 1_601}, {"rate": 8_000, "time": LONG_AGO - 1}])
def test_a_file_of_another_size_or_time_is_read_again(paths, opened, fields):
    read_all(paths)
    write(paths[0], **fields)
    header = read_all(paths)[0]
    assert (header.sampling_rate, header.num_frames) == (fields.get("rate", 16_000), fields.get("frames", 1_600))
    read_all(paths)
    assert opened == [*(path.name for path in paths), paths[0].name]


def test_what_was_written_just_now_is_read_again(paths, opened):
    os.utime(paths[0])
    read_all(paths)
    read_all(paths)
    assert opened.count(paths[0].name) == 2
    assert len(opened) == 4


@pytest.mark.parametrize("damage", ["cut", "no audio", "gone"])
def test_a_bad_file_is_refused_every_time(paths, damage):
    read_all(paths)
    content = paths[0].read_bytes()
    paths[0].write_bytes(content[:1_000] if damage == "cut" else b"<html></html>")
    os.utime(paths[0], (LONG_AGO, LONG_AGO))
    if damage == "gone":
        paths[0].unlink()
    index = HeaderIndex(paths)
    for _ in range(2):
        with pytest.raises(AudioFileError, match=r"cut off|cannot be decoded|missing"):
            index.read_header(paths[0], "a")
        index.save()
        index = HeaderIndex(paths)


def test_a_few_headers_are_not_worth_a_file(paths, cache, monkeypatch):
    monkeypatch.setattr(header_index, "MIN_FRESH", 4)
    read_all(paths)
    assert not cache.exists()


def table_of(cache):
    (file,) = cache.iterdir()
    return file


def test_any_damage_is_noticed_said_and_repaired(paths, cache, opened, caplog):
    headers = read_all(paths)
    whole = table_of(cache).read_bytes()
    damaged = [bytearray(whole) for _ in range(0, len(whole), 41)]
    for number, content in enumerate(damaged):
        content[41 * number] ^= 1 << number % 8
    for content in [*damaged, b"", whole[:-1], whole[:40], whole + b"\0", bytes(len(whole))]:
        table_of(cache).write_bytes(content)
        opened.clear()
        caplog.clear()
        assert read_all(paths) == headers
        assert len(opened) == len(paths)
        assert caplog.text.count("is damaged") == 1
        assert table_of(cache).read_bytes() == whole


def test_headers_of_another_library_do_not_count(paths, opened, monkeypatch):
    read_all(paths)
    other = header_index._SCHEMA.with_metadata({"version": "1", "libsndfile": "1.0.0"})
    monkeypatch.setattr(header_index, "_SCHEMA", other)
    read_all(paths)
    read_all(paths)
    assert len(opened) == 2 * len(paths)


def test_what_is_no_table_of_ours_is_replaced(paths, cache, opened, caplog):
    headers = read_all(paths)
    table_of(cache).write_bytes(hashlib.sha256(b"PAR1").digest() + b"PAR1")
    assert read_all(paths) == headers
    assert len(opened) == 2 * len(paths)
    assert caplog.text.count("is damaged") == 1
    read_all(paths)
    assert len(opened) == 2 * len(paths)


def test_what_two_processes_read_is_joined_and_what_is_gone_is_forgotten(paths, opened):
    both = [HeaderIndex(paths), HeaderIndex(paths)]
    for index, read in zip(both, (paths[:2], paths[2:]), strict=True):
        for path in read:
            index.read_header(path, path.name)
    for index in both:
        index.save()
    opened.clear()
    read_all(paths)
    assert opened == []
    content = paths[2].read_bytes()
    paths[2].unlink()
    write(paths[0], time=LONG_AGO + 5)
    read_all(paths[:2])
    paths[2].write_bytes(content)
    os.utime(paths[2], (LONG_AGO, LONG_AGO))
    opened.clear()
    read_all(paths)
    assert opened == [paths[2].name]


@pytest.mark.parametrize("obstacle", ["a file", "a folder"])
def test_a_cache_that_cannot_be_used_is_said_and_costs_nothing_else(paths, tmp_path, monkeypatch, caplog, obstacle):
    headers = read_all(paths)
    if obstacle == "a file":
        (tmp_path / "file").touch()
        monkeypatch.setenv("AVB_HF_CACHE", str(tmp_path / "file"))
    else:
        file = HeaderIndex(paths).file
        file.unlink()
        file.mkdir()
    assert read_all(paths) == headers
    assert "could not be kept in" in caplog.text
    assert "Traceback" not in caplog.text


def test_a_user_without_a_home_reads_too(paths, monkeypatch, caplog):
    monkeypatch.delenv("AVB_HF_CACHE")

    def no_home():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr("pathlib.Path.home", no_home)
    assert len(read_all(paths)) == len(paths)
    assert "home directory" in caplog.text


def write_for_ever(paths, time):
    for path in paths:
        os.utime(path, (time, time))
    while True:
        index = HeaderIndex(paths)
        index._known.clear()
        for path in paths:
            index.read_header(path, path.name)
        index.save()


@pytest.mark.slow
def test_processes_that_are_killed_while_they_write_leave_a_whole_table(paths, cache, caplog):
    expected = read_all(paths)
    many = [paths[0].with_name(f"{number}.wav") for number in range(300)]
    for path in many:
        shutil.copy2(paths[0], path)
    paths = [*paths, *many]
    context = multiprocessing.get_context("fork")
    for delay in (0.3, 0.4, 0.5):
        writers = [context.Process(target=write_for_ever, args=(paths, LONG_AGO)) for _ in range(2)]
        for writer in writers:
            writer.start()
        writers[0].join(delay)
        assert all(writer.is_alive() for writer in writers)
        for _ in range(20):
            assert {len(HeaderIndex(paths)._known)} <= {3, 303}
        for writer in writers:
            writer.kill()
            writer.join()
    assert len(HeaderIndex(paths)._known) == 303
    assert read_all(paths)[:3] == expected
    assert "damaged" not in caplog.text


@pytest.fixture
def corpus(corpus_dir, tmp_path):
    """A corpus that was written long ago."""
    folder = shutil.copytree(corpus_dir, tmp_path / "corpus")
    for path in folder.rglob("*.wav"):
        os.utime(path, (LONG_AGO, LONG_AGO))
    return folder


def test_the_second_start_of_a_training_opens_no_audio_and_finds_the_same(corpus, opened):
    args = DataArguments(data_dir=str(corpus))
    first = load_corpus(TASKS["two"], args)
    assert len(opened) == 36
    second = load_corpus(TASKS["two"], args)
    assert len(opened) == 36
    for name in first:
        assert first[name][:] == second[name][:]


def test_limits_are_checked_whatever_is_in_the_index(corpus):
    args = DataArguments(data_dir=str(corpus))
    longest = max(itertools.chain(*(split["duration"][:] for split in load_corpus(TASKS["two"], args).values())))
    with pytest.raises(CorpusError, match="longer than"):
        load_corpus(TASKS["two"], DataArguments(data_dir=str(corpus), max_duration=longest - 0.001))


def damage_in_secret(path):
    """Change a file such that neither its size nor its time tells."""
    path.write_bytes(b"\0" * path.stat().st_size)
    os.utime(path, (LONG_AGO, LONG_AGO))


@pytest.mark.parametrize("headers_only", [True, False])
def test_the_doctor_reads_the_files_themselves(corpus, headers_only):
    args = DataArguments(data_dir=str(corpus), task="two")
    load_corpus(TASKS["two"], args)
    damage_in_secret(corpus / "audio" / "any" / "00003.wav")
    load_corpus(TASKS["two"], args)
    found = {(finding.kind, finding.file_id) for finding in diagnose(args, headers_only).findings}
    assert found == {("unreadable_audio", "00003")}


def test_leaving_bad_audio_out_reads_the_files_themselves(corpus):
    args = DataArguments(data_dir=str(corpus), on_bad_audio="skip", max_bad_audio=0.1)
    load_corpus(TASKS["two"], DataArguments(data_dir=str(corpus)))
    damage_in_secret(corpus / "audio" / "any" / "00001.wav")
    kept = load_corpus(TASKS["two"], args)
    assert sum(map(len, kept.values())) == 35
    table = pd.read_csv(corpus / "labels" / "two_info.csv")
    assert len(table) == 36
