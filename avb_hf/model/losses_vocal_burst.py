"""Training losses, and the concordance correlation coefficient that loss and score share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

EPS = 1e-8
IGNORED_CLASS = -100


def at_least_float32(x: Tensor) -> Tensor:
    """Raise half precision to float32; leave float32 and float64 as they are."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def concordance_cc(preds: Tensor, target: Tensor, eps: float = 0.0) -> Tensor:
    r"""Concordance correlation coefficient (CCC) of each output column.

    .. math::
        \rho_c = \frac{2 \operatorname{cov}(\hat{y}, y)}{\sigma_{\hat{y}}^2 + \sigma_y^2 + (\mu_{\hat{y}} - \mu_y)^2}

    All moments divide by the number of samples, so a perfect, varying prediction scores 1 at any batch size.

    Args:
        preds: Predicted intensities of shape `(num_samples, num_labels)`, in the unit of `target`.
        target: Annotated intensities of shape `(num_samples, num_labels)`; NaN marks a missing label.
        eps: Added to the denominator; the loss passes 1e-8 so that a constant batch has a finite gradient.

    Returns:
        Dimensionless scores in [-1, 1] of shape `(num_labels,)`; NaN for a column with fewer than two labels, and, with
        `eps=0`, for one in which both are constant and equal.

    Reference:
        L. I-K. Lin (1989). A concordance correlation coefficient to evaluate reproducibility. Biometrics 45(1),
        255-268.

    Example:
        >>> preds = torch.tensor([[0.0, 0.5], [1.0, 0.5], [1.0, 0.5]])
        >>> target = torch.tensor([[0.0, 0.1], [1.0, 0.5], [2.0, 0.9]])
        >>> concordance_cc(preds, target)
        tensor([0.6667, 0.0000])
    """
    known = ~target.isnan()
    # A common shift changes no CCC; with it, rounding cannot make equal constants vary.
    origin = target.gather(0, known.int().argmax(dim=0, keepdim=True))
    preds = (at_least_float32(preds) - origin).where(known, 0)
    target = (target.to(preds.dtype) - origin).where(known, 0)
    count = known.sum(dim=0)
    divisor = count.clamp(min=1)
    pred_mean, target_mean = preds.sum(dim=0) / divisor, target.sum(dim=0) / divisor
    pred_diff, target_diff = (preds - pred_mean).where(known, 0), (target - target_mean).where(known, 0)
    covariance = (pred_diff * target_diff).sum(dim=0) / divisor
    variances = (pred_diff.square().sum(dim=0) + target_diff.square().sum(dim=0)) / divisor
    ccc = 2 * covariance / (variances + (pred_mean - target_mean).square() + eps)
    return ccc.masked_fill(count < 2, torch.nan)


# What the loss of all columns is, of the sum over those that are scored and of their number.
CCC_REDUCTIONS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "mean": lambda total, columns: total / columns.clamp(min=1),
    "sum": lambda total, columns: total,
}


def ccc_loss(
    logits: Tensor, labels: Tensor, class_weights: Tensor | None = None, ccc_reduction: str = "mean"
) -> Tensor:
    """One minus the CCC of each column that has at least two labels, averaged or summed; 0 if there is none.

    Args:
        logits: Final scores of shape `(num_samples, num_labels)`.
        labels: Annotations of the same shape; NaN marks a missing one.
        class_weights: Must be None; here so that all losses are called alike.
        ccc_reduction: Key of `CCC_REDUCTIONS`.

    Raises:
        ValueError: If class weights are given.
    """
    _refuse_class_weights("ccc", class_weights)
    ccc = concordance_cc(logits, labels, eps=EPS)
    scored = (~labels.isnan()).sum(dim=0) >= 2
    return CCC_REDUCTIONS[ccc_reduction]((1 - ccc.masked_fill(~scored, 1)).sum(), scored.sum())


