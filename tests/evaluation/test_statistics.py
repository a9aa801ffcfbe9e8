import random
from typing import get_args

import audmetric
import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import balanced_accuracy_score

from avb_hf.evaluation.metrics import METRICS
from avb_hf.evaluation.statistics import (
    HEADLINES,
    OF_DRAWS,
    bootstrap_interval,
    bootstrap_intervals,
    group_scores,
    paired_t_interval,
    t_interval,
)
from avb_hf.tasks import TASKS, MetricName, TaskSpec

REGRESSION = TaskSpec("mine", ("Valence", "Arousal"))
TYPE = TASKS["type"]
SPEAKERS = 12


def rated(task, seed=0, rows=90):
    """Predictions that are right now and then, labels with gaps, and speakers of several clips each."""
    rng = np.random.default_rng(seed)
    speakers = [f"s{number}" for number in rng.integers(SPEAKERS, size=rows)]
    if task.is_classification:
        labels = rng.integers(len(task.labels), size=rows)
        preds = rng.random((rows, len(task.labels))) + 0.5 * np.eye(len(task.labels))[labels]
        labels[rng.random(rows) < 0.1] = -100
        return preds, labels, speakers
    labels = rng.random((rows, len(task.labels)))
    preds = labels + rng.normal(0, [0.1, 0.4], labels.shape)
    labels[rng.random(labels.shape) < 0.1] = np.nan
    return preds, labels, speakers


def plain_score(preds, labels, task):
    """The headline score by other packages."""
    if task.is_classification:
        known = labels >= 0
        return balanced_accuracy_score(labels[known], preds[known].argmax(axis=1))
    columns = [(p[~np.isnan(t)], t[~np.isnan(t)]) for p, t in zip(preds.T, labels.T, strict=True)]
    return np.mean([audmetric.concordance_cc(truth, predicted) for predicted, truth in columns])


def plain_bootstrap(preds, labels, speakers, task, resamples):
    """Draw speakers, or clips, by the names that they have."""
    names = speakers or [str(row) for row in range(len(preds))]
    rows_of = {name: [row for row, other in enumerate(names) if other == name] for name in names}
    source, scores = random.Random(3), []
    for _ in range(resamples):
        drawn = source.choices(sorted(rows_of), k=len(rows_of))
        rows = [row for name in drawn for row in rows_of[name]]
        scores.append(plain_score(preds[rows], labels[rows], task))
    return np.percentile(scores, [2.5, 97.5])


def test_every_metric_has_its_headline():
    assert tuple(HEADLINES) == tuple(OF_DRAWS) == tuple(METRICS) == get_args(MetricName)


@pytest.mark.parametrize("task", [REGRESSION, TYPE], ids=lambda task: task.metric)
def test_headlines_are_those_of_the_metrics(task):
    preds, labels, _ = rated(task)
    found = HEADLINES[task.metric](preds, labels.astype(float), task)
    assert found == METRICS[task.metric](preds, labels, task)[task.metric]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::UserWarning")  # scikit-learn, of classes that a resample lacks
@pytest.mark.parametrize("by_speaker", [False, True])
@pytest.mark.parametrize("task", [REGRESSION, TYPE], ids=lambda task: task.metric)
def test_the_bootstrap_agrees_with_a_slow_one(task, by_speaker):
    preds, labels, speakers = rated(task)
    groups = speakers if by_speaker else None
    expected = plain_bootstrap(preds, labels, groups, task, 500)
    found = bootstrap_interval(task, preds, labels, groups, num_resamples=2000)
    width = expected[1] - expected[0]
    assert np.abs(np.subtract(found, expected)).max() < 0.12 * width


