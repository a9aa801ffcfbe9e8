"""What datasets of clips hold, and from their rows to waveforms."""

import math
from collections import Counter
from collections.abc import Iterable
from typing import Any

import numpy as np
from datasets import Dataset, DatasetDict

from avb_hf.data.arguments import DataArguments
from avb_hf.data.audio import MIN_SAMPLES, SAMPLING_RATE, load_clip
from avb_hf.data.findings import Finding, raise_errors
from avb_hf.data.labels import MISSING_CLASS
from avb_hf.tasks import TaskSpec


def is_labelled(split: Dataset, task: TaskSpec) -> bool:
    """Whether a split has any label at all, so that it can be scored."""
    labels = np.asarray(split.with_format(None)["labels"][:], dtype=np.float64)
    return bool((labels != MISSING_CLASS).any() if task.is_classification else np.isfinite(labels).any())


def describe_audio(splits: DatasetDict) -> dict[str, dict[str, Any]]:
    """Count what the splits hold, for the record of a run.

    Returns:
        For each split `clips`, `hours`, and how many clips have each of `sampling_rates` (Hz) and `channels`.
    """
    plain = {name: split.with_format(None) for name, split in splits.items()}
    return {
        name: count_audio(split["duration"], split["sampling_rate"], split["num_channels"])
        for name, split in plain.items()
    }


def count_audio(durations: Iterable[float], rates: Iterable[int], channels: Iterable[int]) -> dict[str, Any]:
    """Count clips, `hours`, and how many clips have each of `sampling_rates` and `channels`.

    Args:
        durations: Length of each clip in seconds.
        rates: Sampling rate of each clip in Hz.
        channels: Number of channels of each clip.
    """
    durations = list(durations)
    return {
        "clips": len(durations),
        "hours": round(sum(durations) / 3600, 4),
        "sampling_rates": count(rates),
        "channels": count(channels),
    }


def count(values: Iterable[Any]) -> dict[str, int]:
    """Count how often each value comes, in the order of the values, which become text."""
    return {str(value): number for value, number in sorted(Counter(values).items())}


def require_samples(splits: DatasetDict, min_samples: int, max_samples: int | None = None) -> None:
    """Refuse clips that are shorter or longer than a model takes.

    Args:
        splits: The corpus.
        min_samples: Shortest clip that the model takes, in samples at 16 kHz.
        max_samples: Longest one; None if there is no limit.

    Raises:
        CorpusError: If there are such clips.
    """
    shortest, longest = min_samples / SAMPLING_RATE, (max_samples or math.inf) / SAMPLING_RATE
    plain = [split.with_format(None) for split in splits.values()]
    durations = [pair for split in plain for pair in zip(split["file_id"], split["duration"], strict=True)]
    findings = [
        Finding("too_short" if duration < shortest else "too_long", f"{duration:.4f} s", file_id)
        for file_id, duration in durations
        if not shortest <= duration <= longest
    ]
    raise_errors(findings, f"the model takes clips of {shortest:.4f} to {longest:g} s")


class ClipReader:
    """Decodes the clips of a batch; for `Dataset.with_transform`.

    Args:
        args: How to decode.
        sampling_rate: Sampling rate of the waveforms, in Hz.
        min_samples: Shortest clip that is accepted, in samples.

    Raises:
        AudioFileError: When called, if a clip cannot be used.
    """

    def __init__(self, args: DataArguments, sampling_rate: int = SAMPLING_RATE, min_samples: int = MIN_SAMPLES) -> None:
        self.args, self.sampling_rate, self.min_samples = args, sampling_rate, min_samples

    def __call__(self, batch: dict[str, list[Any]]) -> dict[str, list[Any]]:
        """Add `audio`, a float32 waveform of shape `(samples,)` for each row, to the batch's columns."""
        audio = [
            load_clip(path, file_id, self.args, self.sampling_rate, self.min_samples)
            for path, file_id in zip(batch["path"], batch["file_id"], strict=True)
        ]
        return batch | {"audio": audio}
