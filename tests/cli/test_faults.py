"""Signals, bad clips and finished runs: what is saved, what the exit code says, and that a resume ends exactly."""

import json
import os
import signal

import numpy as np
import pandas as pd
import pytest
import soundfile

from avb_hf.cli import run
from avb_hf.training.checkpoints import find_damage
from avb_hf.training.trainer import VocalBurstTrainer

pytestmark = pytest.mark.slow
STANDS_STILL = ["--learning_rate", "0", "--backbone_learning_rate", "0"]
LAST = ["--load_best_model_at_end", "false"]  # the weights of the last step tell more than those of the best epoch


@pytest.fixture
def at_call(monkeypatch):
    """Give a function that does something first when a method of the trainer is called for the n-th time."""

    def plant(method, number, deed):
        original, calls = getattr(VocalBurstTrainer, method), []

        def patched(self, *args, **kwargs):
            calls.append(1)
            if len(calls) == number:
                deed()
            return original(self, *args, **kwargs)

        monkeypatch.setattr(VocalBurstTrainer, method, patched)

    return plant


def send(number):
    return lambda: os.kill(os.getpid(), number)


def checkpoints(folder):
    return sorted((int(path.name.split("-")[1]), find_damage(path)) for path in folder.glob("checkpoint-*"))


# Where the signal comes: (method, call), and the step whose checkpoint is then the newest.
PLACES = {
    "within an epoch": ("training_step", 5, 5),
    "in an epoch's last step": ("training_step", 6, 6),
    "in an evaluation": ("evaluation_loop", 2, 6),
    "in a save": ("_save_checkpoint", 2, 6),
    "in the last step": ("training_step", 12, 12),
}


@pytest.mark.parametrize("place", PLACES)
def test_a_signal_saves_stops_and_is_resumed_exactly(
    four_epochs, at_call, monkeypatch, digest, tmp_path, capsys, place
):
    assert four_epochs("whole", *LAST) == 0
    method, call, step = PLACES[place]
    with monkeypatch.context():
        at_call(method, call, send(signal.SIGTERM))
        assert four_epochs("run", *LAST) == 143
    assert f"SIGTERM: stopped and saved after step {step}; go on by --resume auto" in capsys.readouterr().out
    assert checkpoints(tmp_path / "run")[-1] == (step, None)
    assert not (tmp_path / "run" / "model.safetensors").exists()
    monkeypatch.undo()
    assert four_epochs("run", *LAST, "--resume", "auto") == 0
    assert digest(tmp_path / "run") == digest(tmp_path / "whole")


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGUSR1, 138)])
def test_exit_codes_of_other_signals(four_epochs, at_call, tmp_path, number, code):
    at_call("training_step", 2, send(number))
    assert four_epochs("run") == code
    assert checkpoints(tmp_path / "run") == [(2, None)]


def test_a_second_ctrl_c_does_not_wait(four_epochs, at_call, tmp_path):
    def twice():
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)

    at_call("training_step", 2, twice)
    assert four_epochs("run") == 130
    assert checkpoints(tmp_path / "run") == []


def test_handlers_are_as_before_a_run(four_epochs):
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)]
    assert four_epochs("run", "--num_train_epochs", "1") == 0
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)] == before


def test_a_finished_run_is_recognised(four_epochs, monkeypatch, tmp_path, capsys):
    assert four_epochs("run") == 0
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "run").rglob("*")}
    for method in ("train", "predict"):
        monkeypatch.setattr(VocalBurstTrainer, method, None)
    assert four_epochs("run", "--resume", "auto") == 0
    assert "is finished: nothing to do" in capsys.readouterr().out
    assert before == {path: path.stat().st_mtime_ns for path in (tmp_path / "run").rglob("*")}


@pytest.mark.parametrize("gone", ["test_results.json", "A-VB-Two_team_1.csv"])
def test_a_run_that_lacks_a_result_is_not_finished(four_epochs, tmp_path, gone):
    assert four_epochs("run") == 0
    before = (tmp_path / "run" / gone).read_text()
    (tmp_path / "run" / gone).unlink()
    assert four_epochs("run", "--resume", "auto") == 0
    after = (tmp_path / "run" / gone).read_text()
    assert after == before or gone.endswith(".json")


def test_another_team_gets_its_own_contest_file(four_epochs, tmp_path):
    assert four_epochs("run") == 0
    assert four_epochs("run", "--resume", "auto", "--team_name", "Owls") == 0
    assert (tmp_path / "run" / "A-VB-Two_Owls_1.csv").is_file()


def test_a_resume_does_not_write_into_a_folder_of_something_else(four_epochs, tmp_path, capsys):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.json").write_text("precious")
    assert four_epochs("run", "--resume", "auto") == 2
    assert "no run of ours" in capsys.readouterr().err
    assert (tmp_path / "run" / "config.json").read_text() == "precious"


