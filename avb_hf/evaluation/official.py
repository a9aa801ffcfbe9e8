"""The CCC as the organisers of the A-VB challenge computed it, to compare with published numbers."""

import numpy as np


def ccc_official(scores: np.ndarray, labels: np.ndarray) -> float:
    """Mean CCC in the organisers' own arithmetic; not the score to optimise or to report alone.

    Variances divide by the number of all rows less one, the covariance by the number of valid rows, and each column is
    rounded to four decimals before the mean. A perfect prediction of `N` fully labelled rows therefore scores
    `(N - 1) / N`, and with missing labels the result can exceed 1.

    Args:
        scores: Predictions of shape `(num_samples, num_labels)`, finite.
        labels: Annotated values of shape `(num_samples, num_labels)`; NaN marks a missing label.

    Returns:
        The plain mean over columns; NaN if any column ends in one (no label, a single row, or 0 divided by 0).

    Reference:
        A. Baird et al. (2022). The ACII 2022 Affective Vocal Bursts Workshop & Competition. arXiv:2207.03572.
    """
    return float(np.mean([_column(*columns) for columns in zip(scores.T, labels.T, strict=True)]))


def _column(scores: np.ndarray, labels: np.ndarray) -> float:
    valid = ~np.isnan(labels)
    if not valid.any() or len(scores) < 2:
        return float("nan")
    score_mean = np.mean(scores, dtype=np.float32)
    label_mean = np.mean(labels[valid], dtype=np.float32)
    score_deviations, label_deviations = scores - score_mean, labels[valid] - label_mean
    covariance = np.mean(score_deviations[valid] * label_deviations)
    variances = (np.sum(score_deviations**2) + np.sum(label_deviations**2)) / (len(scores) - 1)
    with np.errstate(invalid="ignore"):
        ccc = 2 * covariance / (variances + (score_mean - label_mean) ** 2)
    return float(np.round(ccc, 4))
