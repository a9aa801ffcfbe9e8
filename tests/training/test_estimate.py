"""What a run is told to take follows from the seconds of a few steps, and from what it will read."""

import subprocess
import sys

import numpy as np
import pytest
import soundfile

from avb_hf.model import Wav2Vec2ForVocalBurst
from avb_hf.tasks import TASKS
from avb_hf.training import estimate, precision
from avb_hf.training.estimate import read_estimate


@pytest.fixture
def told(train, monkeypatch, capsys):
    """Give a function that estimates a run, each of whose steps takes a second, and returns what was told."""
    monkeypatch.setattr(estimate, "_timed", lambda deed: (1.0, deed()))

    def go(*flags, **choices):
        assert not train("--precision", "fp32", "--estimate", *flags, only=(), **choices).exists()
        return read_estimate(capsys.readouterr().out)

    return go


@pytest.fixture
def durations(corpus_dir):
    """Seconds of the clips of a split, the longest first, straight from the files."""

    def read(word):
        rows = np.genfromtxt(corpus_dir / "labels" / TASKS["two"].label_file, delimiter=",", dtype=str, skip_header=1)
        names = [row[0].strip("[]") for row in rows if word in row]
        return np.sort([soundfile.info(next(corpus_dir.glob(f"audio/*/{name}.*"))).duration for name in names])[::-1]

    return read


def padded(lengths, size):
    return sum(len(part) * part[0] for part in np.split(lengths, range(size, len(lengths), size)))


@pytest.mark.parametrize(
    ("flags", "evaluations"),
    [
        (["--eval_strategy", "epoch"], 3),
        (["--eval_strategy", "no", "--do_train", "--do_eval"], 1),
        (["--eval_strategy", "steps", "--eval_steps", "1", "--do_train"], 2),
    ],
    ids=["epochs", "behind the training", "steps"],
)
def test_hours_count_padding_and_every_pass(told, durations, flags, evaluations):
    sizes = ["--per_device_train_batch_size", "17", "--per_device_eval_batch_size", "4", "--num_train_epochs", "2"]
    found = told(*sizes, *flags, freeze="nothing")
    # 18 clips in batches of 17 are one batch of 18: a batch of one clip has no CCC.
    clips = durations("Train")
    assert len(clips) == 18
    step = 17 * np.sort(clips[np.abs(clips - np.sort(clips)[8]).argsort(kind="stable")[:17]])[-1]
    assert found.epoch_hours * 3600 == pytest.approx(18 * clips[0] / step)
    assert found.evaluation_hours * 3600 == pytest.approx(padded(durations("Val"), 4) / step)
    assert padded(durations("Val"), 4) > 1.01 * durations("Val").sum(), "without padding this proves nothing"
    test = 0 if "--do_train" in flags else padded(durations("Test"), 4) / step / 3600
    rest = found.run_hours - 2 * found.epoch_hours - test
    assert rest == pytest.approx(evaluations * found.evaluation_hours)


def test_half_precision_takes_half_the_room(told):
    whole, half = (told("--cache_dtype", dtype, freeze="backbone") for dtype in ("float32", "float16"))
    assert whole.states_gb == pytest.approx(2 * half.states_gb)
    assert half.states_gb > 0


def test_what_is_timed_recomputes_activations_if_the_run_does(told, monkeypatch):
    seen, forward = [], Wav2Vec2ForVocalBurst.forward

    def spy(self, *args, **kwargs):
        seen.append(self.is_gradient_checkpointing)
        return forward(self, *args, **kwargs)

    monkeypatch.setattr(Wav2Vec2ForVocalBurst, "forward", spy)
    told(freeze="nothing")
    assert not any(seen)
    seen.clear()
    told("--activation_checkpointing", freeze="nothing")
    assert all(seen)
    assert len(seen) > precision.ROUNDS


@pytest.mark.slow
def test_peak_memory_is_not_that_of_the_process_that_started_this_one():
    held = np.ones(2**28)
    code = "import torch; from avb_hf.training.estimate import peak_memory; print(peak_memory(torch.device('cpu')))"
    peak = float(subprocess.check_output([sys.executable, "-c", code], text=True))
    assert 0.05 < peak < held.nbytes / 2**30
