"""Runs from end to end: what they leave, and whether it is right."""

import json
import runpy
from pathlib import Path

import audmetric
import numpy as np
import pandas as pd
import pytest
import soundfile
import torch
from transformers import AutoFeatureExtractor

from avb_hf.cli import run
from avb_hf.model import Wav2Vec2ForVocalBurst
from avb_hf.tasks import TASKS

CHECKER = Path(__file__).parents[1] / "evaluation" / "contest_checker.py"
AVB_TASKS = ("high", "two", "culture", "type")
FILES = {
    "config.json", "model.safetensors", "preprocessor_config.json", "all_results.json", "eval_results.json",
    "test_results.json", "train_results.json", "predictions.csv", "resolved_config.json", "training_args.json",
    "trainer_state.json",
}  # fmt: skip
SPLIT_WORDS = {"validation": "Val", "test": "Test"}


def run_or_tell(argv, capsys=None):
    assert run("train", [str(word) for word in argv]) == 0, capsys.readouterr().err if capsys else ""


def load(folder, name):
    return json.loads((folder / name).read_text())


@pytest.fixture(scope="module", params=AVB_TASKS)
def finished(request, corpus_dir, tiny_flags, tmp_path_factory):
    """Task and output folder of a run of each A-VB task; the run's own environment holds a token."""
    folder = tmp_path_factory.mktemp(request.param) / "out"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_TOKEN", "hf_thisisasecret")
        flags = ["--data_dir", corpus_dir, "--task", request.param, "--output_dir", folder, *tiny_flags]
        run_or_tell([*flags, "--team_name", "Owls", "--submission", "3"])
    return TASKS[request.param], folder


def labels_of(corpus_dir, task, split):
    table = pd.read_csv(corpus_dir / "labels" / task.label_file, dtype={"File_ID": str})
    table = table[table["Split"] == SPLIT_WORDS[split]]
    return table.set_index(table["File_ID"].str.strip("[]"))


def predictions_of(folder, split=None):
    table = pd.read_csv(folder / "predictions.csv", dtype={"file_id": str}).set_index("file_id")
    return table if split is None else table[table["split"] == split]


def test_files(finished):
    task, folder = finished
    names = {path.name for path in folder.iterdir() if not path.name.startswith("checkpoint-")}
    assert names == FILES | {f"A-VB-{task.submission_name}_Owls_3.csv"}
    assert not [path for path in folder.glob("**/training_args.bin")]


def test_no_file_holds_the_token(finished):
    assert not [path for path in finished[1].glob("**/*") if path.is_file() and b"thisisasecret" in path.read_bytes()]


def test_contest_file(finished, corpus_dir):
    task, folder = finished
    expected = set(labels_of(corpus_dir, task, "test").index)
    check = runpy.run_path(str(CHECKER))["check_contest_file"]
    path = folder / f"A-VB-{task.submission_name}_Owls_3.csv"
    assert check(path, expected) == []
    table = pd.read_csv(path)
    ours = predictions_of(folder, "test").loc[table["File_ID"].str.strip("[]")]
    if task.is_classification:
        assert table["Voc_Type"].tolist() == ours["prediction"].tolist()
    else:
        np.testing.assert_allclose(table[list(task.labels)], ours[list(task.labels)], atol=1e-6)


def test_predictions_cover_validation_and_test(finished, corpus_dir):
    task, folder = finished
    table = predictions_of(folder)
    assert list(table.columns) == ["split", *task.labels] + ["prediction"] * task.is_classification
    for split in SPLIT_WORDS:
        assert list(table.index[table["split"] == split]) == list(labels_of(corpus_dir, task, split).index)
    scores = table[list(task.labels)].to_numpy()
    assert ((scores >= 0) & (scores <= 1)).all()
    if task.is_classification:
        np.testing.assert_allclose(scores.sum(axis=1), 1, atol=1e-5)
        assert table["prediction"].tolist() == [task.labels[index] for index in scores.argmax(axis=1)]


def independent_headline(task, labels, predictions):
    if task.is_classification:
        return audmetric.unweighted_average_recall(labels[task.class_column].tolist(), predictions["prediction"].tolist())
    scores = []
    for label in task.labels:
        rated = labels[label].notna()
        scores.append(audmetric.concordance_cc(labels.loc[rated, label], predictions.loc[rated, label]))
    return float(np.mean(scores))


