"""From a listing of clips to checked datasets."""

import logging
from collections.abc import Sequence
from typing import Any, NamedTuple, NoReturn

import numpy as np
import pyarrow as pa
from datasets import Dataset, DatasetDict, Features, List, Value
from datasets.fingerprint import generate_random_fingerprint

from avb_hf.data.arguments import DataArguments
from avb_hf.data.audio import SAMPLING_RATE, AudioHeader
from avb_hf.data.classes import ClassCounts, count_classes, find_odd_classes
from avb_hf.data.clips import count
from avb_hf.data.findings import KINDS, CorpusError, Finding, raise_errors
from avb_hf.data.inspection import ClipAudio, inspect_audio
from avb_hf.data.listing import Clip, Listing
from avb_hf.data.rows import check_rows, read_labels
from avb_hf.data.splits import SPLITS
from avb_hf.tasks import TaskSpec

logger = logging.getLogger(__name__)


class Examination(NamedTuple):
    """What the rows and files of a listing hold.

    Attributes:
        labels: Labels of each clip, in the listing's order.
        audio: What each clip's file holds, in the listing's order.
        classes: Number of clips by split and class, as `count_classes` tells.
    """

    labels: np.ndarray
    audio: list[ClipAudio]
    classes: ClassCounts


class _Row(NamedTuple):
    number: int
    clip: Clip
    header: AudioHeader


def examine(
    listing: Listing,
    task: TaskSpec,
    args: DataArguments,
    findings: list[Finding],
    decoded: bool = False,
    num_workers: int = 1,
    use_index: bool = False,
) -> Examination:
    """Check all rows and audio files of a listing.

    Args:
        listing: The clips.
        task: What the labels mean.
        args: How to read labels and audio.
        findings: Takes up all that is wrong.
        decoded: Whether to decode every clip rather than to read the headers alone.
        num_workers: Threads that read the audio.
        use_index: Whether headers may come from the user's cache.
    """
    check_rows(listing, findings)
    labels = read_labels(listing, task, args, findings)
    classes = count_classes(listing.clips, labels, task)
    findings += find_odd_classes(classes)
    audio = inspect_audio(listing.clips, args, decoded, num_workers, use_index)
    findings += [finding for held in audio for finding in held.findings]
    return Examination(labels, audio, classes)


def make_splits(
    listing: Listing,
    task: TaskSpec,
    args: DataArguments,
    findings: list[Finding],
    skipped: list[Finding] | None = None,
) -> DatasetDict:
    """Check labels and audio of all clips and build the corpus.

    Args:
        listing: The clips, in the order of the result.
        task: What the labels mean.
        args: How to read labels and audio, and whether clips whose audio cannot be used are left out.
        findings: What was found so far; takes up what is found here.
        skipped: Takes up why each clip was left out.

    Returns:
        Splits with the columns `file_id`, `path`, `labels` (NaN or class -100 where missing), `duration` in seconds,
        after a crop, `sampling_rate` in Hz, `num_channels`, and `speaker` if known.

    Raises:
        CorpusError: If anything found is an error, or too many clips would be left out.
    """
    decoded = args.on_bad_audio == "skip"
    labels, audio, _ = examine(listing, task, args, findings, decoded, use_index=not decoded)
    left_out = _take_bad_clips(listing, task, args, findings)
    raise_errors(findings, str(listing.where))
    for finding in findings:
        if finding.file_id is None:
            logger.warning("%s: %s", listing.where, finding)
    for finding in left_out:
        logger.warning("left out: %s", finding)
    if skipped is not None:
        skipped += left_out
    names = {finding.file_id for finding in left_out}
    rows = [  # a file without a header was an error above
        _Row(number, clip, held.header)
        for number, (clip, held) in enumerate(zip(listing.clips, audio, strict=True))
        if clip.file_id not in names and held.header is not None
    ]
    _log_audio([row.header for row in rows], args)
    by_split = {name: [row for row in rows if row.clip.split == name] for name in SPLITS}
    return DatasetDict({name: _make_dataset(part, labels, task, args) for name, part in by_split.items() if part})


