"""`avb reproduce`: the paper's tables, or a study of ours, by one call that goes on where it was cut off."""

from __future__ import annotations

import importlib
import shlex
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

from transformers.hf_argparser import HfArg

from avb_hf.cli.flags import FlagParser, print_help
from avb_hf.data.arguments import DataArguments
from avb_hf.tasks import TASKS, check_choice

if TYPE_CHECKING:
    from avb_hf.experiments.jobs import Job
    from avb_hf.experiments.paper import Experiment

USAGE = "avb reproduce --tables I II III IV V [--data_dir DIR] [--flag value ...]"
EXPLANATION = """
The A-VB corpus is read from --data_dir; --source demo needs no data. Each run has a folder in OUTPUT_DIR/runs and a log
beside it. A finished run is verified and skipped, and its checkpoints are deleted; one that was cut off goes on; one
that failed is tried again. OUTPUT_DIR takes tables.csv, tables.md, a picture a table, and submissions/ with the contest
files of the final models. On --source emogator the tables are those of its 30 categories, as classes and as numbers,
with the backbone --model_name_or_path. --study padding compares poolings with and without padding and RNN on that
backbone's frozen states. The exit code is 1 if a run failed or is missing.
"""
TABLES = ("I", "II", "III", "IV", "V")
SEEDS, TINY_SEEDS = (1, 2, 3), (1,)


@dataclass
class ReproduceArguments:
    """What is reproduced, how often, and how far this call goes."""

    _argument_group_name: ClassVar[str] = "reproduce"

    tables: list[str] | None = HfArg(default=None, help="tables of the paper: I II III IV V")
    study: Literal["padding"] | None = HfArg(default=None, help="a study of ours instead")
    output_dir: str = HfArg(default=".", help="folder for runs, tables and pictures")
    seeds: list[int] | None = HfArg(default=None, help="each run is done with each (default: 1 2 3; with --tiny 1)")
    recipe: str | None = HfArg(
        default=None, help="how the proposed model is trained: paper, released or recommended (default: paper)"
    )
    model_name_or_path: str | None = HfArg(
        default=None, help="Hub id or folder of the backbone of a study, or of the tables on EmoGator"
    )
    train_flags: str = HfArg(
        default="", help="more flags of `avb train` for the proposed model, in one word: '--precision bf16'"
    )
    team_name: str = HfArg(default="team", help="team in the name of a contest file: A-VB-High_<team>_<n>.csv")
    tiny: bool = HfArg(default=False, help="tiny backbones, few epochs, cached states, one process: to see it all work")
    print_commands: bool = HfArg(default=False, help="print what is still to be run, a line each, and run nothing")
    estimate: bool = HfArg(default=False, help="tell hours and disk of what is still to be run, and run nothing")
    dry_run: bool = HfArg(default=False, help="tell how many runs there are and are finished, and run nothing")
    collect: bool = HfArg(default=False, help="write the tables of what is finished, and run nothing")

    def __post_init__(self) -> None:
        if (self.tables is None) == (self.study is None):
            raise ValueError(f"give one of --tables ({' '.join(TABLES)}) and --study")
        for table in self.tables or ():
            check_choice("--tables", table, TABLES)
        if self.seeds is not None and (len(set(self.seeds)) < len(self.seeds) or min(self.seeds) < 0):
            raise ValueError(f"--seeds must be distinct numbers of 0 or more, got {self.seeds}")
        if self.study is not None and (self.recipe is not None or self.tiny):
            raise ValueError("--recipe and --tiny belong to --tables; a study's runs are changed by --train_flags")


def main(argv: list[str]) -> int:
    """Carry out what is missing of the tables or the study, and print what came out.

    Args:
        argv: Flags.

    Returns:
        0; 1 if a run failed or is missing; or 128 and the number of the signal that stopped it.

    Raises:
        ValueError: If flags or data cannot be used.
    """
    if "-h" in argv or "--help" in argv:
        print_help([ReproduceArguments, DataArguments], USAGE)
        sys.stdout.write(EXPLANATION)
        return 0
    args, data = FlagParser([ReproduceArguments, DataArguments], usage=USAGE).parse(argv)
    from avb_hf.evaluation.contest import contest_file_name
    from avb_hf.experiments.jobs import make_jobs
    from avb_hf.experiments.runner import StoppedError

    root = Path(args.output_dir).resolve()  # commands may be run elsewhere
    experiment = make_experiment(args, _resolved(data), root)
    seeds = args.seeds or (TINY_SEEDS if args.tiny else SEEDS)
    jobs = make_jobs(experiment.runs, seeds, root, args.team_name)
    for run in experiment.runs:
        if run.task.submission_name is not None:
            contest_file_name(args.team_name, len(seeds), run.task)  # refuses what no file can be named
    try:
        if args.print_commands or args.estimate or args.dry_run:
            return tell(args, jobs)
        return carry_out(args, experiment, jobs, make_jobs(experiment.other_runs, seeds, root, args.team_name))
    except StoppedError as stop:
        sys.stdout.write(f"{stop}\n")
        return stop.exit_code


