"""A processor that only emulates bf16 is found out."""

from types import SimpleNamespace

import pytest
import torch

from avb_hf import bf16_speed
from avb_hf.bf16_speed import bf16_is_emulated


@pytest.mark.parametrize(("in_fp32", "in_bf16", "expected"), [(1.0, 0.5, False), (1.0, 2.9, False), (1.0, 7.0, True)])
def test_emulated_is_what_takes_far_longer(monkeypatch, in_fp32, in_bf16, expected):
    seconds = {torch.float32: in_fp32, torch.bfloat16: in_bf16}
    monkeypatch.setattr(bf16_speed, "_product_seconds", seconds.__getitem__)
    assert bf16_is_emulated() is expected


def test_the_fastest_product_counts(monkeypatch):
    clock = iter([0.0, 5.0, 5.0, 7.0, 7.0, 10.0])
    monkeypatch.setattr(bf16_speed, "time", SimpleNamespace(perf_counter=clock.__next__))
    assert bf16_speed._product_seconds(torch.bfloat16) == 2.0
