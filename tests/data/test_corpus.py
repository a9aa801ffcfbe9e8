import dataclasses
import math
import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import soundfile

from avb_hf.data.arguments import DataArguments
from avb_hf.data.clips import is_labelled
from avb_hf.data.corpus import make_splits
from avb_hf.data.findings import CorpusError
from avb_hf.data.listing import Listing
from avb_hf.tasks import TASKS, TaskSpec

TASK = TaskSpec("x", ("x",), label_range=(0.0, 1.0))
ARGS = DataArguments()


SKIP = DataArguments(on_bad_audio="skip", max_bad_audio=0.5)


def splits_of(clips, task=TASK, args=ARGS, skipped=None, **listing):
    cells = pa.Table.from_pylist([clip.cells for clip in clips])
    return make_splits(Listing(clips, cells, "here.csv", **listing), task, args, [], skipped)


def test_columns_and_order(clips):
    splits = splits_of(clips)
    assert list(splits) == ["train", "validation", "test"]
    assert splits["train"][:] == {
        "file_id": ["00002", "00004"],
        "path": [clips[1].path, clips[3].path],
        "labels": [[0.02], [0.04]],
        "duration": [0.1, 0.1],
        "sampling_rate": [16_000, 16_000],
        "num_channels": [1, 1],
    }
    assert splits["train"].features["path"].dtype == "string"
    assert splits["train"].features["labels"].feature.dtype == "float64"


def test_the_duration_is_that_after_the_crop(make_clip, clips):
    splits = splits_of([*clips, make_clip(9, seconds=1)], args=DataArguments(max_duration=0.5, long_clips="crop"))
    assert splits["train"]["duration"][:] == [0.1, 0.1, 0.5]


@pytest.mark.parametrize("label", ["", "?", "1.5", "0.05"])
def test_a_test_split_with_any_unusable_label_is_unlabelled_as_a_whole(make_clip, clips, caplog, label):
    clips[4] = make_clip(5, "test", label)
    splits = splits_of(clips)
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
    assert not is_labelled(splits_of(constant)["test"], TASK)


def test_an_unlabelled_classification_has_no_class(clips):
    task = TASKS["type"]
    cells = [{"Voc_Type": "" if clip.split == "test" else "Cry"} for clip in clips]
    splits = splits_of([dataclasses.replace(clip, cells=cell) for clip, cell in zip(clips, cells, strict=True)], task)
    assert splits["train"]["labels"][:] == [2, 2]
    assert splits["test"]["labels"][:] == [-100, -100]
    assert [is_labelled(splits[name], task) for name in splits] == [True, True, False]


def test_unusable_labels_of_a_test_split_that_was_drawn_are_an_error(make_clip, clips):
    clips[4] = make_clip(5, "test", "?")
    with pytest.raises(ValueError, match="line 5, File_ID 00005: label x must be a finite number"):
        splits_of(clips, test_is_labelled=True)


def test_missing_labels_are_read_where_a_flag_allows_them(make_clip, clips):
    clips[1] = make_clip(2, "train", "")
    with pytest.raises(ValueError, match="line 2, File_ID 00002: label x is missing"):
        splits_of(clips)
    splits = splits_of(clips, args=DataArguments(allow_missing_labels=True))
    np.testing.assert_array_equal(splits["train"]["labels"][:], [[math.nan], [0.04]])


def test_bad_labels_are_listed_together(make_clip, clips):
    many = clips + [make_clip(number, label="2") for number in range(10, 35)]
    with pytest.raises(ValueError, match="25 problems") as caught:
        splits_of(many)
    lines = str(caught.value).splitlines()
    assert len(lines) == 22
    assert lines[1].startswith("  here.csv, line 10, File_ID 00010: label x = 2 is outside label_range")
    assert lines[-1] == "  ... and 5 more"


def test_clips_named_twice_are_an_error_that_names_both_splits(clips):
    again = [dataclasses.replace(clips[0], split="train", cells=clips[1].cells, place="line 7")]
    with pytest.raises(CorpusError, match=r"line 7, File_ID 00001 .*of here.csv, line 1 \(test\) again, here in train"):
        splits_of(clips + again)
    alias = [dataclasses.replace(again[0], file_id="alias", place="line 8")]
    message = r"line 8, File_ID alias \(.*1.wav\): is the file of File_ID 00001 of here.csv, line 1 \(test\) again"
    with pytest.raises(CorpusError, match=message):
        splits_of(clips + alias)


