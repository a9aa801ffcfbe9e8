import math
from typing import get_args

import audmetric
import numpy as np
import pytest
import torch
from torch.nn import functional as F

from avb_hf.model import LOSSES, concordance_cc
from avb_hf.model.losses_vocal_burst import CCC_REDUCTIONS, LOSS_WEIGHTS
from avb_hf.tasks import LossName

NAN = float("nan")
REGRESSION = ("ccc", "mse")


def textbook_ccc(preds, target):
    """Lin's coefficient of one column, term by term, over the rows that have a label."""
    rows = [(p, t) for p, t in zip(preds, target, strict=True) if not math.isnan(t)]
    n = len(rows)
    pred_mean = sum(p for p, _ in rows) / n
    target_mean = sum(t for _, t in rows) / n
    pred_variance = sum((p - pred_mean) ** 2 for p, _ in rows) / n
    target_variance = sum((t - target_mean) ** 2 for _, t in rows) / n
    covariance = sum((p - pred_mean) * (t - target_mean) for p, t in rows) / n
    return 2 * covariance / (pred_variance + target_variance + (pred_mean - target_mean) ** 2)


def ragged_labels(rows=40, columns=4, missing=0.3, dtype=torch.float64):
    preds = torch.rand(rows, columns, dtype=dtype)
    target = (preds + 0.3 * torch.randn(rows, columns, dtype=dtype)).clamp(0, 1)
    return preds, target.masked_fill(torch.rand(rows, columns) < missing, NAN)


def test_names_are_those_of_tasks():
    assert tuple(LOSSES) == get_args(LossName)


def test_ccc_is_the_textbook_formula_with_missing_labels():
    preds, target = ragged_labels()
    expected = [textbook_ccc(preds[:, c].tolist(), target[:, c].tolist()) for c in range(4)]
    np.testing.assert_allclose(concordance_cc(preds, target).numpy(), expected, rtol=1e-12)


@pytest.mark.parametrize("rows", [2, 3, 500])
def test_ccc_agrees_with_audmetric(rows):
    preds, target = ragged_labels(rows, missing=0)
    expected = [audmetric.concordance_cc(target[:, c].numpy(), preds[:, c].numpy()) for c in range(4)]
    np.testing.assert_allclose(concordance_cc(preds, target).numpy(), expected, rtol=1e-10)


def test_ccc_by_hand():
    preds = torch.tensor([[0.0, 0.5, 1.0], [1.0, 0.5, 0.0]])
    target = torch.tensor([[0.0, 0.1, 0.0], [1.0, 0.9, 1.0]])
    assert concordance_cc(preds, target).tolist() == [1.0, 0.0, -1.0]


@pytest.mark.parametrize("rows", [2, 7, 59, 1000])
@pytest.mark.parametrize("value", [0.1, 1 / 3, 123.456])
def test_ccc_of_equal_constants_is_undefined(rows, value):
    column = torch.full((rows, 1), value)  # a plain mean of such values is off by rounding, and the CCC then 0
    assert concordance_cc(column, column).isnan().all()
    assert concordance_cc(column + 1, column).tolist() == [0.0]


@pytest.mark.parametrize("labels", [0, 1])
def test_ccc_of_fewer_than_two_labels_is_undefined(labels):
    target = torch.full((5, 1), NAN)
    target[:labels] = 0.5
    assert concordance_cc(torch.rand(5, 1), target).isnan().all()


