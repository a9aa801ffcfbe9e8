"""Two trainings never write one folder: the second is refused, and goes on at once when the first was killed."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from avb_hf.cli import run
from avb_hf.folder_lock import locked

ROOT = Path(__file__).resolve().parents[2]
# Trains until the fifth step, says so, and stays there.
STUCK = """
import sys, time
from avb_hf.cli import run
from avb_hf.training.trainer import VocalBurstTrainer

step, done = VocalBurstTrainer.training_step, []

def stuck(self, *args, **kwargs):
    done.append(1)
    if len(done) == 5:
        print("stuck", flush=True)
        time.sleep(600)
    return step(self, *args, **kwargs)

VocalBurstTrainer.training_step = stuck
run("train", sys.argv[1:])
"""


@pytest.fixture
def flags(corpus_dir, tiny_flags, tmp_path):
    """Flags of a run of two epochs of three steps."""
    return [*tiny_flags, "--data_dir", str(corpus_dir), "--task", "two", "--output_dir", str(tmp_path / "run")]


def test_a_run_is_refused_while_another_works_in_its_folder(flags, tmp_path, capsys):
    with locked(tmp_path / "run"):
        for more in ([], ["--overwrite"], ["--resume", "auto"]):
            assert run("train", [*flags, *more]) == 2
            assert f"{tmp_path / 'run'}: another process works on it" in capsys.readouterr().err
        assert list((tmp_path / "run").iterdir()) == []
        assert run("train", [*flags, "--dry_run"]) == 0
    assert not (tmp_path / "run").exists()


def test_a_run_that_cannot_begin_leaves_no_folder(flags, tmp_path, capsys):
    assert run("train", [*flags, "--data_dir", str(tmp_path / "nowhere")]) == 2
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_a_run_goes_on_as_soon_as_the_one_before_was_killed(flags, tmp_path, capsys):
    workers = ["--dataloader_num_workers", "2", "--save_strategy", "epoch"]
    words = [sys.executable, "-c", STUCK, *flags, *workers]
    with subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as first:
        try:
            assert any(line.strip() == "stuck" for line in first.stdout)
            before = sorted((tmp_path / "run").rglob("*"))
            assert run("train", [*flags, *workers, "--resume", "auto"]) == 2
            assert "another process works on it" in capsys.readouterr().err
            assert sorted((tmp_path / "run").rglob("*")) == before
        finally:
            first.kill()
        first.wait()
        assert run("train", [*flags, *workers, "--resume", "auto"]) == 0
    assert json.loads((tmp_path / "run" / "trainer_state.json").read_text())["global_step"] == 6


@pytest.mark.slow
def test_all_processes_of_a_refused_run_stop(flags, tmp_path):
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    with locked(tmp_path / "run"):
        done = subprocess.run(
            [*torchrun, "run_avb.py", *flags, "--use_cpu", "--per_device_train_batch_size", "4"],
            cwd=ROOT, capture_output=True, text=True, timeout=300, env=os.environ | {"OMP_NUM_THREADS": "1"},
        )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr.count("another process works on it") == 2
