"""The paper's five tables as an experiment: its runs, and the report of what became of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from avb_hf.data.sources import list_clips
from avb_hf.evaluation.contest import write_contest_file
from avb_hf.evaluation.prediction_files import read_predictions
from avb_hf.experiments.grid import END2YOU, Settings, run_of, runs_of
from avb_hf.experiments.jobs import PREDICTIONS, Job, Run
from avb_hf.experiments.pictures import draw
from avb_hf.experiments.published import PublishedScore
from avb_hf.experiments.runner import DONE
from avb_hf.experiments.scores import Scorer
from avb_hf.experiments.tables import SUBMITTED, as_markdown, gather, write_csv
from avb_hf.whole_files import whole_file

FINAL_TABLE = "V"
SUBMISSIONS = "submissions"


@dataclass(frozen=True)
class Report:
    """What an experiment found.

    Attributes:
        text: The findings as Markdown.
        files: What was written.
        is_complete: Whether nothing that was asked for is missing.
    """

    text: str
    files: tuple[Path, ...]
    is_complete: bool


class Experiment(Protocol):
    """Runs, and what is to be told of them.

    Attributes:
        runs: The runs that were asked for.
        other_runs: Runs that are told of as well where they are finished.
    """

    runs: list[Run]
    other_runs: list[Run]

    def report(self, outcomes: Mapping[Job, str], folder: Path) -> Report:
        """Write tables into a folder, from what became of each job."""


class PaperTables:
    """The paper's Tables I to V.

    Args:
        published: All scores of the paper.
        tables: Numbers of the tables that are asked for.
        settings: What the runs have in common.

    Raises:
        ValueError: If a table of labels cannot be read.
    """

    def __init__(self, published: Sequence[PublishedScore], tables: Sequence[str], settings: Settings) -> None:
        self.published, self.tables, self.settings = published, tables, settings
        self.runs = runs_of([score for score in published if score.table in tables], settings)
        for word in {score.task for score in published if score.table in tables}:
            list_clips(settings.tasks[word], settings.data[word], [])
        self.other_runs = [run for run in runs_of(published, settings) if run not in self.runs]

    def report(self, outcomes: Mapping[Job, str], folder: Path) -> Report:
        """Write `tables.csv`, `tables.md`, a picture a table, and the contest files of the final models."""
        data = {self.settings.tasks[word].name: data for word, data in self.settings.data.items()}
        results = gather(self.published, self.settings, outcomes, Scorer(data))
        write_csv(results, folder / "tables.csv")
        text = as_markdown(results, self.tables)
        with whole_file(folder / "tables.md") as draft:
            draft.write_text(text, encoding="utf-8")
        pictures = draw(results, self.tables, folder)
        contest_files = self._write_contest_files(outcomes, folder / SUBMISSIONS)
        asked = [result for result in results if run_of(result.published, self.settings) in self.runs]
        is_complete = all(result.status in (DONE, SUBMITTED) for result in asked)
        return Report(text, (folder / "tables.csv", folder / "tables.md", *pictures, *contest_files), is_complete)

    def _write_contest_files(self, outcomes: Mapping[Job, str], folder: Path) -> list[Path]:
        """Write what the final models say of the test clips, in the labels' range; number n is the n-th seed."""
        final = [score for score in self.published if score.table == FINAL_TABLE and score.backbone != END2YOU]
        paths = []
        for run in (run for run in runs_of(final, self.settings) if run.task.submission_name is not None):
            done = [job for job, outcome in outcomes.items() if job.run == run and outcome == DONE]
            for number, job in enumerate(sorted(done, key=lambda job: job.seed), start=1):
                table = read_predictions(job.folder / PREDICTIONS, run.task)
                test = table[table["split"] == "test"]
                scores = test[list(run.task.labels)].to_numpy()
                if run.task.label_range is not None:
                    scores = scores.clip(*run.task.label_range)
                if len(test):
                    paths.append(write_contest_file(folder, job.team, number, list(test["file_id"]), scores, run.task))
        return paths
