"""What can be wrong with a corpus: each kind of problem, one problem, and the error that lists them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from avb_hf.data.problems import list_problems

Severity = Literal["error", "warning"]


@dataclass(frozen=True)
class Kind:
    """A kind of problem.

    Attributes:
        severity: An error is what training refuses, or what makes its scores worthless; a warning is worth a look.
        meaning: What is wrong, and the rule by which it is seen.
        skippable: Whether `--on_bad_audio skip` leaves such a clip out instead.
    """

    severity: Severity
    meaning: str
    skippable: bool = False


KINDS: dict[str, Kind] = {
    "unreadable_table": Kind("error", "the table is missing, empty, not UTF-8, or no table at all"),
    "wrong_columns": Kind("error", "the table lacks columns, has unknown ones, or one of them twice"),
    "bad_row": Kind("error", "the row has more or fewer cells than the header, or a cell that it needs cannot be used"),
    "bad_file_id": Kind("error", "the File_ID has characters that no File_ID has"),
    "escaping_path": Kind("error", "the File_ID, path or symbolic link leads out of the corpus's folder"),
    "unknown_split": Kind("error", "the split is none of the known ones"),
    "unlisted_speaker": Kind("error", "the speaker has clips and is not in the table of splits"),
    "undrawable_split": Kind("error", "there are too few clips or speakers to draw a split from"),
    "no_clips": Kind("error", "the folder holds no clip"),
    "empty_split": Kind("error", "no clip is in the train or validation split"),
    "duplicate_file_id": Kind("error", "the File_ID stands in two rows"),
    "duplicate_path": Kind("error", "one audio file stands under two File_IDs"),
    "missing_label": Kind("error", "a label is missing, and the task does not allow that"),
    "bad_label": Kind("error", "a label is no finite number, or a column mixes numbers with text"),
    "label_out_of_range": Kind("error", "a label is outside the task's range"),
    "labels_on_1_9_scale": Kind("error", "nine in ten labels of a column, or more, lie in 1-9 instead of [0, 1]"),
    "unknown_class": Kind("error", "the class is none of the task's"),
    "too_few_classes": Kind("error", "the column of classes holds fewer than two"),
    "ambiguous_audio": Kind("error", "two audio files have the File_ID as their name"),
    "missing_audio": Kind("error", "there is no such audio file", skippable=True),
    "unreadable_audio": Kind("error", "the file is no audio, or damaged", skippable=True),
    "empty_audio": Kind("error", "the file has 0 bytes or 0 samples", skippable=True),
    "truncated_audio": Kind("error", "the file holds less audio than it announces, or lacks its end", skippable=True),
    "nan_audio": Kind("error", "the file holds NaN or infinite samples", skippable=True),
    "too_short": Kind("error", "the clip is shorter than the least that a model takes", skippable=True),
    "too_long": Kind("error", "the clip is longer than --max_duration, or than the model takes", skippable=True),
    "unwanted_channels": Kind("error", "the file has several channels under --channels error", skippable=True),
    "cancelling_channels": Kind("error", "the file's channels average to silence", skippable=True),
    "duplicated_audio_across_splits": Kind("error", "clips of two splits hold the same samples, bit by bit"),
    "duplicated_audio": Kind("warning", "clips of one split hold the same samples, bit by bit"),
    "silent_audio": Kind("warning", "no sample is above -80 dBFS"),
    "clipped_audio": Kind("warning", "4 or more samples in a row are at full scale or beyond"),
    "other_sampling_rate": Kind("warning", "the file is not at 16 kHz; it is resampled"),
    "several_channels": Kind("warning", "the file has several channels; --channels says which are used"),
    "orphan_audio": Kind("warning", "an audio file of the corpus's folder that no row names"),
    "speaker_in_two_splits": Kind("warning", "one speaker is heard in two splits"),
    "columns_out_of_order": Kind("warning", "label columns stand in another order than the task's; names decide"),
    "similar_classes": Kind("warning", "names of classes differ only in case or in blanks around them"),
    "rare_class": Kind("warning", "the class has no clip in a split, or fewer than 3 in the train split"),
    "classes_as_numbers": Kind(
        "warning", "the one label column holds up to 10 whole numbers and is read as a regression"
    ),
    "unusable_test_labels": Kind("warning", "the test split has labels, but some cannot be used: it is not scored"),
}


@dataclass(frozen=True)
class Finding:
    """One problem of a corpus.

    Attributes:
        kind: Key of `KINDS`.
        message: What exactly is wrong.
        file_id: The clip that has it, if it is one clip's.
        path: The file that has it, if it is a file's.
        place: The table's name and line that say so (`high_info.csv, line 7`).
    """

    kind: str
    message: str
    file_id: str | None = None
    path: str | None = None
    place: str | None = None

    @property
    def severity(self) -> Severity:
        """`error` or `warning`, as its kind."""
        return KINDS[self.kind].severity

    def __str__(self) -> str:
        named = ", ".join(filter(None, (self.place, self.file_id and f"File_ID {self.file_id}")))
        where = f"{named} ({self.path})" if named and self.path else named or self.path
        return f"{where}: {self.message}" if where else self.message


class CorpusError(ValueError):
    """A corpus that cannot be used.

    Args:
        findings: Why, at least one; the message lists the first 20 and counts all.
        heading: What was read, and where.
    """

    def __init__(self, findings: Sequence[Finding], heading: str = "") -> None:
        super().__init__(findings, heading)
        self.findings, self.heading = findings, heading

    def __str__(self) -> str:
        if not self.heading and len(self.findings) == 1:
            return str(self.findings[0])
        return list_problems(self.findings, self.heading)


def raise_errors(findings: Sequence[Finding], heading: str) -> None:
    """Raise one `CorpusError` for all errors among the findings, unless there are none.

    Args:
        findings: Errors and warnings.
        heading: What was read, and where.

    Raises:
        CorpusError: If there is an error; warnings are left out of it.
    """
    errors = [finding for finding in findings if finding.severity == "error"]
    if errors:
        raise CorpusError(errors, heading)
