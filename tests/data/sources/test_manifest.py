import csv
from collections import Counter

import numpy as np
import pandas as pd
import pytest
import soundfile

from avb_hf.data.arguments import DataArguments
from avb_hf.data.clips import is_labelled
from avb_hf.data.sources import infer_task, load_corpus, splits_were_drawn
from avb_hf.data.splits import write_split_table
from avb_hf.tasks import TASKS

WRITERS = {
    "csv": lambda frame, path: frame.to_csv(path, index=False),
    "tsv": lambda frame, path: frame.to_csv(path, index=False, sep="\t"),
    "parquet": lambda frame, path: frame.to_parquet(path),
}


@pytest.fixture
def frame(tmp_path):
    (tmp_path / "clips").mkdir()
    for number in range(40):
        soundfile.write(tmp_path / "clips" / f"{number:03}.wav", np.full(800, 0.1), 16_000)
    return pd.DataFrame(
        {
            "path": [f"clips/{number:03}.wav" for number in range(40)],
            "id": [f"{number:03}" for number in range(40)],
            "part": (["train"] * 6 + ["VAL", "Validation", "dev", "test"]) * 4,
            "who": [f"s{number % 8}" for number in range(40)],
            "joy": [number / 10 - 2 for number in range(40)],
            "fear": [number % 7 for number in range(40)],
            "kind": ["laugh", "cry"] * 20,
        }
    )


@pytest.fixture
def arguments(tmp_path):
    def write(frame, kind="csv", **flags):
        path = tmp_path / f"manifest.{kind}"
        WRITERS[kind](frame, path)
        return DataArguments(source="manifest", manifest=str(path), **flags)

    return write


def load(args):
    return load_corpus(infer_task(args), args)


@pytest.mark.parametrize("kind", WRITERS)
def test_numbers_make_a_regression_without_a_range(frame, arguments, kind):
    args = arguments(frame, kind, label_columns=["joy", "fear"], split_column="part", id_column="id")
    task = infer_task(args)
    assert (task.labels, task.loss, task.metric, task.label_range) == (("joy", "fear"), "ccc", "ccc", None)
    splits = load_corpus(task, args)
    assert {name: len(split) for name, split in splits.items()} == {"train": 24, "validation": 12, "test": 4}
    assert splits["train"]["file_id"][:7] == ["000", "001", "002", "003", "004", "005", "010"]
    assert splits["train"][2]["labels"] == [2 / 10 - 2, 2.0]
    assert "speaker" not in splits["train"].column_names
    assert not splits_were_drawn(args)


@pytest.mark.parametrize("kind", WRITERS)
def test_one_column_of_text_makes_a_classification(frame, arguments, kind):
    args = arguments(frame, kind, label_columns=["kind"], split_column="part", speaker_column="who")
    task = infer_task(args)
    assert (task.labels, task.class_column, task.metric, task.loss) == (
        ("cry", "laugh"),
        "kind",
        "uar",
        "cross_entropy",
    )
    splits = load_corpus(task, args)
    assert splits["train"]["labels"][:3] == [1, 0, 1]
    assert splits["train"]["speaker"][:3] == ["s0", "s1", "s2"]
    assert splits["train"]["file_id"][0] == "clips/000.wav"


def test_flags_shape_the_task(frame, arguments):
    named = infer_task(arguments(frame, label_columns=["kind"], class_names=["laugh", "cry", "sob"]))
    assert named.labels == ("laugh", "cry", "sob")
    numbered = infer_task(arguments(frame, label_columns=["fear"], problem_type="single_label_classification"))
    assert numbered.labels == tuple("0123456")
    ranged = infer_task(arguments(frame, label_columns=["joy"], label_range=[-2, 2], allow_missing_labels=True))
    assert (ranged.label_range, ranged.allow_missing) == ((-2.0, 2.0), True)


def test_a_known_task_uses_its_own_columns(frame, arguments):
    frame = frame.assign(Valence=0.5, Arousal=np.linspace(0, 1, 40))
    args = arguments(frame, task="two", split_column="part")
    assert infer_task(args) is TASKS["two"]
    assert load(args)["train"][0]["labels"] == [0.5, 0.0]


def test_placeholders_of_test_rows_do_not_shape_the_task(frame, arguments):
    frame.loc[frame.part == "test", "kind"] = "?"
    frame["joy"] = frame.joy.where(frame.part != "test", "unknown")
    classes = arguments(frame, label_columns=["kind"], split_column="part")
    assert infer_task(classes).labels == ("cry", "laugh")
    assert not is_labelled(load(classes)["test"], infer_task(classes))
    numbers = arguments(frame, label_columns=["joy"], split_column="part")
    assert np.isnan(load(numbers)["test"]["labels"][:]).all()