@pytest.mark.parametrize("half", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("what", ["preds", "target", "both"])
@pytest.mark.parametrize("spread", [0.004, 0.4])  # a rounding step, where E[x^2] - E[x]^2 would fail, and a usual one
def test_ccc_of_half_precision_is_computed_in_float32(half, what, spread):
    target = (0.5 + spread * torch.randn(200, 1)).to(half)
    preds = (target.float() + 0.3 * spread * torch.randn(200, 1)).to(half)
    expected = textbook_ccc(preds.double()[:, 0].tolist(), target.double()[:, 0].tolist())
    preds = preds.float() if what == "target" else preds
    target = target.float() if what == "preds" else target
    ccc = concordance_cc(preds, target)
    assert ccc.dtype == torch.float32
    assert ccc.item() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("loss", REGRESSION)
@pytest.mark.parametrize(
    ("given", "returned"),
    [(torch.bfloat16, torch.float32), (torch.float16, torch.float32), (torch.float64, torch.float64)],
)
def test_regression_losses_have_at_least_float32(loss, given, returned):
    logits, labels = torch.rand(6, 2).to(given), torch.rand(6, 2)
    value = LOSSES[loss](logits, labels, None)
    assert value.dtype == returned
    assert value.item() == pytest.approx(LOSSES[loss](logits.double(), labels.double(), None).item(), abs=1e-5)


def test_cross_entropy_has_at_least_float32():
    logits, labels = torch.randn(6, 3), torch.tensor([0, 1, 2, 0, 1, 2])
    weights = torch.tensor([1.0, 2.0, 3.0])
    for given, returned in ((torch.bfloat16, torch.float32), (torch.float64, torch.float64)):
        value = LOSSES["cross_entropy"](logits.to(given), labels, weights)
        assert value.dtype == returned
        expected = F.cross_entropy(logits.to(given).double(), labels, weights.double())
        assert value.item() == pytest.approx(expected.item(), abs=1e-5)


def test_ccc_loss_is_one_minus_the_mean_over_columns_with_labels():
    preds, target = ragged_labels()
    target[:, 1] = NAN
    target[1:, 3] = NAN
    expected = 1 - np.mean([textbook_ccc(preds[:, c].tolist(), target[:, c].tolist()) for c in (0, 2)])
    assert LOSSES["ccc"](preds, target, None).item() == pytest.approx(expected, abs=1e-6)  # eps is 1e-8


def test_ccc_loss_is_the_sum_over_columns_with_labels_if_asked():
    preds, target = ragged_labels()
    target[:, 1] = NAN
    expected = sum(1 - textbook_ccc(preds[:, c].tolist(), target[:, c].tolist()) for c in (0, 2, 3))
    assert LOSSES["ccc"](preds, target, None, "sum").item() == pytest.approx(expected, abs=1e-6)
    assert LOSSES["ccc"](preds, target, None, "mean").item() == pytest.approx(expected / 3, abs=1e-6)


def test_other_losses_do_not_ask_how_the_ccc_is_reduced():
    preds, target = ragged_labels()
    assert LOSSES["mse"](preds, target, None, "sum") == LOSSES["mse"](preds, target, None)
    classes = torch.randint(4, (40,))
    assert LOSSES["cross_entropy"](preds, classes, None, "sum") == LOSSES["cross_entropy"](preds, classes, None)


def test_mse_loss_is_that_of_torch_over_the_labels():
    preds, target = ragged_labels()
    known = ~target.isnan()
    assert LOSSES["mse"](preds, target, None).item() == pytest.approx(F.mse_loss(preds[known], target[known]).item())


@pytest.mark.parametrize("weights", [None, [0.5, 2.0, 1.0, 4.0]])
def test_cross_entropy_is_that_of_torch(weights):
    weights = None if weights is None else torch.tensor(weights, dtype=torch.float64)
    logits = torch.randn(20, 4, dtype=torch.float64)
    labels = torch.randint(4, (20,))
    labels[::3] = -100
    expected = F.cross_entropy(logits, labels, weights, ignore_index=-100)
    assert LOSSES["cross_entropy"](logits, labels, weights).item() == pytest.approx(expected.item(), rel=1e-12)


@pytest.mark.parametrize("loss", REGRESSION)
def test_missing_labels_have_exactly_no_gradient_and_the_rest_that_of_the_complete_rows(loss):
    preds, target = ragged_labels(columns=1)
    known = ~target.isnan()
    preds.requires_grad_()
    LOSSES[loss](preds, target, None).backward()
    assert (preds.grad[~known] == 0).all()
    alone = preds.detach()[known][:, None].requires_grad_()
    LOSSES[loss](alone, target[known][:, None], None).backward()
    torch.testing.assert_close(preds.grad[known][:, None], alone.grad)
    assert alone.grad.abs().min() > 0


@pytest.mark.parametrize("weights", [None, torch.tensor([1.0, 3.0, 0.5])])
def test_missing_classes_have_exactly_no_gradient(weights):
    logits = torch.randn(6, 3, requires_grad=True)
    labels = torch.tensor([0, -100, 2, 1, -100, 0])
    LOSSES["cross_entropy"](logits, labels, weights).backward()
    assert (logits.grad[labels == -100] == 0).all()
    assert (logits.grad[labels != -100].abs().sum(dim=1) > 0).all()


VARIED = torch.linspace(0, 1, 16).sin().reshape(8, 2)
DEGENERATE = {
    "one row": (torch.tensor([[0.3, 0.7]]), torch.tensor([[0.1, 0.9]])),
    "one row, hit exactly": (torch.tensor([[0.1, 0.9]]), torch.tensor([[0.1, 0.9]])),
    "constant labels": (VARIED, torch.full((8, 2), 0.1)),
    "constant scores": (torch.full((8, 2), 0.1), VARIED),
    "equal constants": (torch.full((8, 2), 0.1), torch.full((8, 2), 0.1)),
    "perfect": (VARIED, VARIED),
    "no label in a column": (VARIED + 1, VARIED.index_fill(1, torch.tensor([0]), NAN)),
    "one label in a column": (VARIED[:2], torch.tensor([[0.5, 0.2], [NAN, 0.4]])),
    "no label": (VARIED, torch.full((8, 2), NAN)),
}


@pytest.mark.wide
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("case", DEGENERATE)
@pytest.mark.parametrize("loss", REGRESSION)
@pytest.mark.parametrize("reduction", CCC_REDUCTIONS)
def test_degenerate_batches_are_finite(loss, case, dtype, reduction):
    logits, labels = DEGENERATE[case]
    logits = logits.to(dtype, copy=True).requires_grad_()
    value = LOSSES[loss](logits, labels, None, reduction)
    value.backward()
    assert value.isfinite()
    assert logits.grad.isfinite().all()


@pytest.mark.parametrize("loss", REGRESSION)
def test_no_label_at_all_is_no_loss_but_still_has_a_graph(loss):
    logits = torch.rand(4, 2, requires_grad=True)
    value = LOSSES[loss](logits, torch.full((4, 2), NAN), None)
    value.backward()
    assert value.item() == 0
    assert logits.grad.tolist() == [[0, 0]] * 4


@pytest.mark.parametrize("weights", [None, torch.tensor([1.0, 2.0])])
def test_no_class_at_all_is_no_loss_but_still_has_a_graph(weights):
    logits = torch.rand(3, 2, requires_grad=True)
    value = LOSSES["cross_entropy"](logits, torch.full((3,), -100), weights)
    value.backward()
    assert value.item() == 0
    assert logits.grad.tolist() == [[0, 0]] * 3


def test_gradients_in_float64():
    preds, target = ragged_labels(rows=7, columns=3)
    preds.requires_grad_()
    classes, weights = torch.tensor([0, 2, -100, 1, 1, 0, 2]), torch.tensor([1.0, 2.0, 0.5], dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda p: concordance_cc(p, target), preds)
    assert torch.autograd.gradcheck(lambda p: LOSSES["ccc"](p, target, None), preds)
    assert torch.autograd.gradcheck(lambda p: LOSSES["mse"](p, target, None), preds)
    assert torch.autograd.gradcheck(lambda p: LOSSES["cross_entropy"](p, classes, weights), preds)


@pytest.mark.parametrize("loss", REGRESSION)
def test_class_weights_are_refused_by_regression_losses(loss):
    with pytest.raises(ValueError, match=f"cross_entropy.*{loss}"):
        LOSSES[loss](torch.rand(3, 2), torch.rand(3, 2), torch.ones(2))


def test_weights_of_losses_have_the_names_of_losses():
    assert tuple(LOSS_WEIGHTS) == tuple(LOSSES)
    assert LOSS_WEIGHTS["ccc"](torch.rand(4, 2), None) is None


@pytest.mark.parametrize("weights", [None, torch.tensor([0.5, 2.0, 1.0, 4.0], dtype=torch.float64)])
@pytest.mark.parametrize("loss", ["mse", "cross_entropy"])
def test_losses_of_parts_add_up_by_their_weights(loss, weights):
    logits, labels = ragged_labels()
    labels[12:20] = NAN  # a part without any label
    if loss == "mse":
        weights = None
    else:
        labels = torch.randint(4, (40,)).where(labels[:, 0] > 0.3, -100)
    parts = [(logits[rows], labels[rows]) for rows in (slice(0, 12), slice(12, 20), slice(20, 40))]
    shares = [LOSS_WEIGHTS[loss](part, weights) for _, part in parts]
    sums = [LOSSES[loss](*part, weights) * share for part, share in zip(parts, shares, strict=True)]
    assert shares[1] == 0
    torch.testing.assert_close(sum(sums) / sum(shares), LOSSES[loss](logits, labels, weights), rtol=1e-12, atol=0)
