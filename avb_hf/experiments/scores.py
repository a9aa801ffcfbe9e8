"""The score of a finished run with its interval, from its predictions and the corpus's labels."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import NamedTuple

import numpy as np

from avb_hf.data.arguments import DataArguments
from avb_hf.data.findings import Finding
from avb_hf.data.labels import is_given
from avb_hf.data.rows import read_labels
from avb_hf.data.sources import list_clips
from avb_hf.evaluation.prediction_files import read_predictions
from avb_hf.evaluation.statistics import HEADLINES, bootstrap_interval
from avb_hf.experiments.jobs import ALL_RESULTS, PREDICTIONS, Job
from avb_hf.tasks import TaskSpec
from avb_hf.training.outcome import PREFIXES, TEST, VALIDATION
from avb_hf.whole_files import read_json, write_json

# Our name of a split by the paper's.
SPLITS = {"val": VALIDATION, "test": TEST}
# A table keeps fewer digits than the run had: ties may fall otherwise.
TOLERANCE = 1e-3


@dataclass(frozen=True)
class Score:
    """A score of one run on one split.

    Attributes:
        value: The headline score, in [-1, 1].
        low: Lower end of its 95 % interval.
        high: Upper end of its 95 % interval.
        num_clips: Number of clips.
        num_speakers: Number of speakers, who were drawn for the interval; 0 if they are unknown: then clips were drawn.
    """

    value: float
    low: float
    high: float
    num_clips: int
    num_speakers: int


class Answers(NamedTuple):
    """Predictions of one split beside the corpus's labels.

    Attributes:
        predictions: Scores of shape `(num_clips, num_labels)`.
        labels: Labels, as the task's metric takes them.
        speakers: Speaker of each clip; None where one is unknown, or there is only one.
    """

    predictions: np.ndarray
    labels: np.ndarray
    speakers: list[str] | None


class Truth(NamedTuple):
    """What the corpus says of all clips.

    Attributes:
        labels: Labels of a clip, as the task's metric takes them, by its File_ID.
        speakers: Its speaker, or None, by its File_ID.
        splits: Its split, or None, by its File_ID.
        digest: Of all that.
    """

    labels: dict[str, np.ndarray]
    speakers: dict[str, str | None]
    splits: dict[str, str | None]
    digest: str


class Scorer:
    """Scores finished runs; reads the labels of a task once, and keeps an interval beside the run that it is of.

    What is kept counts for the same predictions, labels and speakers alone.

    Args:
        data: Which labels are read, by the name of the task.
    """

    def __init__(self, data: Mapping[str, DataArguments]) -> None:
        self._data = data
        self._read: dict[str, Truth] = {}

    def score(self, job: Job, split: str) -> Score | None:
        """Return a finished run's score on a split, `val` or `test`; None if that has no labels.

        Raises:
            ValueError: If the labels are not those that the run was scored with, or it was not scored on validation.
        """
        kept_in = job.folder.with_name(f"{job.name}.scores.json")
        predictions = hashlib.sha256((job.folder / PREDICTIONS).read_bytes()).hexdigest()
        digests = {"predictions": predictions, "truth": self._truth_of(job.run.task).digest}
        kept = read_json(kept_in) if kept_in.is_file() else {}
        if any(kept.get(name) != digest for name, digest in digests.items()):
            kept = digests
        if split not in kept:
            score = self._compute(job, split)
            if score is None:
                return None
            write_json(kept_in, kept | {split: asdict(score)})
            return score
        return Score(**kept[split])

    def answers(self, job: Job, split: str) -> Answers | None:
        """Return a finished run's predictions of a split beside the labels; None if it has no labels.

        Raises:
            ValueError: If there is no such split, or a clip is not in the corpus, or in another of its splits.
        """
        task = job.run.task
        labels, speakers, splits, _ = self._truth_of(task)
        table = read_predictions(job.folder / PREDICTIONS, task)
        table = table[table["split"] == SPLITS[split]]
        if table.empty:
            raise ValueError(f"{job.folder}: the corpus had no {SPLITS[split]} split")
        strange = [file_id for file_id in table["file_id"] if file_id not in labels]
        if strange:
            raise ValueError(f"{job.folder}: the corpus has no clips {strange[:10]}, which the run predicted")
        moved = [file_id for file_id in table["file_id"] if splits[file_id] != SPLITS[split]]
        if moved:
            raise ValueError(
                f"{job.folder}: clips {moved[:10]} were of the {SPLITS[split]} split in the run, and are not now; "
                "another split needs another --output_dir"
            )
        of_split = np.asarray([labels[file_id] for file_id in table["file_id"]], dtype=np.float64)
        if not is_given(of_split, task).any():
            return None
        heard = [speakers[file_id] for file_id in table["file_id"]]
        names = [speaker for speaker in heard if speaker is not None]
        are_known = len(names) == len(heard) and len(set(names)) > 1
        return Answers(table[list(task.labels)].to_numpy(), of_split, names if are_known else None)

    def _compute(self, job: Job, split: str) -> Score | None:
        task, answers = job.run.task, self.answers(job, split)
        if answers is None:
            return None
        again = HEADLINES[task.metric](answers.predictions, answers.labels, task)
        results, name = read_json(job.folder / ALL_RESULTS), f"{PREFIXES[SPLITS[split]]}_{task.metric}"
        if split == "val" and name not in results:
            raise ValueError(f"{job.folder / ALL_RESULTS} must hold {name}, got {sorted(results)}")
        value = results.get(name, again)  # labels of a test split may come later
        if not abs(value - again) <= TOLERANCE:
            raise ValueError(
                f"{job.folder}: the labels are not those of the run: it was scored {value:.4f} {task.metric} on "
                f"{split}, its predictions score {again:.4f} now"
            )
        interval = bootstrap_interval(task, *answers)
        speakers = set(answers.speakers or ())
        return Score(value, interval.low, interval.high, len(answers.labels), len(speakers))

    def _truth_of(self, task: TaskSpec) -> Truth:
        if task.name not in self._read:
            data, findings = self._data[task.name], list[Finding]()
            listing = list_clips(task, data, findings)
            labels = read_labels(listing, task, data, findings)
            speakers = {clip.file_id: clip.speaker for clip in listing.clips}
            names = [clip.file_id for clip in listing.clips]
            splits = {clip.file_id: clip.split for clip in listing.clips}
            facts = json.dumps([task.labels, list(splits.items()), list(speakers.items())]).encode() + labels.tobytes()
            by_name = dict(zip(names, labels, strict=True))
            self._read[task.name] = Truth(by_name, speakers, splits, hashlib.sha256(facts).hexdigest())
        return self._read[task.name]


def mean_score(scores: Sequence[Score]) -> Score:
    """Return what several seeds have in common: the mean of their scores and of the ends of their intervals.

    Such an interval says what other speakers, or clips, might have given, not other seeds.
    """
    value, low, high = np.mean([(score.value, score.low, score.high) for score in scores], axis=0).tolist()
    return replace(scores[0], value=value, low=low, high=high)
