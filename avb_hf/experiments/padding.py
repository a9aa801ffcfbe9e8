"""Is "last is best" real? Poolings with and without padding, with and without RNN, on the same frozen states."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import NamedTuple

import numpy as np
from datasets import Dataset, DatasetDict

from avb_hf.data.arguments import DataArguments
from avb_hf.data.listing import Clip
from avb_hf.data.sources import list_clips
from avb_hf.data.splits import subsample
from avb_hf.evaluation.statistics import Interval, group_scores, paired_t_interval, t_interval
from avb_hf.experiments.experiment import Report
from avb_hf.experiments.jobs import Job, Run, data_words
from avb_hf.experiments.runner import DONE
from avb_hf.experiments.scores import SPLITS, Scorer
from avb_hf.tasks import TaskSpec
from avb_hf.whole_files import whole_file

RNNS = ("lstm", "none")
# Pooling, and whether padded frames are left out of it; first and last pick one frame of the clip, padded or not.
MASKED = {"first": ("true",), "last": ("true",), "max": ("true", "false"), "mean": ("true", "false")}
# What is frozen has no dropout. Batches at random, as the published code made them, are padded most.
FLAGS = (
    "--freeze", "backbone", "--cache", "auto", "--length_pool", "1", "--precision", "fp32", "--learning_rate", "0.001",
    "--num_train_epochs", "10",
)  # fmt: skip
COLUMNS = ("split", "rnn", "system", "minus", "percent", "low", "high", "speakers", "seeds", "verdict")
EXPLANATION = """\
# Is "last" best, or is it padding?

