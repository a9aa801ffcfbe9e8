"""Dropout that draws fewer random numbers on a CPU."""

from __future__ import annotations

import torch
from torch import Tensor, nn

WORDS_A_DRAW = 4
LEVELS = 2**16


class ThriftyDropout(nn.Dropout):
    """Dropout of which, on a CPU, one random number of 64 bits decides on four elements.

    PyTorch draws one for each element, in one thread: a tenth of a bfloat16 training step. The rate is rounded to a
    multiple of 2^-16, and what is kept is divided by exactly that rate's complement, so expectations hold.
    """

    def forward(self, input: Tensor) -> Tensor:
        """Drop elements of a tensor of any shape while training."""
        dropped = round(self.p * LEVELS)
        draws_few = self.training and 0 < dropped < LEVELS and input.device.type == "cpu"
        if not draws_few or torch.compiler.is_compiling():
            return super().forward(input)
        draws = torch.empty(-(-input.numel() // WORDS_A_DRAW), dtype=torch.int64).random_(-(2**63), None)
        words = draws.view(torch.int16)[: input.numel()].view(input.shape)
        scale = (words >= dropped - LEVELS // 2).to(input.dtype).mul_(LEVELS / (LEVELS - dropped))
        return input * scale


def use_thrifty_dropout(module: nn.Module) -> None:
    """Put a `ThriftyDropout` of the same rate in place of each `nn.Dropout` below a module."""
    for parent in list(module.modules()):
        for name, child in list(parent.named_children()):
            if type(child) is nn.Dropout:
                setattr(parent, name, ThriftyDropout(child.p))
