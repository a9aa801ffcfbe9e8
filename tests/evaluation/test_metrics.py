import logging
import math
from typing import get_args

import audmetric
import numpy as np
import pytest
from sklearn.metrics import accuracy_score, balanced_accuracy_score, recall_score

from avb_hf.evaluation.metrics import LABEL_SCORES, METRICS, class_recalls, column_ccc
from avb_hf.tasks import TASKS, MetricName, TaskSpec

NAMES = ("Valence", "Arousal", "Roughness in voice")
REGRESSION = TaskSpec("mine", NAMES)
TYPE = TASKS["type"]


def ratings(rows=60, columns=3, seed=0):
    rng = np.random.default_rng(seed)
    labels = rng.random((rows, columns))
    scores = np.clip(labels + rng.normal(0, [0.1, 0.3, 0.8][:columns], labels.shape), 0, 1).astype(np.float32)
    return scores, labels


def with_gaps(labels, seed=1):
    gappy = labels.copy()
    gappy[np.random.default_rng(seed).random(labels.shape) < 0.3] = np.nan
    return gappy


def textbook_ccc(pairs):
    xs, ys = [float(x) for x, _ in pairs], [float(y) for _, y in pairs]
    n = len(pairs)
    mx, my = math.fsum(xs) / n, math.fsum(ys) / n
    cov = math.fsum((x - mx) * (y - my) for x, y in zip(xs, ys, strict=True)) / n
    var = math.fsum((x - mx) ** 2 for x in xs) / n + math.fsum((y - my) ** 2 for y in ys) / n
    return 2 * cov / (var + (mx - my) ** 2)


def valid_pairs(scores, labels, column):
    pairs = zip(scores[:, column], labels[:, column], strict=True)
    return [(score, label) for score, label in pairs if not math.isnan(label)]


def logits_for(predicted, num_classes=8):
    return np.eye(num_classes)[predicted] * 3 - 1


def test_there_is_one_metric_for_each_name_a_task_may_give():
    assert tuple(METRICS) == tuple(LABEL_SCORES) == get_args(MetricName)


@pytest.mark.parametrize("gaps", [False, True])
def test_ccc_and_pearson_agree_with_others(gaps):
    scores, labels = ratings()
    labels = with_gaps(labels) if gaps else labels
    results = METRICS["ccc"](scores, labels, REGRESSION)
    expected_ccc, expected_pearson = [], []
    for column, name in enumerate(NAMES):
        pairs = valid_pairs(scores, labels, column)
        x, y = np.array(pairs, dtype=np.float64).T
        expected_ccc.append(audmetric.concordance_cc(y, x))
        expected_pearson.append(np.corrcoef(x, y)[0, 1])
        assert results[f"ccc_{name}"] == pytest.approx(expected_ccc[-1], abs=1e-12)
        assert results[f"ccc_{name}"] == pytest.approx(textbook_ccc(pairs), abs=1e-12)
        assert results[f"pearson_{name}"] == pytest.approx(expected_pearson[-1], abs=1e-12)
        assert results[f"n_{name}"] == len(pairs)
    assert results["ccc"] == pytest.approx(np.mean(expected_ccc), abs=1e-12)
    assert results["pearson"] == pytest.approx(np.mean(expected_pearson), abs=1e-12)
    assert (results["num_scored_labels"], results["num_samples"]) == (3, 60)


def test_float32_predictions_far_from_zero_are_scored_in_float64():
    scores, labels = ratings(rows=5000, columns=1)
    scores, labels = (scores + np.float32(4000)).astype(np.float32), labels + 4000
    assert column_ccc(scores, labels)[0] == pytest.approx(textbook_ccc(valid_pairs(scores, labels, 0)), abs=1e-9)


def test_column_ccc_leaves_its_input_alone():
    scores, labels = ratings()
    before = labels.copy()
    column_ccc(scores, labels)[:] = 7
    np.testing.assert_array_equal(labels, before)


