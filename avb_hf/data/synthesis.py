"""A source-filter synthesiser of burst-like sounds: pulses and noise through moving formants.

It makes the demo corpus. Its laughs, gasps and groans are caricatures; nothing more is claimed.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.signal import ShortTimeFFT
from scipy.signal.windows import hann

SAMPLING_RATE = 16_000
PEAK = 10 ** (-3 / 20)
WINDOW, HOP = 512, 128
TREMOR_HZ = 5.5

Samples = NDArray[np.float64]


@dataclass(frozen=True)
class Burst:
    """How a burst is made: latent parameters, each in [0, 1] and audible by itself.

    Attributes:
        rate: Repetition; 0 is one single burst, 1 is seven a second.
        breath: Share of noise in the source; 0 is voiced, 1 is whispered.
        glide: Pitch falls (0), stays (0.5) or rises (1).
        open: Height of the first formant; 0 is a closed mouth, 1 an open one.
        front: Height of the second formant; 0 is a back vowel, 1 a front one.
        move: The second formant falls (0), stays (0.5) or rises (1).
        rough: Irregularity of the voice's cycles.
        dark: Steepness of the spectrum's fall.
        attack: Softness of each onset; 0 is 8 ms long, 1 is 0.25 s.
        tremor: Depth of a slow tremor in pitch and loudness.
    """

    rate: float
    breath: float
    glide: float
    open: float
    front: float
    move: float
    rough: float
    dark: float
    attack: float
    tremor: float


@dataclass(frozen=True)
class Voice:
    """What stays the same over all bursts of a speaker.

    Attributes:
        pitch: Mean fundamental frequency in Hz.
        tract: Factor on all formants, about 1; short vocal tracts are above.
        floor_db: Level of the recording's noise in dB relative to the burst's peak.
        colour: Coefficient in [-1, 1] of the microphone's one-tap filter.
    """

    pitch: float
    tract: float
    floor_db: float
    colour: float


def synthesise(
    burst: Burst, voice: Voice, duration: float, register: float, rng: np.random.Generator
) -> NDArray[np.float32]:
    """Return one burst as a waveform.

    Args:
        burst: What sounds.
        voice: Who sounds.
        duration: Length in seconds.
        register: Octaves above the voice's mean pitch.
        rng: Source of everything that is left to chance.

    Returns:
        Samples at 16 kHz of shape `(num_samples,)` in [-1, 1], the largest at -3 dB.
    """
    time = np.arange(round(duration * SAMPLING_RATE)) / SAMPLING_RATE
    envelope = _envelope(burst, time, rng)
    noise_share = burst.breath**1.5
    pulses = _pulses(_pitch(burst, voice, register, time, rng), burst.rough, rng)
    noise = rng.standard_normal(time.size)
    source = np.sqrt(1 - noise_share) * pulses + 0.8 * np.sqrt(noise_share) * noise
    sound = _filter(source * envelope, envelope, burst, voice)
    sound /= np.abs(sound).max()
    sound += 10 ** (voice.floor_db / 20) * rng.standard_normal(time.size)
    sound[1:] += voice.colour * sound[:-1]
    return (PEAK * sound / np.abs(sound).max()).astype(np.float32)


def _pitch(burst: Burst, voice: Voice, register: float, time: Samples, rng: np.random.Generator) -> Samples:
    """Return the fundamental frequency in Hz at every sample; a glide leaves the mean where it is."""
    progress = time / time[-1] - 0.5
    glide = 1.8 * (2 * burst.glide - 1) * progress
    tremor = 0.28 * burst.tremor * np.sin(2 * np.pi * (TREMOR_HZ * time + rng.random()))
    wander = 0.05 * np.sin(2 * np.pi * (1.3 * time + rng.random()))
    return voice.pitch * np.exp2(register + glide + tremor + wander)


def _pulses(pitch: Samples, rough: float, rng: np.random.Generator) -> Samples:
    """Return a glottal pulse train of unit power; pulses fall between samples, so that the pitch is exact."""
    phase = np.cumsum(pitch / SAMPLING_RATE)
    cycles = np.arange(1, int(phase[-1]))
    jittered = cycles + 0.06 * rough * rng.standard_normal(cycles.size)
    place = np.interp(jittered, phase, np.arange(pitch.size)).clip(0, pitch.size - 2)
    level = 1 + 0.35 * rough * rng.standard_normal(cycles.size) - 0.8 * rough * (cycles % 2)
    level *= np.sqrt(SAMPLING_RATE / pitch[place.astype(int)])
    first, part = np.divmod(place, 1)
    train = np.zeros(pitch.size)
    np.add.at(train, first.astype(int), level * (1 - part))
    np.add.at(train, first.astype(int) + 1, level * part)
    return train


def _envelope(burst: Burst, time: Samples, rng: np.random.Generator) -> Samples:
    """Return the loudness over time in [0, 1]: one burst, or as many as fit."""
    attack = 0.008 * 2 ** (5 * burst.attack)
    if burst.rate > 0:
        period = 1 / (1.5 + 5.5 * burst.rate)
        index, since = np.divmod(time, period)
        sounding = 0.55 * period
        level = (1 + 0.15 * rng.standard_normal(int(index[-1]) + 1)).clip(0.5)[index.astype(int)]
    else:
        since, sounding, level = time, 0.6 * time[-1], np.ones(time.size)
    rise = np.minimum(since / min(attack, sounding), 1)
    fall = np.exp(-np.maximum(since - sounding, 0) / (0.25 * sounding))
    tremor = 1 - 0.35 * burst.tremor * (1 + np.sin(2 * np.pi * TREMOR_HZ * time))
    return level * rise * fall * tremor


def _filter(source: Samples, envelope: Samples, burst: Burst, voice: Voice) -> Samples:
    """Send the source through the vocal tract: four formants and a spectral fall that change from frame to frame."""
    stft = ShortTimeFFT(np.sqrt(hann(WINDOW, sym=False)), HOP, SAMPLING_RATE)
    spectrum = stft.stft(source)  # (frequencies, frames)
    frames = np.clip(stft.t(source.size) * SAMPLING_RATE, 0, source.size - 1).astype(int)
    progress = frames / source.size - 0.5
    response = np.ones(spectrum.shape, dtype=complex)
    for formant, bandwidth in zip(_formants(burst, voice, progress), (80, 100, 140, 180), strict=True):
        response *= formant**2 / (formant**2 - stft.f[:, None] ** 2 + 1j * stft.f[:, None] * bandwidth)
    # A loud voice is a bright voice: models that normalise each frame still hear the envelope.
    fall_db = 1 + 7 * burst.dark + 6 * (1 - envelope[frames] / envelope.max())
    octaves = np.log2(np.maximum(stft.f, 100) / 100)[:, None]
    response *= 10 ** (-fall_db * octaves / 20)
    return stft.istft(spectrum * response, k1=source.size)


def _formants(burst: Burst, voice: Voice, progress: Samples) -> Samples:
    """Return formant frequencies in Hz of shape `(4, frames)`."""
    first = np.full(progress.size, 280 + 680 * burst.open)
    second = 1000 + 1500 * (burst.front + 0.9 * (burst.move - 0.5) * progress).clip(-0.1, 1.1)
    upper = np.exp2(0.45 * (2 * burst.glide - 1) * progress)
    return voice.tract * np.stack([first, second, 2900 * upper, 3800 * upper])
