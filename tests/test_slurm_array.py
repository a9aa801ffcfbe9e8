"""The Slurm array script runs its own line, and asks to be run again if it was cut off."""

import os
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[1] / "examples" / "slurm_array.sh"


@pytest.fixture
def array_task(tmp_path):
    """Give a function that runs one task of the array where `srun` and `scontrol` only write down their arguments."""
    (tmp_path / "bin").mkdir()
    for name, deed in (
        ("srun", f'echo "$SRUN_CPUS_PER_TASK" > {tmp_path}/cpus; exec "$@"'),
        ("scontrol", f'echo "$@" >> {tmp_path}/requeued'),
    ):
        (tmp_path / "bin" / name).write_text(f"#!/bin/sh\n{deed}\n")
        (tmp_path / "bin" / name).chmod(0o755)
    commands = ["echo first > done", "echo 'one word' second > done", "sh -c 'exit 138'", "sh -c 'exit 3'"]
    (tmp_path / "commands.txt").write_text("".join(f"{command}\n" for command in commands))

    def run(number, **more):
        job = {"SLURM_ARRAY_TASK_ID": str(number), "SLURM_ARRAY_JOB_ID": "77"} | more
        environment = os.environ | job | {"PATH": f"{tmp_path}/bin:{os.environ['PATH']}"}
        command = ["bash", SCRIPT, "commands.txt"]
        return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)

    return run


def test_a_task_runs_its_line(array_task, tmp_path):
    assert array_task(2).returncode == 0
    assert (tmp_path / "done").read_text() == "one word second\n"
    assert not (tmp_path / "requeued").exists()


def test_a_step_gets_the_cores_of_its_task(array_task, tmp_path):
    for given, taken in (({"SLURM_CPUS_PER_TASK": "4"}, "4\n"), ({}, "1\n")):
        assert array_task(1, **given).returncode == 0
        assert (tmp_path / "cpus").read_text() == taken


def test_a_run_that_was_cut_off_is_put_back(array_task, tmp_path):
    assert array_task(3).returncode == 138
    assert (tmp_path / "requeued").read_text() == "requeue 77_3\n"


def test_a_run_that_failed_is_not(array_task, tmp_path):
    assert array_task(4).returncode == 3
    assert not (tmp_path / "requeued").exists()


def test_a_task_without_a_line_says_so(array_task):
    done = array_task(5)
    assert (done.returncode, done.stderr) == (2, "commands.txt has no line 5\n")
