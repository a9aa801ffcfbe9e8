"""Optimizers that transformers has not, and parameter groups with two learning rates."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

BACKBONE_PREFIX = "encoder."

# Optimizers that transformers has not. Adam adds the weight decay to the gradient (D. P. Kingma, J. Ba, 2015), where
# AdamW takes it off the weights (I. Loshchilov, F. Hutter, 2019).
OPTIMIZERS: dict[str, type[torch.optim.Optimizer]] = {"adam": torch.optim.Adam}


def parameter_groups(
    model: nn.Module, decayed: Iterable[str], head_rate: float, backbone_rate: float, weight_decay: float
) -> list[dict[str, Any]]:
    """Split trainable parameters into backbone and head, decayed and not.

    Args:
        model: A `Wav2Vec2ForVocalBurst`.
        decayed: Names of the parameters that weight decay applies to.
        head_rate: Learning rate of the head.
        backbone_rate: Learning rate of the backbone.
        weight_decay: Weight decay of the parameters in `decayed`.

    Returns:
        Groups for a torch optimizer, without empty ones.
    """
    decayed = set(decayed)
    groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            groups.setdefault((name.startswith(BACKBONE_PREFIX), name in decayed), []).append(parameter)
    return [
        {
            "params": parameters,
            "lr": backbone_rate if is_backbone else head_rate,
            "weight_decay": weight_decay if is_decayed else 0.0,
        }
        for (is_backbone, is_decayed), parameters in groups.items()
    ]
