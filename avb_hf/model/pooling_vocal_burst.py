"""Poolings over the valid frames of each clip."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .losses_vocal_burst import at_least_float32
from .masks_vocal_burst import frame_mask

STD_FLOOR = 1e-6  # the root of a variance of 0 has no finite gradient
ATTENTION_WIDTH = 128


class Pooling(nn.Module):
    """Base of the poolings: frames `(batch, frames, features)` of which the first `num_frames` count, to one row each.

    Args:
        num_features: Width of a frame.

    Attributes:
        widening: How many times as wide as a frame a pooled row is.
        out_features: Width of a pooled row.
        picks_one_frame: Whether the row is one of the frames, so that the number of frames always counts.
    """

    widening = 1
    picks_one_frame = False

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.out_features = self.widening * num_features

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


def mean_and_std(states: Tensor, weights: Tensor) -> Tensor:
    """Weighted mean and standard deviation of each feature, side by side, computed in at least float32.

    Args:
        states: Frames of shape `(batch, frames, features)`, finite where padded.
        weights: Share of each frame of shape `(batch, frames, 1)` or `(batch, frames, features)`: 0 where padded, and 1
            in all.

    Returns:
        Shape `(batch, 2 * features)`; a deviation is at least 1e-6, so that one that would be 0 has no gradient.
    """
    x = at_least_float32(states)
    mean = (weights * x).sum(dim=1)  # (batch, features)
    variance = (weights * (x - mean[:, None]).square()).sum(dim=1)  # (batch, features)
    std = variance.clamp(min=STD_FLOOR**2).sqrt()
    return torch.cat([mean, std], dim=-1).to(states.dtype)  # (batch, 2 * features)


class MeanStdPooling(Pooling):
    """Mean and standard deviation of each feature over the valid frames, side by side.

    Reference:
        D. Snyder, D. Garcia-Romero, D. Povey, S. Khudanpur (2017). Deep Neural Network Embeddings for Text-Independent
        Speaker Verification. Interspeech.
    """

    widening = 2

    def forward(self, states: Tensor, num_frames: Tensor) -> Tensor:
        """Return each feature's moments over the valid frames, `(batch, 2 * features)`."""
        valid = frame_mask(num_frames, states.shape[1])[:, :, None]
        return mean_and_std(states.where(valid, 0), _equal_weights(valid, num_frames, states))


class AttentivePooling(Pooling):
    r"""Mean and standard deviation of each feature over the valid frames, weighted by an attention of its own.

    .. math::
        \alpha_{t,c} = \operatorname{softmax}_t \left( v_c^\top \tanh(W [h_t; \mu; \sigma] + b) \right)

    with the unweighted moments of the clip as context: the channel-dependent attentive statistics of ECAPA-TDNN, by
    which N. Vaessen and D. A. van Leeuwen pool wav2vec 2.0. Batch norm is left out, since it mixes the clips of a
    batch, and so is a bias of each feature, since the softmax takes it out again.

    Args:
        num_features: Width of a frame.

    Reference:
        K. Okabe, T. Koshinaka, K. Shinoda (2018). Attentive Statistics Pooling for Deep Speaker Embedding. Interspeech.
        B. Desplanques, J. Thienpondt, K. Demuynck (2020). ECAPA-TDNN: Emphasized Channel Attention, Propagation and
        Aggregation in TDNN Based Speaker Verification. Interspeech.
        N. Vaessen, D. A. van Leeuwen (2022). Fine-tuning wav2vec2 for Speaker Recognition. ICASSP.
    """

    widening = 2

    def __init__(self, num_features: int) -> None:
        super().__init__(num_features)
        self.frame = nn.Linear(num_features, ATTENTION_WIDTH)
        self.context = nn.Linear(2 * num_features, ATTENTION_WIDTH, bias=False)
        self.attention = nn.Linear(ATTENTION_WIDTH, num_features, bias=False)

    def forward(self, states: Tensor, num_frames: Tensor) -> Tensor:
        """Return each feature's weighted moments over the valid frames, `(batch, 2 * features)`."""
        valid = frame_mask(num_frames, states.shape[1])[:, :, None]
        states = states.where(valid, 0)
        context = mean_and_std(states, _equal_weights(valid, num_frames, states))
        hidden = torch.tanh(self.frame(states) + self.context(context)[:, None])  # (batch, frames, attention)
        scores = at_least_float32(self.attention(hidden)).masked_fill(~valid, -torch.inf)
        return mean_and_std(states, scores.softmax(dim=1))


def _equal_weights(valid: Tensor, num_frames: Tensor, states: Tensor) -> Tensor:
    return valid.to(torch.promote_types(states.dtype, torch.float32)) / num_frames[:, None, None]


POOLINGS: dict[str, type[Pooling]] = {
    "first": FirstPooling,
    "last": LastPooling,
    "max": MaxPooling,
    "mean": MeanPooling,
    "mean_std": MeanStdPooling,
    "attentive": AttentivePooling,
}
