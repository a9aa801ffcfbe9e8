"""Weights of an ONNX graph in eight bits, with or without the numbers that they are multiplied by."""

from __future__ import annotations

import logging
import re
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import onnx

# Inputs of each kind of node that are a layer's weights.
_WEIGHTS = {"MatMul": (1,), "Gemm": (1,), "LSTM": (1, 2), "GRU": (1, 2), "Conv": (1,)}
# Convolutions hold few weights, and run slower in eight bits.
DYNAMIC_KINDS = ("MatMul", "Gemm", "LSTM")
STORED_KINDS = ("MatMul", "Gemm", "LSTM", "GRU")
_REPEATED = re.compile(r"\.\d+|_\d+$")


@dataclass(frozen=True)
class Layer:
    """A node of a graph that has weights.

    Attributes:
        name: The node's name.
        kind: Its kind of operation.
        weights: Number of its weights.
    """

    name: str
    kind: str
    weights: int

    @property
    def part(self) -> str:
        """The layer's place in the model without the numbers of blocks, so that those of all blocks are one part."""
        return _REPEATED.sub("", self.name)


def find_layers(path: Path) -> list[Layer]:
    """List the layers of a file that have weights."""
    import onnx

    graph = onnx.load(path).graph
    sizes = {tensor.name: int(np.prod(tensor.dims)) for tensor in graph.initializer}
    counts = ((node, sum(sizes.get(name, 0) for name in _weight_names(node))) for node in graph.node)
    return [Layer(node.name, node.op_type, count) for node, count in counts if count]


def quantise_dynamically(source: Path, target: Path, kept: Collection[str] = ()) -> None:
    """Let layers multiply in eight bits: weights scaled channel by channel, what comes in scaled as it comes.

    Weights take seven of the eight bits, since processors without instructions of their own for it overflow otherwise.

    Args:
        source: The file in float32.
        target: The file to write.
        kept: Names of layers that stay in float32.
    """
    from onnxruntime.quantization import QuantType, quantize_dynamic

    with _without_chatter():
        quantize_dynamic(
            source,
            target,
            op_types_to_quantize=["MatMul", "LSTM"],  # it turns Gemm into MatMul first, by a name of its own
            per_channel=True,
            reduce_range=True,
            weight_type=QuantType.QInt8,
            nodes_to_exclude=[*kept, *(f"{name}_MatMul" for name in kept)],
        )


def quantise_weights(source: Path, target: Path) -> None:
    """Store weights in eight bits, scaled channel by channel, and compute with what they stand for in float32.

    Args:
        source: The file in float32.
        target: The file to write.
    """
    import onnx

    model = onnx.load(source)
    graph = model.graph
    tensors = {tensor.name: tensor for tensor in graph.initializer}
    names = {name for node in graph.node if node.op_type in STORED_KINDS for name in _weight_names(node)}
    for name in sorted(names & tensors.keys()):
        scaled, scale, axis = _scale(onnx.numpy_helper.to_array(tensors[name]))
        graph.initializer.remove(tensors[name])
        graph.initializer.append(onnx.numpy_helper.from_array(scaled, f"{name}_int8"))
        graph.initializer.append(onnx.numpy_helper.from_array(scale, f"{name}_scale"))
        node = onnx.helper.make_node("DequantizeLinear", [f"{name}_int8", f"{name}_scale"], [name], axis=axis)
        graph.node.insert(0, node)
    onnx.save(model, target)


def _scale(weights: np.ndarray) -> tuple[np.ndarray, np.ndarray, int]:
    """Return integers from -127 to 127, the scale of each channel, and the channels' axis."""
    axis = 1 if weights.ndim == 3 else weights.ndim - 1  # a recurrent layer's are (directions, channels, inputs)
    others = tuple(other for other in range(weights.ndim) if other != axis)
    largest = np.abs(weights).max(axis=others, keepdims=True)
    scale = np.where(largest == 0, 1, largest / 127).astype(np.float32)
    return np.rint(weights / scale).astype(np.int8), scale.reshape(-1), axis


def _weight_names(node: onnx.NodeProto) -> list[str]:
    return [node.input[place] for place in _WEIGHTS.get(node.op_type, ())]


@contextmanager
def _without_chatter() -> Iterator[None]:
    """Keep back what ONNX Runtime says to the root logger of each node, and of a step before that gains nothing."""
    root = logging.getLogger()

    def is_ours(record: logging.LogRecord) -> bool:
        return "onnxruntime" not in record.pathname

    root.addFilter(is_ours)
    try:
        yield
    finally:
        root.removeFilter(is_ours)
