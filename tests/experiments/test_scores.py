import json
import shutil

import audmetric
import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import balanced_accuracy_score

from avb_hf.data.arguments import DataArguments
from avb_hf.evaluation.statistics import bootstrap_interval
from avb_hf.experiments import scores
from avb_hf.experiments.jobs import Job, Run
from avb_hf.experiments.runner import carry_out
from avb_hf.experiments.scores import Score, Scorer, mean_score
from avb_hf.tasks import TASKS

pytestmark = pytest.mark.slow


@pytest.fixture
def finished(fake_avb, tmp_path):
    """Give a function that makes a finished job of a task on a corpus, and its scorer."""

    def make(task, folder):
        run = Run(task, ("train", "--task", task, "--data_dir", str(folder)), TASKS[task])
        job = Job(run, 1, tmp_path)
        carry_out([job], fake_avb)
        return job, Scorer({task: DataArguments(data_dir=str(folder), task=task)})

    return make


def new_scorer(folder, task="two"):
    return Scorer({task: DataArguments(data_dir=str(folder), task=task)})


def expected_score(job, folder, split):
    """The score that follows from predictions and label table, by others' formulas."""
    task = job.run.task
    predictions = pd.read_csv(job.folder / "predictions.csv", dtype={"file_id": str}).set_index("file_id")
    predictions = predictions[predictions["split"] == split]
    table = pd.read_csv(folder / "labels" / task.label_file, dtype={"File_ID": str})
    table = table.set_index(table["File_ID"].str.strip("[]")).loc[predictions.index]
    if task.is_classification:
        return balanced_accuracy_score(table["Voc_Type"], predictions["prediction"])
    known = {label: table[label].notna() for label in task.labels}
    each = [audmetric.concordance_cc(table[label][known[label]], predictions[label][known[label]]) for label in known]
    return float(np.mean(each))


@pytest.mark.parametrize("task", ["high", "two", "culture", "type"])
def test_a_score_follows_from_predictions_and_labels(task, finished, with_speakers):
    job, scorer = finished(task, with_speakers)
    for split, name in (("val", "validation"), ("test", "test")):
        score = scorer.score(job, split)
        assert score.value == pytest.approx(expected_score(job, with_speakers, name), abs=1e-6)
        assert (score.num_clips, score.num_speakers) == (9, 3)
        assert score.low <= score.high


def test_speakers_are_drawn_where_they_are_known(finished, with_speakers):
    job, scorer = finished("two", with_speakers)
    predictions, labels, speakers = scorer.answers(job, "test")
    assert sorted(set(speakers)) == ["Test0", "Test1", "Test2"]
    score = scorer.score(job, "test")
    assert (score.low, score.high) == bootstrap_interval(TASKS["two"], predictions, labels, speakers)


def test_clips_are_drawn_where_they_are_not(finished, corpus_dir):
    job, scorer = finished("two", corpus_dir)
    predictions, labels, speakers = scorer.answers(job, "test")
    score = scorer.score(job, "test")
    assert (speakers, score.num_speakers) == (None, 0)
    assert (score.low, score.high) == bootstrap_interval(TASKS["two"], predictions, labels)


@pytest.mark.parametrize("task", ["high", "culture", "type"])
def test_a_split_without_labels_has_no_score(task, finished, unlabelled):
    job, scorer = finished(task, unlabelled)
    assert scorer.score(job, "test") is None
    assert scorer.score(job, "val").num_clips == 9


def test_an_interval_is_computed_once_for_the_same_predictions(finished, with_speakers, monkeypatch):
    job, scorer = finished("two", with_speakers)
    first = scorer.score(job, "val")
    with monkeypatch.context() as patch:
        patch.setattr(scores, "bootstrap_interval", None)
        assert new_scorer(with_speakers).score(job, "val") == first
    path = job.folder / "predictions.csv"
    table = pd.read_csv(path, dtype=str)
    table.loc[table["split"] == "validation", "Valence"] = "0.5"
    table.to_csv(path, index=False)
    with pytest.raises(ValueError, match="the labels are not those of the run: it was scored 0"):
        new_scorer(with_speakers).score(job, "val")


