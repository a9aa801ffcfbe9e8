"""Whisper's log-mel spectrogram inside the model, clip by clip as if each stood alone."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from torch import Tensor
from transformers.audio_utils import mel_filter_bank

from .configuration_vocal_burst import SAMPLING_RATE, WHISPER_HOP, WHISPER_WINDOW
from .losses_vocal_burst import at_least_float32
from .masks_vocal_burst import frame_mask


def log_mel(input_values: Tensor, num_samples: Tensor, num_mel_bins: int) -> tuple[Tensor, Tensor]:
    """Whisper's log-mel spectrogram of each clip as if it stood alone.

    Args:
        input_values: Waveforms at 16 kHz of shape `(batch, samples)`, right-padded.
        num_samples: True samples of each clip, of shape `(batch,)`; at least 201.
        num_mel_bins: Mel bands between 0 and 8 kHz.

    Returns:
        Log-mel energies of shape `(batch, num_mel_bins, mel_frames)`, zero beyond a clip's end, and the valid mel
        frames of each clip, `(batch,)`.
    """
    waveform = _reflected(at_least_float32(input_values), num_samples)
    window = torch.hann_window(WHISPER_WINDOW, dtype=waveform.dtype, device=waveform.device)
    spectrum = torch.stft(waveform, WHISPER_WINDOW, WHISPER_HOP, window=window, center=False, return_complex=True)
    power = (spectrum[..., :-1].abs() ** 2).contiguous()
    mel = _mel_filters(num_mel_bins, waveform.dtype, waveform.device) @ power  # (batch, mel_bins, mel_frames)
    num_mel_frames = num_samples // WHISPER_HOP
    valid = frame_mask(num_mel_frames, mel.shape[-1])[:, None]
    log = mel.clamp(min=1e-10).log10()
    loudest = log.masked_fill(~valid, -torch.inf).amax(dim=(1, 2), keepdim=True)
    log = (torch.maximum(log, loudest - 8.0) + 4.0) / 4.0
    return log.where(valid, 0), num_mel_frames


def _reflected(waveform: Tensor, num_samples: Tensor) -> Tensor:
    """Continue each clip by half a window of its mirror image at its own two ends, `(batch, samples + window)`."""
    half = WHISPER_WINDOW // 2
    position = torch.arange(-half, waveform.shape[1] + half, device=waveform.device).abs()
    last = (num_samples - 1)[:, None]
    mirrored = (last - (last - position).abs()).clamp(min=0)  # (batch, samples + window)
    return waveform.gather(1, mirrored)


def _mel_filters(num_mel_bins: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Return filters `(num_mel_bins, frequencies)`; a trace must not leave its own kind of tensor in the cache."""
    if torch.compiler.is_compiling():
        return torch.from_numpy(_slaney_filters(num_mel_bins)).to(device, dtype)
    return _filters_on(num_mel_bins, dtype, device)


@lru_cache(maxsize=8)
def _filters_on(num_mel_bins: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    return torch.from_numpy(_slaney_filters(num_mel_bins)).to(device, dtype)


@lru_cache(maxsize=8)
def _slaney_filters(num_mel_bins: int) -> np.ndarray:
    filters = mel_filter_bank(
        num_frequency_bins=1 + WHISPER_WINDOW // 2,
        num_mel_filters=num_mel_bins,
        min_frequency=0.0,
        max_frequency=SAMPLING_RATE / 2,
        sampling_rate=SAMPLING_RATE,
        norm="slaney",
        mel_scale="slaney",
    )
    return np.ascontiguousarray(filters.T, dtype=np.float32)