@pytest.mark.parametrize("task", TASKS.values(), ids=TASKS)
def test_only_the_headline_ends_in_ccc_or_uar_and_values_are_plain_numbers(task):
    rng = np.random.default_rng(3)
    scores = rng.random((90, len(task.labels)))
    labels = np.arange(90) % len(task.labels) if task.is_classification else rng.random(scores.shape)
    results = METRICS[task.metric](scores, labels, task)
    headlines = [key for key in (f"test_{name}" for name in results) if key.endswith(("_ccc", "_uar"))]
    assert headlines == [f"test_{task.metric}"]
    for label in task.labels:
        assert {f"{LABEL_SCORES[task.metric]}_{label}", f"n_{label}"} <= set(results)
    assert {type(value) for value in results.values()} == {int, float}
    assert all(math.isfinite(value) for value in results.values())


def test_a_constant_prediction_scores_zero_and_has_no_pearson(caplog):
    scores, labels = ratings()
    scores[:, 1] = 0.1
    results = METRICS["ccc"](scores, labels, REGRESSION)
    assert results["ccc_Arousal"] == pytest.approx(0, abs=1e-12)
    assert "pearson_Arousal" not in results
    assert results["pearson"] == pytest.approx((results["pearson_Valence"] + results[f"pearson_{NAMES[2]}"]) / 2)
    assert results["num_scored_labels"] == 3
    assert "pearson: mean over 2 of 3 labels; without a score: Arousal" in caplog.text


@pytest.mark.parametrize("column", [[np.nan] * 60, [np.nan] * 59 + [0.3]], ids=["no label", "one label"])
def test_a_label_without_a_score_is_left_out_of_the_mean_and_named(column, caplog):
    scores, labels = ratings()
    labels[:, 1] = column
    with caplog.at_level(logging.WARNING):
        results = METRICS["ccc"](scores, labels, REGRESSION)
    assert results["ccc"] == pytest.approx((results["ccc_Valence"] + results[f"ccc_{NAMES[2]}"]) / 2)
    assert "ccc_Arousal" not in results
    assert results["n_Arousal"] == np.count_nonzero(~np.isnan(column))
    assert results["num_scored_labels"] == 2
    assert "ccc: mean over 2 of 3 labels; without a score: Arousal" in caplog.text


def test_the_organisers_mean_is_left_out_where_it_is_not_finite():
    scores, labels = ratings()
    assert "ccc_official" in METRICS["ccc"](scores, labels, REGRESSION)
    labels[:, 1] = np.nan
    assert "ccc_official" not in METRICS["ccc"](scores, labels, REGRESSION)


@pytest.mark.parametrize("kind", ["unlabelled", "one row", "constant and equal"])
def test_a_ccc_that_is_not_finite_is_an_error_that_says_why(kind):
    scores, labels = {
        "unlabelled": (np.ones((5, 3)), np.full((5, 3), np.nan)),
        "one row": (np.ones((1, 3)), np.ones((1, 3))),
        "constant and equal": (np.full((7, 3), 0.1), np.full((7, 3), 0.1)),
    }[kind]
    with pytest.raises(ValueError, match=r"ccc is not finite.*fewer than two labelled rows.*n_Valence"):
        METRICS["ccc"](scores, labels, REGRESSION)


def test_a_prediction_that_is_not_finite_is_an_error_that_names_its_rows():
    scores, labels = ratings()
    scores[7, 0], scores[11, 2] = np.nan, np.inf
    with pytest.raises(ValueError, match=r"in 2 of 60 rows: 7, 11$"):
        METRICS["ccc"](scores, labels, REGRESSION)
    logits = logits_for(np.zeros(30, dtype=int))
    logits[3] = -np.inf
    with pytest.raises(ValueError, match=r"in 1 of 30 rows: 3$"):
        METRICS["uar"](logits, np.zeros(30, dtype=int), TYPE)
    with pytest.raises(ValueError, match=r"in 60 of 60 rows: 0, 1, .*9, \.\.\.$"):
        METRICS["ccc"](np.full_like(scores, np.nan), labels, REGRESSION)


def test_an_infinite_label_is_an_error():
    scores, labels = ratings()
    labels[2, 1] = np.inf
    with pytest.raises(ValueError, match="labels must be finite"):
        METRICS["ccc"](scores, labels, REGRESSION)


