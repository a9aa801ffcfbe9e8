"""The model survives torch.export and torch.compile, and says the same."""

from contextlib import nullcontext

import pytest
import torch

EXACT = {"rtol": 0, "atol": 1e-5}


@pytest.fixture
def batch(pad, clips):
    return pad(clips[:3])


@pytest.mark.slow
def test_an_exported_model_says_the_same(one_of_each, make_model, batch):
    model = make_model(one_of_each).eval()
    exported = torch.export.export(model, batch, strict=False).module()
    torch.testing.assert_close(exported(*batch).logits, model(*batch).logits, **EXACT)


@pytest.mark.slow
@pytest.mark.parametrize("pooling", ["mean_std", "attentive"])
def test_an_exported_pooling_of_states_says_the_same(pooling, make_model, batch):
    model = make_model(pooling=pooling, pool_over="states").eval()
    exported = torch.export.export(model, batch, strict=False).module()
    torch.testing.assert_close(exported(*batch).logits, model(*batch).logits, **EXACT)


@pytest.mark.slow
def test_a_compiled_model_says_the_same(one_of_each, make_model, batch):
    model = make_model(one_of_each).eval()
    with torch.no_grad():
        torch.testing.assert_close(torch.compile(model)(*batch).logits, model(*batch).logits, **EXACT)


@pytest.mark.slow
def test_a_model_asks_an_accelerator_for_no_value(one_of_each, make_model, batch, monkeypatch):
    """Tensors of the meta device have no values, and torch has no autocast for it."""
    monkeypatch.setattr(torch, "autocast", lambda *args, **kwargs: nullcontext())
    model = make_model(one_of_each).to("meta").train()
    model(*(part.to("meta") for part in batch)).logits.sum().backward()
