"""Clips of a made-up task, as a source would list them, and a corpus to plant defects in."""

import shutil
import sys
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile

from avb_hf.data.arguments import DataArguments
from avb_hf.data.doctor import diagnose
from avb_hf.data.listing import Clip

RATE = 16_000


@dataclass(frozen=True)
class LabelledClip(Clip):
    """A clip and the text of its label cells."""

    cells: dict = field(default_factory=dict)


@pytest.fixture
def make_clip(tmp_path):
    """Give a function that writes a constant clip and returns it as listed."""

    def make(number, split="train", label=None, seconds=0.1, rate=16_000, channels=1):
        path = tmp_path / f"{number}.wav"
        soundfile.write(path, np.full((int(seconds * rate), channels), number / 1000), rate, subtype="FLOAT")
        cells = {"x": str(number / 100) if label is None else label}
        return LabelledClip(f"{number:05}", str(path), split, f"here.csv, line {number}", cells=cells)

    return make


@pytest.fixture
def clips(make_clip):
    """Two clips of each split, in mixed order."""
    names = ["test", "train", "validation", "train", "test", "validation"]
    return [make_clip(number, name) for number, name in enumerate(names, start=1)]


@dataclass
class Corpus:
    """A corpus in the official layout while defects are planted in it.

    Attributes:
        folder: Where it lies.
        table: Labels of the task, all text, by File_ID without brackets.
        lines: What is appended to the label table as it is.
        flags: How it is read.
    """

    folder: Path
    table: pd.DataFrame
    lines: list[str] = field(default_factory=list)
    flags: dict = field(default_factory=dict)

    def audio(self, file_id):
        return self.folder / "audio" / "any" / f"{file_id}.wav"

    def sound(self, file_id, samples, rate=RATE, **kwargs):
        soundfile.write(self.audio(file_id), samples, rate, format="WAV", **kwargs)
        return file_id

    def label(self, file_id, column, value):
        self.table.loc[file_id, column] = value
        return file_id

    def row(self, name, cells="Train,0.5,0.5"):
        self.lines.append(f"{name},{cells}{',s' if 'Speaker' in self.table else ''}")

    def findings(self):
        flags = {"source": "avb", "task": "two", "data_dir": str(self.folder)} | self.flags
        if flags["source"] == "avb":
            table = self.table.set_index("[" + self.table.index + "]").rename_axis("File_ID")
            path = self.folder / "labels" / "two_info.csv"
            path.write_text(table.to_csv() + "".join(f"{line}\n" for line in self.lines))
        args = DataArguments(**flags)
        found = [(finding.kind, finding.file_id) for finding in diagnose(args).findings]
        assert len(set(found)) == len(found)
        return args, set(found)


@pytest.fixture
def corpus(corpus_dir, tmp_path):
    """A copy of the tiny corpus that takes defects."""
    folder = shutil.copytree(corpus_dir, tmp_path / "corpus")
    table = pd.read_csv(folder / "labels" / "two_info.csv", dtype=str, keep_default_na=False)
    return Corpus(folder, table.set_index(table.pop("File_ID").str.strip("[]")))


@pytest.fixture
def torchcodec_unwanted(monkeypatch):
    """Fail where anything looks for torchcodec, be it installed or not."""
    asked = []

    class Watch:
        def find_spec(self, name, path=None, target=None):
            if name.partition(".")[0] == "torchcodec":
                asked.append(name)

    monkeypatch.setattr(sys, "meta_path", [Watch(), *sys.meta_path])
    monkeypatch.delitem(sys.modules, "torchcodec", raising=False)
    yield
    assert asked == []