The same cached states of a frozen backbone, batches at random, no dropout; `max` and `mean` once over the frames of a
clip alone (masked) and once over the padding of its batch too (unmasked), in training and in scoring. Padded frames of
cached states are zeros in front of the recurrent layer, where the published code pooled what its encoder made of
padding. Each number is
the mean over {speakers} speakers of the {metric} of a speaker's clips, itself the mean over {seeds} seeds, in percent,
with Student's 95 % interval over the speakers; differences are paired by speaker, over the seeds that both systems
have. Undecided: the interval holds zero. Of twenty such intervals one misses the truth on average, and none here is
corrected for being one of many. The epoch was chosen on the validation split, so only the test split is clean.
"""


class Line(NamedTuple):
    """One line of the study's table.

    Attributes:
        split: `val` or `test`.
        rnn: `lstm` or `none`.
        system: Pooling and mask.
        minus: What is subtracted; empty where the line is the system's own score.
        percent: Mean over the speakers.
        interval: Its 95 % interval, in percent.
        num_speakers: Number of speakers.
        num_seeds: Number of seeds.
    """

    split: str
    rnn: str
    system: str
    minus: str
    percent: float
    interval: Interval
    num_speakers: int
    num_seeds: int

    @property
    def verdict(self) -> str:
        """`higher`, `lower` or `undecided` of a difference; empty for a score."""
        if not self.minus:
            return ""
        return "higher" if self.interval.low > 0 else "lower" if self.interval.high < 0 else "undecided"


class PaddingStudy:
    """Poolings, mask and RNN on the same cached states.

    Args:
        data: Which clips and labels are read; speakers must be known, and two or more in validation and test.
        task: What they are.
        backbone: Hub id or folder of the backbone that is frozen.
        train_flags: Further flags, which win.

    Raises:
        ValueError: If the corpus cannot be read, a speaker is unknown, or validation or test has too few to compare.
    """

    def __init__(self, data: DataArguments, task: TaskSpec, backbone: str, train_flags: Sequence[str]) -> None:
        self.task, self.data = task, data
        self.splits = _comparable_splits(list_clips(task, data, []).clips, task, data)
        self.run_by_system: dict[tuple[str, str], Run] = {}
        for rnn, pooling in product(RNNS, MASKED):
            for masked in MASKED[pooling]:
                words = ["train", *data_words(data), "--model_name_or_path", backbone, "--rnn", rnn]
                words += ["--pooling", pooling, "--pooling_mask", masked, *FLAGS, *train_flags]
                name = _name(pooling, masked)
                self.run_by_system[rnn, name] = Run(
                    "-".join(("padding", task.name, rnn, *name.split())), tuple(words), task, f"rnn {rnn}", backbone
                )
        self.runs = list(self.run_by_system.values())
        self.other_runs: list[Run] = []

    def require(self) -> None:
        """Its tables need no further package."""

    def report(self, outcomes: Mapping[Job, str], folder: Path) -> Report:
        """Write `padding.csv` and `padding.md`.

        Raises:
            ValueError: If no run is finished.
        """
        lines = list(self._compare(outcomes, Scorer({self.task.name: self.data})))
        if not lines:
            raise ValueError("no run of the study is finished, so there is nothing to compare")
        _write_csv(lines, folder / "padding.csv")
        text = self._as_markdown(lines)
        with whole_file(folder / "padding.md") as draft:
            draft.write_text(text, encoding="utf-8")
        is_complete = all(outcome == DONE for outcome in outcomes.values())
        return Report(text, (folder / "padding.csv", folder / "padding.md"), is_complete)

    def _compare(self, outcomes: Mapping[Job, str], scorer: Scorer) -> Iterator[Line]:
        done = [job for job, outcome in outcomes.items() if outcome == DONE]
        for split, rnn in product(self.splits, RNNS):
            scores = {}
            for (of_rnn, name), run in self.run_by_system.items():
                jobs = [job for job in done if job.run == run and of_rnn == rnn]
                by_seed = _by_speaker(jobs, split, scorer)
                if by_seed:
                    scores[name] = by_seed
            for name, by_seed in scores.items():
                values = np.mean(list(by_seed.values()), axis=0)
                line = (split, rnn, name, "", 100 * float(np.nanmean(values)))
                yield Line(*line, _percent(t_interval(values)), len(values), len(by_seed))
            for name, other in _pairs(scores):
                seeds = sorted(scores[name].keys() & scores[other].keys())
                if seeds:
                    ours, theirs = (np.mean([scores[each][seed] for seed in seeds], axis=0) for each in (name, other))
                    interval = _percent(paired_t_interval(ours, theirs))
                    difference = 100 * float(np.nanmean(ours - theirs))
                    yield Line(split, rnn, name, other, difference, interval, len(ours), len(seeds))

    def _as_markdown(self, lines: Sequence[Line]) -> str:
        facts = {"metric": self.task.metric.upper(), "seeds": _either(line.num_seeds for line in lines)}
        parts = [EXPLANATION.format(speakers=_either(line.num_speakers for line in lines), **facts)]
        for split, title in (("test", "Test"), ("val", "Validation")):
            of_split = [line for line in lines if line.split == split]
            if not of_split:
                continue
            parts.append(f"## {title}\n")
            parts.append("| RNN | pooling | score (95 % interval) |\n| --- | --- | --- |\n" + _rows(of_split, False))
            parts.append("| RNN | difference | points | verdict |\n| --- | --- | --- | --- |\n" + _rows(of_split, True))
        return "\n".join(parts)


def _comparable_splits(clips: Sequence[Clip], task: TaskSpec, data: DataArguments) -> list[str]:
    """Return which of `val` and `test` there are; refuse a split whose speakers are too few to be compared."""
    if any(clip.speaker is None for clip in clips):
        raise ValueError(f"the study compares speakers, and --source {data.source} knows none of some clips")
    speakers = {word: [str(clip.speaker) for clip in clips if clip.split == split] for word, split in SPLITS.items()}
    there = DatasetDict({word: Dataset.from_dict({"speaker": names}) for word, names in speakers.items() if names})
    if not there:
        raise ValueError("the study compares validation and test speakers, and the corpus has neither split")
    fewest = 1 if task.is_classification else 2  # of one clip there is no CCC
    for word, split in subsample(there, None, data.max_eval_samples, data.split_seed).items():
        counts = Counter(split["speaker"])
        if sum(count >= fewest for count in counts.values()) < 2:
            raise ValueError(
                f"the study compares speakers: the {SPLITS[word]} split needs two or more with {fewest} clips or more "
                f"each, got clips by speaker {dict(counts.most_common(10))}"
            )
    return list(there)


def _name(pooling: str, masked: str) -> str:
    if len(MASKED[pooling]) == 1:
        return pooling
    return f"{pooling} {'masked' if masked == 'true' else 'unmasked'}"


def _pairs(names: Collection[str]) -> Iterator[tuple[str, str]]:
    """Give masked and unmasked of each pooling, then last and each other."""
    pairs = [(name, name.replace(" masked", " unmasked")) for name in names if name.endswith(" masked")]
    pairs += [("last", name) for name in names if name != "last"]
    yield from (pair for pair in pairs if set(pair) <= set(names))


def _by_speaker(jobs: Sequence[Job], split: str, scorer: Scorer) -> dict[int, np.ndarray]:
    """Return each speaker's score, of shape `(num_speakers,)`, by the seed; nothing of a split without labels."""
    by_seed = {}
    for job in jobs:
        answers = scorer.answers(job, split)
        if answers is not None and answers.speakers is not None:
            scores = group_scores(job.run.task, answers.predictions, answers.labels, answers.speakers)
            by_seed[job.seed] = np.asarray([scores[speaker] for speaker in sorted(scores)])
    return by_seed


def _percent(interval: Interval) -> Interval:
    return Interval(100 * interval.low, 100 * interval.high)


def _either(numbers: Iterator[int]) -> str:
    return " or ".join(map(str, sorted(set(numbers))))


def _rows(lines: Sequence[Line], differences: bool) -> str:
    rows = ""
    for line in (line for line in lines if bool(line.minus) == differences):
        sign = "+" if differences else ""
        score = f"{line.percent:{sign}.2f} ({line.interval.low:{sign}.2f} to {line.interval.high:{sign}.2f})"
        cells = [line.rnn, f"{line.system} − {line.minus}", score, line.verdict] if differences else []
        rows += f"| {' | '.join(cells or [line.rnn, line.system, score])} |\n"
    return rows


def _write_csv(lines: Sequence[Line], path: Path) -> None:
    with whole_file(path) as draft, draft.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        for line in lines:
            numbers = [f"{number:.2f}" for number in (line.percent, *line.interval)]
            writer.writerow([*line[:4], *numbers, line.num_speakers, line.num_seeds, line.verdict])
