import pytest
import torch
from torch import nn
from transformers import Wav2Vec2Config

from avb_hf.model import VocalBurstConfig, Wav2Vec2ForVocalBurst, dropout_vocal_burst
from avb_hf.model.dropout_vocal_burst import THRIFTY_SDPA, ThriftyDropout, thrifty_sdpa, use_thrifty_dropout


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


def test_every_dropout_below_a_module_is_replaced_at_its_rate():
    stack = nn.Sequential(nn.Dropout(0.2), nn.ModuleDict({"inner": nn.Sequential(nn.Linear(2, 2), nn.Dropout(0.4))}))
    use_thrifty_dropout(stack, [], Wav2Vec2Config())
    drops = [module for module in stack.modules() if isinstance(module, nn.Dropout)]
    assert [type(drop) for drop in drops] == [ThriftyDropout] * 2
    assert [drop.p for drop in drops] == [0.2, 0.4]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("is_masked", [True, False])
def test_attention_without_its_dropout_is_that_of_pytorch(dtype, is_masked, monkeypatch):
    torch.manual_seed(0)
    query, key, value = (torch.randn(2, 3, 7, 5, dtype=dtype) for _ in range(3))
    mask = (torch.arange(7) < torch.tensor([[7], [4]]))[:, None, None, :] if is_masked else None
    expected = nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=mask).transpose(1, 2)
    monkeypatch.setattr(dropout_vocal_burst, "thrifty_dropout", lambda weights, rate: weights)
    attended, _ = thrifty_sdpa(nn.Module(), query, key, value, mask, dropout=0.1)
    torch.testing.assert_close(attended, expected)


def test_attention_drops_weights_at_its_rate():
    torch.manual_seed(0)
    frames = 200
    query = torch.zeros(4, 8, frames, 1)  # all frames get the same weight
    attended, _ = thrifty_sdpa(nn.Module(), query, query, torch.ones(4, 8, frames, 1), None, dropout=0.25)
    kept = attended * frames * 0.75  # how many frames were left
    assert kept.mean().item() / frames == pytest.approx(0.75, abs=0.002)
    assert kept.std().item() == pytest.approx((frames * 0.25 * 0.75) ** 0.5, rel=0.03)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_a_backbone_names_the_attention_that_was_asked_for(tiny_backbone, attention):
    config = VocalBurstConfig(encoder_config={"model_type": "wav2vec2", **tiny_backbone}, attn_implementation=attention)
    model = Wav2Vec2ForVocalBurst(config)
    used = {block.attention.config._attn_implementation for block in model.encoder.encoder.layers}
    assert used == {THRIFTY_SDPA if attention == "sdpa" else "eager"}
    assert model.config._attn_implementation == model.encoder.config._attn_implementation == attention
