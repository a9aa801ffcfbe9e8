"""`avb reproduce`: the paper's tables, or a study of ours, by one call that goes on where it was cut off."""

from __future__ import annotations

import importlib
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from avb_hf.cli.flags import FlagParser, print_help
from avb_hf.data.arguments import DataArguments
from avb_hf.experiments.arguments import SEEDS, TINY_SEEDS, ReproduceArguments
from avb_hf.tasks import TASKS

if TYPE_CHECKING:
    from avb_hf.experiments.experiment import Experiment
    from avb_hf.experiments.jobs import Job

USAGE = "avb reproduce --tables I II III IV V [--data_dir DIR] [--flag value ...]"
EXPLANATION = """
The A-VB corpus is read from --data_dir; --source demo needs no data. Each run has a folder in OUTPUT_DIR/runs and a log
beside it. A finished run is verified and skipped, wherever the data lie by now, and its checkpoints are deleted; one
that was cut off goes on; one that failed is tried again; one that another `avb reproduce` is at is waited for. Where a
command of --print_commands is still at a run, the run is refused to any other process, told as failed, and picked up by
the next call. OUTPUT_DIR takes tables.csv, tables.md, a picture a table, and, with Table V, submissions/ with the
contest files of the final models (file n is of the n-th seed) and of the organisers' baseline; another --team_name
renames them. On --source emogator the tables are those of its 30 categories, as classes and as numbers, with the
backbone --model_name_or_path. --study padding compares poolings with and without padding and RNN on that backbone's
frozen states. Checkpoints of runs that --print_commands handed elsewhere are deleted by the next call that runs or
collects. Other audio under the same names needs another OUTPUT_DIR. The exit code is 1 if a run failed or is missing.
"""


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
    argv = _join_train_flags(argv)
    args, data = FlagParser([ReproduceArguments, DataArguments], usage=USAGE).parse(argv)
    from avb_hf.evaluation.contest import contest_file_name
    from avb_hf.experiments.jobs import make_jobs
    from avb_hf.experiments.planning import make_experiment
    from avb_hf.experiments.runner import StoppedError

    root = Path(args.output_dir).resolve()  # commands may be run elsewhere
    seeds = args.seeds or (TINY_SEEDS if args.tiny else SEEDS)
    contest_task = next(task for task in TASKS.values() if task.submission_name is not None)
    contest_file_name(args.team_name, len(seeds), contest_task)  # refuses what no file can be named
    typed = {word.partition("=")[0].lstrip("-").replace("-", "_") for word in argv if word.startswith("--")}
    experiment = make_experiment(args, data, root, typed)
    jobs = make_jobs(experiment.runs, seeds, root)
    try:
        if args.print_commands or args.estimate or args.dry_run:
            return tell(args, jobs)
        return carry_out(args, experiment, jobs, make_jobs(experiment.other_runs, seeds, root))
    except StoppedError as stop:
        sys.stdout.write(f"{stop}\n")
        return stop.exit_code


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

    experiment.require()
    jobs[0].root.mkdir(parents=True, exist_ok=True)
    if args.collect:
        outcomes = runner.find_finished(jobs, clear=True)
    else:
        outcomes = runner.carry_out(jobs, runner.in_this_process(_call) if args.tiny else runner.in_own_process)
    finished = runner.find_finished(others, clear=True)
    outcomes |= {job: outcome for job, outcome in finished.items() if outcome == runner.DONE}
    report = experiment.report(outcomes, jobs[0].root)
    sys.stdout.write("\n".join([report.text, *map(str, report.files), ""]))
    return int(not report.is_complete)


def _call(argv: list[str]) -> int:
    return importlib.import_module(f"avb_hf.cli.{argv[0]}").main(argv[1:]) or 0


def _join_train_flags(argv: list[str]) -> list[str]:
    """Join `--train_flags` and its value, which argparse takes for a flag if it is a single one: '--bf16'."""
    for place, word in enumerate(argv[:-1]):
        if word in ("--train_flags", "--train-flags"):
            return [*argv[:place], f"{word}={argv[place + 1]}", *argv[place + 2 :]]
    return argv
