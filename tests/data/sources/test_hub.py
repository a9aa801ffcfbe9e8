"""A dataset of Parquet files against the corpus that it was made of."""

import json
import os
import shutil
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import soundfile

from avb_hf.data import contents, header_index
from avb_hf.data.arguments import DataArguments
from avb_hf.data.clips import ClipReader
from avb_hf.data.doctor import as_text, diagnose
from avb_hf.data.fingerprint import fingerprint
from avb_hf.data.prepare.arguments import PrepareArguments
from avb_hf.data.prepare.publish import write_published
from avb_hf.data.prepare.publish_arguments import PublishArguments
from avb_hf.data.prepare.run import prepare
from avb_hf.data.sources import infer_task, load_corpus, splits_were_drawn
from avb_hf.tasks import TASKS

SERIAL = PrepareArguments(num_workers=1)
AVB_TASKS = [name for name, task in TASKS.items() if task.label_file]


def publish(raw, out, args=SERIAL, **flags):
    prepare(raw, out, args)
    return write_published(raw, out, args, PublishArguments(parquet_dir=f"{out}-hub", **flags), None)


@pytest.fixture(scope="module")
def prepared(make_corpus, tmp_path_factory):
    """A prepared corpus with speakers, and the folder of its dataset."""
    folder = tmp_path_factory.mktemp("published")
    raw = make_corpus(folder / "raw")
    for path in (raw / "labels").iterdir():
        table = pd.read_csv(path, dtype=str, keep_default_na=False)
        table.insert(2, "Speaker", [f"s{row // 4}_{split}" for row, split in enumerate(table.Split)])
        table.to_csv(path, index=False)
    return folder / "out", publish(raw, folder / "out")


def read(**flags):
    args = DataArguments(**flags)
    return load_corpus(infer_task(args), args)


def require_equal(read_back, before):
    """Compare all that a corpus holds, but where it lies, sample by sample with what soundfile reads."""
    assert list(read_back) == list(before)
    for name, split in before.items():
        other = read_back[name]
        assert other.features == split.features
        for column in set(split.column_names) - {"path"}:
            np.testing.assert_array_equal(np.asarray(other[column][:]), np.asarray(split[column][:]), err_msg=column)
        waves = other.with_transform(ClipReader(DataArguments(max_duration=60)))[:]["audio"]
        for wave, path in zip(waves, split["path"], strict=True):
            np.testing.assert_array_equal(wave, soundfile.read(path, dtype="float32")[0])


@pytest.mark.parametrize("task", AVB_TASKS)
def test_it_holds_the_labels_splits_speakers_and_samples_of_the_corpus(prepared, task, torchcodec_unwanted):
    out, folder = prepared
    before = read(data_dir=str(out), task=task)
    flags = {"source": "hub", "dataset_name": str(folder), "task": task}
    require_equal(read(**flags), before)
    assert set(before["train"]["speaker"]) == {"s0_Train", *(f"s{n}_Train" for n in range(1, 9))}
    assert not splits_were_drawn(DataArguments(**flags))
    if TASKS[task].allow_missing:
        assert np.isnan(before["train"]["labels"][:]).any()


def test_a_test_split_without_labels_has_none_again(make_corpus, tmp_path):
    raw = make_corpus(tmp_path / "raw", clips=12)
    for name in ("two", "type"):
        path = raw / "labels" / f"{name}_info.csv"
        table = pd.read_csv(path, dtype=str)
        table.loc[table.Split == "Test", list(TASKS[name].label_columns)] = ""
        table.to_csv(path, index=False)
    folder = publish(raw, tmp_path / "out")
    for name in ("two", "type", "high"):
        before = read(data_dir=str(tmp_path / "out"), task=name)
        require_equal(read(source="hub", dataset_name=str(folder), task=name), before)
    assert json.loads((folder / "avb_corpus.json").read_text())["scored_tests"] == ["high", "culture"]


