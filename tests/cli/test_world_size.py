"""A run goes on in another number of processes, with the same clips and the same loss."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from avb_hf.cli import run
from avb_hf.training.trainer import VocalBurstTrainer

ROOT = Path(__file__).resolve().parents[2]
NO_DROPOUT = dict.fromkeys(("hidden_dropout", "attention_dropout", "activation_dropout", "feat_proj_dropout"), 0.0)


def losses(folder):
    history = json.loads((folder / "trainer_state.json").read_text())["log_history"]
    return {line["step"]: line["loss"] for line in history if "loss" in line}


@pytest.mark.slow
def test_one_process_is_resumed_by_two(corpus_dir, tiny_flags, tiny_backbone, tmp_path, monkeypatch, capsys):
    flags = [
        *tiny_flags, "--encoder_config", json.dumps(tiny_backbone | NO_DROPOUT), "--data_dir", str(corpus_dir),
        "--task", "two", "--do_train", "--num_train_epochs", "4", "--logging_strategy", "steps", "--logging_steps", "1",
        "--load_best_model_at_end", "false",
    ]  # fmt: skip
    assert run("train", [*flags, "--output_dir", str(tmp_path / "whole")]) == 0
    step, calls = VocalBurstTrainer.training_step, []

    def stop_in_the_fifth(self, *args, **kwargs):
        calls.append(1)
        if len(calls) == 5:
            os.kill(os.getpid(), signal.SIGTERM)
        return step(self, *args, **kwargs)

    monkeypatch.setattr(VocalBurstTrainer, "training_step", stop_in_the_fifth)
    assert run("train", [*flags, "--output_dir", str(tmp_path / "run")]) == 143
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    two = [
        *torchrun, "run_avb.py", *flags, "--output_dir", str(tmp_path / "run"), "--use_cpu", "--resume", "auto",
        "--per_device_train_batch_size", "4",
    ]  # fmt: skip
    refused = subprocess.run(two, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert refused.returncode == 1
    assert "processes.world_size: 1 is now 2" in refused.stderr
    done = subprocess.run([*two, "--allow_changed_args"], cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    assert losses(tmp_path / "run") == pytest.approx(losses(tmp_path / "whole"), abs=1e-5)
    found, expected = (load_file(tmp_path / name / "model.safetensors") for name in ("run", "whole"))
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=0, atol=1e-4)
