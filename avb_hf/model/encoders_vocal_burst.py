"""Backbones: from padded waveforms to the raw output of their last block, clip by clip untouched by padding.

Each is transformers' own model with its own parameter names, run in steps that a caller may take apart: the `front_end`
(convolutions, for Whisper the log-mel too) and any stretch of the `blocks`.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import HubertModel, PreTrainedConfig, PreTrainedModel, Wav2Vec2Model, WavLMModel
from transformers.models.whisper.modeling_whisper import WhisperEncoder

from .configuration_vocal_burst import SAMPLING_RATE, WHISPER_HOP, VocalBurstConfig
from .dropout_vocal_burst import use_thrifty_dropout
from .log_mel_vocal_burst import log_mel
from .losses_vocal_burst import at_least_float32
from .masks_vocal_burst import frame_mask, key_mask, may_be_padded


def masked_group_norm(hidden: Tensor, num_frames: Tensor, norm: nn.GroupNorm) -> Tensor:
    """Normalise each channel of each clip over the clip's valid frames.

    Args:
        hidden: Channels of shape `(batch, channels, frames)`.
        num_frames: Valid frames of each clip, of shape `(batch,)`.
        norm: Group norm with one channel a group, whose weight, bias and eps are used.

    Returns:
        Normalised channels of the same shape; what lies in padded frames is of no meaning.

    Reference:
        Y. Wu, K. He (2018). Group Normalization. ECCV.
    """
    valid = frame_mask(num_frames, hidden.shape[-1])[:, None]
    count = num_frames[:, None, None]
    x = at_least_float32(hidden)
    mean = x.where(valid, 0).sum(dim=-1, keepdim=True) / count
    variance = (x - mean).where(valid, 0).square().sum(dim=-1, keepdim=True) / count
    x = (x - mean) * torch.rsqrt(variance + norm.eps)
    return (x * norm.weight[:, None] + norm.bias[:, None]).to(hidden.dtype)


def _half_precision_norms(hidden: Tensor) -> AbstractContextManager:
    """On a CPU, norms take half precision as it is; autocast would bring all features to float32 and back."""
    return torch.autocast("cpu", enabled=False) if hidden.device.type == "cpu" else nullcontext()


def _norm_and_activate(layer: nn.Module, hidden: Tensor, num_frames: Tensor | None) -> Tensor:
    """Do what follows a layer's convolution; a group norm is masked where valid frames are given."""
    norm = getattr(layer, "layer_norm", None)
    if isinstance(norm, nn.LayerNorm):
        hidden = norm(hidden.transpose(1, 2)).transpose(1, 2)
    elif norm is not None:
        hidden = norm(hidden) if num_frames is None else masked_group_norm(hidden, num_frames, norm)
    return layer.activation(hidden)