def test_a_manifest_brings_its_own_task_ids_and_split(tmp_path):
    raw = tmp_path / "raw"
    (raw / "in").mkdir(parents=True)
    rng = np.random.default_rng(0)
    for number in range(20):
        soundfile.write(raw / "in" / f"{number}.flac", rng.uniform(-0.5, 0.5, 1_600), 16_000)
    table = pd.DataFrame({"path": [f"in/{n}.flac" for n in range(20)], "who": [f"s{n % 5}" for n in range(20)]})
    table["mood"] = rng.choice(["up", "down", "5 o'clock"], 20)
    table["pain"] = rng.uniform(0, 100, 20)
    table.loc[3, "pain"] = np.nan
    table.to_csv(raw / "clips.csv", index=False)
    args = replace(SERIAL, manifest=[str(raw / "clips.csv")])
    cases = {
        "mood": {"label_columns": ["mood"]},
        "pain": {"label_columns": ["pain"], "label_range": [0.0, 100.0], "allow_missing_labels": True},
    }
    for name, flags in cases.items():
        described = {"source": "manifest", "speaker_column": "who", "split_seed": 3} | flags
        folder = publish(raw, tmp_path / f"out-{name}", args, **described)
        manifest = {"manifest": str(tmp_path / f"out-{name}" / "clips.csv"), "id_column": "File_ID"}
        before = read(**described, **manifest)
        assert before["train"]["file_id"][0].endswith(".flac")
        require_equal(read(source="hub", dataset_name=str(folder)), before)
        task = infer_task(DataArguments(source="hub", dataset_name=str(folder)))
        assert task == replace(infer_task(DataArguments(**described, **manifest)))


def test_emogators_layout_is_published_with_its_split(tmp_path):
    raw = tmp_path / "raw"
    raw.mkdir()
    for number in range(30):
        wave = np.random.default_rng(number).uniform(-0.5, 0.5, 1_600)
        soundfile.write(raw / f"{number % 5:06d}-{number % 3 + 1:02d}-{number}.mp3", wave, 16_000)
    folder = publish(raw, tmp_path / "out", source="emogator", split_seed=1)
    before = read(source="emogator", data_dir=str(tmp_path / "out"), split_seed=1)
    require_equal(read(source="hub", dataset_name=str(folder)), before)


def test_a_dataset_with_several_tasks_asks_which(prepared):
    with pytest.raises(ValueError, match=r"needs --task; it holds the labels of the tasks \['high', 'two', "):
        read(source="hub", dataset_name=str(prepared[1]))


def lose(path):
    path.unlink()


def write_anew(path):
    content = pd.read_parquet(path)
    content.head(5).to_parquet(path)


@pytest.mark.parametrize(
    ("change", "message"), [(lose, "is missing"), (write_anew, r"has \d+ bytes, and was written with \d+")]
)
def test_a_dataset_that_is_not_as_it_was_written_is_refused(prepared, tmp_path, change, message):
    folder = shutil.copytree(prepared[1], tmp_path / "copy")
    change(folder / "data" / "test-00000-of-00001.parquet")
    args = DataArguments(source="hub", dataset_name=str(folder), task="two")
    refusal = rf"copy is not the whole dataset: 1 problem\s+data/test-00000-of-00001.parquet: {message}$"
    with pytest.raises(ValueError, match=refusal):
        load_corpus(infer_task(args), args)
    assert diagnose(args).findings


def test_headers_are_read_once(prepared, monkeypatch):
    monkeypatch.setattr(header_index, "MIN_FRESH", 1)
    for path in prepared[1].rglob("*.parquet"):
        os.utime(path, (1_600_000_000, 1_600_000_000))
    flags = {"source": "hub", "dataset_name": str(prepared[1]), "task": "two"}
    before = read(**flags)
    monkeypatch.setattr(contents, "read_row", lambda row: pytest.fail(f"{row} was read again"))
    monkeypatch.setattr(header_index, "read_header", lambda path, file_id: pytest.fail(f"{path} was read again"))
    assert read(**flags)["train"]["duration"][:] == before["train"]["duration"][:]


def test_the_fingerprint_is_of_what_the_dataset_holds(prepared):
    flags = {"source": "hub", "dataset_name": str(prepared[1])}
    assert fingerprint(read(**flags, task="two")) == fingerprint(read(**flags, task="two"))
    assert fingerprint(read(**flags, task="two")) != fingerprint(read(**flags, task="high"))


def test_the_doctor_gives_it_a_clean_bill(prepared):
    diagnosis = diagnose(DataArguments(source="hub", dataset_name=str(prepared[1]), task="two"))
    assert (diagnosis.findings, diagnosis.searched) == ([], str(prepared[1]))
    assert "18 clips" in as_text(diagnosis)