def test_a_checkpoint_of_another_folder_brings_its_record(four_epochs, tmp_path, capsys):
    assert four_epochs("run", "--do_train") == 0
    checkpoint = tmp_path / "run" / "checkpoint-12"
    assert four_epochs("other", "--do_train", "--resume", checkpoint, "--seed", "7") == 2
    assert "flags.seed: 42 is now 7" in capsys.readouterr().err
    (tmp_path / "run" / "resolved_config.json").unlink()
    assert four_epochs("other", "--do_train", "--resume", checkpoint) == 2
    assert "nobody knows what made" in capsys.readouterr().err
    assert four_epochs("other", "--do_train", "--resume", checkpoint, "--allow_changed_args") == 0


def test_a_signal_behind_the_last_save_stops_before_the_predictions(four_epochs, at_call, tmp_path):
    at_call("evaluation_loop", 4, send(signal.SIGTERM))
    flags = ["--save_strategy", "no", "--load_best_model_at_end", "false"]
    assert four_epochs("run", *flags) == 143
    assert not (tmp_path / "run" / "predictions.csv").exists()
    assert four_epochs("run", *flags, "--resume", "auto") == 0
    assert (tmp_path / "run" / "predictions.csv").exists()


def test_a_trained_run_is_only_predicted(four_epochs, monkeypatch, tmp_path):
    assert four_epochs("run") == 0
    predictions = (tmp_path / "run" / "predictions.csv").read_bytes()
    (tmp_path / "run" / "predictions.csv").unlink()
    monkeypatch.setattr(VocalBurstTrainer, "train", None)
    assert four_epochs("run", "--resume", "auto") == 0
    assert (tmp_path / "run" / "predictions.csv").read_bytes() == predictions


def test_a_damaged_final_model_is_made_again_from_the_checkpoints(four_epochs, digest, tmp_path):
    assert four_epochs("run") == 0
    before, weights = digest(tmp_path / "run"), tmp_path / "run" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-4] + b"\0\0\0\1")
    assert four_epochs("run", "--resume", "auto") == 0
    assert digest(tmp_path / "run") == before


def test_a_finished_run_that_goes_on_and_is_stopped_does_not_end_with_its_first_model(
    four_epochs, at_call, digest, tmp_path
):
    assert four_epochs("run", *LAST) == 0
    before, longer = digest(tmp_path / "run"), [*LAST, "--resume", "auto", "--num_train_epochs", "6"]
    at_call("evaluation_loop", 1, send(signal.SIGTERM))
    assert four_epochs("run", *longer, "--allow_changed_args") == 143
    assert four_epochs("run", *longer) == 0
    assert json.loads((tmp_path / "run" / "train_results.json").read_text())["epoch"] == 6
    assert digest(tmp_path / "run") != before


@pytest.fixture
def stopped_after_its_best(four_epochs, at_call, tmp_path):
    """Give the folder of a run that was stopped in its last epoch; as no weight moves, the first one is the best."""
    at_call("evaluation_loop", 4, send(signal.SIGTERM))
    assert four_epochs("run", *STANDS_STILL) == 143
    assert [step for step, _ in checkpoints(tmp_path / "run")] == [3, 12]
    return tmp_path / "run"


def test_the_best_checkpoint_is_found_where_its_run_was_moved(stopped_after_its_best, four_epochs, tmp_path):
    stopped_after_its_best.rename(tmp_path / "moved")
    assert four_epochs("moved", *STANDS_STILL, "--resume", "auto") == 0
    state = json.loads((tmp_path / "moved" / "trainer_state.json").read_text())
    assert state["best_model_checkpoint"] == str(tmp_path / "moved" / "checkpoint-3")


def test_a_run_does_not_go_on_without_its_best_checkpoint(stopped_after_its_best, four_epochs, capsys):
    weights = stopped_after_its_best / "checkpoint-3" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    assert four_epochs("run", *STANDS_STILL, "--resume", "auto") == 2
    assert "the best checkpoint" in capsys.readouterr().err
    assert not (stopped_after_its_best / "model.safetensors").exists()


def test_a_run_that_only_trained_is_predicted_later(four_epochs, tmp_path):
    assert four_epochs("whole") == 0
    assert four_epochs("run", "--do_train") == 0
    assert not (tmp_path / "run" / "predictions.csv").exists()
    for step in ("--do_predict", "--do_eval", "--do_predict"):
        assert four_epochs("run", "--resume", "auto", step) == 0
    assert (tmp_path / "run" / "predictions.csv").read_bytes() == (tmp_path / "whole" / "predictions.csv").read_bytes()


def test_predictions_of_a_run_that_was_not_trained_to_its_end(four_epochs, at_call, capsys):
    at_call("training_step", 4, send(signal.SIGTERM))
    assert four_epochs("run") == 143
    assert four_epochs("run", "--resume", "auto", "--do_predict") == 2
    assert "trained to its end" in capsys.readouterr().err


