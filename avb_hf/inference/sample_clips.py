"""The clips of an audit: a sample of one's own that is spread over their lengths, or synthetic ones."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm.auto import tqdm
from transformers import PreTrainedConfig

from avb_hf.data.arguments import DataArguments
from avb_hf.data.audio import SAMPLING_RATE, load_clip, read_header
from avb_hf.data.locations import AUDIO_SUFFIXES

MAX_SECONDS = 30.0
SYNTHETIC_CLIPS = 16
SYNTHETIC_SECONDS = (0.1, 4.0)


@dataclass(frozen=True)
class ClipSample:
    """Clips that a model takes.

    Attributes:
        waveforms: Float32 waveforms of shape `(samples,)` at 16 kHz by path or name.
        num_cropped: How many of them are the middle of a longer clip.
        max_seconds: Longest clip in seconds; of longer ones the middle is taken.
    """

    waveforms: dict[str, np.ndarray]
    num_cropped: int
    max_seconds: float


def find_audio(paths: Sequence[str | Path]) -> list[Path]:
    """List the audio files among files and, recursively, in folders, each once, sorted by path.

    Raises:
        ValueError: If a path does not exist, or a folder holds no audio file; a file that is named itself may have any
            suffix.
        OSError: If a folder, or one below it, may not be read.
    """
    return sorted({file for path in paths for file in _files_of(Path(path))})


def _files_of(path: Path) -> Iterator[Path]:
    if not path.exists():
        raise ValueError(f"{path}: there is no such file or folder")
    if path.is_file():
        yield path
        return
    found = (Path(folder, name) for folder, _, names in os.walk(path, onerror=_refuse) for name in names)
    files = [file for file in found if file.suffix.lower() in AUDIO_SUFFIXES and file.is_file()]
    if not files:
        raise ValueError(f"{path}: no audio file is in this folder; looked for {', '.join(sorted(AUDIO_SUFFIXES))}")
    yield from files


def _refuse(error: OSError) -> None:
    raise error


def read_sample(files: Sequence[Path], config: PreTrainedConfig, max_clips: int, seed: int = 0) -> ClipSample:
    """Read a seeded sample of clips that is spread over their lengths.

    One is drawn from each of `max_clips` equal parts of all clips in order of length; the shortest and the longest are
    always among them.

    Args:
        files: Audio files.
        config: Configuration of the model, which says how long a clip may be.
        max_clips: Largest number of clips; if there are no more, all are read.
        seed: Seed of the sample.

    Raises:
        ValueError: If a clip cannot be read or is too short; the message names it.
    """
    seconds = min(MAX_SECONDS, (config.max_samples or np.inf) / SAMPLING_RATE)
    headers = tqdm(files, desc="reading audio headers", unit="clip", disable=None)
    durations = {path: read_header(path, path.name).duration for path in headers}
    ordered = sorted(durations, key=lambda path: (durations[path], path))
    rng = np.random.default_rng(seed)
    parts = np.array_split(np.arange(len(ordered)), min(max_clips, len(ordered)))
    drawn = [ordered[int(rng.choice(part))] for part in parts]
    chosen = sorted([ordered[0], *drawn[1:-1], ordered[-1]]) if len(drawn) > 1 else drawn
    args = DataArguments(max_duration=seconds, long_clips="crop")
    waveforms = {
        str(path): load_clip(path, path.name, args, min_samples=config.min_samples)
        for path in tqdm(chosen, desc="reading clips", unit="clip", disable=None)
    }
    return ClipSample(waveforms, sum(durations[path] > seconds for path in chosen), seconds)


def synthesise_sample(config: PreTrainedConfig, max_clips: int = SYNTHETIC_CLIPS, seed: int = 0) -> ClipSample:
    """Make tones in noise, of the model's shortest clip, and of 0.1 s to 4 s; their loudness differs by a factor of 30.

    Args:
        config: Configuration of the model, which says how long a clip may be.
        max_clips: Largest number of clips; more than 16 are not made.
        seed: Seed of noise, pitch and loudness.
    """
    rng, number = np.random.default_rng(seed), min(max_clips, SYNTHETIC_CLIPS)
    longest = min(SYNTHETIC_SECONDS[1] * SAMPLING_RATE, config.max_samples or np.inf)
    spread = np.geomspace(max(SYNTHETIC_SECONDS[0] * SAMPLING_RATE, config.min_samples), longest, number - 1)
    lengths = [config.min_samples, *spread.astype(int).tolist()]
    waveforms = {}
    for index, samples in enumerate(lengths, start=1):
        tone = np.sin(2 * np.pi * rng.uniform(100, 2_000) * np.arange(samples) / SAMPLING_RATE)
        clip = 10 ** rng.uniform(-1.5, 0) * (0.5 * tone + 0.1 * rng.standard_normal(samples))
        waveforms[f"synthetic clip {index} of {samples} samples"] = clip.astype(np.float32)
    return ClipSample(waveforms, 0, longest / SAMPLING_RATE)
