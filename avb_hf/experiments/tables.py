"""Our scores beside the published ones: as a CSV table, and as Markdown in the paper's layout."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass
from pathlib import Path

from avb_hf.experiments.grid import Settings, run_of
from avb_hf.experiments.jobs import Job
from avb_hf.experiments.published import COLUMNS, PublishedScore
from avb_hf.experiments.runner import DONE, NOT_RUN, one_line
from avb_hf.experiments.scores import Score, Scorer, mean_score
from avb_hf.whole_files import whole_file

SUBMITTED = "submitted file"
BAR = "\\|"  # one that parts no cells
OUR_COLUMNS = ("ours", "low", "high", "seeds", "n", "status")
CAVEAT = """\
Validation scores are those of the epoch that was best on the very clips that are scored, so they flatter, ours as the
paper's; test scores do not. Each cell: ours (95 % interval, seeds) | published | difference, in percent. Ours is the
mean over the seeds, and so are the ends of the interval, a percentile bootstrap that draws {units}
with replacement: it tells what others of them might have given, not other seeds, and of few speakers it is too narrow.
"""
# Behind the team's name in the contest files of the organisers' baseline.
BASELINE_SUFFIX = "-emo18"
SUBMITTED_NOTE = f"""\
`submitted file`: the test labels are not public, the contest files are in `submissions`, those of the organisers'
baseline with `{BASELINE_SUFFIX}` behind the team's name.
"""
# Of an interval whose resamples draw clips, since speakers are not known.
OVER_CLIPS = " over clips"


@dataclass(frozen=True)
class Layout:
    """How one table of the paper is laid out.

    Attributes:
        title: What the table compares.
        rows: Field of the published scores by which rows differ.
        columns: Field by which columns differ.
    """

    title: str
    rows: str
    columns: str


LAYOUTS = {
    "I": Layout("extractors", rows="backbone", columns="task"),
    "II": Layout("poolings", rows="pooling", columns="backbone"),
    "III": Layout("losses", rows="loss", columns="backbone"),
    "IV": Layout("with and without RNN", rows="rnn", columns="task"),
    "V": Layout("final models, 50 epochs with early stopping", rows="backbone", columns="task"),
}
HEADINGS = {"val": "validation", "test": "test"}
# How the paper writes what its tables compare; other words are written in capitals.
NAMES = {
    "end2you": "End2You (Emo-18)", "first": "First", "max": "Max", "mean": "Avg", "last": "Last", "none": "Without RNN",
    "lstm": "With RNN", "given": "Given backbone", "classes": "30 classes", "indicators": "30 indicators",
}  # fmt: skip


@dataclass(frozen=True)
class Result:
    """A published score and what became of it here.

    Attributes:
        published: The score of the paper.
        ours: Mean over the seeds that are done; None if there is none.
        outcomes: What became of each seed: `done`, `submitted file`, `not run`, or `failed: ` and why.
    """

    published: PublishedScore
    ours: Score | None
    outcomes: tuple[str, ...]

    @property
    def gaps(self) -> list[str]:
        """The outcomes of seeds that came to nothing."""
        return [outcome for outcome in self.outcomes if outcome not in (DONE, SUBMITTED)]

    @property
    def num_seeds(self) -> int:
        """Number of seeds that are done."""
        return len(self.outcomes) - len(self.gaps)

    @property
    def status(self) -> str:
        """What became of the first seed that came to nothing; else what became of all."""
        return next(iter([*self.gaps, *self.outcomes]), NOT_RUN)

    @property
    def percent(self) -> tuple[float, float, float] | None:
        """Our score and the ends of its interval, in percent; None if there is none."""
        return None if self.ours is None else (100 * self.ours.value, 100 * self.ours.low, 100 * self.ours.high)


def gather(
    published: Sequence[PublishedScore], settings: Settings, outcomes: Mapping[Job, str], scorer: Scorer
) -> list[Result]:
    """Return what became of each published score, in their order.

    Args:
        published: The scores of the paper.
        settings: What makes runs of them.
        outcomes: What became of each job; a run that is in none was not asked for.
        scorer: Scores the jobs that are done.
    """
    jobs: dict[str, list[Job]] = {}
    for job in outcomes:
        jobs.setdefault(job.run.key, []).append(job)
    return [_result(score, jobs.get(run_of(score, settings).key, []), outcomes, scorer) for score in published]


def _result(published: PublishedScore, jobs: Sequence[Job], outcomes: Mapping[Job, str], scorer: Scorer) -> Result:
    scores: list[Score] = []
    became: list[str] = []
    for job in jobs:
        score, outcome = None, outcomes[job]
        if outcome == DONE:
            try:
                score = scorer.score(job, published.split)
                outcome = DONE if score is not None else SUBMITTED
            except ValueError as error:
                outcome = f"failed: {one_line(str(error))}"
        if score is not None:
            scores.append(score)
        became.append(outcome)
    return Result(published, mean_score(scores) if scores else None, tuple(became))


def write_csv(results: Sequence[Result], path: Path) -> None:
    """Write all results: the columns of the published scores, then ours in percent, interval, seeds, clips, status."""
    with whole_file(path) as draft, draft.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow([*COLUMNS, *OUR_COLUMNS])
        for result in results:
            numbers = ["", "", ""] if result.percent is None else [f"{number:.2f}" for number in result.percent]
            num_clips = "" if result.ours is None else result.ours.num_clips
            writer.writerow([*astuple(result.published), *numbers, result.num_seeds, num_clips, result.status])


def as_markdown(results: Sequence[Result], asked: Sequence[str]) -> str:
    """Lay out results as the paper's tables, validation and test apart: those of `tables_of`."""
    parts = ["# The paper's tables\n", CAVEAT.format(units=_units(results))]
    if any(result.status == SUBMITTED for result in results):
        parts.append(SUBMITTED_NOTE)
    for (table, split), part in tables_of(results, asked).items():
        parts.append(f"## Table {table}, {HEADINGS[split]}: {LAYOUTS[table].title}\n")
        parts.append(_as_grid(part, LAYOUTS[table]))
    return "\n".join(parts)