@pytest.mark.parametrize("by_speaker", [False, True])
def test_each_label_has_the_interval_that_it_has_alone(by_speaker):
    """The same clips are drawn, so a label's interval does not depend on the others."""
    preds, labels, speakers = rated(REGRESSION)
    groups = speakers if by_speaker else None
    found = bootstrap_intervals(REGRESSION, preds, labels, groups, num_resamples=2500)  # more than are held at once
    for column, label in enumerate(REGRESSION.labels):
        alone = TaskSpec("one", (label,))
        expected = bootstrap_interval(alone, preds[:, [column]], labels[:, [column]], groups, num_resamples=2500)
        assert found.labels[label] == pytest.approx(expected, abs=1e-12)
    assert found.headline == bootstrap_interval(REGRESSION, preds, labels, groups, num_resamples=2500)


def test_each_class_has_the_interval_of_its_recall():
    preds, labels, speakers = rated(TYPE, rows=400)
    labels[labels == 7] = -100  # nobody heard the last class
    found = bootstrap_intervals(TYPE, preds, labels, speakers, num_resamples=2000)
    assert list(found.labels) == list(TYPE.labels[:-1])
    rows_of = {name: np.flatnonzero(np.array(speakers) == name) for name in speakers}
    source = random.Random(4)
    draws = [
        np.concatenate([rows_of[name] for name in source.choices(list(rows_of), k=len(rows_of))]) for _ in range(500)
    ]
    for number, label in enumerate(TYPE.labels[:-1]):
        of_class = [rows[labels[rows] == number] for rows in draws]
        recalls = [np.mean(preds[rows].argmax(axis=1) == number) for rows in of_class if len(rows)]
        low, high = np.percentile(recalls, [2.5, 97.5])
        assert np.abs(np.subtract(found.labels[label], (low, high))).max() < 0.15 * (high - low)


def test_two_groups_have_an_interval_from_one_to_the_other():
    labels = np.array([0, 1, 0, 1, 0, 1])
    preds = np.eye(8)[[0, 1, 0, 1, 0, 0]]  # one is right everywhere, the other in half of its classes
    assert bootstrap_interval(TYPE, preds, labels, ["a"] * 4 + ["b"] * 2) == (0.5, 1.0)


def test_a_seed_is_all_that_a_bootstrap_draws_from():
    preds, labels, speakers = rated(REGRESSION)
    first = bootstrap_interval(REGRESSION, preds, labels, speakers, 50)
    np.random.seed(1)
    assert bootstrap_interval(REGRESSION, preds, labels, speakers, 50) == first
    assert bootstrap_interval(REGRESSION, preds, labels, speakers, 50, seed=1) != first


def test_resamples_without_a_score_are_left_out():
    """Of two groups one has no label, so a quarter of the resamples has none."""
    preds, labels, _ = rated(REGRESSION, rows=40)
    labels[20:] = np.nan
    low, high = bootstrap_interval(REGRESSION, preds, labels, ["a"] * 20 + ["b"] * 20, 100)
    assert low == pytest.approx(plain_score(preds[:20], labels[:20], REGRESSION), abs=1e-9)
    assert high == pytest.approx(low, abs=1e-12)


@pytest.mark.parametrize("task", [REGRESSION, TYPE], ids=lambda task: task.metric)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_group_scores_are_those_of_each_group_alone(task):
    preds, labels, speakers = rated(task, rows=300)
    found = group_scores(task, preds, labels, speakers)
    assert list(found) == sorted(set(speakers))
    for name, score in found.items():
        rows = [row for row, speaker in enumerate(speakers) if speaker == name]
        assert score == pytest.approx(plain_score(preds[rows], labels[rows], task), abs=1e-9)


def test_a_group_without_labels_has_no_score():
    preds, labels, speakers = rated(REGRESSION)
    labels[[speaker == "s3" for speaker in speakers]] = np.nan
    scores = group_scores(REGRESSION, preds, labels, speakers)
    assert [name for name, score in scores.items() if np.isnan(score)] == ["s3"]


def test_in_a_balanced_design_the_mean_over_groups_is_the_score_of_all():
    labels = np.tile(np.arange(8), 15)
    preds = np.random.default_rng(0).random((120, 8)) + np.eye(8)[labels] * 0.6
    scores = group_scores(TYPE, preds, labels, np.repeat(list("abcde"), 24))
    assert np.mean(list(scores.values())) == pytest.approx(METRICS["uar"](preds, labels, TYPE)["uar"], abs=1e-12)


