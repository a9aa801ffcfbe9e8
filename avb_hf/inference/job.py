"""What a file of scores is made of: written down before the work, and beside the file when it is there."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from avb_hf import __version__
from avb_hf.data.problems import MAX_LISTED
from avb_hf.inference.batch_plan import BatchPlan
from avb_hf.inference.clip_list import ClipList
from avb_hf.inference.clip_scorer import ClipScorer
from avb_hf.inference.journal import Journal
from avb_hf.inference.predict_arguments import PredictArguments
from avb_hf.inference.score_files import ScoreRow, digest_file, write_scores
from avb_hf.inference.timing import Choice
from avb_hf.whole_files import read_json, sync, write_json

logger = logging.getLogger(__name__)

# What makes scores those of a job; under other conditions their last digits may differ.
_BINDING, _CONDITIONS = ("checkpoint", "options", "inputs"), "made_with"
_PACKAGES = ("torch", "transformers", "numpy", "soundfile", "librosa", "soxr")


@dataclass(frozen=True)
class Outcome:
    """What a complete file holds.

    Attributes:
        clips: Number of its rows.
        failed: How many of them have no scores.
        sha256: Digest of its content, as hexadecimal text.
        bad: The first 20 of those without scores, and why they have none.
    """

    clips: int
    failed: int
    sha256: str
    bad: Sequence[str] = ()


class Job:
    """The work on one file of scores.

    Args:
        output: The file.
        scorer: The model.
        clips: The clips.
        args: How they are read and scored.
    """

    def __init__(self, output: Path, scorer: ClipScorer, clips: ClipList, args: PredictArguments) -> None:
        self.output, self.clips, self.labels = output, clips, scorer.config.label_names
        self.journal = Journal(output.with_name(f"{output.name}.journal"))
        self.record_path = output.with_name(f"{output.name}.json")
        device = scorer.device
        versions = {"avb_hf": __version__, "python": sys.version.split()[0]}
        versions |= {name: version(name) for name in (*_PACKAGES, *scorer.packages)}
        versions["device"] = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
        self.facts: dict[str, Any] = {
            "checkpoint": {"sha256": scorer.digest(), "labels": self.labels},
            "options": args.settings(),
            "inputs": {"clips": len(clips), "sha256": clips.digest()},
            _CONDITIONS: versions,
        }

    def is_complete(self) -> bool:
        """Whether the file is there, made by this job and as it was written."""
        record = _read_record(self.record_path)
        if not self.output.is_file() or record is None or self._differences(record):
            return False
        return record["outcome"]["sha256"] == digest_file(self.output)

    def is_begun(self, overwrite: bool) -> bool:
        """Whether the journal is this job's.

        Args:
            overwrite: Whether a file or a journal that is not this job's may be replaced.

        Raises:
            ValueError: If there is one and it may not, or one that `avb predict` did not write.
        """
        if self.record_path.exists() and _read_record(self.record_path) is None:
            raise ValueError(
                f"{self.record_path} is in the way: `avb predict` did not write it, or it is damaged; "
                "choose another --output, or move it"
            )
        begun = self.journal.read_job()
        changes = [] if begun is None else self._differences(begun)
        if self.output.exists() and not overwrite:
            raise ValueError(f"{self._why_another()}; choose another --output, or replace it by --overwrite")
        if changes and not overwrite:
            raise ValueError(
                f"{self.journal.folder} is the work on another job; --overwrite starts over:\n  " + "\n  ".join(changes)
            )
        if begun is None or changes:
            return False
        for line in _compare(begun, self.facts, _CONDITIONS):
            logger.warning("goes on under other conditions, so the last digits may differ: %s", line)
        return True

    def drop_journal(self) -> None:
        """Delete the journal, which the complete file needs no more, if it is this job's."""
        begun = self.journal.read_job()
        if begun is not None and self._differences(begun):
            logger.warning("%s is the work on another job, and stays", self.journal.folder)
        else:
            self.journal.delete()

    def begin(self, lengths: np.ndarray, choice: Choice) -> None:
        """Fix how the clips, of so many samples `(clips,)`, are run."""
        self.journal.begin(self.facts | {"choice": asdict(choice)}, lengths)

    def read_plan(self) -> tuple[BatchPlan, Choice]:
        """Return the batches and how they are run, as fixed by `begin`.

        Raises:
            ValueError: If the journal is not this job's, as where another process sees other clips.
        """
        begun = self.journal.read_job()
        if begun is None or self._differences(begun):
            raise ValueError(f"{self.journal.folder} is another job's: all processes must see the same files")
        choice = Choice(**begun["choice"])
        return BatchPlan(self.journal.read_lengths(), choice.batch_size, choice.max_samples), choice

    def finish(self) -> float:
        """Write the file from the journal, which must be complete, and delete the journal.

        Returns:
            Seconds of audio that were scored.
        """
        plan, choice = self.read_plan()
        seconds = self.journal.find_batches()
        draft = self.journal.draft(self.output.suffix)
        failed, bad = 0, list[str]()

        def rows() -> Iterator[ScoreRow]:
            nonlocal failed
            for window, batches in plan.windows():
                for row in order_rows(window, self.clips, ((part, *self.journal.read(n)) for n, part in batches)):
                    failed += row[1] is None
                    if row[1] is None and failed <= MAX_LISTED:
                        bad.append(f"{row[0]}: {row[2]}")
                    yield row

        write_scores(draft, self.labels, rows())
        sync([draft])
        outcome = Outcome(len(self.clips), failed, digest_file(draft), bad)
        write_json(self.record_path, self.facts | {"choice": asdict(choice), "outcome": asdict(outcome)})
        draft.replace(self.output)
        self.journal.delete()
        return seconds

    def read_record(self) -> tuple[Outcome, Choice]:
        """Return what the complete file holds, and how its clips were run.

        Raises:
            ValueError: If there is no record of it.
        """
        record = _read_record(self.record_path)
        if record is None:
            raise ValueError(f"{self.record_path} is not there: all processes must see the folder of --output")
        return Outcome(**record["outcome"]), Choice(**record["choice"])

    def _why_another(self) -> str:
        record = _read_record(self.record_path)
        if record is None:
            return f"{self.output} exists, and {self.record_path.name}, which says what it was made of, does not"
        changes = self._differences(record)
        if not changes:
            return f"{self.output} is not as it was written"
        return f"{self.output} is of another job:\n  " + "\n  ".join(changes) + "\n"

    def _differences(self, record: dict[str, Any]) -> list[str]:
        return [line for part in _BINDING for line in _compare(record, self.facts, part)]


