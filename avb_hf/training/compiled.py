"""`--torch_compile`: the transformer blocks that are trained, compiled one by one for clips of any length."""

from __future__ import annotations

import logging

import torch
from torch.nn import functional as F
from transformers import PreTrainedModel

from avb_hf.model import Wav2Vec2ForVocalBurst

logger = logging.getLogger(__name__)

# Training, gradient, padding, a batch of one: each makes a graph of its own, and PyTorch would give up after 8.
MAX_GRAPHS = 64


def compile_blocks(model: PreTrainedModel, backend: str, mode: str | None, device: torch.device) -> None:
    """Compile the transformer blocks behind what is frozen; parameters keep their names, and scores move by rounding.

    Blocks share their graphs, which hold for any number of clips and frames. Convolutions, recurrent layers and loss
    stay as they are: they are other libraries' kernels, or must not be traced. So does what is frozen: it is computed
    once, and compiled runs read the states of others.

    Args:
        model: The model; what is frozen must be frozen already.
        backend: What compiles, as for `torch.compile`.
        mode: How, as for `torch.compile`.
        device: Where the model will run.

    Raises:
        ValueError: If the model has no such blocks, none is left to compile, or this machine cannot compile.
    """
    if not isinstance(model, Wav2Vec2ForVocalBurst):
        raise ValueError(f"--torch_compile compiles transformer blocks, and {type(model).__name__} has none")
    frozen, depth = model.frozen_blocks or 0, model.config.feature_layer
    if frozen == depth:
        raise ValueError(
            "--torch_compile compiles the transformer blocks that are trained, and the whole backbone is frozen: leave "
            "it out"
        )
    _require_compiler(backend, mode, device)
    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, MAX_GRAPHS)
    for block in model.encoder.modules_up_to(depth)[frozen - depth :]:
        block.compile(backend=backend, mode=mode, dynamic=True)
    logger.info("%d transformer blocks are compiled: the first steps take longer", depth - frozen)


def _require_compiler(backend: str, mode: str | None, device: torch.device) -> None:
    """Compile something small, since nobody can tell beforehand whether compiler, headers and backend fit together."""
    try:
        torch.compile(F.gelu, backend=backend, mode=mode, dynamic=True)(torch.ones(3, device=device))
    except RuntimeError as error:
        raise ValueError(
            f"--torch_compile does not work on this machine ({str(error).strip().splitlines()[0]}): leave it out, or "
            "install what is missing (on a CPU a C++ compiler such as g++, on a GPU Triton)"
        ) from error
