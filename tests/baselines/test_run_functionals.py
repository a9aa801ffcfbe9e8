"""Runs of the feature baselines from end to end: what they leave, and whether it is right."""

import json

import audmetric
import numpy as np
import pandas as pd
import pytest

from avb_hf.baselines.functionals_arguments import FunctionalsArguments
from avb_hf.baselines.mlp import MlpEstimator
from avb_hf.baselines.run_functionals import run_functionals
from avb_hf.data.arguments import DataArguments
from avb_hf.tasks import TASKS

AVB_TASKS = ("high", "two", "culture", "type")
FILES = {
    "config.json", "model.safetensors", "all_results.json", "eval_results.json", "test_results.json",
    "seed_results.json", "predictions.csv", "resolved_config.json", "avb_complete.json",
}  # fmt: skip
SPLIT_WORDS = {"validation": "Val", "test": "Test"}


@pytest.fixture
def run(simple_functionals, corpus_dir, tmp_path):
    """Give a function that runs two seeds of three epochs on the corpus, and returns results and folder."""

    def go(task="two", system="egemaps", folder=tmp_path / "out", source=None, **flags):
        data = DataArguments(data_dir=str(source or corpus_dir), task=task)
        flags = {"seeds": [1, 2], "num_train_epochs": 3, "num_workers": 1, "learning_rate": 0.01} | flags
        return run_functionals(system, data, FunctionalsArguments(output_dir=str(folder), **flags)), folder

    return go


@pytest.fixture
def forbid_training(monkeypatch):
    """Give a function from which on no MLP may be trained."""

    def refuse(self, *args):
        raise AssertionError("an MLP was trained")

    return lambda: monkeypatch.setattr(MlpEstimator, "fit", refuse)


def load(folder, name):
    return json.loads((folder / name).read_text())


def labels_of(corpus_dir, task, split):
    table = pd.read_csv(corpus_dir / "labels" / task.label_file, dtype={"File_ID": str})
    table = table[table["Split"] == SPLIT_WORDS[split]]
    return table.set_index(table["File_ID"].str.strip("[]"))


def independent_headline(task, labels, predictions):
    predictions = predictions.loc[labels.index]
    if task.is_classification:
        truth = labels[task.class_column].tolist()
        return audmetric.unweighted_average_recall(truth, predictions["prediction"].tolist())
    rated = {label: labels[label].notna() for label in task.labels}
    each = [audmetric.concordance_cc(labels.loc[rows, x], predictions.loc[rows, x]) for x, rows in rated.items()]
    return float(np.mean(each))


@pytest.mark.slow
@pytest.mark.parametrize("name", AVB_TASKS)
def test_files_and_scores(run, corpus_dir, name):
    task = TASKS[name]
    results, folder = run(name, team_name="Owls", submission=3)
    contest = f"A-VB-{task.submission_name}_Owls_3.csv"
    assert {path.name for path in folder.iterdir()} == FILES | {contest}
    assert load(folder, "all_results.json") == results
    predictions = pd.read_csv(folder / "predictions.csv", dtype={"file_id": str}).set_index("file_id")
    assert list(predictions.columns) == ["split", *task.labels] + ["prediction"] * task.is_classification
    for split, prefix in (("validation", "eval"), ("test", "test")):
        labels = labels_of(corpus_dir, task, split)
        assert set(predictions.index[predictions["split"] == split]) == set(labels.index)
        key = f"{prefix}_{task.metric}"
        assert results[key] == pytest.approx(independent_headline(task, labels, predictions), abs=1e-5)
        assert load(folder, f"{prefix}_results.json")[key] == results[key]
    assert {key for key in results if key.endswith(("_ccc", "_uar"))} == {f"eval_{task.metric}", f"test_{task.metric}"}
    submitted = pd.read_csv(folder / contest)
    assert sorted(submitted["File_ID"].str.strip("[]")) == sorted(labels_of(corpus_dir, task, "test").index)


def test_the_best_seed_on_validation_is_the_score(run):
    results, folder = run(seeds=[4, 5, 6])
    seeds = load(folder, "seed_results.json")
    assert [row["seed"] for row in seeds] == [4, 5, 6]
    best = max(seeds, key=lambda row: row["eval_ccc"])
    assert len({row["eval_ccc"] for row in seeds}) == 3
    assert results["best_seed"] == best["seed"]
    for prefix in ("eval", "test"):
        scores = pd.Series([row[f"{prefix}_ccc"] for row in seeds])
        assert results[f"{prefix}_ccc"] == best[f"{prefix}_ccc"]
        assert results[f"{prefix}_over_seeds_mean"] == pytest.approx(scores.mean())
        assert results[f"{prefix}_over_seeds_std"] == pytest.approx(scores.std())


def test_the_saved_model_predicts_what_was_written(run):
    _, folder = run()
    mlp = MlpEstimator.load(folder)
    seeds = load(folder, "seed_results.json")
    assert max(mlp.validation_scores) == max(row["eval_ccc"] for row in seeds)
    assert mlp.network.layers[0].in_features == 88


def test_the_same_seeds_give_the_same_predictions(run, tmp_path):
    for name in "ab":
        run(folder=tmp_path / name, seeds=[7])
    assert (tmp_path / "a" / "predictions.csv").read_bytes() == (tmp_path / "b" / "predictions.csv").read_bytes()
    assert "eval_over_seeds_std" not in load(tmp_path / "a", "all_results.json")


