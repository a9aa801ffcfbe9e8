"""Dropout that draws fewer random numbers on a CPU, where drawing them takes a sixth of a bfloat16 training step."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, PreTrainedConfig

WORDS_A_DRAW = 4
LEVELS = 2**16
THRIFTY_SDPA = "thrifty_sdpa"


def thrifty_dropout(x: Tensor, rate: float) -> Tensor:
    """Drop elements of a tensor of any shape; one random number of 64 bits decides on four of them.

    PyTorch draws one for each element, in one thread. The rate is rounded to a multiple of 2^-16, and what is kept is
    divided by exactly that rate's complement, so expectations hold. Where PyTorch draws faster than this, on
    accelerators, and in compiled code, it does.

    Args:
        x: Any tensor of floating-point numbers.
        rate: Share that is dropped, in [0, 1].
    """
    dropped = round(rate * LEVELS)
    if not 0 < dropped < LEVELS or x.device.type != "cpu" or torch.compiler.is_compiling():
        return nn.functional.dropout(x, rate)
    draws = torch.empty(-(-x.numel() // WORDS_A_DRAW), dtype=torch.int64).random_(-(2**63), None)
    words = draws.view(torch.int16)[: x.numel()].view(x.shape)
    scale = (words >= dropped - LEVELS // 2).to(x.dtype).mul_(LEVELS / (LEVELS - dropped))
    return x * scale


class ThriftyDropout(nn.Dropout):
    """`thrifty_dropout` while training."""

    def forward(self, input: Tensor) -> Tensor:
        """Drop elements of a tensor of any shape while training."""
        return thrifty_dropout(input, self.p) if self.training and self.p > 0 else input


def thrifty_sdpa(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Attend as transformers' `sdpa` does; with dropout on a CPU, where that has no fused kernel, by `thrifty_dropout`.

    Args:
        module: The attention.
        query: Of shape `(batch, heads, frames, features)`.
        key: Of the same shape.
        value: Of the same shape.
        attention_mask: True where a frame may be attended to, or what is added to its scores, broadcast to
            `(batch, heads, frames, frames)`; None if all may be.
        dropout: Share of the attention weights that is dropped.
        scaling: Factor of the scores.
        **kwargs: Passed on.

    Returns:
        The attended values, `(batch, frames, heads, features)`, and None, as there are no weights to show.
    """
    if dropout == 0 or query.device.type != "cpu" or torch.compiler.is_compiling():
        sdpa = AttentionInterface()["sdpa"]
        return sdpa(module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **kwargs)
    scores = (query * (query.shape[-1] ** -0.5 if scaling is None else scaling)) @ key.transpose(-2, -1)
    if attention_mask is not None:
        is_bool = attention_mask.dtype == torch.bool
        scores = scores.masked_fill(~attention_mask, -torch.inf) if is_bool else scores + attention_mask
    weights = thrifty_dropout(scores.softmax(dim=-1), dropout).to(value.dtype)
    return (weights @ value).transpose(1, 2).contiguous(), None


AttentionInterface.register(THRIFTY_SDPA, thrifty_sdpa)


def use_thrifty_dropout(module: nn.Module, attentions: list[nn.Module], config: PreTrainedConfig) -> None:
    """Put thrifty dropouts of the same rates in place of all below a module.

    Args:
        module: Holds layers of dropout.
        attentions: Its attentions, which look up by name in their configuration how to attend.
        config: That configuration, which is left as it is.
    """
    for parent in list(module.modules()):
        for name, child in list(parent.named_children()):
            if type(child) is nn.Dropout:
                setattr(parent, name, ThriftyDropout(child.p))
    if config._attn_implementation == "sdpa":
        own = copy.copy(config)
        own._attn_implementation = THRIFTY_SDPA
        for attention in attentions:
            attention.config = own
