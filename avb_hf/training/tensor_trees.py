"""Nested values with tensors in them, as an optimizer keeps them, in safetensors: to the last bit, without pickle."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

# What JSON has itself; classes that only derive from these, as numpy's, would come back as others.
_PLAIN = (type(None), bool, int, float, str)
_KEY = "tree"


def save_tree(tree: Any, path: str | Path) -> None:
    """Write nested dicts, lists and tuples of tensors, arrays, numbers and texts.

    Args:
        tree: The values; keys of dicts may be whatever values may be.
        path: A file in the format of safetensors; the nesting stands in its metadata as JSON.

    Raises:
        ValueError: If there is anything else among them.
    """
    tensors: dict[str, Tensor] = {}
    packed = _pack(tree, tensors)
    save_file(tensors, path, metadata={_KEY: json.dumps(packed)})


def load_tree(path: str | Path) -> Any:
    """Read what `save_tree` wrote. Tensors are on the CPU.

    Raises:
        ValueError: If the file is no such one.
    """
    with safe_open(path, framework="pt") as file:
        packed = (file.metadata() or {}).get(_KEY)
        if packed is None:
            raise ValueError(f"{path} holds no nested values: its metadata has no {_KEY!r}")
        return _unpack(json.loads(packed), {key: file.get_tensor(key) for key in file.keys()})  # noqa: SIM118


def _pack(value: Any, tensors: dict[str, Tensor]) -> Any:
    if type(value) in _PLAIN:
        return value
    for name, kind in _KINDS.items():
        if isinstance(value, kind.type):
            return {name: kind.pack(value, tensors)}
    raise ValueError(f"values must be of {[*_KINDS, *(plain.__name__ for plain in _PLAIN)]}, got a {type(value)}")


def _unpack(packed: Any, tensors: dict[str, Tensor]) -> Any:
    if not isinstance(packed, dict):
        return packed
    ((name, content),) = packed.items()
    return _KINDS[name].unpack(content, tensors)


def _keep(value: Tensor, tensors: dict[str, Tensor]) -> str:
    key = str(len(tensors))
    tensors[key] = value.detach().cpu().contiguous().clone()  # of two that share memory, safetensors takes neither
    return key


def _keep_array(value: np.ndarray, tensors: dict[str, Tensor]) -> list[Any]:
    raw = torch.frombuffer(bytearray(value.tobytes()), dtype=torch.uint8) if value.size else torch.empty(0)
    return [_keep(raw, tensors), value.dtype.str, list(value.shape)]


def _give_array(content: list[Any], tensors: dict[str, Tensor]) -> np.ndarray:
    key, dtype, shape = content
    return np.frombuffer(tensors[key].numpy().tobytes(), dtype=dtype).reshape(shape).copy()


def _pack_all(values: Any, tensors: dict[str, Tensor]) -> list[Any]:
    return [_pack(value, tensors) for value in values]


def _unpack_all(packed: list[Any], tensors: dict[str, Tensor]) -> list[Any]:
    return [_unpack(value, tensors) for value in packed]


class _Kind(NamedTuple):
    type: type
    pack: Callable[[Any, dict[str, Tensor]], Any]
    unpack: Callable[[Any, dict[str, Tensor]], Any]


_KINDS: dict[str, _Kind] = {
    "tensor": _Kind(Tensor, _keep, lambda key, tensors: tensors[key]),
    "array": _Kind(np.ndarray, _keep_array, _give_array),
    "list": _Kind(list, _pack_all, _unpack_all),
    "tuple": _Kind(tuple, _pack_all, lambda packed, tensors: tuple(_unpack_all(packed, tensors))),
    "dict": _Kind(
        dict,
        lambda value, tensors: _pack_all(value.items(), tensors),
        lambda packed, tensors: dict(_unpack_all(packed, tensors)),
    ),
}
