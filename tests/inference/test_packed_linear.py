import copy

import pytest
import torch
from torch import nn

from avb_hf.inference.packed_linear import packed_linears


def layers():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(24, 40), nn.GELU(), nn.Linear(40, 8, bias=False)).eval()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", [(1, 24), (3, 7, 24), (1, 110, 24)])
def test_packed_layers_give_what_plain_ones_give(dtype, shape):
    model, hidden = layers(), torch.randn(shape)
    exact = copy.deepcopy(model).double()(hidden.double())
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
        plain = model(hidden)
        with packed_linears(model, dtype):
            packed = model(hidden)
            is_packed = "forward" in vars(model[0])
    if torch.backends.cpu.get_cpu_capability().startswith("AVX512") and torch.backends.mkldnn.is_available():
        assert is_packed or dtype == torch.bfloat16
    assert packed.shape == exact.shape
    assert packed.dtype == plain.dtype == dtype
    assert torch.allclose(packed.double(), exact, atol=2e-6 if dtype == torch.float32 else 2e-2)


def test_afterwards_the_layers_are_as_they_were():
    model, hidden = layers(), torch.randn(2, 24)
    before = model(hidden)
    with pytest.raises(RuntimeError), packed_linears(model, torch.float32):
        raise RuntimeError
    assert torch.equal(model(hidden), before)
    assert model(hidden).requires_grad


def test_layers_of_another_class_keep_their_own_forward():
    class Doubled(nn.Linear):
        def forward(self, hidden):
            return 2 * super().forward(hidden)

    model, hidden = nn.Sequential(Doubled(4, 4)), torch.randn(2, 4)
    with torch.inference_mode(), packed_linears(model, torch.float32):
        assert torch.equal(model(hidden), 2 * nn.functional.linear(hidden, model[0].weight, model[0].bias))