@pytest.mark.parametrize(("split", "prefix"), [("validation", "eval"), ("test", "test")])
def test_scores_follow_from_the_predictions(finished, corpus_dir, split, prefix):
    task, folder = finished
    expected = independent_headline(task, labels_of(corpus_dir, task, split), predictions_of(folder, split))
    key = f"{prefix}_{task.metric}"
    assert load(folder, f"{prefix}_results.json")[key] == pytest.approx(expected, abs=1e-5)
    assert load(folder, "all_results.json")[key] == load(folder, f"{prefix}_results.json")[key]


def test_names_of_the_results(finished, corpus_dir):
    task, folder = finished
    results = load(folder, "all_results.json")
    headlines = {f"{prefix}_{task.metric}" for prefix in ("eval", "test")}
    assert {key for key in results if key.endswith(("_ccc", "_uar"))} == headlines
    each = "recall" if task.is_classification else "ccc"
    present = task.labels
    if task.is_classification:
        present = labels_of(corpus_dir, task, "test")[task.class_column].unique()
    assert {f"test_{each}_{label}" for label in present} <= set(results)


def test_the_folder_loads_and_predicts_the_same(finished, corpus_dir):
    task, folder = finished
    model = Wav2Vec2ForVocalBurst.from_pretrained(folder)
    extractor = AutoFeatureExtractor.from_pretrained(folder)
    assert not model.training
    for clip_id, row in predictions_of(folder).iterrows():
        wave, rate = soundfile.read(corpus_dir / "audio" / "any" / f"{clip_id}.wav", dtype="float32")
        with torch.no_grad():
            logits = model(**extractor(wave, sampling_rate=rate, return_tensors="pt")).logits[0]
        scores = logits.softmax(0) if task.is_classification else logits
        np.testing.assert_allclose(scores, row[list(task.labels)].to_numpy(float), atol=1e-5)


def test_the_record_of_the_run(finished, corpus_dir):
    task, folder = finished
    record = load(folder, "resolved_config.json")
    assert record["versions"]["torch"] == torch.__version__
    assert (record["flags"]["seed"], record["flags"]["task"]) == (42, task.name)
    assert {name: part["clips"] for name, part in record["audio"].items()} == {"train": 18, "validation": 9, "test": 9}
    assert record["audio"]["train"]["sampling_rates"] == {"16000": 18}
    assert record["model"]["states_norm"] == "none"


def test_only_evaluating_a_checkpoint_gives_its_scores(finished, corpus_dir, tmp_path, capsys):
    task, folder = finished
    flags = ["--data_dir", corpus_dir, "--task", task.name, "--model_name_or_path", folder, "--do_eval"]
    run_or_tell([*flags, "--output_dir", tmp_path / "again"], capsys)
    again, before = (load(path, "eval_results.json") for path in (tmp_path / "again", folder))
    for key in (f"eval_{task.metric}", "eval_num_samples"):
        assert again[key] == pytest.approx(before[key], abs=1e-5)
    assert not (tmp_path / "again" / "test_results.json").exists()
    assert set(predictions_of(tmp_path / "again")["split"]) == {"validation"}


def test_a_checkpoint_of_another_task_is_refused(finished, corpus_dir, tmp_path, capsys):
    task, folder = finished
    other = "high" if task.name != "high" else "two"
    flags = ["--data_dir", corpus_dir, "--task", other, "--model_name_or_path", folder, "--do_eval"]
    assert run("train", [str(word) for word in [*flags, "--output_dir", tmp_path / "again"]]) == 2
    assert f"task {other!r}" in capsys.readouterr().err


@pytest.fixture
def command(corpus_dir, tiny_flags, tmp_path):
    """Give a function that runs the task two with further flags and returns the exit code."""
    base = ["--data_dir", corpus_dir, "--task", "two", "--output_dir", tmp_path / "out", *tiny_flags]
    return lambda *flags: run("train", [str(word) for word in [*base, "--num_train_epochs", "1", *flags]])


def test_the_screen_ends_with_tables(command, capsys):
    assert command() == 0
    out = capsys.readouterr().out
    assert out.index("eval_ccc (mean of 2 labels)") < out.index("test_ccc (mean of 2 labels)")
    assert "Valence" in out


def test_a_dry_run_writes_nothing(command, tmp_path, monkeypatch, capsys):
    (tmp_path / "cwd").mkdir()
    monkeypatch.chdir(tmp_path / "cwd")
    assert command("--dry_run") == 0
    assert [path.name for path in tmp_path.rglob("*")] == ["cwd"]
    out = capsys.readouterr().out
    for word in ("task two", "train: 18 clips", "3 steps of 8 clips", "one batch of 8 clips: loss", "peak memory"):
        assert word in out


