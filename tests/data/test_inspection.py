import shutil

import pytest
import soundfile

from avb_hf.data.arguments import DataArguments
from avb_hf.data.inspection import find_twins, inspect_audio
from avb_hf.data.listing import Clip


def twins_of(clips):
    found = find_twins(clips, inspect_audio(clips, DataArguments(), decoded=True))
    return [(finding.kind.removeprefix("duplicated_audio"), finding.file_id, finding.message) for finding in found]


@pytest.fixture
def copies(make_clip, tmp_path):
    """Give a function that makes the same clip once for each split named, with their numbers as File_IDs."""

    def make(*splits):
        original = make_clip(1, splits[0])
        clips = [original]
        for number, split in enumerate(splits[1:], start=2):
            path = shutil.copy(original.path, tmp_path / f"{number}.wav")
            clips.append(Clip(f"{number:05}", str(path), split, f"here.csv, line {number}"))
        return clips

    return make


def test_twins_of_one_split_are_told_from_those_of_two(copies, make_clip):
    clips = copies("train", "train", "test", "validation", "test", "train")
    assert twins_of([*clips, make_clip(99, "test")]) == [
        ("", "00002", "holds the samples of File_ID 00001 (train), here in train"),
        ("_across_splits", "00003", "holds the samples of File_ID 00001 (train), here in test"),
        ("_across_splits", "00004", "holds the samples of File_ID 00001 (train), here in validation"),
        ("", "00005", "holds the samples of File_ID 00003 (test), here in test"),
        ("", "00006", "holds the samples of File_ID 00001 (train), here in train"),
    ]


@pytest.mark.parametrize("container", ["FLAC", "AIFF", "W64"])
def test_twins_are_found_in_any_container(copies, container):
    one, other = copies("train", "test")
    soundfile.write(one.path, soundfile.read(one.path)[0], 16_000, subtype="PCM_16")
    soundfile.write(other.path, soundfile.read(one.path, dtype="int16")[0], 16_000, format=container)
    assert [found[:2] for found in twins_of([one, other])] == [("_across_splits", "00002")]


def test_what_to_do_about_a_long_clip_is_told(make_clip):
    (held,) = inspect_audio([make_clip(1, seconds=2)], DataArguments(max_duration=1))
    (finding,) = held.findings
    assert finding.message == "lasts 2.00 s, longer than 1 s; raise --max_duration or choose --long_clips crop"