def tables_of(results: Sequence[Result], asked: Sequence[str]) -> dict[tuple[str, str], list[Result]]:
    """Return the results by table and split: those that are asked for, and others that have no gap."""
    parts: dict[tuple[str, str], list[Result]] = {}
    for result in results:
        parts.setdefault((result.published.table, result.published.split), []).append(result)
    return {
        key: part for key, part in parts.items() if key[0] in asked or all(result.status != NOT_RUN for result in part)
    }


def arrange(results: Sequence[Result], layout: Layout) -> tuple[list[str], list[str], dict[tuple[str, str], Result]]:
    """Return words of the rows, words of the columns, and the results by both."""
    cells = {}
    for result in results:
        cells[getattr(result.published, layout.rows), getattr(result.published, layout.columns)] = result
    return list(dict.fromkeys(row for row, _ in cells)), list(dict.fromkeys(column for _, column in cells)), cells


def name_of(word: str) -> str:
    """Return how the paper writes a word of its tables."""
    return NAMES.get(word, word.upper())


def _as_grid(results: Sequence[Result], layout: Layout) -> str:
    rows, columns, cells = arrange(results, layout)
    lines = [["", *map(name_of, columns)], ["---"] * (len(columns) + 1)]
    lines += [[name_of(row), *(_cell(cells.get((row, column))) for column in columns)] for row in rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _cell(result: Result | None) -> str:
    if result is None:
        return ""
    published = result.published.percent
    told = "" if published is None else f"{published:.2f}"
    if result.percent is None or result.ours is None:
        return f"{_word(result.status)} {BAR} {told} {BAR} "
    ours, low, high = result.percent
    over = "" if result.ours.num_speakers else OVER_CLIPS
    seeds = f"{result.num_seeds} seed{'s' * (result.num_seeds != 1)}"
    seeds += "".join(f", {count} {word}" for word, count in Counter(map(_word, result.gaps)).items())
    difference = "" if published is None else f"{ours - published:+.2f}"
    return f"{ours:.2f} ({low:.2f} to {high:.2f}{over}, {seeds}) {BAR} {told} {BAR} {difference}"


def _word(outcome: str) -> str:
    return outcome.partition(":")[0]


def _units(results: Sequence[Result]) -> str:
    counts = sorted({result.ours.num_speakers for result in results if result.ours is not None})
    speakers = " or ".join(str(count) for count in counts if count)
    units = [f"the {speakers} speakers of a split"] * bool(speakers)
    units += [f"clips, since speakers are not known (`{OVER_CLIPS.strip()}`),"] * (0 in counts)
    return ", or ".join(units) or "speakers, or clips where these are not known,"
