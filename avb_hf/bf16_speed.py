"""Whether this processor has instructions for bfloat16, as measured: what it lists decides nothing."""

from __future__ import annotations

import time

import torch

SIZE, ROUNDS = 512, 3
# With instructions a product takes about half of float32's time, without them 7 to 100 times as long.
FAR_LONGER = 3.0


def bf16_is_emulated() -> bool:
    """Tell whether a matrix product on the CPU takes far longer in bfloat16 than in float32; measured in a moment.

    Where it does, a single step of a large backbone would take minutes, so nothing larger should be timed.
    """
    return _product_seconds(torch.bfloat16) > FAR_LONGER * _product_seconds(torch.float32)


def _product_seconds(dtype: torch.dtype) -> float:
    matrix = torch.ones(SIZE, SIZE, dtype=dtype)
    seconds = []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        matrix @ matrix.T
        seconds.append(time.perf_counter() - began)
    return min(seconds)