def _take_bad_clips(listing: Listing, task: TaskSpec, args: DataArguments, findings: list[Finding]) -> list[Finding]:
    """Take out of `findings` what is answered by leaving the clip out."""
    if args.on_bad_audio == "error":
        return []
    bad = [finding for finding in findings if KINDS[finding.kind].skippable]
    # A contest file needs a prediction for every clip of its test split.
    needed = {clip.file_id for clip in listing.clips if clip.split == "test" and task.submission_name is not None}
    if any(finding.file_id in needed for finding in bad):
        raise_errors(findings, f"{listing.where}: clips of a contest's test split are never left out")
    names = {finding.file_id for finding in bad}
    share = len(names) / max(_count_rows(listing, findings), 1)
    if share > args.max_bad_audio:
        limit = f"more than --max_bad_audio {args.max_bad_audio:g} allows to leave out"
        _refuse(f"{listing.where}: {share:.2%} of the clips have audio that cannot be used, {limit}", findings)
    for split in SPLITS:
        part = {clip.file_id for clip in listing.clips if clip.split == split}
        if part and part <= names:
            _refuse(f"{listing.where}: --on_bad_audio skip would leave no clip in the {split} split", findings)
    findings[:] = [finding for finding in findings if not KINDS[finding.kind].skippable]
    return bad


def _count_rows(listing: Listing, findings: Sequence[Finding]) -> int:
    """Count the clips of a table, those included whose row was refused and is in no listing."""
    rows = {clip.place or clip.file_id for clip in listing.clips}
    return len(rows | {finding.place for finding in findings if finding.place is not None})


def _refuse(heading: str, findings: Sequence[Finding]) -> NoReturn:
    """Raise all errors: those of bad audio, and those that could not be left out anyway."""
    errors = [finding for finding in findings if finding.severity == "error"]
    bad = [finding for finding in errors if KINDS[finding.kind].skippable]
    others = [finding for finding in errors if not KINDS[finding.kind].skippable]
    if others:
        heading += f"; {len(others)} other problems cannot be left out"
    # The list is cut off: the fewer come first, so that some of both are seen.
    raise CorpusError(bad + others if len(bad) <= len(others) else others + bad, heading)


def _make_dataset(rows: Sequence[_Row], labels: np.ndarray, task: TaskSpec, args: DataArguments) -> Dataset:
    label_type = Value("int64") if task.is_classification else List(Value("float64"))
    columns: dict[str, tuple[Any, Sequence[Any]]] = {
        "file_id": (Value("string"), [row.clip.file_id for row in rows]),
        "path": (Value("string"), [row.clip.path for row in rows]),
        "labels": (label_type, _as_column(labels[[row.number for row in rows]])),
        "duration": (Value("float64"), [min(row.header.duration, args.max_duration) for row in rows]),
        "sampling_rate": (Value("int32"), [row.header.sampling_rate for row in rows]),
        "num_channels": (Value("int32"), [row.header.channels for row in rows]),
    }
    if all(row.clip.speaker is not None for row in rows):
        columns["speaker"] = (Value("string"), [row.clip.speaker for row in rows])
    features = Features({name: feature for name, (feature, _) in columns.items()})
    table = pa.table({name: values for name, (_, values) in columns.items()}, schema=features.arrow_schema)
    # `Dataset.from_dict` would encode the rows one by one, and a fingerprint of the content pickle the whole table.
    return Dataset(table, fingerprint=generate_random_fingerprint())


def _as_column(labels: np.ndarray) -> pa.Array:
    if labels.ndim == 1:
        return pa.array(labels)
    starts = np.arange(0, labels.size + 1, labels.shape[1], dtype=np.int32)
    return pa.ListArray.from_arrays(starts, labels.ravel())


def _log_audio(headers: Sequence[AudioHeader], args: DataArguments) -> None:
    rates = count(header.sampling_rate for header in headers if header.sampling_rate != SAMPLING_RATE)
    several = sum(header.channels > 1 for header in headers)
    logger.info("%d clips, %.2f h", len(headers), sum(header.duration for header in headers) / 3600)
    if rates:
        logger.info("clips to be resampled to %d Hz, by their rate in Hz: %s", SAMPLING_RATE, rates)
    if several:
        logger.info("%d clips have several channels (--channels %s)", several, args.channels)
