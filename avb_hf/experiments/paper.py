"""The paper's five tables as an experiment: its runs, and the report of what became of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from avb_hf.evaluation.contest import write_contest_file
from avb_hf.evaluation.prediction_files import read_predictions
from avb_hf.experiments.experiment import Report
from avb_hf.experiments.grid import END2YOU, Settings, run_of, runs_of
from avb_hf.experiments.jobs import PREDICTIONS, Job
from avb_hf.experiments.pictures import draw, require_matplotlib
from avb_hf.experiments.published import PublishedScore
from avb_hf.experiments.runner import DONE
from avb_hf.experiments.scores import Scorer
from avb_hf.experiments.tables import BASELINE_SUFFIX, SUBMITTED, as_markdown, gather, write_csv
from avb_hf.training.outcome import TEST
from avb_hf.whole_files import whole_file

FINAL_TABLE = "V"
SUBMISSIONS = "submissions"


class PaperTables:
    """The paper's Tables I to V.

    Args:
        published: All scores of the paper.
        tables: Numbers of the tables that are asked for.
        settings: What the runs have in common.
        team: Team in the names of the contest files.
    """

    def __init__(
        self, published: Sequence[PublishedScore], tables: Sequence[str], settings: Settings, team: str
    ) -> None:
        self.published, self.tables, self.settings, self.team = published, tables, settings, team
        self.runs = runs_of([score for score in published if score.table in tables], settings)
        self.other_runs = [run for run in runs_of(published, settings) if run not in self.runs]

    def require(self) -> None:
        """Refuse to begin where the pictures cannot be drawn.

        Raises:
            ImportError: If matplotlib is not installed.
        """
        require_matplotlib()

    def report(self, outcomes: Mapping[Job, str], folder: Path) -> Report:
        """Write `tables.csv`, `tables.md`, a picture a table, and, if it is asked for, Table V's contest files."""
        data = {self.settings.tasks[word].name: data for word, data in self.settings.data.items()}
        results = gather(self.published, self.settings, outcomes, Scorer(data))
        write_csv(results, folder / "tables.csv")
        text = as_markdown(results, self.tables)
        with whole_file(folder / "tables.md") as draft:
            draft.write_text(text, encoding="utf-8")
        pictures = draw(results, self.tables, folder)
        is_final = FINAL_TABLE in self.tables
        contest_files = self._write_contest_files(outcomes, folder / SUBMISSIONS) if is_final else []
        asked = [result for result in results if run_of(result.published, self.settings) in self.runs]
        is_complete = all(result.status in (DONE, SUBMITTED) for result in asked)
        return Report(text, (folder / "tables.csv", folder / "tables.md", *pictures, *contest_files), is_complete)

    def _write_contest_files(self, outcomes: Mapping[Job, str], folder: Path) -> list[Path]:
        """Write what the final models and the baseline say of the test clips; number n is the n-th seed asked for.

        Files of the same team that are there already are deleted: they may be of other seeds or flags. So are those
        of another team that say the same: the team was renamed.
        """
        final = [score for score in self.published if score.table == FINAL_TABLE]
        suffixes = {run_of(score, self.settings): BASELINE_SUFFIX * (score.backbone == END2YOU) for score in final}
        numbers = {seed: number for number, seed in enumerate(dict.fromkeys(job.seed for job in outcomes), start=1)}
        for team in {f"{self.team}{suffix}" for suffix in suffixes.values()}:
            for path in folder.glob(f"A-VB-*_{team}_*.csv"):
                path.unlink()
        paths = []
        for job in (job for job, outcome in outcomes.items() if outcome == DONE and job.run in suffixes):
            if job.run.task.submission_name is not None:
                paths += _write_contest_file(job, folder, f"{self.team}{suffixes[job.run]}", numbers[job.seed])
        written = {path.read_bytes() for path in paths}
        for path in set(folder.glob("A-VB-*.csv")) - set(paths):
            if path.read_bytes() in written:
                path.unlink()
        return sorted(paths)


def _write_contest_file(job: Job, folder: Path, team: str, number: int) -> list[Path]:
    """Write a job's test scores, and return the file, if there are any."""
    task = job.run.task
    table = read_predictions(job.folder / PREDICTIONS, task)
    test = table[table["split"] == TEST]
    scores = test[list(task.labels)].to_numpy()
    return [write_contest_file(folder, team, number, list(test["file_id"]), scores, task)] if len(test) else []
