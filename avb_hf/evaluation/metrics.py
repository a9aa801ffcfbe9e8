"""Scores over a whole split, from all its predictions and labels at once, in float64.

A score stands under a key only where it exists: a label without a valid row has no `ccc_<label>`, and `n_<label>` is 0.
"""

import logging
from collections.abc import Callable, Sequence

import numpy as np
import torch
from scipy import stats

from avb_hf.evaluation.official import ccc_official
from avb_hf.model.losses_vocal_burst import IGNORED_CLASS, concordance_cc
from avb_hf.tasks import TaskSpec

logger = logging.getLogger(__name__)

MAX_NAMED_ROWS = 10

# What the score of one label is called, by the headline that it is averaged into.
LABEL_SCORES: dict[str, str] = {"ccc": "ccc", "uar": "recall"}


def check_scores(scores: np.ndarray, task: TaskSpec, row_names: Sequence[str] | None = None) -> None:
    """Refuse predictions that cannot be scored or written.

    Args:
        scores: Predictions, which should have shape `(num_samples, num_labels)` and be finite.
        task: What was predicted.
        row_names: File_ID of each row, for the message; without them rows are named by their index from 0.

    Raises:
        ValueError: If the shape is another, or a value is NaN or infinite; the rows are named.
    """
    if scores.ndim != 2 or scores.shape[1] != len(task.labels):
        raise ValueError(
            f"task {task.name!r}: predictions must have shape (num_samples, {len(task.labels)}), got {scores.shape}"
        )
    rows = np.flatnonzero(~np.isfinite(scores).all(axis=1))
    if rows.size:
        names = ", ".join(str(row_names[row] if row_names else row) for row in rows[:MAX_NAMED_ROWS])
        more = ", ..." if rows.size > MAX_NAMED_ROWS else ""
        raise ValueError(
            f"task {task.name!r}: predictions must be finite, got NaN or infinity in {rows.size} of "
            f"{len(scores)} rows: {names}{more}"
        )


