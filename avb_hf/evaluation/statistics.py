"""How sure a score is: intervals over clips, speakers, folds or seeds."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from avb_hf.evaluation.metrics import METRICS, class_recalls, column_ccc
from avb_hf.model.losses_vocal_burst import IGNORED_CLASS
from avb_hf.tasks import TaskSpec


class Interval(NamedTuple):
    """Bounds between which a score, or a difference of scores, is believed to lie."""

    low: float
    high: float


class ScoreIntervals(NamedTuple):
    """How sure the scores of a split are.

    Attributes:
        headline: Interval of the mean score.
        labels: Interval of each label's score, by label; a label that no resample scores is left out.
    """

    headline: Interval
    labels: dict[str, Interval]


def mean_ccc(preds: np.ndarray, labels: np.ndarray, task: TaskSpec) -> float:
    """Mean CCC over the labels that have one; NaN if none has. Shapes as in `column_ccc`."""
    return _mean_of_finite(column_ccc(preds, labels))


def mean_recall(preds: np.ndarray, labels: np.ndarray, task: TaskSpec) -> float:
    """Mean recall over the classes that are there; NaN if none is. Shapes as in `classification_scores`."""
    return _mean_of_finite(_recalls(preds, labels, task))


def _recalls(preds: np.ndarray, labels: np.ndarray, task: TaskSpec) -> np.ndarray:
    known = ~np.isnan(labels) & (labels != IGNORED_CLASS)
    truth, predicted = labels[known].astype(np.int64), preds[known].argmax(axis=1)
    return class_recalls(predicted, truth, len(task.labels))


def _ccc_of_draws(preds: np.ndarray, labels: np.ndarray, task: TaskSpec, draws: list[np.ndarray]) -> np.ndarray:
    """CCCs `(num_draws, num_labels)` of so many lists of rows, all as columns of one table."""
    rows = np.zeros((max(map(len, draws)), len(draws)), dtype=np.int64)
    is_row = np.arange(len(rows))[:, None] < [len(drawn) for drawn in draws]
    rows.T[is_row.T] = np.concatenate(draws)
    drawn_labels = np.where(is_row[:, :, None], labels[rows], np.nan)  # (rows, draws, labels)
    shape = (len(rows), -1)
    return column_ccc(preds[rows].reshape(shape), drawn_labels.reshape(shape)).reshape(len(draws), -1)


def _recalls_of_draws(preds: np.ndarray, labels: np.ndarray, task: TaskSpec, draws: list[np.ndarray]) -> np.ndarray:
    return np.stack([_recalls(preds[rows], labels[rows], task) for rows in draws])


# For arrays that were checked, thousands of times over: the headline score alone, and the scores of all labels for each
# of many lists of rows.
HEADLINES: dict[str, Callable[[np.ndarray, np.ndarray, TaskSpec], float]] = {"ccc": mean_ccc, "uar": mean_recall}
OF_DRAWS: dict[str, Callable[[np.ndarray, np.ndarray, TaskSpec, list[np.ndarray]], np.ndarray]] = {
    "ccc": _ccc_of_draws,
    "uar": _recalls_of_draws,
}
# Numbers that are held at once, of one resample at least.
_HELD = 200_000


def group_scores(task: TaskSpec, preds: np.ndarray, labels: np.ndarray, groups: Sequence[str]) -> dict[str, float]:
    """Score each group of clips, such as those of a speaker, by itself.

    Where every group has equally many clips of each class, the mean of these UARs is the UAR of all clips; a mean of
    CCCs is never the CCC of all clips.

    Args:
        task: Says by its metric which score.
        preds: Predictions of shape `(num_samples, num_labels)`.
        labels: Annotations, as the task's metric takes them.
        groups: Group of each clip.

    Returns:
        Headline score by group, sorted by name; NaN for a group that has none.

    Raises:
        ValueError: If shapes differ or values cannot be scored.
    """
    preds, labels = _checked(task, preds, labels)
    names, units = _units(groups, len(preds))
    parts = (units == number for number in range(len(names)))
    score = HEADLINES[task.metric]
    return {name: score(preds[part], labels[part], task) for name, part in zip(names, parts, strict=True)}


def bootstrap_interval(
    task: TaskSpec,
    preds: np.ndarray,
    labels: np.ndarray,
    groups: Sequence[str] | None = None,
    num_resamples: int = 1000,
    seed: int = 0,
) -> Interval:
    """95 % percentile interval of the headline score, from clips or whole groups drawn with replacement.

    Clips of one speaker are alike, so drawing them one by one claims too much. With few groups the interval is too
    narrow all the same: of six, it covers 86 % instead of 95; use `t_interval` on `group_scores` there.

    Args:
        task: Says by its metric which score.
        preds: Predictions of shape `(num_samples, num_labels)`.
        labels: Annotations, as the task's metric takes them; a label or class that a resample lacks is left out of its
            mean.
        groups: Group of each clip, such as its speaker; None draws clips.
        num_resamples: Number of resamples.
        seed: Same seed and same clips in the same order, same interval.

    Raises:
        ValueError: If shapes differ, values cannot be scored, or there are fewer than two clips or groups.

    Reference:
        B. Efron, R. J. Tibshirani (1993). An Introduction to the Bootstrap. Chapman & Hall, chapter 13.
    """
    return bootstrap_intervals(task, preds, labels, groups, num_resamples, seed).headline


def bootstrap_intervals(
    task: TaskSpec,
    preds: np.ndarray,
    labels: np.ndarray,
    groups: Sequence[str] | None = None,
    num_resamples: int = 1000,
    seed: int = 0,
) -> ScoreIntervals:
    """Give the interval of `bootstrap_interval`, and from the same resamples that of each label's score.

    Args:
        task: As in `bootstrap_interval`.
        preds: As there.
        labels: As there.
        groups: As there.
        num_resamples: As there.
        seed: As there.

    Raises:
        ValueError: As there.
    """
    preds, labels = _checked(task, preds, labels)
    names, units = _units(range(len(preds)) if groups is None else groups, len(preds))
    if len(names) < 2 or num_resamples < 1:
        raise ValueError(
            f"a bootstrap needs 2 clips or groups and 1 resample at least, got {len(names)} and {num_resamples}"
        )
    random = np.random.default_rng(seed)
    parts, at_once = [], max(1, _HELD // preds.size)
    for first in range(0, num_resamples, at_once):
        draws = [_draw(random, units, len(names)) for _ in range(first, min(first + at_once, num_resamples))]
        parts.append(OF_DRAWS[task.metric](preds, labels, task, draws))
    scores = np.concatenate(parts)
    by_label = zip(task.labels, scores.T, strict=True)
    return ScoreIntervals(
        _middle([_mean_of_finite(row) for row in scores]),
        {label: _middle(column) for label, column in by_label if np.isfinite(column).any()},
    )


def t_interval(values: ArrayLike, level: float = 0.95) -> Interval:
    """Student's interval of a mean, such as that of the scores of speakers, folds or seeds.

    Args:
        values: Independent values of shape `(num_values,)`; NaN marks one that there is not, and is left out.
        level: Share of such intervals that hold the true mean, where values are normally distributed.

    Raises:
        ValueError: If fewer than two values are there, one is infinite, or `level` is not between 0 and 1.
    """
    array = np.asarray(values, dtype=np.float64)
    there = array[~np.isnan(array)]
    if len(there) < 2 or np.isinf(there).any() or not 0 < level < 1:
        raise ValueError(
            f"a t interval needs two finite values and a level between 0 and 1, got {there.tolist()} and {level}"
        )
    half_width = stats.t.ppf((1 + level) / 2, len(there) - 1) * stats.sem(there)
    return Interval(float(there.mean() - half_width), float(there.mean() + half_width))


def paired_t_interval(a: ArrayLike, b: ArrayLike, level: float = 0.95) -> Interval:
    """Student's interval of the mean of `a - b`, two systems' scores of the same speakers, folds or seeds.

    Args:
        a: Scores of shape `(num_values,)`; a pair with a NaN is left out.
        b: Scores of the same groups in the same order.
        level: As in `t_interval`.

    Raises:
        ValueError: If shapes differ, or `t_interval` refuses the differences.
    """
    first, second = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    if first.shape != second.shape:
        raise ValueError(f"paired scores must be equally many, got shapes {first.shape} and {second.shape}")
    return t_interval(first - second, level)


def _checked(task: TaskSpec, preds: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    METRICS[task.metric](preds, labels, task)
    return np.asarray(preds, dtype=np.float64), np.asarray(labels, dtype=np.float64)


def _units(groups: Sequence[str] | range, num_samples: int) -> tuple[list[str], np.ndarray]:
    """Name the groups in order, and give each clip the number of its group."""
    if len(groups) != num_samples:
        raise ValueError(f"there must be one group a clip, got {len(groups)} groups of {num_samples} clips")
    names, units = np.unique(np.asarray(groups), return_inverse=True)
    return names.tolist(), units


def _draw(random: np.random.Generator, units: np.ndarray, num_units: int) -> np.ndarray:
    """Draw as many units as there are, with replacement, and return the rows of all that were drawn."""
    times_drawn = np.bincount(random.integers(num_units, size=num_units), minlength=num_units)
    return np.repeat(np.arange(len(units)), times_drawn[units])


def _middle(scores: ArrayLike) -> Interval:
    return Interval(*np.nanquantile(np.asarray(scores, dtype=np.float64), [0.025, 0.975]).tolist())


def _mean_of_finite(scores: np.ndarray) -> float:
    finite = scores[np.isfinite(scores)]
    return float(finite.mean()) if finite.size else float("nan")