@pytest.mark.parametrize("task", ["high", "two", "culture", "type"])
def test_test_labels_that_come_later_are_scored(task, finished, unlabelled, corpus_dir):
    job, scorer = finished(task, unlabelled)
    assert scorer.score(job, "test") is None
    score = new_scorer(corpus_dir, task).score(job, "test")
    assert score.value == pytest.approx(expected_score(job, corpus_dir, "test"), abs=1e-6)


def test_speakers_that_come_later_are_drawn(finished, corpus_dir, with_speakers):
    job, scorer = finished("two", corpus_dir)
    assert scorer.score(job, "test").num_speakers == 0
    assert new_scorer(with_speakers).score(job, "test").num_speakers == 3


def test_results_without_the_score_of_validation_are_an_error(finished, corpus_dir):
    job, scorer = finished("two", corpus_dir)
    (job.folder / "all_results.json").write_text('{"eval_loss": 0.5}')
    with pytest.raises(ValueError, match=r"all_results.json must hold eval_ccc, got \['eval_loss'\]"):
        scorer.score(job, "val")


def test_labels_that_have_changed_are_noticed(finished, with_speakers, corpus_dir, make_corpus, tmp_path):
    job, _ = finished("two", with_speakers)
    folder = make_corpus(tmp_path / "other")
    path = folder / "labels" / "two_info.csv"
    table = pd.read_csv(path, dtype={"File_ID": str})
    table["Valence"] = 1 - table["Valence"]
    table.to_csv(path, index=False)
    with pytest.raises(ValueError, match="the labels are not those of the run"):
        Scorer({"two": DataArguments(data_dir=str(folder), task="two")}).score(job, "val")


def test_a_clip_that_is_not_in_the_corpus_is_named(finished, with_speakers, make_corpus, tmp_path):
    job, _ = finished("two", with_speakers)
    folder = make_corpus(tmp_path / "smaller", clips=16)
    with pytest.raises(ValueError, match=r"the corpus has no clips \['00019', "):
        Scorer({"two": DataArguments(data_dir=str(folder), task="two")}).score(job, "val")


def test_a_clip_that_is_of_another_split_now_is_named(finished, with_speakers, make_corpus, tmp_path):
    job, scorer = finished("two", with_speakers)
    scorer.score(job, "val")  # what is kept of it does not count for other splits
    folder = tmp_path / "other"
    shutil.copytree(with_speakers, folder)
    path = folder / "labels" / "two_info.csv"
    table = pd.read_csv(path, dtype={"File_ID": str})
    table["Split"] = table["Split"].map({"Train": "Train", "Val": "Test", "Test": "Val"})
    table.to_csv(path, index=False)
    with pytest.raises(ValueError, match="were of the validation split in the run, and are not now; another split"):
        new_scorer(folder).score(job, "val")


def test_a_split_that_was_not_there_is_told(finished, with_speakers):
    job, scorer = finished("two", with_speakers)
    path = job.folder / "predictions.csv"
    table = pd.read_csv(path, dtype=str)
    table[table["split"] == "validation"].to_csv(path, index=False)
    with pytest.raises(ValueError, match="the corpus had no test split"):
        scorer.score(job, "test")


def test_seeds_are_averaged():
    scores_of_seeds = [Score(0.5, 0.25, 0.75, 20, 4), Score(0.7, 0.45, 0.85, 20, 4)]
    mean = mean_score(scores_of_seeds)
    assert (mean.value, mean.low, mean.high) == pytest.approx((0.6, 0.35, 0.8))
    assert (mean.num_clips, mean.num_speakers) == (20, 4)


def test_what_is_kept_is_json(finished, with_speakers):
    job, scorer = finished("two", with_speakers)
    scorer.score(job, "val")
    kept = json.loads((job.root / "runs" / f"{job.name}.scores.json").read_text())
    assert set(kept) == {"predictions", "truth", "val"}