def column_ccc(scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """CCC of each column in float64: `(num_samples, num_labels)` twice in, `(num_labels,)` out; NaN is a missing label.

    A column has NaN where `concordance_cc`, whose formula this is, has NaN.
    """
    preds, target = (torch.from_numpy(np.array(values, dtype=np.float64)) for values in (scores, labels))
    return concordance_cc(preds, target).numpy()


def column_pearson(scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Pearson's correlation of each column, in the shapes of `column_ccc`; NaN where either side is constant."""
    return np.array([_pearson(*columns) for columns in zip(scores.T, labels.T, strict=True)])


def _pearson(scores: np.ndarray, labels: np.ndarray) -> float:
    valid = ~np.isnan(labels)
    if not valid.any() or np.ptp(scores[valid]) == 0 or np.ptp(labels[valid]) == 0:
        return float("nan")
    return float(stats.pearsonr(scores[valid], labels[valid]).statistic)


def class_recalls(predicted: np.ndarray, truth: np.ndarray, num_classes: int) -> np.ndarray:
    """Recall of each class.

    Args:
        predicted: Predicted class index of each sample, shape `(num_samples,)`.
        truth: True class index of each sample, shape `(num_samples,)`, none missing.
        num_classes: Number of classes.

    Returns:
        Recalls in [0, 1] of shape `(num_classes,)`; NaN for a class that is absent from the truth.
    """
    counts = np.bincount(truth, minlength=num_classes).astype(np.float64)
    hits = np.bincount(truth[truth == predicted], minlength=num_classes)
    return np.divide(hits, counts, out=np.full(num_classes, np.nan), where=counts > 0)


def regression_scores(scores: np.ndarray, labels: np.ndarray, task: TaskSpec) -> dict[str, float]:
    """CCC, Pearson's correlation and the organisers' CCC of a regression.

    Args:
        scores: Final predictions of shape `(num_samples, num_labels)`, in the unit of `labels`.
        labels: Annotated values of shape `(num_samples, num_labels)`; NaN marks a missing label.
        task: Names the columns.

    Returns:
        `ccc` (mean over the labels that have one: more than one valid row, and not constant and equal on both sides),
        `ccc_<label>`, `pearson` (mean) and `pearson_<label>` where neither side is constant, `ccc_official` where every
        label has one, `num_scored_labels`, `num_samples`, and `n_<label>`, the number of valid rows of each label.

    Raises:
        ValueError: If shapes differ, predictions are not finite, a label is infinite, or no label has a CCC.
    """
    scores, labels = np.asarray(scores, dtype=np.float64), np.asarray(labels, dtype=np.float64)
    check_scores(scores, task)
    if labels.shape != scores.shape:
        raise ValueError(f"task {task.name!r}: labels must have shape {scores.shape}, got {labels.shape}")
    if np.isinf(labels).any():
        raise ValueError(f"task {task.name!r}: labels must be finite, or NaN where missing, got infinity")
    ccc, official = column_ccc(scores, labels), ccc_official(scores, labels)
    counts = _counts(np.count_nonzero(~np.isnan(labels), axis=0), task)
    if not np.isfinite(ccc).any():
        raise ValueError(
            f"task {task.name!r}: ccc is not finite, because no label has a score: each has fewer than two "
            f"labelled rows, or predictions and labels that are constant and equal; got {counts}"
        )
    return (
        _mean_and_each("ccc", LABEL_SCORES["ccc"], ccc, task)
        | _mean_and_each("pearson", "pearson", column_pearson(scores, labels), task)
        | ({"ccc_official": official} if np.isfinite(official) else {})
        | {"num_scored_labels": int(np.isfinite(ccc).sum()), "num_samples": len(scores)}
        | counts
    )


def classification_scores(scores: np.ndarray, labels: np.ndarray, task: TaskSpec) -> dict[str, float]:
    """Unweighted average recall (UAR) of a classification.

    Args:
        scores: Logits or probabilities of shape `(num_samples, num_labels)`; the largest is the predicted class.
        labels: True class index of each sample, shape `(num_samples,)`; -100 or NaN marks a missing label.
        task: Names the classes.

    Returns:
        `uar` (mean recall over the classes present in the truth), `recall_<class>` of each of those, `accuracy`,
        `num_scored_classes`, `num_samples`, and `n_<class>`, the number of labelled samples of each class.

    Raises:
        ValueError: If shapes differ, predictions are not finite, a label is no class, or no sample is labelled.
    """
    scores, labels = np.asarray(scores, dtype=np.float64), np.asarray(labels)
    check_scores(scores, task)
    if labels.shape != scores.shape[:1]:
        raise ValueError(f"task {task.name!r}: labels must have shape {scores.shape[:1]}, got {labels.shape}")
    valid = ~np.isnan(labels) & (labels != IGNORED_CLASS)
    truth, predicted = _class_indices(labels[valid], task), scores[valid].argmax(axis=1)
    if not valid.any():
        raise ValueError(f"task {task.name!r}: uar is not finite, because none of {len(labels)} samples has a label")
    recalls = class_recalls(predicted, truth, len(task.labels))
    return (
        _mean_and_each("uar", LABEL_SCORES["uar"], recalls, task)
        | {"accuracy": float(np.mean(truth == predicted))}
        | {"num_scored_classes": int(np.isfinite(recalls).sum()), "num_samples": len(scores)}
        | _counts(np.bincount(truth, minlength=len(task.labels)), task)
    )


Metric = Callable[[np.ndarray, np.ndarray, TaskSpec], dict[str, float]]

METRICS: dict[str, Metric] = {"ccc": regression_scores, "uar": classification_scores}


def _class_indices(labels: np.ndarray, task: TaskSpec) -> np.ndarray:
    strange = sorted(set(labels.tolist()) - set(range(len(task.labels))))
    if strange:
        raise ValueError(
            f"task {task.name!r}: class labels must be whole numbers from 0 to {len(task.labels) - 1}, "
            f"or {IGNORED_CLASS} where missing, got {strange[:MAX_NAMED_ROWS]}"
        )
    return labels.astype(np.int64)


def _counts(counts: np.ndarray, task: TaskSpec) -> dict[str, float]:
    return {f"n_{label}": int(count) for label, count in zip(task.labels, counts, strict=True)}


def _mean_and_each(mean_name: str, name: str, scores: np.ndarray, task: TaskSpec) -> dict[str, float]:
    """The mean over the labels that have a score, then those scores; the others are named in a warning."""
    scored = {label: float(score) for label, score in zip(task.labels, scores, strict=True) if np.isfinite(score)}
    without = [label for label in task.labels if label not in scored]
    if without:
        logger.warning(
            "%s: mean over %d of %d %s; without a score: %s",
            mean_name,
            len(scored),
            len(task.labels),
            "classes" if task.is_classification else "labels",
            ", ".join(without),
        )
    mean = {mean_name: float(np.mean(list(scored.values())))} if scored else {}
    return mean | {f"{name}_{label}": score for label, score in scored.items()}
