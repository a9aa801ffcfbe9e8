"""A processor that only emulates bf16 is found out."""

import pytest
import torch

from avb_hf import bf16_speed
from avb_hf.bf16_speed import bf16_is_emulated


@pytest.mark.parametrize(("in_fp32", "in_bf16", "expected"), [(1.0, 0.5, False), (1.0, 2.9, False), (1.0, 7.0, True)])
def test_emulated_is_what_takes_far_longer(monkeypatch, in_fp32, in_bf16, expected):
    seconds = {torch.float32: in_fp32, torch.bfloat16: in_bf16}
    monkeypatch.setattr(bf16_speed, "_product_seconds", seconds.__getitem__)
    assert bf16_is_emulated() is expected


def test_the_products_are_timed_in_both():
    assert 0 < bf16_speed._product_seconds(torch.float32) < 60
    assert 0 < bf16_speed._product_seconds(torch.bfloat16) < 60