def make_experiment(args: ReproduceArguments, data: DataArguments, root: Path) -> Experiment:
    """Plan the runs that the flags ask for.

    Args:
        args: What is reproduced.
        data: On what; folders and files absolute.
        root: Folder of the runs.

    Raises:
        ValueError: If flags contradict each other, or data cannot be used.
    """
    from avb_hf.experiments.grid import END2YOU, EXTRACTORS, FULL, RECIPES, TINY, Settings
    from avb_hf.experiments.published import read_published

    backbone = args.model_name_or_path
    if backbone is not None and Path(backbone).is_dir():
        backbone = str(Path(backbone).resolve())
    if (backbone is None) != (args.study is None and data.source != "emogator"):
        raise ValueError("--model_name_or_path is the backbone of a study, or of the tables on --source emogator")
    more = tuple(shlex.split(args.train_flags))
    if args.study is not None:
        return _make_study(args.study, data, str(backbone), more)
    from avb_hf.experiments.paper import PaperTables

    tables = args.tables or []
    check_choice("--source (of the tables)", data.source, ("avb", "demo", "emogator"))
    if data.task is not None:
        raise ValueError(f"the tables say which tasks there are: leave out --task {data.task}")
    recipe, published = args.recipe or "paper", read_published()
    check_choice("--recipe", recipe, tuple(RECIPES))
    more = (*RECIPES[recipe], *more) if args.tiny else more
    scale = TINY if args.tiny else FULL
    if data.source == "emogator":
        from avb_hf.experiments.emogator import GIVEN, scores_on_emogator, tasks_on_emogator

        settings = Settings(*tasks_on_emogator(data, root), recipe, {GIVEN: str(backbone)}, scale, more)
        return PaperTables(scores_on_emogator(published, END2YOU), tables, settings)
    tasks = {score.task: TASKS[score.task] for score in published}
    extractors = EXTRACTORS
    if args.tiny:
        from avb_hf.experiments.tiny import tiny_extractors

        extractors = tiny_extractors()
    by_task = {name: replace(data, task=name) for name in tasks}
    return PaperTables(published, tables, Settings(tasks, by_task, recipe, extractors, scale, more))


def tell(args: ReproduceArguments, jobs: list[Job]) -> int:
    """Print what is still to be run, what it costs, or how much it is."""
    from avb_hf.experiments.estimate import ask_in_own_process, estimate_jobs
    from avb_hf.experiments.runner import DONE, find_finished

    missing = [job for job, outcome in find_finished(jobs).items() if outcome != DONE]
    lines = [f"{len(jobs)} runs, {len(jobs) - len(missing)} of them finished"]
    if args.print_commands:
        lines = [shlex.join([sys.executable, "-m", "avb_hf", *job.argv]) for job in missing]
    elif args.estimate:
        lines.append(estimate_jobs(missing, ask_in_own_process))
    sys.stdout.writelines(f"{line}\n" for line in lines)
    return 0


def carry_out(args: ReproduceArguments, experiment: Experiment, jobs: list[Job], others: list[Job]) -> int:
    """Run what is missing, if so asked, and write and print the report."""
    from avb_hf.experiments import runner

    jobs[0].root.mkdir(parents=True, exist_ok=True)
    if args.collect:
        outcomes = runner.find_finished(jobs)
    else:
        outcomes = runner.carry_out(jobs, runner.in_this_process(_call) if args.tiny else runner.in_own_process)
    finished = runner.find_finished(others)
    outcomes |= {job: outcome for job, outcome in finished.items() if outcome == runner.DONE}
    report = experiment.report(outcomes, jobs[0].root)
    sys.stdout.write("\n".join([report.text, *map(str, report.files), ""]))
    return int(not report.is_complete)


def _make_study(name: str, data: DataArguments, backbone: str, train_flags: tuple[str, ...]) -> Experiment:
    from avb_hf.data.sources import infer_task
    from avb_hf.experiments.padding import PaddingStudy

    return {"padding": PaddingStudy}[name](data, infer_task(data), backbone, train_flags)


def _resolved(data: DataArguments) -> DataArguments:
    folder, manifest, split_file = (
        path and str(Path(path).resolve()) for path in (data.data_dir, data.manifest, data.split_file)
    )
    return replace(data, data_dir=folder, manifest=manifest, split_file=split_file)


def _call(argv: list[str]) -> int:
    return importlib.import_module(f"avb_hf.cli.{argv[0]}").main(argv[1:]) or 0
