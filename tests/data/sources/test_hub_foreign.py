"""Datasets of somebody else: their columns, and what can be wrong with their files."""

import numpy as np
import pyarrow as pa
import pytest
import soundfile
from datasets import Audio, Dataset, Features, Value
from pyarrow import parquet

from avb_hf.data.arguments import DataArguments
from avb_hf.data.clips import ClipReader
from avb_hf.data.doctor import diagnose
from avb_hf.data.sources import hub, infer_task, load_corpus, splits_were_drawn


def read(**flags):
    args = DataArguments(**flags)
    return load_corpus(infer_task(args), args)


@pytest.fixture
def foreign(tmp_path):
    """Give a function that writes a split of somebody else's dataset, with labels in columns of its own."""

    def write(name, rows, columns=("mood", "who"), start=0):
        rng = np.random.default_rng(start)
        cells = {"sound": [], "mood": [], "who": [], "pain": []}
        for number in range(start, start + rows):
            path = tmp_path / f"{number}.flac"
            soundfile.write(path, rng.uniform(-0.5, 0.5, (4_000, 2)), 22_050)
            cells["sound"].append({"bytes": path.read_bytes(), "path": path.name})
            cells["mood"].append("up" if number % 2 else "down")
            cells["who"].append(f"s{number % 4}")
            cells["pain"].append(number / 10)
        kind = {"bytes": Value("binary"), "path": Value("string")}
        kinds = Features({"sound": kind, "mood": Value("string"), "who": Value("string"), "pain": Value("float32")})
        split = Dataset.from_dict(cells, features=kinds).cast_column("sound", Audio(decode=False))
        file = tmp_path / "theirs" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        split.select_columns(["sound", *columns]).to_parquet(file)
        return file

    return write