def test_a_dry_run_checks_the_output_folder_too(command, tmp_path, capsys):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "config.json").write_text("old")
    assert command("--dry_run") == 2
    assert command("--dry_run", "--overwrite") == 0
    assert (tmp_path / "out" / "config.json").read_text() == "old"


def test_a_used_folder_is_refused_and_overwritten_on_request(command, tmp_path, capsys):
    assert command() == 0
    stamp = (tmp_path / "out" / "model.safetensors").stat().st_mtime_ns
    assert command() == 2
    assert "--overwrite" in capsys.readouterr().err
    assert (tmp_path / "out" / "model.safetensors").stat().st_mtime_ns == stamp
    assert command("--overwrite", "--do_train", "--do_eval") == 0
    assert not (tmp_path / "out" / "test_results.json").exists(), "left of the run before"
    (tmp_path / "out" / "notes.txt").write_text("mine")
    assert command("--overwrite") == 2
    assert "notes.txt" in capsys.readouterr().err
    assert (tmp_path / "out" / "eval_results.json").exists()


@pytest.mark.parametrize("team", ["a_b", "a b"])
def test_a_team_name_is_refused_before_training(command, tmp_path, team):
    assert command("--team_name", team) == 2
    assert not (tmp_path / "out").exists()


def test_max_train_samples(command, tmp_path, capsys):
    assert command("--max_train_samples", "5", "--max_eval_samples", "4") == 0
    audio = load(tmp_path / "out", "resolved_config.json")["audio"]
    assert [audio[name]["clips"] for name in ("train", "validation", "test")] == [5, 4, 4]
    assert "train: 5 clips" in capsys.readouterr().out


def test_early_stopping_by_flag(command, tmp_path):
    still = ["--learning_rate", "0", "--backbone_learning_rate", "0", "--num_train_epochs", "9"]
    assert command(*still, "--early_stopping_patience", "1") == 0
    assert load(tmp_path / "out", "trainer_state.json")["epoch"] == 2


def test_balanced_class_weights_by_flag(command, tmp_path, make_corpus):
    corpus = make_corpus(tmp_path / "corpus", clips=72)
    assert command("--task", "type", "--class_weights", "balanced", "--data_dir", corpus) == 0
    table = labels_of(corpus, TASKS["type"], "test")
    table = pd.read_csv(corpus / "labels" / "type_info.csv")
    counts = table.loc[table["Split"] == "Train", "Voc_Type"].value_counts().reindex(TASKS["type"].labels)
    expected = counts.sum() / (len(counts) * counts)
    np.testing.assert_allclose(load(tmp_path / "out", "config.json")["class_weights"], expected)


@pytest.fixture
def relabelled(make_corpus, tmp_path):
    """Give a function that makes a corpus whose two_info.csv went through another function."""

    def make(change):
        corpus = make_corpus(tmp_path / "corpus")
        path = corpus / "labels" / "two_info.csv"
        change(pd.read_csv(path, dtype=str)).to_csv(path, index=False)
        return corpus

    return make


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


def test_without_a_test_split_nothing_is_predicted_there(command, relabelled, tmp_path):
    assert command("--data_dir", relabelled(lambda table: table[table["Split"] != "Test"])) == 0
    out = tmp_path / "out"
    assert set(predictions_of(out)["split"]) == {"validation"}
    assert not list(out.glob("A-VB-*"))
    assert not (out / "test_results.json").exists()


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
    return ["--source", "manifest", "--manifest", tmp_path / "clips.csv", "--path_column", "clip", "--data_dir", corpus_dir]


@pytest.fixture
def manifest_run(manifest, tiny_flags, tmp_path):
    """Give a function that runs the manifest with further flags and returns the output folder."""

    def go(*flags):
        run_or_tell([*manifest, "--output_dir", tmp_path / "out", *tiny_flags, *flags])
        return tmp_path / "out"

    return go


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


def test_a_manifest_of_numbers_without_a_range(manifest_run, tmp_path):
    out = manifest_run("--label_columns", "pleasure", "tension", "--split_column", "part")
    config = load(out, "config.json")
    assert (config["problem_type"], config["loss"], config["output_activation"]) == ("regression", "ccc", "none")
    assert config["label_range"] is None
    assert not (out / "split.csv").exists()
    table = pd.read_csv(tmp_path / "clips.csv").set_index("clip")
    predicted = predictions_of(out, "validation")
    expected = [audmetric.concordance_cc(table.loc[predicted.index, name], predicted[name]) for name in ("pleasure", "tension")]
    assert load(out, "eval_results.json")["eval_ccc"] == pytest.approx(np.mean(expected), abs=1e-5)
