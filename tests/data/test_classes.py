"""Numbers and names of classes, in the doctor's report and in the log of training."""

import pandas as pd
import pytest

from avb_hf.data.arguments import DataArguments
from avb_hf.data.classes import find_numbered_classes, find_odd_classes
from avb_hf.data.doctor import as_report, as_text, diagnose
from avb_hf.data.sources import infer_task, load_corpus

PARTS = ["train"] * 24 + ["val"] * 6 + ["test"] * 6


@pytest.fixture
def manifest(corpus_dir, tmp_path):
    """Give a function that writes a manifest of the corpus's 36 clips and returns the flags that read it."""

    def write(cells, parts=PARTS, **flags):
        paths = sorted(map(str, corpus_dir.rglob("*.wav")))
        columns = {"path": paths, "kind": cells} | ({} if parts is None else {"part": parts})
        pd.DataFrame(columns).to_csv(tmp_path / "clips.csv", index=False)
        named = {"manifest": str(tmp_path / "clips.csv"), "label_columns": ["kind"]}
        return DataArguments(source="manifest", split_column=None if parts is None else "part", **named | flags)

    return write


def test_clips_of_each_class_are_counted_in_text_and_report(manifest):
    diagnosis = diagnose(manifest(["sob", "sigh", "sob"] * 12))
    assert diagnosis.findings == []
    splits = as_report(diagnosis, {})["splits"]
    assert {name: split["classes"] for name, split in splits.items()} == {
        "train": {"sigh": 8, "sob": 16}, "validation": {"sigh": 2, "sob": 4}, "test": {"sigh": 2, "sob": 4},
    }  # fmt: skip
    lines = [line.split() for line in as_text(diagnosis).splitlines()]
    assert ["clips", "by", "class", "train", "validation", "test"] in lines
    assert ["'sob'", "16", "4", "4"] in lines


def test_a_split_without_classes_is_not_counted(manifest):
    diagnosis = diagnose(manifest([*["sob", "sigh"] * 15, *["?"] * 6]))
    assert [name for name, split in diagnosis.splits.items() if "classes" in split] == ["train", "validation"]
    assert not diagnosis.findings


def test_misspelt_classes_are_said_in_training(manifest, caplog):
    cells = ["amusement", "sadness"] * 18
    cells[0], cells[2], cells[3] = "Amusment", "AMUSEMENT", " sadness"
    args = manifest(cells)
    load_corpus(infer_task(args), args)
    assert caplog.text.count("are these one class? 'AMUSEMENT' (1 clips), 'amusement' (16 clips)") == 1
    assert caplog.text.count("are these one class? ' sadness' (1 clips), 'sadness' (17 clips)") == 1
    rare = "class 'Amusment' has these numbers of clips: 1 in train, 0 in validation, 0 in test"
    assert caplog.text.count(rare) == 1


def test_a_class_that_a_drawn_split_leaves_out_is_said_in_training(manifest, caplog):
    args = manifest(["sob"] * 34 + ["gasp"] * 2, parts=None)
    splits = load_corpus(infer_task(args), args)
    numbers = [list(split["labels"]).count(0) for split in splits.values()]
    assert sum(numbers) == 2
    expected = "class 'gasp' has these numbers of clips: {} in train, {} in validation, {} in test"
    assert caplog.text.count(expected.format(*numbers)) == 1


@pytest.mark.parametrize(("number", "is_rare"), [(2, True), (3, False)])
def test_three_clips_in_train_are_enough(number, is_rare):
    findings = list(find_odd_classes({"train": {"a": 9, "b": number}, "validation": {"a": 1, "b": 1}}))
    assert [finding.kind for finding in findings] == ["rare_class"] * is_rare


@pytest.mark.parametrize(
    ("cells", "numbers"),
    [
        (["0", "1", "1"], "0, 1"),
        (["1.0", "-2", "nan", ""], "-2, 1"),
        ([str(number) for number in range(10)], "0, 1, 2, 3, 4, 5, 6, 7, 8, 9"),
        ([str(number) for number in range(11)], None),
        (["0", "0.5", "1"], None),
        (["0", "inf"], None),
        (["0", "x"], None),
        (["1", "1"], None),
    ],
)
def test_few_whole_numbers_look_like_classes(cells, numbers):
    messages = [finding.message for finding in find_numbered_classes("kind", cells)]
    assert len(messages) == (numbers is not None)
    assert all(f"only the whole numbers {numbers}: it is read as a regression" in message for message in messages)


@pytest.mark.parametrize("flags", [{"problem_type": "regression"}, {"label_range": [0, 1]}])
def test_numbers_that_were_said_to_be_a_regression_are_no_finding(manifest, flags, caplog):
    args = manifest(["0", "1"] * 18, **flags)
    load_corpus(infer_task(args), args)
    assert diagnose(args).findings == []
    assert "whole numbers" not in caplog.text
    silent = manifest(["0", "1"] * 18)
    load_corpus(infer_task(silent), silent)
    assert caplog.text.count("--problem_type single_label_classification makes classes of it") == 1


def test_refused_rows_count_and_are_named_next_to_bad_audio(manifest, tmp_path):
    args = manifest(["sob", "sigh"] * 18, on_bad_audio="skip")
    table = pd.read_csv(args.manifest)
    table.loc[2:, "path"] = "../" + table["path"].str.strip("/")
    table.loc[:1, "path"] = ["gone.wav", "lost.wav"]
    table.to_csv(args.manifest, index=False)
    with pytest.raises(
        ValueError, match=r"5.56% of the clips have audio .*34 other problems cannot be left out: 36"
    ) as caught:
        load_corpus(infer_task(args), args)
    lines = str(caught.value).splitlines()
    assert "gone.wav" in lines[1]
    assert "give --data_dir, the folder that holds all clips, or absolute paths" in lines[3]
    kinds = {finding.kind for finding in diagnose(args).findings if finding.severity == "error"}
    assert kinds == {"escaping_path", "missing_audio"}
