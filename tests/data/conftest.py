"""Clips of a made-up task, as a source would list them."""

import numpy as np
import pytest
import soundfile

from avb_hf.data.listing import Clip


@pytest.fixture
def make_clip(tmp_path):
    """Give a function that writes a constant clip and returns it as listed."""

    def make(number, split="train", label=None, seconds=0.1, rate=16_000, channels=1):
        path = tmp_path / f"{number}.wav"
        soundfile.write(path, np.full((int(seconds * rate), channels), number / 1000), rate, subtype="FLOAT")
        cells = {"x": str(number / 100) if label is None else label}
        return Clip(f"{number:05}", path, split, cells, f"here.csv, line {number}")

    return make


@pytest.fixture
def clips(make_clip):
    """Two clips of each split, in mixed order."""
    names = ["test", "train", "validation", "train", "test", "validation"]
    return [make_clip(number, name) for number, name in enumerate(names, start=1)]