@pytest.mark.slow
def test_the_record_of_the_run(run):
    _, folder = run("culture", system="compare")
    record = load(folder, "resolved_config.json")
    assert record["system"] == {"name": "compare", "feature_set": "ComParE_2016"}
    assert record["versions"]["opensmile"] == "1.2.3"
    assert (record["flags"]["seeds"], record["flags"]["batch_size"], record["flags"]["task"]) == ([1, 2], 8, "culture")
    assert {name: part["clips"] for name, part in record["audio"].items()} == {"train": 18, "validation": 9, "test": 9}


def test_a_finished_run_is_recognised(run, forbid_training):
    first, _ = run()
    forbid_training()
    again, _ = run(num_workers=2)
    assert again == first


def test_another_run_is_refused_until_it_is_to_be_overwritten(run):
    _, folder = run()
    with pytest.raises(ValueError, match=r"holds another run.*\n  flags\.seeds: \[1, 2\] is now \[3\]$"):
        run(seeds=[3])
    with pytest.raises(ValueError, match=r"system\.name: 'egemaps' is now 'compare'"):
        run(system="compare")
    results, _ = run(seeds=[3], overwrite=True)
    assert results["best_seed"] == 3
    assert load(folder, "resolved_config.json")["flags"]["seeds"] == [3]


@pytest.mark.slow
@pytest.mark.parametrize("lost", ["predictions.csv", "avb_complete.json"])
def test_a_run_that_was_cut_off_is_done_again(run, lost):
    results, folder = run()
    (folder / lost).unlink()
    again, _ = run()
    assert (folder / lost).is_file()
    runtimes = {"train_runtime", "cache_runtime"}
    assert {key: again[key] for key in again.keys() - runtimes} == {
        key: results[key] for key in results.keys() - runtimes
    }


def test_files_of_others_are_left_alone(run, tmp_path, simple_functionals):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "diary.txt").write_text("mine")
    for flags, message in (({}, "is not empty and holds no run"), ({"overwrite": True}, "also holds .*diary")):
        with pytest.raises(ValueError, match=message):
            run(**flags)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["diary.txt"]
    assert simple_functionals == []


def test_a_test_split_without_labels_is_predicted(run, make_corpus, tmp_path):
    corpus = make_corpus(tmp_path / "contest")
    path = corpus / "labels" / TASKS["two"].label_file
    table = pd.read_csv(path, dtype={"File_ID": str})
    table.loc[table["Split"] == "Test", list(TASKS["two"].labels)] = np.nan
    table.to_csv(path, index=False)
    results, folder = run(source=corpus)
    assert not [key for key in results if key.startswith("test_")]
    assert not (folder / "test_results.json").exists()
    assert len(pd.read_csv(folder / "A-VB-Two_team_1.csv")) == 9
    assert run(source=corpus)[0] == results


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"loss": "cross_entropy"}, "loss of task 'two' must be one of"),
        ({"team_name": "a_b"}, "team_name"),
        ({"seeds": [1, 1]}, "--seeds must be distinct"),
        ({"seeds": []}, "--seeds must be distinct"),
        ({"num_workers": 0}, "--num_workers"),
        ({"system": "egemap"}, "did you mean 'egemaps'"),
    ],
)
def test_wrong_flags(run, flags, message, tmp_path, simple_functionals):
    with pytest.raises(ValueError, match=message):
        run(**flags)
    assert simple_functionals == []
    assert not (tmp_path / "out").exists()


def test_the_output_folder_is_required():
    with pytest.raises(ValueError, match="--output_dir is required"):
        FunctionalsArguments()


def bootstrap_low(task, labels, predictions, speakers, resamples=200):
    """Lower end of the 95 % percentile interval of the headline over resampled speakers."""
    rng = np.random.default_rng(0)
    names, scores = np.unique(speakers), []
    for _ in range(resamples):
        rows = np.concatenate([np.flatnonzero(speakers == name) for name in rng.choice(names, size=len(names))])
        if task.is_classification:
            truth, predicted = labels[rows], predictions[rows].argmax(axis=1)
            scores.append(np.mean([np.mean(predicted[truth == each] == each) for each in np.unique(truth)]))
        else:
            columns = zip(labels[rows].T, predictions[rows].T, strict=True)
            scores.append(np.mean([audmetric.concordance_cc(*column) for column in columns]))
    return np.quantile(scores, 0.025)


@pytest.mark.slow
@pytest.mark.parametrize(("system", "name"), [("egemaps", "high"), ("egemaps", "type"), ("compare", "type")])
def test_functionals_score_above_chance_on_the_demo_corpus(system, name, tmp_path):
    pytest.importorskip("opensmile", reason="openSMILE is in the extra `baselines`")
    from avb_hf.data.sources.demo import corpus_folder

    task = TASKS[name]
    args = FunctionalsArguments(output_dir=str(tmp_path / "out"), seeds=[1, 2])
    results = run_functionals(system, DataArguments(source="demo", task=name), args)
    predictions = pd.read_csv(tmp_path / "out" / "predictions.csv", dtype={"file_id": str}).set_index("file_id")
    table = labels_of(corpus_folder(), task, "test")
    scores = predictions.loc[table.index, list(task.labels)].to_numpy(float)
    if task.is_classification:
        labels, chance = np.array([task.labels.index(each) for each in table[task.class_column]]), 1 / len(task.labels)
    else:
        labels, chance = table[list(task.labels)].to_numpy(float), 0.0
    assert bootstrap_low(task, labels, scores, table["Speaker"].to_numpy()) > chance
    assert results[f"test_{task.metric}"] > chance + 0.1
