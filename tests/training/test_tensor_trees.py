"""Nested values come back to the last bit, and nothing is pickled on the way."""

import random

import numpy as np
import pytest
import torch

from avb_hf.training.tensor_trees import load_tree, save_tree


def equal(a, b):
    """Whether two trees are of the same types and values, NaN like NaN."""
    if type(a) is not type(b):
        return False
    if isinstance(a, torch.Tensor):
        return (
            a.dtype == b.dtype
            and a.shape == b.shape
            and torch.equal(a.view(-1).view(torch.uint8), b.view(-1).view(torch.uint8))
        )
    if isinstance(a, np.ndarray):
        return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()
    if isinstance(a, dict):
        return list(a) == list(b) and all(equal(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(equal, a, b))
    return a == b or (a != a and b != b)


def adam():
    """State of an optimizer after a step, as transformers saves it."""
    layer = torch.nn.Linear(3, 2)
    optimizer = torch.optim.AdamW(layer.parameters(), fused=True)
    layer(torch.randn(4, 3)).sum().backward()
    optimizer.step()
    return optimizer.state_dict()


shared = torch.arange(6.0)
TREES = {
    "an optimizer": adam(),
    "random generators": {"python": random.getstate(), "numpy": np.random.get_state(), "cpu": torch.get_rng_state()},
    "numbers": [0.1 + 0.2, float("inf"), float("nan"), -0.0, 2**64, True, None, "ä"],
    "dicts": {1: {"a": ()}, "1": [], (2, "b"): {}},
    "tensors that share memory": [shared, shared[2:]],
    "odd tensors": [torch.tensor(1.5), torch.empty(0), torch.ones(2, dtype=torch.bfloat16), torch.tensor([True])],
    "arrays": (np.arange(4, dtype=np.uint32), np.empty(0), np.array(2.5), np.ones((2, 3), dtype=np.float16)),
    "one value": 3,
}  # fmt: skip


@pytest.mark.parametrize("name", TREES)
def test_a_tree_comes_back(name, tmp_path):
    save_tree(TREES[name], tmp_path / "tree.safetensors")
    assert equal(load_tree(tmp_path / "tree.safetensors"), TREES[name])


def test_the_comparison_sees_a_difference():
    assert not equal([0.1], [0.1 + 1e-16 + 1e-17])
    assert not equal((1,), [1])
    assert not equal({"a": torch.zeros(1)}, {"a": -torch.zeros(1)})


@pytest.mark.parametrize(
    "value", [object(), {1, 2}, np.float64(1.5), 1j, b"bytes"], ids=lambda value: type(value).__name__
)
def test_what_would_need_a_pickle_is_refused(value, tmp_path):
    with pytest.raises(ValueError, match=type(value).__name__):
        save_tree({"deep": [value]}, tmp_path / "tree.safetensors")


def test_weights_are_no_tree(tiny_backbone_dir):
    with pytest.raises(ValueError, match="holds no nested values"):
        load_tree(tiny_backbone_dir / "model.safetensors")
