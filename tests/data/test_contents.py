"""Clips in Parquet files against the same clips in files of their own."""

import os
import pickle

import numpy as np
import pyarrow as pa
import pytest
import soundfile
from pyarrow import parquet

from avb_hf.data import contents
from avb_hf.data.arguments import DataArguments
from avb_hf.data.audio import AudioFileError, load_clip, read_header
from avb_hf.data.contents import exists, file_stamp, find_audio_column, find_row, open_content, row_path

ARGS = DataArguments()
KINDS = {"a.wav": 16_000, "b.flac": 48_000, "c.ogg": 44_100, "d.mp3": 22_050, "e.aiff": 16_000, "f.w64": 8_000}


def write_rows(path, clips, group=2, column="audio", paths=True):
    cells = [{"bytes": clip} | ({"path": "x"} if paths else {}) for clip in clips]
    kind = pa.struct([("bytes", pa.binary()), *([("path", pa.string())] if paths else [])])
    table = pa.table({"label": list(range(len(clips))), column: pa.array(cells, kind)})
    parquet.write_table(table, path, row_group_size=group)
    return path


@pytest.fixture
def files(tmp_path):
    """A file of noise in each of several containers."""
    rng = np.random.default_rng(0)
    for name, rate in KINDS.items():
        soundfile.write(
            tmp_path / name, 0.3 * rng.standard_normal((rate // 2, 1 + (name[0] in "bd"))).clip(-3, 3), rate
        )
    return [tmp_path / name for name in KINDS]


@pytest.fixture
def table(files, tmp_path):
    return write_rows(tmp_path / "train.parquet", [path.read_bytes() for path in files])


@pytest.mark.parametrize("index", range(len(KINDS)), ids=list(KINDS))
def test_a_row_is_decoded_as_the_file_is(files, table, index):
    path = row_path(table, index + 1)
    assert read_header(path, "a") == read_header(files[index], "a")
    np.testing.assert_array_equal(load_clip(path, "a", ARGS), load_clip(files[index], "a", ARGS))
    with open_content(path) as content:
        assert content.read() == files[index].read_bytes()


def test_the_middle_of_a_long_clip_is_that_of_the_file(tmp_path):
    soundfile.write(tmp_path / "a.wav", np.random.default_rng(0).uniform(-1, 1, 64_000), 16_000)
    table = write_rows(tmp_path / "t.parquet", [(tmp_path / "a.wav").read_bytes()])
    crop = DataArguments(max_duration=1.0, long_clips="crop")
    np.testing.assert_array_equal(
        load_clip(row_path(table, 1), "a", crop), soundfile.read(tmp_path / "a.wav", dtype="float32")[0][24_000:40_000]
    )


def test_a_path_names_a_row_only_below_a_parquet_file(table, tmp_path):
    assert find_row(f"{table}/3") == (str(table), 3)
    (tmp_path / "folder.parquet").mkdir()
    (tmp_path / "folder.parquet" / "3").write_bytes(b"own")
    gone, own = tmp_path / "gone.parquet" / "3", tmp_path / "folder.parquet" / "3"
    for path in (table, f"{table}/x", f"{table}/3/4", gone, own):
        assert find_row(path) is None
    assert open_content(own).read() == b"own"
    assert exists(f"{table}/3")
    assert not exists(gone)


def test_a_row_changes_with_its_file(table):
    status = os.stat(table)
    assert file_stamp(row_path(table, 1)) == file_stamp(table) == (status.st_size, status.st_mtime_ns)
    assert load_clip(row_path(table, 1), "a", ARGS).any()
    write_rows(table, [b"no audio", b"nor this"])
    os.utime(table, ns=(1, status.st_mtime_ns + 1))
    with pytest.raises(AudioFileError, match="cannot be decoded"):
        load_clip(row_path(table, 1), "a", ARGS)


@pytest.mark.parametrize(
    ("row", "kind", "message"),
    [
        (1, "missing_audio", "its row holds no audio"),
        (2, "empty_audio", "is empty: 0 bytes"),
        (3, "unreadable_audio", "cannot be decoded"),
        (4, "truncated_audio", "is cut off"),
        (0, "unreadable_audio", r"cannot be decoded \(row 0 of .* the file has 4 rows"),
        (5, "unreadable_audio", r"cannot be decoded \(row 5 of .* the file has 4 rows"),
    ],
)
def test_what_cannot_be_used_is_named_by_file_and_row(files, tmp_path, row, kind, message):
    table = write_rows(tmp_path / "bad.parquet", [None, b"", b"<html>", files[0].read_bytes()[:-100]])
    with pytest.raises(AudioFileError, match=rf"File_ID id \({table}/{row}\): {message}") as caught:
        load_clip(row_path(table, row), "id", ARGS)
    assert caught.value.kind == kind
    assert pickle.loads(pickle.dumps(caught.value)).path == row_path(table, row)


def test_a_file_that_is_gone_or_damaged_is_named(table):
    table.write_bytes(table.read_bytes()[:-50])
    with pytest.raises(AudioFileError, match=f"{table}/1.*row 1 of {table} cannot be read"):
        load_clip(row_path(table, 1), "id", ARGS)
    table.unlink()
    with pytest.raises(AudioFileError, match=f"{table}/1.*the file is missing") as caught:
        load_clip(row_path(table, 1), "id", ARGS)
    assert caught.value.kind == "missing_audio"


def test_reading_all_clips_holds_a_few_groups_of_rows_at_a_time(tmp_path):
    clips = [np.random.default_rng(row).bytes(100_000) for row in range(60)]
    table = write_rows(tmp_path / "t.parquet", clips, group=3)
    before = pa.total_allocated_bytes()
    for row in np.random.default_rng(0).permutation(60):
        assert open_content(row_path(table, row + 1)).read() == clips[row]
        assert pa.total_allocated_bytes() - before < 1_500_000


def test_clips_beside_each_other_are_read_from_the_disk_once(tmp_path, monkeypatch):
    table = write_rows(tmp_path / "t.parquet", [bytes([row]) for row in range(12)], group=4)
    opened, open_file = [], contents.parquet.ParquetFile
    monkeypatch.setattr(
        contents.parquet, "ParquetFile", lambda *args, **kwargs: opened.append(1) or open_file(*args, **kwargs)
    )
    assert [open_content(row_path(table, row)).read() for row in range(1, 13)] == [bytes([row]) for row in range(12)]
    assert len(opened) == 3


@pytest.mark.parametrize(("columns", "found"), [(["audio"], "audio"), (["sound"], "sound"), (["x", "audio"], "audio")])
def test_the_column_with_audio_is_found(columns, found):
    kind = pa.struct([("bytes", pa.large_binary()), ("path", pa.string())])
    others = [("label", pa.int64()), ("at", pa.struct([("x", pa.int64())]))]
    assert find_audio_column(pa.schema([*others, *((column, kind) for column in columns)])) == found
    assert find_audio_column(pa.schema(others)) is None
    with pytest.raises(ValueError, match=r"\['x', 'y'\], one must be called 'audio'"):
        find_audio_column(pa.schema([("x", kind), ("y", kind)]))


def test_audio_of_another_column_and_without_paths_is_read(files, tmp_path):
    table = write_rows(tmp_path / "t.parquet", [path.read_bytes() for path in files], column="sound", paths=False)
    assert open_content(row_path(table, 2)).read() == files[1].read_bytes()
