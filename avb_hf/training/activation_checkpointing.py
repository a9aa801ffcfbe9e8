"""`--activation_checkpointing`, turned on before a run is tried, timed or estimated."""

from __future__ import annotations

from typing import Any

from transformers import PreTrainedModel


def checkpoint_activations(model: PreTrainedModel, options: dict[str, Any] | None) -> None:
    """Compute a block's activations again in the backward pass, instead of keeping them.

    Args:
        model: The model.
        options: transformers' `--activation_checkpointing_kwargs`: `every_n_layers`, `offload`, and those of
            `torch.utils.checkpoint`.
    """
    options = dict(options or {})
    own = {name: options.pop(name) for name in ("every_n_layers", "offload") if name in options}
    model.activation_checkpointing_enable(activation_checkpointing_kwargs=options or None, **own)
