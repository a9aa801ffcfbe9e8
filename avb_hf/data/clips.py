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
from avb_hf.data.labels import is_given
from avb_hf.tasks import TaskSpec

# Columns that `describe_audio` counts, in the order of `count_audio`.
_COUNTED = ("duration", "sampling_rate", "num_channels")


def is_labelled(split: Dataset, task: TaskSpec) -> bool:
    """Whether a split has any label at all, so that it can be scored."""
    return bool(is_given(np.asarray(split.with_format(None)["labels"][:]), task).any())


def describe_audio(splits: DatasetDict) -> dict[str, dict[str, Any]]:
    """Count what the splits hold, for the record of a run.

    Returns:
        For each split `clips`, `hours`, and how many clips have each of `sampling_rates` (Hz) and `channels`.
    """
    columns = {name: split.with_format(None, columns=list(_COUNTED))[:] for name, split in splits.items()}
    return {name: count_audio(*(held[column] for column in _COUNTED)) for name, held in columns.items()}


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
    findings = []
    for split in splits.values():
        columns = split.with_format("numpy", columns=["file_id", "duration"])[:]
        refused = (columns["duration"] < shortest) | (columns["duration"] > longest)
        for file_id, duration in zip(columns["file_id"][refused], columns["duration"][refused], strict=True):
            kind = "too_short" if duration < shortest else "too_long"
            findings.append(Finding(kind, f"{duration:.4f} s", str(file_id)))
    heading = f"the model takes clips of {shortest:.4f} to {longest:g} s"
    if any(finding.kind == "too_long" for finding in findings):
        heading += f" (with --max_duration {longest:g}, longer ones fall under --on_bad_audio and --long_clips)"
    raise_errors(findings, heading)


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