def test_a_dataset_of_somebody_else_is_read_by_its_columns(foreign, tmp_path):
    foreign("data/train-00000-of-00002.parquet", 6)
    foreign("data/train-00001-of-00002.parquet", 4, start=6)
    foreign("data/validation-00000-of-00001.parquet", 4, start=10)
    flags = {"source": "hub", "dataset_name": str(tmp_path / "theirs"), "label_columns": ["mood"]}
    splits = read(**flags, speaker_column="who")
    assert {name: len(split) for name, split in splits.items()} == {"train": 10, "validation": 4}
    assert splits["train"]["labels"][:] == [0, 1] * 5
    assert splits["train"]["speaker"][:3] == ["s0", "s1", "s2"]
    assert splits["train"]["file_id"][6] == "data/train-00001-of-00002.parquet/1"
    audio = splits["train"].with_transform(ClipReader(DataArguments()))
    assert len(audio[9]["audio"]) == -(-4_000 * 16_000 // 22_050)
    with pytest.raises(ValueError, match=r"is the File_ID of data/train-00000-of-00002\.parquet, row 1 .* again"):
        read(**flags, id_column="who")


@pytest.mark.parametrize("tail", ["", "-0123456789abcdef"])
def test_files_that_are_missing_are_told_by_the_numbers_of_the_others(foreign, tmp_path, tail):
    flags = {"source": "hub", "dataset_name": str(tmp_path / "theirs"), "label_columns": ["mood"]}
    foreign("data/validation-00000-of-00001.parquet", 4)
    for number in (1, 3):  # whether the first is 0 or 1 is theirs to say
        foreign(f"data/train-{number:05d}-of-00003{tail}.parquet", 4, start=4 * number)
    with pytest.raises(ValueError, match=r"1 problem\s+data/train-\*-of-00003.parquet: 2 of these 3 files are there$"):
        read(**flags)
    foreign(f"data/train-00002-of-00003{tail}.parquet", 4, start=8)
    assert len(read(**flags)["train"]) == 12


def test_splits_are_told_by_folders_too_and_numbers_that_look_like_classes_are_warned_of(foreign, tmp_path, caplog):
    foreign("default/train/0000.parquet", 6, ["pain"])
    foreign("default/dev/0000.parquet", 6, ["pain"], start=10)
    flags = {"source": "hub", "dataset_name": str(tmp_path / "theirs"), "label_columns": ["pain"]}
    assert list(read(**flags)) == ["train", "validation"]
    for name in ("train", "dev"):
        path = tmp_path / "theirs" / "default" / name / "0000.parquet"
        table = parquet.read_table(path)
        parquet.write_table(table.set_column(1, "pain", pa.array([0, 1, 2, 0, 1, 2])), path)
    read(**flags)
    assert "read as a regression" in caplog.text


@pytest.mark.parametrize("by_speaker", [True, False])
def test_a_validation_split_that_is_missing_is_drawn_out_of_the_train_split(foreign, tmp_path, by_speaker, caplog):
    foreign("train.parquet", 40)
    foreign("test.parquet", 8, start=40)
    flags = {"source": "hub", "dataset_name": str(tmp_path / "theirs"), "label_columns": ["mood"]}
    flags |= {"speaker_column": "who"} if by_speaker else {}
    splits, other = read(**flags), read(**flags, split_seed=1)
    assert splits_were_drawn(DataArguments(**flags))
    held_out = splits["validation"]["file_id"][:]
    assert f"has no validation split: {len(held_out)} of its 40 train clips become one" in caplog.text
    assert len(held_out) == 40 / 4 if by_speaker else 40 * 3 / 20  # one of four speakers, or 3 clips in 20
    assert not {*held_out} & {*splits["train"]["file_id"]}
    assert len(splits["train"]) + len(held_out) == 40
    assert splits["test"]["file_id"][:] == other["test"]["file_id"][:]
    assert len(splits["test"]) == 8
    assert read(**flags)["validation"]["file_id"][:] == held_out != other["validation"]["file_id"][:]
    if by_speaker:
        assert not {*splits["validation"]["speaker"]} & {*splits["train"]["speaker"]}
    else:
        assert sorted(set(splits["validation"]["labels"])) == [0, 1]


def test_what_a_split_needs_is_told(foreign, tmp_path):
    foreign("test.parquet", 8)
    flags = {"source": "hub", "dataset_name": str(tmp_path / "theirs"), "label_columns": ["mood"]}
    flags |= {"class_names": ["up", "down"]}
    with pytest.raises(ValueError, match=r"no clip is in the train split: the name of a file.* must begin with train"):
        read(**flags)
    foreign("train.parquet", 4, start=8)
    with pytest.raises(ValueError, match="can be drawn from 7 clips or more, got 4"):
        read(**flags)


@pytest.mark.wide
@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({}, "needs --task, or --label_columns"),
        (
            {"label_columns": ["moood"]},
            r"test.parquet: the file lacks the columns \['moood'\]; it has \['sound', 'mood'",
        ),
        ({"label_columns": ["mood"], "id_column": "name"}, r"test.parquet: the file lacks the columns \['name'\]"),
        ({"label_columns": ["mood", "who"]}, "these hold text"),
        ({"task": "two", "label_columns": ["mood"]}, "leave out --label_columns"),
        ({"task": "two"}, r"lacks the columns \['Valence', 'Arousal'\]"),
        ({"label_columns": ["mood"], "data_dir": "x"}, "takes no --data_dir"),
        ({"label_columns": ["mood"], "dataset_revision": "main"}, "--dataset_revision is for the Hub"),
        ({"label_columns": ["mood"], "split_column": "x"}, "--split_column belongs to --source manifest"),
        ({"dataset_name": None}, "needs --dataset_name"),
        ({"dataset_name": "nowhere"}, "'nowhere' is no folder here, and the Hub has no such .*: the owner must"),
        ({"dataset_name": "./user/name"}, "the Hub has no such names"),
        ({"dataset_name": "a/b/c"}, "the Hub has no such names"),
    ],
)
def test_flags_that_do_not_fit_are_errors(foreign, tmp_path, flags, message):
    foreign("train.parquet", 4)
    foreign("test.parquet", 4, start=4)
    with pytest.raises(ValueError, match=message):
        read(**({"source": "hub", "dataset_name": str(tmp_path / "theirs")} | flags))


