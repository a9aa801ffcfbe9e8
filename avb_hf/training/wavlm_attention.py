"""WavLM's attention through its projections as modules, where adapters can be heard.

transformers (seen in 5.23) hands the projections' weights to one function of PyTorch, past what is put around them.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers.models.wavlm.modeling_wavlm import WavLMAttention

_METHOD = "torch_multi_head_self_attention"


def attend(
    attention: WavLMAttention,
    hidden_states: Tensor,
    attention_mask: Tensor | None,
    gated_position_bias: Tensor,
) -> tuple[Tensor, None]:
    """Attend as `WavLMAttention.torch_multi_head_self_attention` does, to within rounding, by calling each projection.

    Args:
        attention: The attention.
        hidden_states: Of shape `(batch, frames, hidden)`.
        attention_mask: True or 1 where a frame may be attended to, `(batch, frames)`; None if all may be.
        gated_position_bias: Added to the scores of each head, `(batch * heads, frames, frames)`.

    Returns:
        States of the same shape, and None, as there are no weights to show.
    """
    batch, frames, hidden = hidden_states.shape
    query, key, value = (
        projection(hidden_states).view(batch, frames, attention.num_heads, -1).transpose(1, 2)
        for projection in (attention.q_proj, attention.k_proj, attention.v_proj)
    )  # (batch, heads, frames, features)
    bias = gated_position_bias.view(batch, attention.num_heads, frames, frames).to(query.dtype)
    if attention_mask is not None:
        bias = bias.masked_fill(attention_mask.ne(1)[:, None, None], -torch.inf)
    dropout = attention.dropout if attention.training else 0.0
    attended = F.scaled_dot_product_attention(query, key, value, attn_mask=bias, dropout_p=dropout)
    return attention.out_proj(attended.transpose(1, 2).reshape(batch, frames, hidden)), None  # (batch, frames, hidden)


def call_projections(module: nn.Module) -> None:
    """Let every WavLM attention below a module that has an adapter call its projections; all others are left alone."""
    for attention in module.modules():
        is_adapted = any(hasattr(child, "base_layer") for child in attention.children())
        if isinstance(attention, WavLMAttention) and is_adapted:
            setattr(attention, _METHOD, partial(attend, attention))


def restore_attention(module: nn.Module) -> None:
    """Undo `call_projections`."""
    for attention in module.modules():
        vars(attention).pop(_METHOD, None)
