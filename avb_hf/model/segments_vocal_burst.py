"""Finding the bursts in a long recording."""

from __future__ import annotations

import itertools

import numpy as np

from .reading_vocal_burst import optional_import

FRAME_SECONDS, HOP_SECONDS = 0.04, 0.01
# Below lie rumble, and the constant offset of cheap microphones: no voice.
RUMBLE_HZ, VOICE_HZ = 20.0, 60.0
# What rounding leaves, as a share of the peak, where nothing but that was there.
ROUNDING = 1e-5
# The noise floor is the level that this share of the frames stays below...
FLOOR_PERCENTILE = 10
# ...but never further below the loudest frame than 60 dB: between bursts there may be nothing at all.
DEEPEST_FLOOR = 1e-3


def noise_floor(levels: np.ndarray) -> float:
    """Estimate the level of what lies between the bursts of a recording.

    Args:
        levels: Root mean squares of its frames, of any shape.

    Returns:
        The 10th percentile, or 60 dB below the loudest frame if that is higher.
    """
    return max(float(np.percentile(levels, FLOOR_PERCENTILE)), DEEPEST_FLOOR * float(levels.max()))


def without_rumble(clip: np.ndarray, sampling_rate: int) -> np.ndarray:
    """Take what is below 20 Hz out of a waveform `(samples,)`, an offset included, and up to 60 Hz less and less of it.

    Phases stay, and the slope is a raised cosine, which rings little.
    """
    if not len(clip):
        return clip
    padded = -(-len(clip) // 4096) * 4096  # no large prime factors, which are slow
    spectrum = np.fft.rfft(clip - clip.mean(), padded)
    slope = (np.fft.rfftfreq(padded, 1 / sampling_rate) - RUMBLE_HZ) / (VOICE_HZ - RUMBLE_HZ)
    return np.fft.irfft(spectrum * np.sin(np.pi / 2 * slope.clip(0, 1)) ** 2, padded)[: len(clip)].astype(np.float32)


def find_bursts(
    clip: np.ndarray,
    sampling_rate: int,
    threshold_db: float = 8.0,
    max_pause: float = 0.5,
    min_duration: float = 0.1,
    max_duration: float = 30.0,
) -> list[tuple[int, int]]:
    """Find the stretches of a recording that stand out from its own noise, rumble left out.

    A frame of 40 ms, one every 10 ms, is loud if its level is `threshold_db` above the recording's `noise_floor`. Loud
    stretches with a pause of up to `max_pause` between them, as inside laughter, are one burst; then what is shorter
    than `min_duration` is left out, and what is longer than `max_duration` is cut into equal parts. How loud the
    recording is as a whole does not matter. The floor needs pauses: in a recording that is loud for more than nine
    tenths of its length, only what stands out from the rest is found.

    Args:
        clip: Mono waveform of shape `(samples,)`.
        sampling_rate: Its rate in Hz.
        threshold_db: How far a burst is above the noise floor, in dB.
        max_pause: Longest pause inside a burst, in seconds.
        min_duration: Shortest burst, in seconds.
        max_duration: Longest burst, in seconds.

    Returns:
        First sample and the one behind the last of each burst, in order.

    Raises:
        ImportError: If librosa is not installed.
    """
    librosa = optional_import("librosa", "finding bursts in recordings")
    voice = without_rumble(clip, sampling_rate)
    peak = float(np.abs(voice).max(initial=0))
    if peak <= ROUNDING * float(np.abs(clip).max(initial=0)):
        return []
    loud = librosa.effects.split(
        voice / peak,
        top_db=-threshold_db,
        ref=noise_floor,
        frame_length=round(FRAME_SECONDS * sampling_rate),
        hop_length=round(HOP_SECONDS * sampling_rate),
    )
    return [
        part
        for start, end in _merge(loud, max_pause * sampling_rate)
        if end - start >= min_duration * sampling_rate
        for part in _cut(start, end, max_duration * sampling_rate)
    ]


def _merge(stretches: np.ndarray, max_pause: float) -> list[tuple[int, int]]:
    """Join stretches, one `(start, end)` a row, that are up to `max_pause` samples apart."""
    if not len(stretches):
        return []
    is_apart = stretches[1:, 0] - stretches[:-1, 1] > max_pause
    starts = stretches[np.r_[True, is_apart], 0]
    ends = stretches[np.r_[is_apart, True], 1]
    return list(zip(starts.tolist(), ends.tolist(), strict=True))


def _cut(start: int, end: int, longest: float) -> list[tuple[int, int]]:
    """Cut a stretch into the fewest equal parts that are no longer than `longest` samples."""
    edges = np.linspace(start, end, int(np.ceil((end - start) / longest)) + 1).astype(int).tolist()
    return list(itertools.pairwise(edges))
