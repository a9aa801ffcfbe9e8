"""The demo corpus: synthetic bursts with labels of all four A-VB tasks, in the A-VB layout.

Latent parameters are drawn per clip; sound and labels both follow from them, the labels with a rater's noise. It shows
that the path works, not how well bursts are understood.
"""

from __future__ import annotations

import dataclasses
import logging
import os
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import soundfile as sf
from numpy.typing import NDArray
from tqdm.auto import tqdm

from avb_hf.data.synthesis import SAMPLING_RATE, Burst, Voice, synthesise
from avb_hf.tasks import COUNTRIES, EMOTIONS, TASKS
from avb_hf.whole_files import sync

logger = logging.getLogger(__name__)

VERSION = 1
"""Number of the design; a change of anything that is drawn or written raises it."""

LATENTS = tuple(field.name for field in dataclasses.fields(Burst))
SPEAKERS_PER_SPLIT = {"Train": 21, "Val": 5, "Test": 4}
NUM_SPEAKERS = sum(SPEAKERS_PER_SPLIT.values())

RATER_NOISE = 0.05
ANCHORING = 0.6
OTHER_COUNTRY_RATED = 0.15


@dataclasses.dataclass(frozen=True)
class Kind:
    """How bursts of one vocalisation type differ from the rest.

    Attributes:
        share: Part of the corpus in [0, 1].
        register: Octaves above the speaker's mean pitch.
        longer: Shift of the duration's natural logarithm.
        anchors: Centres of the latents that make the type, in [0, 1]; the others are free.
    """

    share: float
    register: float
    longer: float
    anchors: dict[str, float]


KINDS = (  # in the order of VOCALISATIONS
    Kind(0.14, 0.25, -0.2, {"rate": 0.0, "breath": 0.95, "attack": 0.3}),
    Kind(0.20, 0.0, 0.1, {"rate": 0.95, "breath": 0.35}),
    Kind(0.14, 0.25, 0.25, {"rate": 0.55, "tremor": 0.95, "glide": 0.2}),
    Kind(0.12, 0.9, 0.1, {"rate": 0.0, "dark": 0.1, "breath": 0.2}),
    Kind(0.10, -0.45, -0.4, {"rate": 0.0, "breath": 0.15, "attack": 0.1, "rough": 0.8}),
    Kind(0.10, -0.35, 0.3, {"rate": 0.0, "dark": 0.85, "attack": 0.8, "breath": 0.2}),
    Kind(0.08, 0.0, 0.1, {"rate": 0.9, "breath": 0.95}),
    Kind(0.12, 0.0, 0.0, {}),
)

# How strongly each latent speaks for each emotion, in the order of EMOTIONS.
EMOTION_WEIGHTS = np.array([
    # rate breath glide open front move rough dark attack tremor
    [-0.7, 0.2, 0.0, 0.9, -1.1, 0.0, 0.0, 0.4, 0.3, 0.0],
    [0.9, 0.0, 0.3, 0.2, 1.2, 0.0, 0.0, -0.2, 0.0, 0.0],
    [1.3, 0.0, 0.0, 0.8, -0.4, 0.0, 0.0, 0.2, -0.2, 0.0],
    [0.9, 0.0, 0.0, -0.8, -0.8, 0.3, 0.0, -0.2, 0.0, 0.0],
    [-0.4, 0.5, 0.0, -0.7, 1.1, 0.0, 0.0, 0.0, 0.0, 0.3],
    [-0.9, -0.2, 0.0, 0.8, 0.8, 0.0, 0.3, 0.3, 0.0, 0.0],
    [0.6, -0.4, -0.3, 0.3, 1.2, 0.0, 0.0, 0.0, 0.0, 0.2],
    [0.6, -0.3, 0.2, 0.9, -0.9, 0.3, 0.0, 0.2, 0.0, 0.0],
    [0.3, 0.0, -0.3, -0.6, -1.2, 0.0, 0.0, 0.0, 0.2, 0.2],
    [-1.1, 0.3, 0.4, 0.2, 0.9, 0.0, 0.0, 0.0, -0.3, 0.0],
])  # fmt: skip

# The same for valence and arousal.
AFFECT_WEIGHTS = np.array([
    [0.9, 0.0, 0.3, 0.6, -0.7, 0.0, -0.3, 0.0, 0.0, -0.2],
    [0.7, -0.4, 0.2, 0.8, 0.7, 0.0, 0.3, -0.2, -0.3, 0.0],
])  # fmt: skip


def write_demo_corpus(folder: Path, seed: int = 7, num_clips: int = 900) -> None:
    """Write the demo corpus into a new folder, wholly or not at all.

    Clips are 16 kHz PCM16 of 0.4 to 3 s in `audio/wav`, label tables with a `Speaker` column in `labels`. The same
    arguments give the same bytes on one machine. Where another process wrote the folder in the meantime, its corpus
    stays.

    Args:
        folder: Where the corpus is to be; its parents are made.
        seed: Draws another corpus of the same design.
        num_clips: Number of clips, dealt out evenly to the 30 speakers.

    Raises:
        ValueError: If there are fewer clips than speakers.
        OSError: If `folder` holds something else.
    """
    if num_clips < NUM_SPEAKERS:
        raise ValueError(f"num_clips must be at least {NUM_SPEAKERS}, one a speaker, got {num_clips}")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}-") as scratch:
        corpus = Path(scratch) / folder.name
        _write(corpus, seed, num_clips)
        sync(corpus.rglob("*"))
        try:
            os.replace(corpus, folder)
        except OSError:
            if not (folder / "labels").is_dir():
                raise
            logger.info("another process wrote %s first; its corpus stays", folder)


