import pytest
import torch
from torch import nn

from avb_hf.model.dropout_vocal_burst import ThriftyDropout, use_thrifty_dropout


@pytest.mark.parametrize("rate", [0.05, 0.1, 0.5, 0.9])
def test_as_many_are_dropped_as_the_rate_says_and_the_mean_stays(rate):
    torch.manual_seed(0)
    count = 400_001
    out = ThriftyDropout(rate)(torch.ones(count))
    error = 4 * (rate * (1 - rate) / count) ** 0.5
    assert (out == 0).float().mean().item() == pytest.approx(rate, abs=error)
    assert out.mean().item() == pytest.approx(1, abs=error / (1 - rate))
    assert out[out != 0].unique().numel() == 1


def test_neighbours_are_dropped_independently():
    torch.manual_seed(0)
    dropped = (ThriftyDropout(0.5)(torch.ones(400_000)) == 0).double()
    for distance in range(1, 9):
        together = torch.corrcoef(torch.stack([dropped[:-distance], dropped[distance:]]))[0, 1]
        assert abs(together) < 0.01


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_the_gradient_passes_where_the_value_passed(dtype):
    x = torch.randn(3, 7, 5, dtype=dtype).requires_grad_()
    out = ThriftyDropout(0.3)(x)
    out.sum().backward()
    assert out.dtype == dtype
    assert ((out == 0) == (x.grad == 0)).all()
    torch.testing.assert_close(out, x * x.grad)


def test_the_seed_decides():
    drop, x = ThriftyDropout(0.3), torch.ones(1000)
    torch.manual_seed(1)
    first, second = drop(x), drop(x)
    torch.manual_seed(1)
    assert torch.equal(drop(x), first)
    assert not torch.equal(first, second)


@pytest.mark.parametrize("drop", [ThriftyDropout(0.3).eval(), ThriftyDropout(0.0)], ids=["evaluation", "rate 0"])
def test_nothing_is_dropped_or_drawn_outside_training(drop):
    x = torch.randn(10)
    before = torch.get_rng_state()
    assert torch.equal(drop(x), x)
    assert torch.equal(torch.get_rng_state(), before)


def test_everything_is_dropped_at_rate_one():
    assert torch.equal(ThriftyDropout(1.0)(torch.ones(100)), torch.zeros(100))


def test_every_dropout_of_a_backbone_is_replaced_at_its_rate():
    stack = nn.Sequential(nn.Dropout(0.2), nn.ModuleDict({"inner": nn.Sequential(nn.Linear(2, 2), nn.Dropout(0.4))}))
    use_thrifty_dropout(stack)
    drops = [module for module in stack.modules() if isinstance(module, nn.Dropout)]
    assert [type(drop) for drop in drops] == [ThriftyDropout] * 2
    assert [drop.p for drop in drops] == [0.2, 0.4]
