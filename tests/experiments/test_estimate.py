import dataclasses
import json

import pytest

from avb_hf.cli import train
from avb_hf.experiments.estimate import ask_in_own_process, estimate_jobs, read_cost
from avb_hf.experiments.grid import runs_of
from avb_hf.experiments.jobs import make_jobs
from avb_hf.experiments.published import read_published
from avb_hf.training.estimate import Estimate, as_clock, read_estimate

ESTIMATE = Estimate(
    num_parameters=100_000_000, num_trained=50_000_000, filling_hours=1.5, states_gb=13.6, epoch_hours=0.5,
    evaluation_hours=0.05, run_hours=12, precision="bfloat16", memory_gib=5.25,
)  # fmt: skip
TOLD = f"task high: 10 labels, regression, loss ccc\n{ESTIMATE}\nestimate: nothing was written\n"


def test_a_cost_is_read_from_what_a_run_tells():
    cost = read_cost(TOLD)
    assert cost.hours == pytest.approx(10.5)
    assert cost[1:] == pytest.approx((1.5, 13.6, 0.4, 1.6, 5.25))
    quick = read_cost(str(dataclasses.replace(ESTIMATE, run_hours=89 / 3600, filling_hours=0, states_gb=0)))
    assert (quick.hours, quick.filling_hours, quick.states_gb) == pytest.approx((89 / 3600, 0, 0))


def test_an_estimate_is_told_in_words_too():
    words = TOLD.splitlines()
    assert words[1:4] == [
        "frozen states, once: 1 h 30 min, 13.60 GB",
        "an epoch: 0 h 30 min of training, 0 h 03 min an evaluation, bfloat16",
        "the run: 12 h 00 min at most; peak memory 5.25 GiB",
    ]
    assert "frozen states" not in str(dataclasses.replace(ESTIMATE, filling_hours=0, states_gb=0))
    assert [as_clock(seconds / 3600) for seconds in (0, 29, 31, 3600 * 25)] == [
        "0.0 s",
        "29.0 s",
        "0 h 01 min",
        "25 h 00 min",
    ]


def test_a_text_without_an_estimate_is_an_error():
    with pytest.raises(ValueError, match="expected an estimate of a run, got 'nothing'"):
        read_cost("nothing")


def test_costs_add_up(settings_of, corpus_dir, tmp_path):
    asked = []

    def ask(argv):
        asked.append(argv)
        return TOLD

    scores = [score for score in read_published() if score.table in ("III", "V") and score.backbone != "end2you"]
    jobs = make_jobs(runs_of(scores, settings_of(corpus_dir)), (1, 2), tmp_path)
    lines = estimate_jobs(jobs, ask).splitlines()
    assert len(asked) == 2  # a kind is a backbone and a head; loss and task cost the same
    assert all(argv[-1] == "--estimate" for argv in asked)
    assert lines[:2] == [
        "large-lv60k, rnn lstm: 8 runs of 10 h 30 min to 26 h 15 min, 5.25 GiB of memory",
        "xlsr53, rnn lstm: 8 runs of 10 h 30 min to 26 h 15 min, 5.25 GiB of memory",
    ]
    # 4 runs of 20 epochs and 4 of 50 a backbone, and each backbone's states once
    hours = 2 * (4 * 10.5 + 4 * 26.25 + 1.5)
    assert lines[2].startswith(f"all 16 runs: {int(hours)} h 00 min at most, one after another")
    assert lines[3].startswith("disk: 6.4 GB of models and 1.6 GB of checkpoints while a run lasts in ")
    assert "27.2 GB of frozen states in " in lines[3]


def hours_told(jobs):
    return [line for line in estimate_jobs(jobs, lambda argv: TOLD).splitlines() if line.startswith("large-lv60k, ")]


@pytest.mark.parametrize(
    "flags",
    [
        ("--num_train_epochs", "3"), ("--num_train_epochs=3",), ("--num_train_epochs", "9", "--num-train-epochs", "3"),
        ("--max_steps", "100"),
    ],
)  # fmt: skip
def test_epochs_and_steps_that_the_users_flags_set_are_what_counts(flags, settings_of, corpus_dir, tmp_path):
    scores = [score for score in read_published() if score.table in ("III", "V") and score.backbone == "large-lv60k"]
    jobs = make_jobs(runs_of(scores, settings_of(corpus_dir, train_flags=flags)), (1,), tmp_path)
    assert hours_told(jobs) == [f"large-lv60k, rnn lstm: {len(jobs)} runs of 10 h 30 min, 5.25 GiB of memory"]


def test_nothing_left_costs_nothing():
    assert estimate_jobs([], None) == "every run is finished: nothing to do"


def test_a_real_estimate_can_be_read(corpus_dir, tiny_backbone, tmp_path, capsys):
    flags = ["--data_dir", str(corpus_dir), "--task", "two", "--encoder_config", json.dumps(tiny_backbone)]
    flags += ["--rnn_hidden_size", "8", "--freeze", "backbone", "--precision", "fp32"]
    assert train.main([*flags, "--output_dir", str(tmp_path / "out"), "--estimate"]) == 0
    told = capsys.readouterr().out
    cost, estimate = read_cost(told), read_estimate(told)
    assert f"model: {estimate.num_parameters:,} parameters, {estimate.num_trained:,} of them trained" in told
    assert 0 < estimate.num_trained < estimate.num_parameters
    assert 0 < cost.model_gb < 1e-3
    assert cost.hours > 0
    assert cost.filling_hours > 0


def test_a_mistake_is_told_by_its_last_line():
    with pytest.raises(ValueError, match=r"avb: the command must be one of .* got 'tarin'"):
        ask_in_own_process(["tarin"])
