from collections import Counter

import numpy as np
import pytest
import soundfile

from avb_hf.data.arguments import DataArguments
from avb_hf.data.clips import ClipReader, is_labelled
from avb_hf.data.sources import infer_task, load_corpus, splits_were_drawn
from avb_hf.tasks import TASKS

TASK = TASKS["emogator"]


def arguments(folder, **flags):
    return DataArguments(source="emogator", data_dir=str(folder), **flags)


def write_clips(folder, contributors=4, categories=("01", "30")):
    folder.mkdir(parents=True, exist_ok=True)
    for contributor in range(contributors):
        for category in categories:
            soundfile.write(folder / f"{contributor:06}-{category}-1.mp3", np.zeros(24_000), 48_000)


def write_split(folder, *lines):
    (folder / "split.csv").write_text("\n".join(["contributor,split", *lines]) + "\n")


def test_a_link_to_itself_is_an_error_that_names_it(tmp_path):
    write_clips(tmp_path)
    (tmp_path / "000001-05-1.wav").symlink_to("000001-05-1.wav")
    with pytest.raises(ValueError, match=r"File_ID 000001-05-1 .*Too many levels of symbolic links"):
        load_corpus(TASK, arguments(tmp_path))


@pytest.mark.parametrize("below", ["data/mp3", ".", "else/where"])
def test_clips_are_found_by_name_and_split_by_the_file(tmp_path, below):
    write_clips(tmp_path / below)
    (tmp_path / below / "notes-01-1.mp3").write_text("no clip")
    write_split(tmp_path, "000000,train", "000001,Val", "000002,test", "000003,train", "000099,train")
    args = arguments(tmp_path)
    assert infer_task(args) is TASK
    assert not splits_were_drawn(args)
    splits = load_corpus(TASK, args)
    assert splits["train"]["file_id"][:] == ["000000-01-1", "000000-30-1", "000003-01-1", "000003-30-1"]
    assert splits["train"]["labels"][:] == [0, 29, 0, 29]
    assert splits["validation"]["speaker"][:] == ["000001", "000001"]


def test_without_a_split_file_contributors_are_drawn(tmp_path):
    write_clips(tmp_path, contributors=10)
    args = arguments(tmp_path)
    assert splits_were_drawn(args)
    splits = load_corpus(TASK, args)
    speakers = [set(split["speaker"]) for split in splits.values()]
    assert [len(part) for part in speakers] == [6, 2, 2]
    assert len(set.union(*speakers)) == 10


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["000000,train", "000001,val"], r"(?s)2 problems.*000002 has clips and is not listed.*000003"),
        (
            ["000000,train", "000000,val", "000001,val", "000002,test", "000003,test"],
            "line 3: contributor 000000 is listed",
        ),
        (["000000,train", "000001,vall", "000002,test", "000003,test"], "line 3: split must be one of"),
        (["000000,train", "000001,train", "000002,test", "000003,test"], "no clip is in the validation split"),
    ],
)
def test_a_bad_split_file_is_an_error(tmp_path, lines, message):
    write_clips(tmp_path)
    write_split(tmp_path, *lines)
    with pytest.raises(ValueError, match=message):
        load_corpus(TASK, arguments(tmp_path))


def test_what_else_is_an_error(tmp_path):
    with pytest.raises(ValueError, match=r"no file below it is named NNNNNN-EE-I.mp3"):
        load_corpus(TASK, arguments(tmp_path))
    write_clips(tmp_path, categories=("31",))
    with pytest.raises(ValueError, match=r"File_ID 000000-31-1: class category must be one of .*, got '31'"):
        load_corpus(TASK, arguments(tmp_path))
    with pytest.raises(ValueError, match=r"gone.csv: the table does not exist"):
        load_corpus(TASK, arguments(tmp_path, split_file=str(tmp_path / "gone.csv")))
    with pytest.raises(ValueError, match="task 'high' is a regression"):
        load_corpus(TASKS["high"], arguments(tmp_path))


@pytest.mark.slow
@pytest.mark.real_data
def test_the_real_clips(emogator_dir):
    splits = load_corpus(TASK, arguments(emogator_dir))
    assert {name: len(split) for name, split in splits.items()} == {"train": 2160, "validation": 540, "test": 540}
    speakers = [set(split["speaker"]) for split in splits.values()]
    assert [len(part) for part in speakers] == [24, 6, 6]
    assert len(set.union(*speakers)) == 36
    assert all(set(Counter(split["labels"]).values()) == {len(split) // 30} for split in splits.values())
    assert all(is_labelled(split, TASK) for split in splits.values())
    stereo = splits["train"].filter(lambda channels: channels == 2, input_columns="num_channels")
    assert len(stereo) == 9
    for row in stereo.with_transform(ClipReader(arguments(emogator_dir))):
        assert abs(len(row["audio"]) / 16_000 - row["duration"]) < 1e-3
        assert row["audio"].any()
