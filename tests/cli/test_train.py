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

from avb_hf import model
from avb_hf.cli import run
from avb_hf.model import Wav2Vec2ForVocalBurst
from avb_hf.tasks import TASKS
from avb_hf.training import plan

CHECKER = Path(__file__).parents[1] / "evaluation" / "contest_checker.py"
AVB_TASKS = ("high", "two", "culture", "type")
FILES = {
    "config.json", "model.safetensors", "preprocessor_config.json", "all_results.json", "eval_results.json",
    "test_results.json", "train_results.json", "predictions.csv", "resolved_config.json", "training_args.json",
    "trainer_state.json", "avb_complete.json", "README.md",
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


@pytest.mark.wide
def test_files(finished):
    task, folder = finished
    names = {path.name for path in folder.iterdir() if not path.name.startswith("checkpoint-")}
    names -= {path.name for path in Path(model.__file__).parent.glob("*_vocal_burst.py")}
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
        return audmetric.unweighted_average_recall(
            labels[task.class_column].tolist(), predictions["prediction"].tolist()
        )
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


@pytest.mark.wide
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


@pytest.mark.slow
def test_the_corpus_is_described_once(corpus_dir, tiny_flags, tmp_path, monkeypatch):
    looks = []
    for name in ("fingerprint", "describe_audio"):
        original = getattr(plan, name)
        monkeypatch.setattr(plan, name, lambda splits, of=original, name=name: looks.append(name) or of(splits))
    flags = ["--data_dir", corpus_dir, "--task", "two", "--output_dir", tmp_path / "out", *tiny_flags]
    run_or_tell([*flags, "--max_steps", "1", "--do_train"])
    assert sorted(looks) == ["describe_audio", "fingerprint"]
    assert set(load(tmp_path / "out", "resolved_config.json")) >= {"data", "audio", "skipped", "task", "model"}


@pytest.mark.wide
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
