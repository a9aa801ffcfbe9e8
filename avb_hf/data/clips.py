"""From checked table rows to datasets of clips, and from a dataset's rows to waveforms."""

import logging
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset, DatasetDict, Features, List, Value
from tqdm.auto import tqdm

from avb_hf.data.arguments import DataArguments
from avb_hf.data.audio import (
    MIN_SAMPLES,
    SAMPLING_RATE,
    AudioFileError,
    AudioHeader,
    check_header,
    load_clip,
    read_header,
)
from avb_hf.data.labels import MISSING_CLASS, Labels, labels_vary, missing_labels, parse_labels
from avb_hf.data.problems import raise_together
from avb_hf.data.splits import SPLITS
from avb_hf.tasks import TaskSpec

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Clip:
    """One clip as a source names it.

    Attributes:
        file_id: Name of the clip, without brackets.
        path: Its audio file.
        split: train, validation or test.
        cells: Text of the label cells by column.
        place: Where the clip is named (`line 7`), for messages.
        speaker: Who is heard, if known.
    """

    file_id: str
    path: Path
    split: str
    cells: dict[str, str]
    place: str
    speaker: str | None = None


def make_splits(
    clips: Sequence[Clip], task: TaskSpec, args: DataArguments, where: str | Path, test_is_labelled: bool = False
) -> DatasetDict:
    """Check labels and audio headers of all clips and build the corpus.

    Args:
        clips: All clips, in the order of the result.
        task: What the labels mean.
        args: How to read labels and audio.
        where: The table or folder that names the clips, for messages.
        test_is_labelled: Whether an unusable label of a test clip is an error, as in the other splits; otherwise the
            test split is labelled only if every row's labels parse, lie in range and vary.

    Returns:
        Splits with the columns `file_id`, `path`, `labels` (NaN or class -100 where missing), `duration` in seconds,
        `sampling_rate` in Hz, `num_channels`, and `speaker` if known.

    Raises:
        ValueError: If there is no train or validation split, a clip is named twice, or labels or audio files
            cannot be used.
    """
    present = {clip.split for clip in clips}
    for split in SPLITS[:2]:
        if split not in present:
            raise ValueError(f"{where}: no clip is in the {split} split; there are {sorted(present)}")
    raise_together(_find_duplicates(clips), f"{where}: clips are named twice")
    by_split = {name: [clip for clip in clips if clip.split == name] for name in SPLITS if name in present}
    strict = [name for name in by_split if name != "test" or test_is_labelled]
    labels, problems = _parse_all([clip for name in strict for clip in by_split[name]], task, args)
    raise_together(problems, f"{where}: labels of task {task.name!r}")
    if "test" in by_split and not test_is_labelled:
        labels |= _parse_test(by_split["test"], task, args, where)
    headers = _scan_headers(clips, args, where)
    splits = DatasetDict({name: _make_dataset(part, labels, headers, task) for name, part in by_split.items()})
    _log_audio(headers.values(), args)
    return splits


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
        name: {
            "clips": len(split),
            "hours": round(sum(split["duration"]) / 3600, 4),
            "sampling_rates": _count(split["sampling_rate"]),
            "channels": _count(split["num_channels"]),
        }
        for name, split in plain.items()
    }


def require_samples(splits: DatasetDict, min_samples: int, max_samples: int | None = None) -> None:
    """Refuse clips that are shorter or longer than a model takes.

    Args:
        splits: The corpus.
        min_samples: Shortest clip that the model takes, in samples at 16 kHz.
        max_samples: Longest one; None if there is no limit.

    Raises:
        ValueError: If there are such clips; it names the first 20.
    """
    shortest, longest = min_samples / SAMPLING_RATE, (max_samples or math.inf) / SAMPLING_RATE
    plain = [split.with_format(None) for split in splits.values()]
    durations = [pair for split in plain for pair in zip(split["file_id"], split["duration"], strict=True)]
    problems = [
        f"{file_id}: {duration:.4f} s" for file_id, duration in durations if not shortest <= duration <= longest
    ]
    raise_together(problems, f"the model takes clips of {shortest:.4f} to {longest:g} s")


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