class ConvolutionalEncoder:
    """The wav2vec2 family: strided convolutions over the waveform, then transformer blocks.

    Args:
        config: Configuration of the backbone, already cut to the blocks that are used.
        use_masked_group_norm: Whether a group norm takes its statistics over valid frames only.
    """

    def __init__(self, config: PreTrainedConfig, use_masked_group_norm: bool = True) -> None:
        super().__init__(config)
        self.use_masked_group_norm = use_masked_group_norm
        if config.do_stable_layer_norm:
            self.encoder.layer_norm = nn.Identity()  # stands behind the last block, whose raw output is asked for
        use_thrifty_dropout(self, [block.attention for block in self.encoder.layers], config)
        self._no_split_modules = _uncut_classes(self, self.encoder.layers)

    @classmethod
    def is_custom_code(cls) -> bool:
        """Say no, so that random weights are drawn as for the stock class: transformers skips part of it for others."""
        return False

    def modules_up_to(self, block: int) -> list[nn.Module]:
        """Return the modules that make the output of a block, counted from 1; 0 is the front end."""
        if block == 0:
            return [self.feature_extractor]
        embedding = [self.feature_projection, self.encoder.pos_conv_embed, self.encoder.dropout]
        norm = [] if self.config.do_stable_layer_norm else [self.encoder.layer_norm]
        return [self.feature_extractor, *embedding, *norm, *self.encoder.layers[:block]]

    def front_end(self, input_values: Tensor, num_samples: Tensor) -> tuple[Tensor, Tensor]:
        """Convolve waveforms `(batch, samples)` to features `(batch, frames, channels)` and valid frames `(batch,)`."""
        hidden = input_values.to(self.dtype)[:, None]  # (batch, 1, samples)
        masks_norm = self.use_masked_group_norm and may_be_padded(input_values, num_samples)
        for layer in self.feature_extractor.conv_layers:
            hidden = layer.conv(hidden)
            num_frames = (num_samples - layer.conv.kernel_size[0]) // layer.conv.stride[0] + 1
            with _half_precision_norms(hidden):
                hidden = _norm_and_activate(layer, hidden, num_frames if masks_norm else None)
        return hidden.transpose(1, 2), self._get_feat_extract_output_lengths(num_samples)

    def blocks(self, hidden: Tensor, num_frames: Tensor, start: int = 0, stop: int | None = None) -> Tensor:
        """Run some of the transformer blocks.

        Args:
            hidden: Output of block `start`, `(batch, frames, hidden)`; of the front end, `(batch, frames, channels)`,
                where that is 0.
            num_frames: Valid frames of each clip, of shape `(batch,)`.
            start: Block, counted from 1, whose output is given.
            stop: Block whose output is asked for; None is the last.

        Returns:
            Raw output of block `stop`, of shape `(batch, frames, hidden)`.
        """
        valid = frame_mask(num_frames, hidden.shape[1])
        if start == 0:
            hidden = self._embed(hidden, valid)
        return self._run(hidden, valid, start, stop)

    def _embed(self, features: Tensor, valid: Tensor) -> Tensor:
        hidden = self.feature_projection(features)
        hidden = hidden[0] if isinstance(hidden, tuple) else hidden
        hidden = hidden.where(valid[:, :, None], 0)  # (batch, frames, hidden)
        hidden = hidden + self.encoder.pos_conv_embed(hidden)
        if not self.config.do_stable_layer_norm:
            hidden = self.encoder.layer_norm(hidden)
        return self.encoder.dropout(hidden)

    def _run(self, hidden: Tensor, valid: Tensor, start: int, stop: int | None) -> Tensor:
        mask = key_mask(valid, hidden.dtype, self.config._attn_implementation)
        for block in self.encoder.layers[start:stop]:
            hidden = block(hidden, attention_mask=mask)
        return hidden

    def forward(self, input_values: Tensor, num_samples: Tensor) -> tuple[Tensor, Tensor]:
        """Run waveforms `(batch, samples)` to raw states `(batch, frames, hidden)` and valid frames `(batch,)`."""
        features, num_frames = self.front_end(input_values, num_samples)
        return self.blocks(features, num_frames), num_frames


class Wav2Vec2BurstEncoder(ConvolutionalEncoder, Wav2Vec2Model):
    """wav2vec 2.0 (A. Baevski, Y. Zhou, A. Mohamed, M. Auli, 2020)."""


class HubertBurstEncoder(ConvolutionalEncoder, HubertModel):
    """HuBERT (W.-N. Hsu et al., 2021)."""


class WavLMBurstEncoder(ConvolutionalEncoder, WavLMModel):
    """WavLM (S. Chen et al., 2022)."""

    def _run(self, hidden: Tensor, valid: Tensor, start: int, stop: int | None) -> Tensor:
        """Hand the first block's relative position bias on to all others."""
        bias = None if start == 0 else self._position_bias(hidden)
        for block in self.encoder.layers[start:stop]:
            hidden, bias = block(hidden, attention_mask=valid, position_bias=bias)
        return hidden

    def _position_bias(self, hidden: Tensor) -> Tensor:
        bias = self.encoder.layers[0].attention.compute_bias(hidden.shape[1], hidden.shape[1])
        return bias.repeat(hidden.shape[0], 1, 1)  # (batch * heads, frames, frames)