@pytest.mark.parametrize("level", [0.95, 0.5])
@pytest.mark.parametrize("size", [2, 6, 36])
def test_t_intervals_are_scipys(size, level):
    a, b = np.random.default_rng(size).normal(0.3, 0.1, (2, size))
    expected = stats.ttest_1samp(a, 0).confidence_interval(level)
    np.testing.assert_allclose(t_interval(a, level), expected, rtol=1e-12)
    np.testing.assert_allclose(paired_t_interval(a, b, level), stats.ttest_rel(a, b).confidence_interval(level))


def test_a_missing_value_leaves_its_pair_out():
    a, b = [0.1, 0.5, np.nan, 0.4], [0.2, 0.1, 0.3, 0.2]
    assert paired_t_interval(a, b) == paired_t_interval([0.1, 0.5, 0.4], [0.2, 0.1, 0.2])


def test_equal_values_have_an_interval_of_no_width():
    assert t_interval([0.25, 0.25, 0.25]) == (0.25, 0.25)


@pytest.mark.slow
def test_t_intervals_cover_as_they_say():
    drawn = np.random.default_rng(0).normal(0.3, 0.05, (2000, 6))
    covered = [low <= 0.3 <= high for low, high in map(t_interval, drawn)]
    assert np.mean(covered) == pytest.approx(0.95, abs=0.017)  # 3.5 standard errors


def simulated(rng, speakers, clips, spread):
    """Answers to eight classes, right by chance 0.5 on average, which differs from speaker to speaker by `spread`."""
    labels = np.tile(np.arange(8), clips // 8 * speakers)
    is_right = rng.random(len(labels)) < np.repeat(0.5 + spread * rng.choice([-1, 1], speakers), clips)
    return np.eye(8)[np.where(is_right, labels, (labels + 1) % 8)], labels, np.repeat(np.arange(speakers), clips)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("spread", "by_speaker", "low", "high"),
    [(0.0, False, 0.88, 0.99), (0.3, True, 0.86, 0.99), (0.3, False, 0.0, 0.75)],
    ids=["clips alike", "speakers drawn", "clips of speakers drawn: too sure"],
)
def test_bootstraps_cover_as_they_say(spread, by_speaker, low, high):
    rng, covered = np.random.default_rng(0), []
    for _ in range(100):
        preds, labels, speakers = simulated(rng, speakers=30, clips=16, spread=spread)
        found = bootstrap_interval(TYPE, preds, labels, speakers if by_speaker else None, num_resamples=100)
        covered.append(found.low <= 0.5 <= found.high)
    assert low <= np.mean(covered) <= high


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: t_interval([0.3]), "two finite values"),
        (lambda: t_interval([0.3, np.nan]), r"got \[0.3\]"),
        (lambda: t_interval([0.3, np.inf]), "two finite values"),
        (lambda: t_interval([0.3, 0.4], 95), "between 0 and 1"),
        (lambda: paired_t_interval([0.1, 0.2], [0.1]), r"\(2,\) and \(1,\)"),
        (lambda: bootstrap_interval(TYPE, np.eye(8), np.arange(8), ["a"] * 8), "got 1 and 1000"),
        (lambda: bootstrap_interval(TYPE, np.eye(8), np.arange(8), num_resamples=0), "got 8 and 0"),
        (lambda: bootstrap_interval(TYPE, np.eye(8), np.arange(8), ["a", "b"]), "2 groups of 8 clips"),
        (lambda: bootstrap_interval(TYPE, np.eye(8), np.arange(7)), "labels must have shape"),
        (lambda: group_scores(TYPE, np.full((8, 8), np.nan), np.arange(8), ["a"] * 8), "must be finite"),
    ],
)  # fmt: skip
def test_what_has_no_interval_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