def test_a_damaged_best_checkpoint_is_not_loaded(four_epochs, at_call, tmp_path, capsys):
    def flip():
        weights = tmp_path / "run" / "checkpoint-3" / "model.safetensors"
        weights.write_bytes(weights.read_bytes()[:-4] + b"\0\0\0\1")

    rates = ["--learning_rate", "0", "--backbone_learning_rate", "0"]  # so the first epoch stays the best
    at_call("_load_best_model", 1, flip)
    assert four_epochs("run", *rates) == 2
    assert "the best checkpoint" in capsys.readouterr().err


def test_early_stopping_over_a_kill_behind_it(four_epochs, at_call, monkeypatch, digest, tmp_path):
    stops = ["--learning_rate", "0", "--backbone_learning_rate", "0", "--early_stopping_patience", "2"]
    assert four_epochs("whole", *stops) == 0
    assert [step for step, _ in checkpoints(tmp_path / "whole")][-1] == 9

    def die():
        raise KeyboardInterrupt

    at_call("save_state", 1, die)
    assert four_epochs("run", *stops) == 130
    monkeypatch.undo()
    monkeypatch.setattr(VocalBurstTrainer, "training_step", None)  # it must not train on
    assert four_epochs("run", *stops, "--resume", "auto") == 0
    assert digest(tmp_path / "run") == digest(tmp_path / "whole")


def test_evaluating_more_often_changes_nothing(four_epochs, digest, tmp_path):
    assert four_epochs("whole", *LAST) == 0
    often = ["--eval_strategy", "steps", "--eval_steps", "1", "--save_strategy", "steps", "--save_steps", "5"]
    assert four_epochs("often", *LAST, *often) == 0
    assert digest(tmp_path / "often") == digest(tmp_path / "whole")


@pytest.mark.parametrize("workers", ["0", pytest.param("2", marks=pytest.mark.slow)])
def test_a_clip_with_nan_stops_the_run_and_names_step_and_clip(
    make_corpus, tiny_flags, tmp_path, capsys, monkeypatch, workers
):
    corpus = make_corpus(tmp_path / "corpus")
    flags = [*tiny_flags, "--data_dir", str(corpus), "--task", "two", "--output_dir", str(tmp_path / "run")]
    path = corpus / "audio" / "any" / "00002.wav"
    step, done = VocalBurstTrainer.training_step, []

    def poison(self, *args, **kwargs):
        done.append(1)
        if len(done) == 3:
            samples, rate = soundfile.read(path, dtype="float32")
            soundfile.write(path, np.append(samples[:-1], np.float32("nan")), rate, subtype="FLOAT")
        return step(self, *args, **kwargs)

    monkeypatch.setattr(VocalBurstTrainer, "training_step", poison)
    loading = ["--dataloader_num_workers", workers, "--dataloader_persistent_workers", "false"]
    assert run("train", [*flags, *loading]) == 2
    message = capsys.readouterr().err
    assert "step " in message
    assert "File_ID 00002" in message
    assert "NaN" in message
    assert checkpoints(tmp_path / "run") == [(3, None)]


@pytest.mark.slow
@pytest.mark.parametrize("workers", ["0", "1"])
def test_a_validation_clip_that_cannot_be_read_is_named(make_corpus, tiny_flags, tmp_path, capsys, workers):
    corpus = make_corpus(tmp_path / "corpus")
    labels = pd.read_csv(corpus / "labels" / "two_info.csv", dtype=str)
    file_id = labels.loc[labels["Split"] == "Val", "File_ID"].iloc[0].strip("[]")
    path = corpus / "audio" / "any" / f"{file_id}.wav"
    samples, rate = soundfile.read(path, dtype="float32")
    soundfile.write(path, np.append(samples[:-1], np.float32("nan")), rate, subtype="FLOAT")
    flags = [*tiny_flags, "--data_dir", str(corpus), "--task", "two", "--output_dir", str(tmp_path / "run")]
    assert run("train", [*flags, "--dataloader_num_workers", workers]) == 2
    (message,) = (line for line in capsys.readouterr().err.splitlines() if "avb train: " in line)
    assert f"File_ID {file_id}" in message
    assert "NaN" in message


def test_changed_clips_are_refused_on_resume(make_corpus, tiny_flags, tmp_path, capsys):
    corpus = make_corpus(tmp_path / "corpus")
    flags = [*tiny_flags, "--data_dir", str(corpus), "--task", "two", "--output_dir", str(tmp_path / "run")]
    assert run("train", flags) == 0
    path = corpus / "audio" / "any" / "00002.wav"
    samples, rate = soundfile.read(path)
    soundfile.write(path, samples[:-100], rate)
    assert run("train", [*flags, "--resume", "auto"]) == 2
    assert "data.train: " in capsys.readouterr().err


def test_a_disk_that_fills_up_later_in_a_save(four_epochs, at_call, tmp_path, capsys):
    def fail():
        raise RuntimeError("PytorchStreamWriter failed writing file data/7")  # torch's word for a full disk

    at_call("_save_optimizer_and_scheduler", 2, fail)
    assert four_epochs("run") == 2
    assert "checkpoint-6 could not be written (PytorchStreamWriter failed" in capsys.readouterr().err
    assert [step for step, damage in checkpoints(tmp_path / "run") if damage is None] == [3]