class WhisperBurstEncoder(WhisperEncoder):
    """Whisper's encoder (A. Radford et al., 2022) on a clip's own length instead of 30 s.

    Args:
        config: Configuration of the backbone, already cut to the blocks that are used.
        use_masked_group_norm: Without effect: there is no group norm.
    """

    # Whole checkpoints name the encoder's parameters by where it stands in them.
    key_mapping = {r"^(model\.)?encoder\.": ""}  # noqa: RUF012 - transformers wants a plain mapping

    def __init__(self, config: PreTrainedConfig, use_masked_group_norm: bool = True) -> None:
        super().__init__(config)
        self.layer_norm = nn.Identity()  # stands behind the last block, whose raw output is asked for
        self.embedding_dropout = nn.Dropout(config.dropout)
        self._no_split_modules = _uncut_classes(self, self.layers)

    @classmethod
    def is_custom_code(cls) -> bool:
        """Say no, so that random weights are drawn as for the stock class: transformers skips part of it for others."""
        return False

    def modules_up_to(self, block: int) -> list[nn.Module]:
        """Return the modules that make the output of a block, counted from 1; 0 is the front end."""
        convolutions = [self.conv1, self.conv2]
        embedding = [self.embed_positions, self.embedding_dropout]
        return convolutions if block == 0 else [*convolutions, *embedding, *self.layers[:block]]

    def front_end(self, input_values: Tensor, num_samples: Tensor) -> tuple[Tensor, Tensor]:
        """Turn waveforms `(batch, samples)` into features `(batch, frames, channels)` and valid frames `(batch,)`.

        Raises:
            ValueError: If a clip is longer than the encoder's positions reach (30 s).
        """
        mel, num_mel_frames = log_mel(input_values, num_samples, self.num_mel_bins)
        hidden = F.gelu(self.conv1(mel.to(self.dtype)))  # (batch, channels, mel_frames)
        hidden = hidden.where(frame_mask(num_mel_frames, hidden.shape[-1])[:, None], 0)
        hidden = F.gelu(self.conv2(hidden)).transpose(1, 2)  # (batch, frames, channels)
        if hidden.shape[1] > self.max_source_positions:
            longest = self.max_source_positions * 2 * WHISPER_HOP / SAMPLING_RATE
            raise ValueError(
                f"Whisper takes clips of up to {longest:g} s, got {input_values.shape[1] / SAMPLING_RATE:g} s"
            )
        return hidden, (num_mel_frames + 1) // 2

    def blocks(self, hidden: Tensor, num_frames: Tensor, start: int = 0, stop: int | None = None) -> Tensor:
        """Run some of the transformer blocks, as `ConvolutionalEncoder.blocks` does."""
        valid = frame_mask(num_frames, hidden.shape[1])
        if start == 0:
            hidden = hidden.where(valid[:, :, None], 0) + self.embed_positions.weight[: hidden.shape[1]]
            hidden = self.embedding_dropout(hidden)
        mask = key_mask(valid, hidden.dtype, self.config._attn_implementation)
        for block in self.layers[start:stop]:
            hidden = block(hidden, mask)
        return hidden

    def forward(self, input_values: Tensor, num_samples: Tensor) -> tuple[Tensor, Tensor]:
        """Run waveforms `(batch, samples)` to raw states `(batch, frames, hidden)` and valid frames `(batch,)`."""
        features, num_frames = self.front_end(input_values, num_samples)
        return self.blocks(features, num_frames), num_frames


def _uncut_classes(encoder: PreTrainedModel, blocks: nn.ModuleList) -> set[str]:
    """Name what sharding and device maps keep whole: blocks, and what the stock class names that is really there."""
    present = {type(module).__name__ for module in encoder.modules()}
    return {type(blocks[0]).__name__} | (present & set(encoder._no_split_modules or ()))


ENCODERS: dict[str, type[nn.Module]] = {
    "wav2vec2": Wav2Vec2BurstEncoder,
    "hubert": HubertBurstEncoder,
    "wavlm": WavLMBurstEncoder,
    "whisper": WhisperBurstEncoder,
}


def settle_attention(config: VocalBurstConfig) -> None:
    """Make the configuration name the attention that the backbone really runs; sdpa unless another is asked for.

    Raises:
        ValueError: If the backbone has no such attention.
    """
    model_type = config.encoder_config.model_type
    offered = ("eager", "sdpa") if ENCODERS[model_type]._supports_sdpa else ("eager",)
    asked = {config._attn_implementation, config.encoder_config._attn_implementation} - {None}
    for attention in sorted(asked - set(offered)):
        only_eager = "transformers has eager attention only for it"
        reason = only_eager if len(offered) == 1 else "no other is tested with padding"
        raise ValueError(
            f"attn_implementation must be one of {list(offered)} for {model_type}, got {attention!r}: {reason}; "
            f"pass {offered[-1]!r} or leave the argument out"
        )
    config._attn_implementation = config.encoder_config._attn_implementation or offered[-1]
