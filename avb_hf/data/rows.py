"""What the rows of a listing say: that names, splits and speakers fit together, and what the labels are."""

import logging
from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from avb_hf.data.arguments import DataArguments
from avb_hf.data.findings import Finding
from avb_hf.data.labels import (
    columns_on_1_9_scale,
    find_bad_labels,
    labels_vary,
    missing_label,
    parse_labels,
)
from avb_hf.data.listing import Clip, Listing
from avb_hf.data.locations import LinkFollower
from avb_hf.data.splits import SPLITS
from avb_hf.tasks import TaskSpec

logger = logging.getLogger(__name__)

# Kinds of rows that name no clip, or no split of it: what they leave empty may be full once they are mended.
_REFUSED = ("bad_row", "bad_file_id", "escaping_path", "unknown_split", "unlisted_speaker")


def check_rows(listing: Listing, findings: list[Finding]) -> None:
    """Add to `findings` what is wrong with a listing's names, splits and speakers."""
    present = {clip.split for clip in listing.clips}
    were_refused = any(finding.kind in _REFUSED for finding in findings)
    findings += [
        Finding("empty_split", f"no clip is in the {split} split; there are {sorted(filter(None, present))}")
        for split in SPLITS[:2]
        if split not in present and not were_refused
    ]
    findings += _find_duplicates(listing.clips)
    findings += _find_torn_speakers(listing.clips)


def read_labels(listing: Listing, task: TaskSpec, args: DataArguments, findings: list[Finding]) -> np.ndarray:
    """Parse the labels of all clips.

    Args:
        listing: The clips.
        task: What the labels mean.
        args: Whether labels may be missing.
        findings: Takes up labels that cannot be used.

    Returns:
        A row each clip, as `parse_labels` gives them; those of a test split that counts as unlabelled are missing ones.
    """
    is_lenient = np.array([clip.split == "test" and not listing.test_is_labelled for clip in listing.clips], dtype=bool)
    labels = parse_labels(listing.cells, task)
    scaled = columns_on_1_9_scale(labels[~is_lenient], task)
    findings += [
        Finding("labels_on_1_9_scale", f"column {column} looks rated on a scale of 1-9; map it to [0, 1] first")
        for column in scaled
    ]
    bad = find_bad_labels(listing.cells, labels, task, task.allow_missing or args.allow_missing_labels, scaled)
    problems = {
        row: Finding(error.kind, str(error), listing.clips[row].file_id, place=listing.clips[row].place)
        for row, error in bad.items()
    }
    findings += [problem for row, problem in problems.items() if not is_lenient[row]]
    unusable = [problem for row, problem in problems.items() if is_lenient[row]]
    if not is_lenient.any() or (not unusable and labels_vary(labels[is_lenient], task)):
        return labels
    message = "the test split counts as unlabelled, it is predicted and not scored: "
    # Placeholders are the same in all rows, or nothing.
    test_cells = listing.cells.filter(pa.array(is_lenient))
    if unusable and any(len(column.unique()) > 1 for column in test_cells.columns):
        message += f"{len(unusable)} of its rows cannot be used, first {unusable[0]}"
        findings.append(Finding("unusable_test_labels", message))
    else:
        logger.warning("%s: %s%s", listing.where, message, unusable[0] if unusable else "all rows have the same labels")
    labels[is_lenient] = missing_label(task)
    return labels


def _find_duplicates(clips: Sequence[Clip]) -> list[Finding]:
    findings = []
    links = LinkFollower()
    by_name: dict[str, Clip] = {}
    by_file: dict[str, Clip] = {}
    for clip in clips:
        # One file under two names is the same leak as one name in two rows.
        keys = (("duplicate_file_id", by_name, clip.file_id), ("duplicate_path", by_file, links.follow(clip.path)))
        for kind, first_of, key in keys:
            first = first_of.setdefault(key, clip)
            if first is not clip:
                what = "the File_ID" if kind == "duplicate_file_id" else f"the file of File_ID {first.file_id}"
                message = f"is {what} of {first.place} ({first.split}) again, here in {clip.split}"
                findings.append(Finding(kind, message, clip.file_id, clip.path, clip.place))
                break
    return findings


def _find_torn_speakers(clips: Sequence[Clip]) -> list[Finding]:
    splits: dict[str, set[str]] = {}
    for clip in clips:
        if clip.speaker is not None and clip.split is not None:
            splits.setdefault(clip.speaker, set()).add(clip.split)
    return [
        Finding("speaker_in_two_splits", f"speaker {speaker} is heard in {sorted(heard)}")
        for speaker, heard in splits.items()
        if len(heard) > 1
    ]
