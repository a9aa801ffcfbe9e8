import os
import shutil

import pandas as pd
import pytest

from avb_hf.data.arguments import DataArguments
from avb_hf.data.clips import ClipReader
from avb_hf.data.fingerprint import fingerprint
from avb_hf.data.sources import load_corpus
from avb_hf.data.splits import subsample
from avb_hf.tasks import TASKS


@pytest.fixture
def corpus(corpus_dir, tmp_path):
    return shutil.copytree(corpus_dir, tmp_path / "corpus")


def digests(folder, task="culture"):
    return fingerprint(load_corpus(TASKS[task], DataArguments(data_dir=str(folder))))


@pytest.mark.parametrize("task", ["culture", "type"])
def test_it_is_of_what_the_corpus_holds_and_not_of_where_or_when(corpus_dir, corpus, task):
    for path in corpus.rglob("*.wav"):
        os.utime(path, (0, 0))
    assert digests(corpus, task) == digests(corpus_dir, task)
    assert list(digests(corpus, task)) == ["train", "validation", "test"]
    assert all(len(digest) == 64 for digest in digests(corpus, task).values())


def change_cell(table):
    table.loc[0, "Arousal"] = 0.123


def swap_rows(table):
    table.iloc[[0, 1]] = table.iloc[[1, 0]].to_numpy()


@pytest.mark.parametrize("change", [change_cell, swap_rows])
def test_labels_and_order_count_for_their_split_alone(corpus, change):
    before = digests(corpus, "two")
    path = corpus / "labels" / "two_info.csv"
    table = pd.read_csv(path)
    change(table)
    table.to_csv(path, index=False)
    after = digests(corpus, "two")
    assert [before[name] == after[name] for name in before] == [False, True, True]


def test_the_size_of_a_file_counts(corpus):
    before = digests(corpus, "two")
    with (corpus / "audio" / "any" / "00003.wav").open("ab") as file:
        file.write(b"LIST\x00\x00\x00\x00")
    assert [before[name] == digests(corpus, "two")[name] for name in before] == [True, False, True]


def test_a_part_differs_and_a_transform_does_not(corpus_dir):
    splits = load_corpus(TASKS["two"], DataArguments(data_dir=str(corpus_dir)))
    part = subsample(splits, 5, None, 0)
    whole = fingerprint(splits)
    assert fingerprint(part)["train"] != whole["train"]
    assert fingerprint(part)["test"] == whole["test"]
    assert fingerprint(splits.with_transform(ClipReader(DataArguments()))) == whole
    rebuilt = part["train"].from_dict(part["train"].with_format(None)[:], features=part["train"].features)
    assert fingerprint({"train": rebuilt})["train"] == fingerprint(part)["train"]
