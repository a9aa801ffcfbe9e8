"""Runs on a user's own data: unlabelled or absent test splits, task files, manifests."""

import json
import re

import audmetric
import numpy as np
import pandas as pd
import pytest
import soundfile

from avb_hf.cli import run


def load(folder, name):
    return json.loads((folder / name).read_text())


def predictions_of(folder, split=None):
    table = pd.read_csv(folder / "predictions.csv", dtype={"file_id": str}).set_index("file_id")
    return table if split is None else table[table["split"] == split]


@pytest.fixture
def command(corpus_dir, tiny_flags, tmp_path):
    """Give a function that runs the task two with further flags and returns the exit code."""
    base = ["--data_dir", corpus_dir, "--task", "two", "--output_dir", tmp_path / "out", *tiny_flags]
    return lambda *flags: run("train", [str(word) for word in [*base, "--num_train_epochs", "1", *flags]])


@pytest.fixture
def relabelled(make_corpus, tmp_path):
    """Give a function that makes a corpus whose two_info.csv went through another function."""

    def make(change):
        corpus = make_corpus(tmp_path / "corpus")
        path = corpus / "labels" / "two_info.csv"
        change(pd.read_csv(path, dtype=str)).to_csv(path, index=False)
        return corpus

    return make


@pytest.mark.slow
@pytest.mark.parametrize("placeholder", ["", "0.5", "-1"])
def test_an_unlabelled_test_split_is_predicted_and_not_scored(command, relabelled, tmp_path, placeholder):
    def hide(table):
        table.loc[table["Split"] == "Test", ["Valence", "Arousal"]] = placeholder
        return table

    assert command("--data_dir", relabelled(hide)) == 0
    out = tmp_path / "out"
    assert "eval_ccc" in load(out, "all_results.json")
    assert not [key for key in load(out, "all_results.json") if key.startswith("test_ccc")]
    assert len(predictions_of(out, "test")) == 9
    assert len(pd.read_csv(out / "A-VB-Two_team_1.csv")) == 9


@pytest.mark.slow
def test_without_a_test_split_nothing_is_predicted_there(command, relabelled, tmp_path):
    assert command("--data_dir", relabelled(lambda table: table[table["Split"] != "Test"])) == 0
    out = tmp_path / "out"
    assert set(predictions_of(out)["split"]) == {"validation"}
    assert not list(out.glob("A-VB-*"))
    assert not (out / "test_results.json").exists()


@pytest.mark.slow
def test_a_task_file_and_other_audio(command, make_corpus, tmp_path):
    corpus = make_corpus(tmp_path / "corpus", ".flac", 48_000, 2)
    task = tmp_path / "valence.yaml"
    task.write_text("labels: [Valence]\nlabel_file: valence_info.csv\nlabel_range: [0, 1]\nloss: mse\n")
    table = pd.read_csv(corpus / "labels" / "two_info.csv").drop(columns="Arousal")
    table.to_csv(corpus / "labels" / "valence_info.csv", index=False)
    assert command("--task", task, "--data_dir", corpus) == 0
    out = tmp_path / "out"
    assert load(out, "config.json")["loss"] == "mse"
    assert load(out, "resolved_config.json")["audio"]["train"]["sampling_rates"] == {"48000": 18}
    assert load(out, "resolved_config.json")["audio"]["train"]["channels"] == {"2": 18}
    assert list(predictions_of(out).columns) == ["split", "Valence"]
    assert not list(out.glob("A-VB-*"))


@pytest.fixture
def manifest(corpus_dir, tmp_path):
    """A table of the corpus's clips with words and numbers as labels, without a header's usual names."""
    labels = pd.read_csv(corpus_dir / "labels" / "two_info.csv", dtype={"File_ID": str})
    ids = labels["File_ID"].str.strip("[]")
    words = [("sob", "sigh", "laugh")[number % 3] for number in range(len(ids))]
    table = pd.DataFrame({"clip": "audio/any/" + ids + ".wav", "word": words, "part": labels["Split"].str.upper()})
    table["pleasure"], table["tension"] = 10 * labels["Valence"] - 3, labels["Arousal"]
    table.to_csv(tmp_path / "clips.csv", index=False)
    return [
        "--source",
        "manifest",
        "--manifest",
        tmp_path / "clips.csv",
        "--path_column",
        "clip",
        "--data_dir",
        corpus_dir,
    ]


@pytest.fixture
def manifest_run(manifest, tiny_flags, tmp_path):
    """Give a function that runs the manifest with further flags and returns the output folder."""

    def go(*flags):
        words = [*manifest, "--output_dir", tmp_path / "out", *tiny_flags, *flags]
        assert run("train", [str(word) for word in words]) == 0
        return tmp_path / "out"

    return go


