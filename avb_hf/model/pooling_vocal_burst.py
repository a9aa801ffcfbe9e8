"""Poolings over the valid frames of each clip."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def frame_mask(num_frames: Tensor, max_frames: int) -> Tensor:
    """Mark the valid frames of each clip.

    Args:
        num_frames: Valid frames of each clip, of shape `(batch,)`.
        max_frames: Frames of the padded batch.

    Returns:
        Booleans of shape `(batch, max_frames)`, True where a frame lies inside its clip.
    """
    return torch.arange(max_frames, device=num_frames.device) < num_frames[:, None]


class Pooling(nn.Module):
    """Base of the poolings: frames `(batch, frames, features)` of which the first `num_frames` count, to one row each.

    Args:
        num_features: Width of a frame.

    Attributes:
        out_features: Width of a pooled row.
        picks_one_frame: Whether the row is one of the frames, so that the number of frames always counts.
    """

    picks_one_frame = False

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.out_features = num_features

    def forward(self, states: Tensor, num_frames: Tensor) -> Tensor:
        """Pool `(batch, frames, features)` over the first `num_frames` `(batch,)` frames to `(batch, out_features)`."""
        raise NotImplementedError


class FirstPooling(Pooling):
    """The first frame."""

    picks_one_frame = True

    def forward(self, states: Tensor, num_frames: Tensor) -> Tensor:
        """Return the first frame of each clip, `(batch, features)`."""
        return states[:, 0]


class LastPooling(Pooling):
    """The last valid frame."""

    picks_one_frame = True

    def forward(self, states: Tensor, num_frames: Tensor) -> Tensor:
        """Return the last valid frame of each clip, `(batch, features)`."""
        index = (num_frames - 1)[:, None, None].expand(-1, 1, states.shape[-1])
        return states.gather(1, index).squeeze(1)


class MaxPooling(Pooling):
    """The largest value of each feature over the valid frames."""

    def forward(self, states: Tensor, num_frames: Tensor) -> Tensor:
        """Return each feature's maximum over the valid frames, `(batch, features)`."""
        valid = frame_mask(num_frames, states.shape[1])[:, :, None]
        return states.masked_fill(~valid, -torch.inf).amax(dim=1)


class MeanPooling(Pooling):
    """The mean of each feature over the valid frames."""

    def forward(self, states: Tensor, num_frames: Tensor) -> Tensor:
        """Return each feature's mean over the valid frames, `(batch, features)`."""
        valid = frame_mask(num_frames, states.shape[1])[:, :, None]
        return states.where(valid, 0).sum(dim=1) / num_frames[:, None]


POOLINGS: dict[str, type[Pooling]] = {
    "first": FirstPooling,
    "last": LastPooling,
    "max": MaxPooling,
    "mean": MeanPooling,
}