def _find_duplicates(clips: Sequence[Clip]) -> list[str]:
    problems = []
    first_of: dict[str | Path, Clip] = {}
    for clip in clips:
        # One file under two names is the same leak as one name in two rows.
        for key in (clip.file_id, clip.path.resolve()):
            first = first_of.setdefault(key, clip)
            if first is not clip:
                name = f"File_ID {key}" if key is clip.file_id else f"file {key}"
                problems.append(f"{name}: {first.place} ({first.split}) and {clip.place} ({clip.split})")
                break
    return problems


def _parse_all(clips: Iterable[Clip], task: TaskSpec, args: DataArguments) -> tuple[dict[str, Labels], list[str]]:
    labels, problems = {}, []
    allow_missing = task.allow_missing or args.allow_missing_labels
    for clip in clips:
        try:
            labels[clip.file_id] = parse_labels(clip.cells, task, allow_missing)
        except ValueError as error:
            problems.append(f"{clip.place}, File_ID {clip.file_id}: {error}")
    return labels, problems


def _parse_test(clips: list[Clip], task: TaskSpec, args: DataArguments, where: str | Path) -> dict[str, Labels]:
    labels, problems = _parse_all(clips, task, args)
    if not problems and labels_vary(list(labels.values())):
        return labels
    reason = problems[0] if problems else "all rows have the same labels"
    logger.warning("%s: the test split counts as unlabelled, it is predicted and not scored (%s)", where, reason)
    return {clip.file_id: missing_labels(task) for clip in clips}


def _scan_headers(clips: Sequence[Clip], args: DataArguments, where: str | Path) -> dict[str, AudioHeader]:
    headers, problems = {}, []
    for clip in tqdm(clips, desc="reading audio headers", unit="clip", disable=None):
        try:
            header = read_header(clip.path, clip.file_id)
            check_header(header, clip.path, clip.file_id, args, MIN_SAMPLES)
            headers[clip.file_id] = header
        except AudioFileError as error:
            problems.append(f"{clip.place}, {error}")
    raise_together(problems, f"{where}: audio files")
    return headers


def _make_dataset(
    clips: list[Clip], labels: dict[str, Labels], headers: dict[str, AudioHeader], task: TaskSpec
) -> Dataset:
    label_type = Value("int64") if task.is_classification else List(Value("float64"))
    columns: dict[str, tuple[Any, list[Any]]] = {
        "file_id": (Value("string"), [clip.file_id for clip in clips]),
        "path": (Value("string"), [str(clip.path) for clip in clips]),
        "labels": (label_type, [labels[clip.file_id] for clip in clips]),
        "duration": (Value("float64"), [headers[clip.file_id].duration for clip in clips]),
        "sampling_rate": (Value("int32"), [headers[clip.file_id].sampling_rate for clip in clips]),
        "num_channels": (Value("int32"), [headers[clip.file_id].channels for clip in clips]),
    }
    if all(clip.speaker is not None for clip in clips):
        columns["speaker"] = (Value("string"), [clip.speaker for clip in clips])
    features = Features({name: feature for name, (feature, _) in columns.items()})
    return Dataset.from_dict({name: values for name, (_, values) in columns.items()}, features=features)


def _log_audio(headers: Iterable[AudioHeader], args: DataArguments) -> None:
    headers = list(headers)
    rates = _count(header.sampling_rate for header in headers if header.sampling_rate != SAMPLING_RATE)
    several = sum(header.channels > 1 for header in headers)
    logger.info("%d clips, %.2f h", len(headers), sum(header.duration for header in headers) / 3600)
    if rates:
        logger.info("clips to be resampled to %d Hz, by their rate in Hz: %s", SAMPLING_RATE, rates)
    if several:
        logger.info("%d clips have several channels (--channels %s)", several, args.channels)


def _count(values: Iterable[int]) -> dict[str, int]:
    return {str(value): number for value, number in sorted(Counter(values).items())}