def mse_loss(
    logits: Tensor, labels: Tensor, class_weights: Tensor | None = None, ccc_reduction: str = "mean"
) -> Tensor:
    """Mean squared error over the labels that are there; 0 if there is none.

    Args:
        logits: Final scores of shape `(num_samples, num_labels)`.
        labels: Annotations of the same shape; NaN marks a missing one.
        class_weights: Must be None; here so that all losses are called alike.
        ccc_reduction: Without effect; here for the same reason.

    Raises:
        ValueError: If class weights are given.
    """
    _refuse_class_weights("mse", class_weights)
    known = ~labels.isnan()
    logits = at_least_float32(logits)
    return (logits - labels.to(logits.dtype)).where(known, 0).square().sum() / known.sum().clamp(min=1)


def cross_entropy_loss(
    logits: Tensor, labels: Tensor, class_weights: Tensor | None = None, ccc_reduction: str = "mean"
) -> Tensor:
    """Cross-entropy, averaged over the labels that are there by the weights of their classes; 0 if there is none.

    Args:
        logits: Raw class scores of shape `(num_samples, num_classes)`.
        labels: Class indices of shape `(num_samples,)`; -100 marks a missing one.
        class_weights: Weight of each class of shape `(num_classes,)`; None weighs all alike.
        ccc_reduction: Without effect; here so that all losses are called alike.
    """
    logits = at_least_float32(logits)
    if class_weights is not None:
        class_weights = class_weights.to(logits)
    per_clip = F.cross_entropy(logits, labels, class_weights, ignore_index=IGNORED_CLASS, reduction="none")
    known = labels != IGNORED_CLASS
    return per_clip.sum() / _weight_known(labels, class_weights).where(known.any(), 1)


def _refuse_class_weights(loss: str, class_weights: Tensor | None) -> None:
    if class_weights is not None:
        raise ValueError(f"class_weights go with loss 'cross_entropy', got loss {loss!r}")


def _no_weight(labels: Tensor, class_weights: Tensor | None) -> None:
    return None


def _number_known(labels: Tensor, class_weights: Tensor | None) -> Tensor:
    return (~labels.isnan()).sum()


def _weight_known(labels: Tensor, class_weights: Tensor | None) -> Tensor:
    known = labels != IGNORED_CLASS
    if class_weights is None:
        return known.sum()
    return class_weights[labels.where(known, 0)].where(known, 0).sum()


# What each loss divides by, so that losses of parts add up to that of the whole; None where they do not.
LOSS_WEIGHTS: dict[str, Callable[[Tensor, Tensor | None], Tensor | None]] = {
    "ccc": _no_weight,
    "mse": _number_known,
    "cross_entropy": _weight_known,
}
LOSSES: dict[str, Callable[..., Tensor]] = {
    "ccc": ccc_loss,
    "mse": mse_loss,
    "cross_entropy": cross_entropy_loss,
}


class ConfiguredLoss:
    """What a model's configuration says of its loss, as methods: a base beside `PreTrainedModel`."""

    config: Any

    def compute_loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Compute the configured loss of scores `(batch, num_labels)` in at least float32.

        Raises:
            ValueError: If the labels' shape does not fit the scores'.
        """
        expected = logits.shape if self.config.problem_type == "regression" else logits.shape[:1]
        if labels.shape != expected:
            raise ValueError(f"labels must have shape {tuple(expected)}, got {tuple(labels.shape)}")
        with torch.autocast(logits.device.type, enabled=False):
            return LOSSES[self.config.loss](logits, labels, self._class_weights(labels), self.config.ccc_reduction)

    def loss_weight(self, labels: Tensor) -> Tensor | None:
        """Tell what the loss of a batch divides by: the number of labels that are there, or their classes' weights.

        Returns:
            A scalar; None for a loss that is no sum over clips, as the CCC's.
        """
        return LOSS_WEIGHTS[self.config.loss](labels, self._class_weights(labels))

    def _class_weights(self, labels: Tensor) -> Tensor | None:
        weights = self.config.class_weights
        return None if weights is None else torch.tensor(weights, device=labels.device)