@pytest.mark.parametrize("absent", ["train", "validation"])
def test_train_and_validation_are_needed_and_test_is_not(clips, absent):
    with pytest.raises(ValueError, match=f"no clip is in the {absent} split"):
        splits_of([clip for clip in clips if clip.split != absent])
    without = [clip for clip in clips if clip.split != "test"]
    assert list(splits_of(without)) == ["train", "validation"]


def test_unusable_audio_files_are_listed_together(make_clip, clips):
    clips += [make_clip(10, seconds=0.01), make_clip(11, seconds=1.5), make_clip(12), make_clip(13)]
    os.unlink(clips[-2].path)
    Path(clips[-1].path).write_text("no audio")
    with pytest.raises(ValueError, match=r"here.csv: 4 problems") as caught:
        splits_of(clips, args=DataArguments(max_duration=1.0))
    reasons = ("too short: 160 samples", "lasts 1.50 s", "missing", "cannot be decoded")
    for line, number, reason in zip(str(caught.value).splitlines()[1:], range(10, 14), reasons, strict=True):
        assert line.startswith(f"  here.csv, line {number}, File_ID 000{number} ")
        assert reason in line


def plant_nan(clip):
    """Damage a file such that only decoding tells."""
    samples = np.zeros(1_600)
    samples[7] = np.nan
    soundfile.write(clip.path, samples, 16_000, subtype="FLOAT")


def test_bad_audio_is_left_out_by_name_and_in_order(make_clip, clips, caplog):
    clips += [make_clip(number) for number in range(7, 12)]
    plant_nan(clips[3])
    os.unlink(clips[7].path)
    skipped = []
    splits = splits_of(clips, args=SKIP, skipped=skipped)
    assert list(splits["train"]["file_id"]) == ["00002", "00007", "00009", "00010", "00011"]
    assert [(finding.kind, finding.file_id, finding.place) for finding in skipped] == [
        ("nan_audio", "00004", "here.csv, line 4"),
        ("missing_audio", "00008", "here.csv, line 8"),
    ]
    for finding in skipped:
        assert f"left out: {finding}" in caplog.text
    assert splits["validation"]["file_id"][:] == ["00003", "00006"]


def test_by_default_bad_audio_that_the_header_shows_is_an_error(clips):
    os.unlink(clips[3].path)
    with pytest.raises(CorpusError, match=r"line 4, File_ID 00004 .*missing"):
        splits_of(clips)


@pytest.mark.parametrize(("share", "is_allowed"), [(0.25, True), (0.24, False)])
def test_no_more_than_the_allowed_share_is_left_out(make_clip, clips, share, is_allowed):
    clips += [make_clip(7), make_clip(8)]
    for clip in clips[-2:]:
        os.unlink(clip.path)
    args = DataArguments(on_bad_audio="skip", max_bad_audio=share)
    if is_allowed:
        assert len(splits_of(clips, args=args)["train"]) == 2
    else:
        with pytest.raises(CorpusError, match=r"25.00% of the clips .*more than --max_bad_audio 0.24 allows") as caught:
            splits_of(clips, args=args)
        assert [finding.file_id for finding in caught.value.findings] == ["00007", "00008"]


@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_no_split_becomes_empty(clips, split):
    for clip in clips:
        if clip.split == split:
            os.unlink(clip.path)
    with pytest.raises(CorpusError, match=f"would leave no clip in the {split} split"):
        splits_of(clips, args=SKIP)


def test_a_clip_of_a_contests_test_split_is_never_left_out(clips):
    contest = dataclasses.replace(TASK, submission_name="X")
    os.unlink(clips[4].path)
    assert splits_of(clips, args=SKIP)["test"]["file_id"][:] == ["00001"]
    with pytest.raises(CorpusError, match=r"contest's test split are never left out: 1 problem\n.*File_ID 00005"):
        splits_of(clips, contest, SKIP)


def test_labels_are_never_left_out(make_clip, clips):
    clips[3] = make_clip(4, label="7")
    os.unlink(clips[3].path)
    with pytest.raises(CorpusError, match=r"1 problem\n.*File_ID 00004: label x = 7 is outside"):
        splits_of(clips, args=SKIP)


def test_what_concerns_no_single_clip_is_said_in_training_too(clips, caplog):
    clips = [dataclasses.replace(clip, speaker="anna" if clip.split == "train" else "ben") for clip in clips]
    splits_of(clips)
    assert "speaker ben is heard in ['test', 'validation']" in caplog.text
    assert "anna" not in caplog.text