@pytest.mark.slow
def test_a_manifest_of_words(manifest_run):
    out = manifest_run("--label_columns", "word")
    config = load(out, "config.json")
    assert (config["problem_type"], config["loss"]) == ("single_label_classification", "cross_entropy")
    assert list(config["id2label"].values()) == ["laugh", "sigh", "sob"]
    split = pd.read_csv(out / "split.csv")
    assert split["split"].value_counts().to_dict() == {"train": 26, "validation": 5, "test": 5}
    assert len(set(split["file_id"])) == 36
    predicted = predictions_of(out)
    drawn = split[split["split"] != "train"].set_index("file_id")["split"]
    assert predicted["split"].to_dict() == drawn.to_dict()
    assert set(predicted["prediction"]) <= {"laugh", "sigh", "sob"}
    assert "test_uar" in load(out, "all_results.json")


@pytest.mark.slow
def test_a_manifest_of_numbers_without_a_range(manifest_run, tmp_path):
    out = manifest_run("--label_columns", "pleasure", "tension", "--split_column", "part")
    config = load(out, "config.json")
    assert (config["problem_type"], config["loss"], config["output_activation"]) == ("regression", "ccc", "none")
    assert config["label_range"] is None
    assert not (out / "split.csv").exists()
    table = pd.read_csv(tmp_path / "clips.csv").set_index("clip")
    predicted = predictions_of(out, "validation")
    expected = [
        audmetric.concordance_cc(table.loc[predicted.index, name], predicted[name]) for name in ("pleasure", "tension")
    ]
    assert load(out, "eval_results.json")["eval_ccc"] == pytest.approx(np.mean(expected), abs=1e-5)


def plant(number, column, cell):
    def change(table):
        table.loc[table["File_ID"] == f"[{number:05}]", column] = cell
        return table

    return change


def leave_alone(table):
    return table


@pytest.mark.parametrize(
    ("change", "audio", "where", "message"),
    [
        (leave_alone, b"", "line 2, File_ID 00001 (", "is empty: 0 bytes"),
        (leave_alone, b"<html></html>", "line 2, File_ID 00001 (", "cannot be decoded"),
        (plant(1, "Valence", "x"), None, "line 2, File_ID 00001: ", "must be a finite number, got 'x'"),
        (plant(1, "Valence", "nan"), None, "line 2, File_ID 00001: ", "label Valence is missing"),
        (plant(1, "Split", "Trian"), None, "line 2, File_ID 00001: ", "did you mean 'Train'"),
        (plant(1, "File_ID", "[../00001]"), None, "line 2: ", "File_ID must be of letters"),
        (plant(1, "File_ID", "[00002]"), None, "line 3, File_ID 00002 (", "is the File_ID of two_info.csv, line 2"),
    ],
)
def test_bad_input_ends_the_run_and_is_named(command, relabelled, tmp_path, capsys, change, audio, where, message):
    corpus = relabelled(change)
    if audio is not None:
        (corpus / "audio" / "any" / "00001.wav").write_bytes(audio)
    assert command("--data_dir", corpus) == 2
    said = capsys.readouterr().err
    assert f"two_info.csv, {where}" in said
    assert message in said
    assert not (tmp_path / "out").exists()


def test_a_nan_sample_ends_the_run_and_is_named(command, relabelled, capsys):
    corpus = relabelled(leave_alone)
    soundfile.write(corpus / "audio" / "any" / "00001.wav", np.full(8_000, np.nan), 16_000, subtype="FLOAT")
    assert command("--data_dir", corpus) == 2
    assert re.search(r"File_ID 00001 \(.*00001.wav\): holds NaN or infinite samples", capsys.readouterr().err)


@pytest.mark.slow
def test_bad_audio_may_be_left_out(command, relabelled, tmp_path, capsys):
    corpus = relabelled(leave_alone)
    soundfile.write(corpus / "audio" / "any" / "00001.wav", np.full(8_000, np.nan), 16_000, subtype="FLOAT")
    assert command("--data_dir", corpus, "--on_bad_audio", "skip") == 2
    assert (
        "2.78% of the clips have audio that cannot be used, more than --max_bad_audio 0.01" in capsys.readouterr().err
    )
    assert command("--data_dir", corpus, "--on_bad_audio", "skip", "--max_bad_audio", "0.1") == 0
    record = load(tmp_path / "out", "resolved_config.json")
    assert record["audio"]["train"]["clips"] == 17
    (skipped,) = record["skipped"]
    assert (skipped["kind"], skipped["file_id"]) == ("nan_audio", "00001")
