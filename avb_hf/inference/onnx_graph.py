"""From a model to the graph of an ONNX file, for batches of any size and clips of any length."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from avb_hf.inference.onnx_file import INPUTS, OUTPUT
from avb_hf.model import Wav2Vec2ForVocalBurst

OPSET = 17
# Protocol buffers, which the file is made of, end there.
MAX_BYTES = 2**31 - 2**24
# By how many samples the longer of the two clips that the graph is traced with is longer.
_LONGER = 4_000


def trace_to_onnx(model: Wav2Vec2ForVocalBurst, path: Path) -> None:
    """Write a model's graph in float32: `input_values` and `attention_mask` `(batch, samples)` in, `logits` out.

    torch's exporter that follows one run is used, not the one that compiles: only it keeps an LSTM whole, which then
    takes clips of any length.

    Args:
        model: A model on the CPU, in float32 and evaluation mode.
        path: The file.

    Raises:
        ValueError: If the model is too large for one file.
    """
    size = 4 * sum(parameter.numel() for parameter in model.parameters())
    if size > MAX_BYTES:
        raise ValueError(f"an ONNX file holds at most {MAX_BYTES / 1e9:.1f} GB, the model has {size / 1e9:.1f} GB")
    shortest = model.config.min_samples
    input_values = torch.zeros(2, min(shortest + _LONGER, model.config.max_samples or shortest + _LONGER))
    attention_mask = torch.ones(input_values.shape, dtype=torch.int64)
    attention_mask[1, shortest:] = 0  # so that no step takes the short cut for clips without padding
    axes = {name: {0: "batch", 1: "samples"} for name in INPUTS} | {OUTPUT: {0: "batch"}}
    with torch.no_grad(), _spectra_by_convolution(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what the trace holds fixed nothing depends on the clips; parity shows it
        torch.onnx.export(
            _Logits(model).eval(),
            (input_values, attention_mask),
            str(path),
            input_names=list(INPUTS),
            output_names=[OUTPUT],
            dynamic_axes=axes,
            opset_version=OPSET,
            dynamo=False,
        )


class _Logits(nn.Module):
    """The model without checks of its inputs, and without a way of its own for what is frozen."""

    def __init__(self, model: Wav2Vec2ForVocalBurst) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_values: Tensor, attention_mask: Tensor) -> Tensor:
        states, num_frames = self.model.encoder(input_values, attention_mask.sum(dim=1))
        return self.model.score_states(states, num_frames)


@contextmanager
def _spectra_by_convolution() -> Iterator[None]:
    """Let `torch.stft` give magnitudes, all that a log-mel asks of it: the exporter knows no complex numbers."""
    stft = torch.stft
    torch.stft = _magnitudes
    try:
        yield
    finally:
        torch.stft = stft


def _magnitudes(
    waveform: Tensor, n_fft: int, hop_length: int, window: Tensor, center: bool, return_complex: bool
) -> Tensor:
    """Convolve waveforms `(batch, samples)` with the windowed Fourier basis: `(batch, frequencies, frames)`."""
    angles = 2 * np.pi / n_fft * np.outer(np.arange(n_fft // 2 + 1), np.arange(n_fft))
    basis = np.concatenate([np.cos(angles), np.sin(angles)]) * window.numpy()
    kernels = torch.from_numpy(basis[:, None].astype(np.float32))
    real, imaginary = F.conv1d(waveform[:, None], kernels, stride=hop_length).chunk(2, dim=1)
    return (real.square() + imaginary.square()).sqrt()
