import math
import pickle

import numpy as np
import pytest
import soundfile

from avb_hf.data.arguments import DataArguments
from avb_hf.data.clips import Clip, ClipReader, describe_audio, is_labelled, make_splits
from avb_hf.tasks import TASKS, TaskSpec

TASK = TaskSpec("x", ("x",), label_range=(0.0, 1.0))
ARGS = DataArguments()


@pytest.fixture
def make_clip(tmp_path):
    def make(number, split="train", label=None, seconds=0.1, rate=16_000, channels=1):
        path = tmp_path / f"{number}.wav"
        soundfile.write(path, np.full((int(seconds * rate), channels), number / 1000), rate, subtype="FLOAT")
        cells = {"x": str(number / 100) if label is None else label}
        return Clip(f"{number:05}", path, split, cells, f"line {number}")

    return make


@pytest.fixture
def clips(make_clip):
    names = ["test", "train", "validation", "train", "test", "validation"]
    return [make_clip(number, name) for number, name in enumerate(names, start=1)]


def test_columns_and_order(clips):
    splits = make_splits(clips, TASK, ARGS, "here")
    assert list(splits) == ["train", "validation", "test"]
    assert splits["train"][:] == {
        "file_id": ["00002", "00004"],
        "path": [str(clips[1].path), str(clips[3].path)],
        "labels": [[0.02], [0.04]],
        "duration": [0.1, 0.1],
        "sampling_rate": [16_000, 16_000],
        "num_channels": [1, 1],
    }
    assert splits["train"].features["path"].dtype == "string"
    assert splits["train"].features["labels"].feature.dtype == "float64"


def test_the_reader_adds_audio_and_survives_pickling(clips):
    split = make_splits(clips, TASK, ARGS, "here")["train"].with_transform(pickle.loads(pickle.dumps(ClipReader(ARGS))))
    row = split[1]
    assert row["audio"].dtype == np.float32
    np.testing.assert_array_equal(row["audio"], np.full(1600, 0.004, np.float32))
    assert (row["file_id"], row["labels"], row["duration"]) == ("00004", [0.04], 0.1)
    assert is_labelled(split, TASK)


@pytest.mark.parametrize("label", ["", "?", "1.5", "0.05"])
def test_a_test_split_with_any_unusable_label_is_unlabelled_as_a_whole(make_clip, clips, caplog, label):
    clips[4] = make_clip(5, "test", label)
    splits = make_splits(clips, TASK, ARGS, "here")
    if label == "0.05":
        assert is_labelled(splits["test"], TASK)
        assert not caplog.records
    else:
        assert all(math.isnan(value) for (value,) in splits["test"]["labels"])
        assert not is_labelled(splits["test"], TASK)
        assert caplog.text.count("counts as unlabelled") == 1
    assert is_labelled(splits["validation"], TASK)


def test_a_constant_test_split_is_unlabelled(make_clip, clips):
    constant = [make_clip(int(clip.file_id), clip.split, "0.5" if clip.split == "test" else None) for clip in clips]
    assert not is_labelled(make_splits(constant, TASK, ARGS, "here")["test"], TASK)


def test_an_unlabelled_classification_has_no_class(clips):
    task = TASKS["type"]
    cells = [{"Voc_Type": "" if clip.split == "test" else "Cry"} for clip in clips]
    clips = [Clip(c.file_id, c.path, c.split, cell, c.place) for c, cell in zip(clips, cells, strict=True)]
    splits = make_splits(clips, task, ARGS, "here")
    assert splits["train"]["labels"][:] == [2, 2]
    assert splits["test"]["labels"][:] == [-100, -100]
    assert [is_labelled(splits[name], task) for name in splits] == [True, True, False]


def test_unusable_labels_of_a_test_split_that_was_drawn_are_an_error(make_clip, clips):
    clips[4] = make_clip(5, "test", "?")
    with pytest.raises(ValueError, match="line 5, File_ID 00005: label x must be a number"):
        make_splits(clips, TASK, ARGS, "here", test_is_labelled=True)


def test_missing_labels_are_read_where_a_flag_allows_them(make_clip, clips):
    clips[1] = make_clip(2, "train", "")
    with pytest.raises(ValueError, match="line 2, File_ID 00002: label x is missing"):
        make_splits(clips, TASK, ARGS, "here")
    splits = make_splits(clips, TASK, DataArguments(allow_missing_labels=True), "here")
    np.testing.assert_array_equal(splits["train"]["labels"][:], [[math.nan], [0.04]])


def test_bad_labels_are_listed_together(make_clip, clips):
    many = clips + [make_clip(number, label="2") for number in range(10, 35)]
    with pytest.raises(ValueError, match="25 problems") as caught:
        make_splits(many, TASK, ARGS, "here")
    lines = str(caught.value).splitlines()
    assert len(lines) == 22
    assert lines[1].startswith("  line 10, File_ID 00010: label x = 2 is outside label_range")
    assert lines[-1] == "  ... and 5 more"


def test_clips_named_twice_are_an_error_that_names_both_splits(clips):
    again = [Clip(clips[0].file_id, clips[0].path, "train", clips[1].cells, "line 7")]
    with pytest.raises(ValueError, match=r"File_ID 00001: line 1 \(test\) and line 7 \(train\)"):
        make_splits(clips + again, TASK, ARGS, "here")
    alias = [Clip("alias", clips[0].path, "train", clips[1].cells, "line 8")]
    with pytest.raises(ValueError, match=r"file .*1.wav: line 1 \(test\) and line 8 \(train\)"):
        make_splits(clips + alias, TASK, ARGS, "here")


@pytest.mark.parametrize("absent", ["train", "validation"])
def test_train_and_validation_are_needed_and_test_is_not(clips, absent):
    with pytest.raises(ValueError, match=f"no clip is in the {absent} split"):
        make_splits([clip for clip in clips if clip.split != absent], TASK, ARGS, "here")
    assert list(make_splits([clip for clip in clips if clip.split != "test"], TASK, ARGS, "here")) == [
        "train",
        "validation",
    ]


def test_unusable_audio_files_are_listed_together(make_clip, clips):
    clips += [make_clip(10, seconds=0.01), make_clip(11, seconds=1.5), make_clip(12), make_clip(13)]
    clips[-2].path.unlink()
    clips[-1].path.write_text("no audio")
    with pytest.raises(ValueError, match="here: audio files: 4 problems") as caught:
        make_splits(clips, TASK, DataArguments(max_duration=1.0), "here")
    reasons = ("too short: 160 samples", "lasts 1.50 s", "missing", "cannot be decoded")
    for line, number, reason in zip(str(caught.value).splitlines()[1:], range(10, 14), reasons, strict=True):
        assert line.startswith(f"  line {number}, File_ID 000{number} ")
        assert reason in line


def test_audio_is_described_and_other_rates_and_channels_are_said_once(make_clip, clips, caplog):
    clips += [make_clip(10, rate=48_000, channels=2), make_clip(11, rate=8_000)]
    with caplog.at_level("INFO"):
        splits = make_splits(clips, TASK, ARGS, "here")
    assert "by their rate in Hz: {'8000': 1, '48000': 1}" in caplog.text
    assert "1 clips have several channels (--channels mean)" in caplog.text
    assert describe_audio(splits)["train"] == {
        "clips": 4,
        "hours": 0.0001,
        "sampling_rates": {"8000": 1, "16000": 2, "48000": 1},
        "channels": {"1": 3, "2": 1},
    }
