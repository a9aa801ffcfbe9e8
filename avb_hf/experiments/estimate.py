"""How long a grid will take and how much disk, from a few steps of each kind of run."""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from tqdm.auto import tqdm

from avb_hf.data.user_cache import cache_folder
from avb_hf.experiments.jobs import Job, Run
from avb_hf.training.estimate import as_clock, read_estimate

BYTES_A_WEIGHT = 4
# A checkpoint holds Adam's two moments of each trained weight beside the weights; two are kept while a run lasts.
MOMENTS, CHECKPOINTS = 2, 2
# The flags that say how long a run lasts, read from its words as `avb train` reads them: the last one wins.
_LENGTH = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
_LENGTH.add_argument("--num_train_epochs", "--num-train-epochs", type=float, default=1)
_LENGTH.add_argument("--max_steps", "--max-steps", type=int, default=-1)


class Cost(NamedTuple):
    """What one run costs, as `avb train --estimate` tells it.

    Attributes:
        hours: Training and scoring, the making of frozen states left out.
        filling_hours: Making the frozen states of all clips, once for all runs that read them.
        states_gb: Their size.
        model_gb: Size of the model that is left.
        checkpoints_gb: Size of what is kept while the run lasts.
        memory_gib: Peak memory.
    """

    hours: float
    filling_hours: float
    states_gb: float
    model_gb: float
    checkpoints_gb: float
    memory_gib: float


def estimate_jobs(jobs: Sequence[Job], ask: Callable[[list[str]], str]) -> str:
    """Try a few steps of each kind of run, and tell in lines what all jobs will cost on this machine.

    Args:
        jobs: What is to be done still.
        ask: Calls `avb` with arguments and returns what it writes.
    """
    if not jobs:
        return "every run is finished: nothing to do"
    kinds: dict[str, list[Job]] = {}
    for job in jobs:
        kinds.setdefault(job.run.shape, []).append(job)
    costs = {}
    for shape, members in tqdm(kinds.items(), desc="trying a few steps", unit="model", disable=None):
        run = members[0].run
        costs[shape] = read_cost(ask([*run.words, "--output_dir", str(members[0].folder), "--overwrite", "--estimate"]))
    return "\n".join([*_describe_kinds(kinds, costs), *_describe_sum(kinds, costs, jobs[0].root)])


def read_cost(text: str) -> Cost:
    """Read what `avb train --estimate` wrote.

    Raises:
        ValueError: If it told no estimate.
    """
    told = read_estimate(text)
    model_gb = BYTES_A_WEIGHT * told.num_parameters / 1e9
    checkpoint_gb = model_gb + BYTES_A_WEIGHT * MOMENTS * told.num_trained / 1e9
    return Cost(
        hours=told.run_hours - told.filling_hours,
        filling_hours=told.filling_hours,
        states_gb=told.states_gb,
        model_gb=model_gb,
        checkpoints_gb=CHECKPOINTS * checkpoint_gb,
        memory_gib=told.memory_gib,
    )


def ask_in_own_process(argv: list[str]) -> str:
    """Call `avb` in a process of its own and return what it writes.

    Raises:
        ValueError: If it fails; the message is its last line.
    """
    done = subprocess.run([sys.executable, "-m", "avb_hf", *argv], capture_output=True, text=True, check=False)
    if done.returncode:
        raise ValueError((done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1])
    return done.stdout


def _describe_kinds(kinds: dict[str, list[Job]], costs: dict[str, Cost]) -> list[str]:
    lines = []
    for shape, members in kinds.items():
        hours = [_hours_of(job, members, costs[shape]) for job in members]
        span = f"{as_clock(min(hours))} to {as_clock(max(hours))}" if max(hours) > min(hours) else as_clock(hours[0])
        lines.append(f"{shape}: {len(members)} runs of {span}, {costs[shape].memory_gib:.2f} GiB of memory")
    return lines


def _describe_sum(kinds: dict[str, list[Job]], costs: dict[str, Cost], root: Path) -> list[str]:
    hours = sum(_hours_of(job, members, costs[shape]) for shape, members in kinds.items() for job in members)
    # Runs that differ in head or seed read the same states.
    of_states = {members[0].run.states: costs[shape] for shape, members in kinds.items()}
    hours += sum(cost.filling_hours for cost in of_states.values())
    states = sum(cost.states_gb for cost in of_states.values())
    models = sum(len(members) * costs[shape].model_gb for shape, members in kinds.items())
    checkpoints = max(cost.checkpoints_gb for cost in costs.values())
    return [
        f"all {sum(map(len, kinds.values()))} runs: {as_clock(hours)} at most, one after another on this machine",
        f"disk: {models:.1f} GB of models and {checkpoints:.1f} GB of checkpoints while a run lasts in {root} "
        f"({_free(root)} free); {states:.1f} GB of frozen states in {cache_folder()} ({_free(cache_folder())} free)",
    ]


def _hours_of(job: Job, members: list[Job], cost: Cost) -> float:
    return cost.hours * _length_of(job.run) / _length_of(members[0].run)


def _length_of(run: Run) -> float:
    """Return the number of epochs; 1 where steps are counted instead, as many in each run."""
    length, _ = _LENGTH.parse_known_args(run.words)
    return 1.0 if length.max_steps > 0 else length.num_train_epochs


def _free(folder: Path) -> str:
    there = next(path for path in (folder, *folder.parents) if path.exists())
    return f"{shutil.disk_usage(there).free / 1e9:.0f} GB"
