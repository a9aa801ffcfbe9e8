import pickle

import numpy as np
import pyarrow as pa
import pytest

from avb_hf.data.arguments import DataArguments
from avb_hf.data.clips import ClipReader, describe_audio, is_labelled, require_samples
from avb_hf.data.corpus import make_splits
from avb_hf.data.listing import Listing
from avb_hf.tasks import TaskSpec

TASK = TaskSpec("x", ("x",), label_range=(0.0, 1.0))
ARGS = DataArguments()


def splits_of(clips, args=ARGS):
    cells = pa.Table.from_pylist([clip.cells for clip in clips])
    return make_splits(Listing(clips, cells, "here.csv"), TASK, args, [])


def test_the_reader_adds_audio_and_survives_pickling(clips):
    split = splits_of(clips)["train"].with_transform(pickle.loads(pickle.dumps(ClipReader(ARGS))))
    row = split[1]
    assert row["audio"].dtype == np.float32
    np.testing.assert_array_equal(row["audio"], np.full(1600, 0.004, np.float32))
    assert (row["file_id"], row["labels"], row["duration"]) == ("00004", [0.04], 0.1)
    assert is_labelled(split, TASK)


def test_audio_is_described_and_other_rates_and_channels_are_said_once(make_clip, clips, caplog):
    clips += [make_clip(10, rate=48_000, channels=2), make_clip(11, rate=8_000)]
    with caplog.at_level("INFO"):
        splits = splits_of(clips)
    assert "by their rate in Hz: {'8000': 1, '48000': 1}" in caplog.text
    assert "1 clips have several channels (--channels mean)" in caplog.text
    assert describe_audio(splits)["train"] == {
        "clips": 4,
        "hours": 0.0001,
        "sampling_rates": {"8000": 1, "16000": 2, "48000": 1},
        "channels": {"1": 3, "2": 1},
    }


@pytest.mark.parametrize("limits", [(1_601,), (1, 1_599)])
def test_clips_beyond_what_a_model_takes_are_named(clips, limits):
    splits = splits_of(clips)
    require_samples(splits, 1_600, 1_600)
    with pytest.raises(ValueError, match=r"(?s)the model takes clips of .*6 problems.*File_ID 00002: 0.1000 s"):
        require_samples(splits, *limits)


def test_the_error_tells_the_flag_that_makes_long_clips_skippable_or_croppable(clips, make_clip):
    clips.append(make_clip(99, seconds=31))
    splits = splits_of(clips, DataArguments(max_duration=60))
    with pytest.raises(ValueError, match=r"with --max_duration 30, .*--on_bad_audio"):
        require_samples(splits, 1, 480_000)
    for flags in ({"on_bad_audio": "skip"}, {"long_clips": "crop"}):
        args = DataArguments(max_duration=30, max_bad_audio=0.5, **flags)
        require_samples(splits_of(clips, args), 1, 480_000)