def _write(folder: Path, seed: int, num_clips: int) -> None:
    (folder / "audio" / "wav").mkdir(parents=True)
    (folder / "labels").mkdir()
    speakers = _speakers(np.random.default_rng([seed, 0]))
    rows: dict[str, list[list[Any]]] = {task: [] for task in TASKS if TASKS[task].label_file}
    for index in tqdm(range(num_clips), desc="writing the demo corpus", unit="clip", disable=None):
        rng = np.random.default_rng([seed, 1, index])
        speaker = speakers[index % NUM_SPEAKERS]
        kind = int(rng.choice(len(KINDS), p=[kind.share for kind in KINDS]))
        burst = _burst(KINDS[kind], speaker, rng)
        waveform = synthesise(burst, speaker.voice, *_length_and_register(KINDS[kind], speaker, rng), rng)
        sf.write(folder / "audio" / "wav" / f"{index:05d}.wav", waveform, SAMPLING_RATE, subtype="PCM_16")
        for task, values in _labels(burst, kind, speaker, rng).items():
            rows[task].append([f"[{index:05d}]", speaker.split, speaker.name, *values])
    for task, lines in rows.items():
        spec = TASKS[task]
        table = pd.DataFrame(lines, columns=["File_ID", "Split", "Speaker", *spec.label_columns])
        table.to_csv(folder / "labels" / str(spec.label_file), index=False, float_format="%.4f")


@dataclasses.dataclass(frozen=True)
class _Speaker:
    name: str
    split: str
    country: int
    voice: Voice
    habits: dict[str, float]
    longer: float


def _speakers(rng: np.random.Generator) -> list[_Speaker]:
    splits = [split for split, count in SPEAKERS_PER_SPLIT.items() for _ in range(count)]
    return [
        _Speaker(
            name=f"speaker_{index:02d}",
            split=split,
            country=index % len(COUNTRIES),
            voice=Voice(
                pitch=110 * 2 ** (1.4 * rng.random()),
                tract=rng.uniform(0.94, 1.08),
                floor_db=rng.uniform(-55, -40),
                colour=rng.uniform(-0.3, 0.3),
            ),
            habits=dict(zip(LATENTS, rng.normal(0, 0.03, len(LATENTS)), strict=True)),
            longer=rng.normal(0, 0.15),
        )
        for index, split in enumerate(splits)
    ]


def _burst(kind: Kind, speaker: _Speaker, rng: np.random.Generator) -> Burst:
    values = dict(zip(LATENTS, rng.random(len(LATENTS)), strict=True))
    for name, centre in kind.anchors.items():
        values[name] = ANCHORING * centre + (1 - ANCHORING) * values[name]
    values = {name: float(np.clip(values[name] + speaker.habits[name], 0, 1)) for name in LATENTS}
    values["rate"] = max(values["rate"] - 0.3, 0) / 0.7  # free bursts, too, may come singly
    return Burst(**values)


def _length_and_register(kind: Kind, speaker: _Speaker, rng: np.random.Generator) -> tuple[float, float]:
    duration = np.exp(rng.normal(-0.3 + speaker.longer + kind.longer, 0.4))
    return float(duration.clip(0.4, 3.0)), kind.register + rng.normal(0, 0.2)


def _labels(burst: Burst, kind: int, speaker: _Speaker, rng: np.random.Generator) -> dict[str, Iterable[Any]]:
    latents = 2 * np.array(dataclasses.astuple(burst)) - 1
    return {
        "high": _rate(EMOTION_WEIGHTS @ latents, rng),
        "two": _rate(AFFECT_WEIGHTS @ latents, rng),
        "culture": _rate_by_country(EMOTION_WEIGHTS @ latents, speaker.country, rng),
        "type": [TASKS["type"].labels[kind]],
    }


def _rate(evidence: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.float64]:
    """Return what noisy raters say, in [0, 1]."""
    return (1 / (1 + np.exp(-evidence)) + rng.normal(0, RATER_NOISE, evidence.shape)).clip(0, 1)


def _rate_by_country(evidence: NDArray[np.float64], own: int, rng: np.random.Generator) -> list[float]:
    """Return ratings in the order of the culture task; NaN where a country's raters did not hear the clip.

    Countries differ in how strongly they answer and in how readily.
    """
    strength, bias = np.linspace(0.8, 1.2, len(COUNTRIES)), np.linspace(-0.3, 0.3, len(COUNTRIES))
    ratings = _rate(strength[:, None] * evidence + bias[:, None], rng)
    heard = rng.random(len(COUNTRIES)) < OTHER_COUNTRY_RATED
    heard[own] = True
    ratings[~heard] = np.nan
    by_label = {
        f"{country}_{emotion}": rating
        for country, row in zip(COUNTRIES, ratings, strict=True)
        for emotion, rating in zip(EMOTIONS, row, strict=True)
    }
    return [by_label[label] for label in TASKS["culture"].labels]
