"""Which samples and frames of a padded batch are true, told without a wait for an accelerator."""

from __future__ import annotations

import torch
from torch import Tensor


def frame_mask(num_frames: Tensor, max_frames: int) -> Tensor:
    """Mark the valid frames of each clip.

    Args:
        num_frames: Valid frames of each clip, of shape `(batch,)`.
        max_frames: Frames of the padded batch.

    Returns:
        Booleans of shape `(batch, max_frames)`, True where a frame lies inside its clip.
    """
    return torch.arange(max_frames, device=num_frames.device) < num_frames[:, None]


def count_samples(input_values: Tensor, attention_mask: Tensor | None, min_samples: int) -> Tensor:
    """Count the true samples of each clip.

    Args:
        input_values: Waveforms of shape `(batch, samples)`.
        attention_mask: 1 for true samples and 0 for padding, of the same shape; None if no clip is padded.
        min_samples: Shortest clip that is allowed.

    Returns:
        Shape `(batch,)`.

    Raises:
        ValueError: If a clip is shorter, or not padded on the right.
    """
    batch, shortest = input_values.shape
    if attention_mask is None:
        num_samples = torch.full((batch,), shortest, device=input_values.device)
    else:
        num_samples = attention_mask.sum(dim=1)
        # An accelerator would have to wait for these, and a trace cannot hold them.
        if attention_mask.device.type == "cpu" and not torch.compiler.is_compiling():
            shortest = int(num_samples.min())
            if (attention_mask[:, 1:] > attention_mask[:, :-1]).any():
                raise ValueError("clips must be padded on the right: no 0 of attention_mask may stand before a 1")
    if shortest < min_samples:
        raise ValueError(f"a clip needs at least {min_samples} samples, got one of {shortest}")
    return num_samples


def may_be_padded(input_values: Tensor, num_samples: Tensor) -> bool:
    """Tell whether a clip of a batch may be padded: an accelerator would have to wait for the answer, a trace has none.

    Args:
        input_values: Waveforms of shape `(batch, samples)`.
        num_samples: True samples of each clip, of shape `(batch,)`.
    """
    if input_values.device.type != "cpu" or torch.compiler.is_compiling():
        return True
    return int(num_samples.min()) < input_values.shape[1]


def key_mask(valid: Tensor, dtype: torch.dtype, implementation: str) -> Tensor | None:
    """Make what keeps attentions from padded frames; transformers' own function lets an accelerator wait in every step.

    Args:
        valid: True for valid frames, `(batch, frames)`.
        dtype: Of what is added to the scores of attentions other than sdpa.
        implementation: Name of the attention.

    Returns:
        True where a frame may be attended to, for sdpa, or what is added to its score, `(batch, 1, frames, frames)`;
        None if no clip is padded, which is asked on a CPU alone.
    """
    if valid.device.type == "cpu" and not torch.compiler.is_compiling() and valid.all():
        return None
    mask = valid[:, None, None].expand(-1, 1, valid.shape[1], -1)  # (batch, 1, frames, frames)
    if implementation == "sdpa":
        return mask
    return torch.zeros_like(mask, dtype=dtype).masked_fill(~mask, torch.finfo(dtype).min)