@pytest.mark.parametrize(
    ("scores", "labels", "task"),
    [
        (np.ones((4, 2)), np.ones((4, 2)), REGRESSION),
        (np.ones(4), np.ones(4), REGRESSION),
        (np.ones((4, 3)), np.ones((3, 3)), REGRESSION),
        (np.ones((4, 3)), np.ones(4), REGRESSION),
        (np.ones((4, 7)), np.zeros(4, int), TYPE),
        (np.ones((4, 8)), np.zeros((4, 8), int), TYPE),
    ],
)
def test_other_shapes_are_errors(scores, labels, task):
    with pytest.raises(ValueError, match="must have shape"):
        METRICS[task.metric](scores, labels, task)


def test_uar_agrees_with_scikit_learn_and_audmetric():
    rng = np.random.default_rng(5)
    truth = rng.choice(8, 300, p=[0.4, 0.2, 0.1, 0.1, 0.05, 0.05, 0.05, 0.05])
    predicted = np.where(rng.random(300) < 0.5, truth, rng.integers(0, 8, 300))
    results = METRICS["uar"](logits_for(predicted), truth, TYPE)
    assert results["uar"] == pytest.approx(balanced_accuracy_score(truth, predicted), abs=1e-12)
    assert results["uar"] == pytest.approx(audmetric.unweighted_average_recall(truth, predicted), abs=1e-12)
    assert results["accuracy"] == pytest.approx(accuracy_score(truth, predicted), abs=1e-12)
    for index, recall in enumerate(recall_score(truth, predicted, average=None)):
        assert results[f"recall_{TYPE.labels[index]}"] == pytest.approx(recall, abs=1e-12)
        assert results[f"n_{TYPE.labels[index]}"] == sum(label == index for label in truth)
    assert (results["num_scored_classes"], results["num_samples"]) == (8, 300)


def test_logits_and_their_probabilities_score_alike():
    logits = np.random.default_rng(6).normal(size=(80, 8))
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    truth = np.arange(80) % 8
    assert METRICS["uar"](logits, truth, TYPE) == METRICS["uar"](probabilities, truth, TYPE)


def test_a_class_absent_from_the_truth_is_named_and_left_out_of_the_mean(caplog):
    truth, predicted = np.array([0, 0, 1, 1, 2, 2]), np.array([0, 6, 1, 1, 2, 7])
    results = METRICS["uar"](logits_for(predicted), truth, TYPE)
    assert results["uar"] == pytest.approx((1 / 2 + 1 + 1 / 2) / 3)
    assert "recall_Other" not in results
    assert results["n_Other"] == 0
    assert "uar: mean over 3 of 8 classes; without a score: Scream, Grunt, Groan, Pant, Other" in caplog.text


@pytest.mark.parametrize("missing", [-100, np.nan])
def test_samples_without_a_class_are_skipped(missing):
    truth = np.array([0, 1, missing, 1, missing])
    results = METRICS["uar"](logits_for([0, 1, 0, 0, 1]), truth, TYPE)
    assert results["uar"] == pytest.approx((1 + 1 / 2) / 2)
    assert results["accuracy"] == pytest.approx(2 / 3)
    assert (results["n_Gasp"], results["n_Laugh"], results["num_samples"]) == (1, 2, 5)


def test_uar_without_any_label_is_an_error():
    with pytest.raises(ValueError, match="none of 4 samples has a label"):
        METRICS["uar"](logits_for([0, 1, 2, 3]), np.full(4, -100), TYPE)


@pytest.mark.parametrize("label", [8, -1, 1.5])
def test_a_label_that_is_no_class_is_an_error(label):
    with pytest.raises(ValueError, match=rf"from 0 to 7.*got \[{label}"):
        METRICS["uar"](logits_for([0, 1]), np.array([0, label]), TYPE)


def test_class_recalls_are_nan_for_absent_classes():
    np.testing.assert_array_equal(class_recalls(np.array([0, 1]), np.array([0, 0]), 3), [0.5, np.nan, np.nan])
