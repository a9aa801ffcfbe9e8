"""Linear layers whose weights lie in memory as a processor multiplies them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor, nn


@contextmanager
def packed_linears(module: nn.Module, dtype: torch.dtype) -> Iterator[None]:
    """Let a module's linear layers on an x86 processor use a copy of their weights that oneDNN laid out once.

    torch lays them out anew for every clip (bfloat16), or multiplies a clip's few rows by a slower library (float32).
    Results differ from the plain layers' by rounding. Anywhere else nothing changes.

    Args:
        module: Its parameters must stay as they are, and nobody may ask for gradients, while this lasts.
        dtype: What the layers compute in.
    """
    linears = [part for part in module.modules() if type(part) is nn.Linear and _can_be_packed(part, dtype)]
    for linear in linears:
        weight = torch.ops.mkldnn._reorder_linear_weight(linear.weight.detach().to(dtype), None)
        bias = None if linear.bias is None else linear.bias.detach().to(dtype)
        linear.forward = partial(_multiply, weight=weight, bias=bias, dtype=dtype)
    try:
        yield
    finally:
        for linear in linears:
            del linear.forward


def _multiply(hidden: Tensor, weight: Tensor, bias: Tensor | None, dtype: torch.dtype) -> Tensor:
    return torch.ops.mkldnn._linear_pointwise(hidden.to(dtype), weight, bias, "none", [], "")


def _can_be_packed(linear: nn.Linear, dtype: torch.dtype) -> bool:
    # torch's own compiler uses these two operators; they are not documented.
    has_operators = all(hasattr(torch.ops.mkldnn, name) for name in ("_reorder_linear_weight", "_linear_pointwise"))
    is_x86 = torch.backends.cpu.get_cpu_capability().startswith("AVX") and torch.backends.mkldnn.is_available()
    computes = dtype == torch.float32 or torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return has_operators and is_x86 and computes and linear.weight.device.type == "cpu"
