import math

import numpy as np
import pytest

from avb_hf.evaluation.official import ccc_official


def ccc_by_loops(scores, labels):
    rounded = []
    n = len(scores)
    for column in range(len(scores[0])):
        valid = [i for i in range(n) if not math.isnan(labels[i][column])]
        score_mean = float(np.float32(math.fsum(scores[i][column] for i in range(n)) / n))
        label_mean = float(np.float32(math.fsum(labels[i][column] for i in valid) / len(valid)))
        score_variance = label_variance = covariance = 0.0
        for i in range(n):
            score_variance += (scores[i][column] - score_mean) ** 2 / (n - 1)
        for i in valid:
            label_variance += (labels[i][column] - label_mean) ** 2 / (n - 1)
            covariance += (scores[i][column] - score_mean) * (labels[i][column] - label_mean) / len(valid)
        ccc = 2 * covariance / (score_variance + label_variance + (score_mean - label_mean) ** 2)
        rounded.append(round(ccc, 4))
    return sum(rounded) / len(rounded)


@pytest.mark.parametrize("missing", [0.0, 0.2, 0.75])
@pytest.mark.parametrize("rows", [9, 200])
def test_it_agrees_with_a_loop(rows, missing):
    rng = np.random.default_rng(rows)
    labels = rng.random((rows, 5))
    scores = 0.5 * labels + 0.4 * rng.random((rows, 5))
    labels[2:][rng.random((rows - 2, 5)) < missing] = np.nan
    assert ccc_official(scores, labels) == pytest.approx(ccc_by_loops(scores.tolist(), labels.tolist()), abs=1e-10)


@pytest.mark.parametrize("rows", [2, 16, 5000])
def test_a_perfect_prediction_stays_below_one(rows):
    labels = np.random.default_rng(0).random((rows, 3))
    assert ccc_official(labels, labels) == pytest.approx(round((rows - 1) / rows, 4), abs=1e-12)


def test_missing_labels_can_lift_it_above_one():
    labels = np.tile([[0.0], [1.0]], (10, 1))
    scores = labels.copy()
    labels[4:] = np.nan
    # Covariance 1/4 of 4 rows; variances 20/4 and 4/4, both over 19; equal means.
    assert ccc_official(scores, labels) == pytest.approx(round(0.5 / (6 / 19), 4), abs=1e-12)
    assert ccc_official(scores, labels) > 1.5


def test_means_are_single_precision():
    near = np.array([[1.0], [1.0 + 2e-8]])
    # Both means are 1 in float32, so the deviations are (0, 2e-8) and (2e-8, 0), whose product is 0; float64 has -0.5.
    assert ccc_official(near, near[::-1]) == 0


def test_columns_are_rounded_before_the_mean():
    labels = np.random.default_rng(1).random((50, 3))
    result = ccc_official(labels**2, labels)
    assert result * 3 == pytest.approx(round(result * 3, 4), abs=1e-12)
    assert result != round(result, 4)


def test_a_column_without_labels_makes_the_plain_mean_nan():
    labels = np.random.default_rng(2).random((10, 2))
    scores = labels.copy()
    labels[:, 1] = np.nan
    assert math.isnan(ccc_official(scores, labels))
    assert math.isnan(ccc_official(scores[:1, :1], labels[:1, :1]))