def order_rows(
    window: range, clips: ClipList, parts: Iterable[tuple[np.ndarray, list[list[float] | None], list[str | None]]]
) -> Iterator[ScoreRow]:
    """Bring the rows of a window's batches into the order of the clips.

    Args:
        window: Indices of the clips.
        clips: The clips.
        parts: Indices, scores and errors of the clips of each batch.
    """
    rows: dict[int, ScoreRow] = {}
    for indices, scores, errors in parts:
        for clip, clip_scores, error in zip(indices.tolist(), scores, errors, strict=True):
            rows[clip] = (clips.files[clip], clip_scores, error)
    return (rows[clip] for clip in window)


def _compare(before: dict[str, Any], now: dict[str, Any], part: str) -> list[str]:
    then, new = before.get(part, {}), now[part]
    return [
        f"{part}.{name}: {then.get(name)!r} is now {new.get(name)!r}"
        for name in sorted({*then, *new})
        if then.get(name) != new.get(name)
    ]


def _read_record(path: Path) -> dict[str, Any] | None:
    """Return what is written beside a complete file; None if nothing of ours is."""
    try:
        content = read_json(path) if path.is_file() else None
    except ValueError:
        return None
    return content if isinstance(content, dict) and {"choice", "outcome"} <= content.keys() else None