def drop_audio(path):
    table = parquet.read_table(path)
    cells = table["sound"].to_pylist()
    cells[1]["bytes"] = None
    cells[2]["bytes"] = b"RIFF and nothing"
    parquet.write_table(table.set_column(0, "sound", pa.array(cells, table["sound"].type)), path)


def empty_speaker(path):
    table = parquet.read_table(path)
    parquet.write_table(table.set_column(2, "who", pa.array(["a", "b", None, "c"])), path)


def drop_column(path):
    parquet.write_table(pa.table({"mood": ["up"]}), path)


DEFECTS = {
    "rows": (drop_audio, r"(?s)train.parquet, row 2.*its row holds no audio.*train.parquet, row 3.*decoded"),
    "no speaker": (empty_speaker, "train.parquet, row 3: who is empty"),
    "no Parquet": (lambda path: path.write_bytes(b"PAR1"), "train.parquet: not a readable Parquet file"),
    "cut off": (lambda path: path.write_bytes(path.read_bytes()[:-200]), "train.parquet: not a readable Parquet file"),
    "no audio": (drop_column, "train.parquet: no column holds audio"),
    "no split": (lambda path: path.rename(path.with_name("all.parquet")), "all.parquet: its name, .* must begin with"),
    "no file": (lambda path: [file.unlink() for file in path.parent.iterdir()], "no Parquet file is in this folder"),
}  # fmt: skip


@pytest.mark.parametrize("defect", DEFECTS)
def test_each_defect_is_named_by_file_and_row(foreign, tmp_path, defect):
    plant, message = DEFECTS[defect]
    foreign("val.parquet", 4, start=4)
    plant(foreign("train.parquet", 4))
    flags = {"label_columns": ["mood"], "class_names": ["up", "down"], "speaker_column": "who"}
    with pytest.raises(ValueError, match=message):
        read(source="hub", dataset_name=str(tmp_path / "theirs"), **flags)


def test_several_datasets_in_one_folder_are_told_apart(foreign, tmp_path):
    for name in ("a/train.parquet", "b/train.parquet", "a/val.parquet"):
        foreign(name, 4)
    with pytest.raises(ValueError, match=r"several datasets.* train split.* in \[.*/a', .*/b'\]"):
        read(source="hub", dataset_name=str(tmp_path / "theirs"), label_columns=["mood"])


@pytest.mark.parametrize("content", ["[]", "{", '{"format": "avb_hf corpus", "version": 2}', '{"format": "x"}'])
def test_facts_that_cannot_be_used_are_named(foreign, tmp_path, content):
    foreign("train.parquet", 4)
    (tmp_path / "theirs" / "avb_corpus.json").write_text(content)
    with pytest.raises(ValueError, match=r"avb_corpus.json cannot be used"):
        read(source="hub", dataset_name=str(tmp_path / "theirs"), label_columns=["mood"])


def test_the_doctor_finds_what_is_planted(foreign, tmp_path):
    foreign("val.parquet", 4, start=4)
    drop_audio(foreign("train.parquet", 4))
    theirs = DataArguments(source="hub", dataset_name=str(tmp_path / "theirs"), label_columns=["mood"])
    found = {(finding.kind, finding.place) for finding in diagnose(theirs).findings if finding.severity == "error"}
    assert found == {("missing_audio", "train.parquet, row 2"), ("unreadable_audio", "train.parquet, row 3")}


def test_large_groups_of_rows_are_warned_of(foreign, tmp_path, monkeypatch, caplog):
    for name, start in (("train.parquet", 0), ("val.parquet", 6)):
        foreign(name, 6, start=start)
    flags = {"source": "hub", "dataset_name": str(tmp_path / "theirs"), "label_columns": ["mood"]}
    read(**flags)
    assert "group of rows" not in caplog.text
    monkeypatch.setattr(hub, "LARGE_GROUP", 10_000)
    read(**flags)
    assert "a clip is read with its group of rows" in caplog.text