def test_a_drawn_split_is_disjoint_by_speaker(frame, arguments, tmp_path):
    args = arguments(frame, label_columns=["joy"], speaker_column="who")
    assert splits_were_drawn(args)
    splits = load(args)
    speakers = [set(split["speaker"]) for split in splits.values()]
    assert [len(part) for part in speakers] == [6, 1, 1]
    assert len(set.union(*speakers)) == 8
    write_split_table(splits, tmp_path / "split.csv")
    with (tmp_path / "split.csv").open(newline="") as file:
        written = {row["file_id"]: row["split"] for row in csv.DictReader(file)}
    assert written == {file_id: name for name, split in splits.items() for file_id in split["file_id"]}


def test_a_drawn_split_is_stratified_by_class_otherwise(frame, arguments):
    args = arguments(frame, label_columns=["kind"])
    splits = load(args)
    counts = {name: Counter(split["labels"]) for name, split in splits.items()}
    assert counts == {"train": {0: 14, 1: 14}, "validation": {0: 3, 1: 3}, "test": {0: 3, 1: 3}}
    args.split_seed = 1
    assert load(args)["test"]["file_id"][:] != splits["test"]["file_id"][:]


def test_every_label_of_a_drawn_split_must_be_usable(frame, arguments):
    args = arguments(frame, label_columns=["joy"])
    drawn_for_test = load(args)["test"]["file_id"][0]
    frame.loc[frame.path == drawn_for_test, "joy"] = float("nan")
    with pytest.raises(ValueError, match=f"File_ID {drawn_for_test}: label joy is missing"):
        load(arguments(frame, label_columns=["joy"]))


def test_paths_are_relative_to_the_data_folder_else_to_the_manifest_or_absolute(frame, arguments, tmp_path):
    frame["path"] = [path.removeprefix("clips/") for path in frame.path]
    within = load(arguments(frame, label_columns=["joy"], data_dir=str(tmp_path / "clips"), split_column="part"))
    assert within["train"]["file_id"][0] == "000.wav"
    assert within["train"]["path"][0] == str(tmp_path / "clips" / "000.wav")
    frame["path"] = [str(tmp_path / "clips" / path) for path in frame.path]
    (tmp_path / "elsewhere").mkdir()
    absolute = arguments(frame, label_columns=["joy"], data_dir=str(tmp_path / "elsewhere"), split_column="part")
    assert load(absolute)["train"]["path"][0] == frame.path[0]


@pytest.mark.wide
@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("path", "../../etc/passwd", "line 3, File_ID 001: .*leads out of the data folder"),
        ("path", "", "line 3: path is empty"),
        ("path", "clips/gone.wav", "line 3, File_ID 001 .*the file is missing"),
        ("path", "clips/a\0.wav", "line 3, File_ID 001: path holds a NUL"),
        ("path", f"clips/{'x' * 300}.wav", "line 3, File_ID 001 .*File name too long"),
        ("path", "clips/loop.wav", "line 3, File_ID 001 .*Too many levels of symbolic links"),
        ("path", "clips/loop.wav/1.wav", "line 3, File_ID 001 .*Too many levels of symbolic links"),
        (
            "path",
            "./clips/006.wav",
            r"line 8, File_ID 006 .*the file of File_ID 001 of manifest.csv, line 3 \(train\) again, here in val",
        ),
        ("id", "006", r"line 8, File_ID 006 .*the File_ID of manifest.csv, line 3 \(train\) again, here in validation"),
        ("id", "", "line 3: id is empty"),
        ("who", "", "line 3: who is empty"),
        ("part", "holdout", "line 3: split must be one of"),
        ("joy", 9, r"line 3, File_ID 001: label joy = 9 is outside label_range \[-2, 2\] \(--label_range\)"),
    ],
)
def test_each_planted_defect_gives_its_error(frame, arguments, tmp_path, column, value, message):
    (tmp_path / "clips" / "loop.wav").symlink_to("loop.wav")
    frame.loc[1, column] = value
    args = arguments(
        frame, label_columns=["joy"], label_range=[-2, 2], id_column="id", split_column="part", speaker_column="who"
    )
    with pytest.raises(ValueError, match=message):
        load(args)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({}, "needs --task, or --label_columns"),
        ({"task": "two", "label_columns": ["joy"]}, "leave out --label_columns"),
        ({"label_columns": ["joi"]}, r"lacks the columns \['joi'\]"),
        ({"label_columns": ["joy", "kind"]}, r"these hold text: \['kind'\]"),
        ({"label_columns": ["mixed"]}, r"column mixed mixes numbers with text \('x'\)"),
        ({"label_columns": ["kind"], "label_range": [0, 1]}, "--label_range belongs to a regression"),
        ({"label_columns": ["kind", "who"], "class_names": ["a"]}, "one label column"),
        ({"label_columns": ["joy"], "problem_type": "regression", "class_names": ["a"]}, "--class_names belongs"),
        ({"label_columns": ["joy"], "label_range": [0]}, "lowest and the highest"),
    ],
)
def test_flags_that_do_not_fit_are_errors(frame, arguments, flags, message):
    frame["mixed"] = ["1", "x"] * 20
    with pytest.raises(ValueError, match=message):
        infer_task(arguments(frame, **flags))
    with pytest.raises(ValueError, match="needs --manifest"):
        infer_task(DataArguments(source="manifest", label_columns=["joy"]))
