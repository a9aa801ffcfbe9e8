"""In what precision a run computes: chosen by timing, written down, kept by a resume, and no trace left in the run."""

import json
import random

import numpy as np
import pytest
import torch

from avb_hf.cli import run
from avb_hf.model import VocalBurstConfig, Wav2Vec2ForVocalBurst
from avb_hf.training import precision
from avb_hf.training.exact import RandomState
from avb_hf.training.precision import DTYPES, settle_precision, time_steps
from avb_hf.training.training_arguments import VocalBurstTrainingArguments

FASTER = {"fp32": 1.0, "bf16": 0.5}
SLOWER = {"fp32": 1.0, "bf16": 2.0}
AUTO = ["--precision", "auto"]


@pytest.fixture(autouse=True)
def computes_bf16(monkeypatch):
    """Let both precisions be timed, whatever this processor is."""
    monkeypatch.setattr(precision, "bf16_is_emulated", lambda: False)


@pytest.fixture
def model(tiny_backbone):
    torch.manual_seed(3)
    config = VocalBurstConfig(
        encoder_config=tiny_backbone, num_labels=2, rnn_hidden_size=8, pooling="mean", output_norm="batch"
    )
    return Wav2Vec2ForVocalBurst(config)


@pytest.fixture
def batch():
    return {"input_values": torch.randn(3, 4_000), "labels": torch.rand(3, 2)}


@pytest.fixture
def settle(model, batch, tmp_path):
    """Give a function that settles the precision of some flags and returns the arguments."""

    def go(wanted, before=None, **flags):
        args = VocalBurstTrainingArguments(output_dir=str(tmp_path / "run"), **flags)
        seconds = settle_precision(args, wanted, before, model, lambda: batch)
        assert seconds >= 0
        return args

    return go


@pytest.fixture
def timed(monkeypatch):
    """Give a function that says what timing shall find; it returns the calls."""

    def plant(seconds):
        calls = []
        monkeypatch.setattr(precision, "time_steps", lambda *args: calls.append(args) or dict(seconds))
        return calls

    return plant


@pytest.fixture
def never_timed(monkeypatch):
    """Give a function from which on nothing may be timed."""

    def refuse(*args):
        raise AssertionError("the precision was timed")

    return lambda: monkeypatch.setattr(precision, "time_steps", refuse)


def states_of(model):
    return {name: value.clone() for name, value in model.state_dict().items()}


def drawn():
    return random.random(), np.random.rand(), torch.rand(1).item()


@pytest.mark.parametrize("frozen_blocks", [None, 1])
def test_timing_leaves_no_trace(model, batch, frozen_blocks):
    if frozen_blocks is not None:
        model.freeze_blocks(frozen_blocks)
    before, random_state = states_of(model), RandomState.now()
    expected = drawn()
    random_state.restore()
    seconds = time_steps(model, batch, DTYPES)
    assert drawn() == expected
    assert seconds.keys() == {"fp32", "bf16"}
    assert min(seconds.values()) > 0
    assert states_of(model).keys() == before.keys()
    assert all(torch.equal(value, before[name]) for name, value in states_of(model).items())
    assert int(before["output_norm.num_batches_tracked"]) == 0
    assert all(parameter.grad is None for parameter in model.parameters())


def test_both_are_computed_in_what_they_are_called(model, batch):
    seen = []
    hooked = model.encoder.encoder.layers[0].attention.q_proj
    hooked.register_forward_hook(lambda module, args, output: seen.append(output.dtype))
    model.rnn.register_forward_hook(lambda module, args, output: seen.append(output[0].dtype))
    time_steps(model, batch, DTYPES)
    # Each round has both, by turns; the head stays in float32.
    assert seen == [torch.float32, torch.float32, torch.bfloat16, torch.float32] * precision.ROUNDS


def test_the_median_of_the_rounds_behind_the_first_counts(model, batch, monkeypatch):
    clock = iter([9.0, 9.0, 1.0, 2.0, 3.0, 4.0])
    monkeypatch.setattr(precision, "_time_step", lambda *args: next(clock))
    assert time_steps(model, batch, DTYPES) == {"fp32": 2.0, "bf16": 3.0}


def test_a_precision_that_memory_is_too_small_for_is_not_chosen(model, batch, settle, monkeypatch):
    step = Wav2Vec2ForVocalBurst.forward

    def forward(self, *args, **kwargs):
        if not torch.is_autocast_enabled("cpu"):
            raise torch.OutOfMemoryError("too much")
        return step(self, *args, **kwargs)

    monkeypatch.setattr(Wav2Vec2ForVocalBurst, "forward", forward)
    seconds = time_steps(model, batch, DTYPES)
    assert seconds["fp32"] == float("inf")
    assert 0 < seconds["bf16"] < 60
    assert settle("auto").bf16


def test_the_model_is_timed_on_the_device_and_goes_back(model, batch, tmp_path, monkeypatch):
    moves = []
    monkeypatch.setattr(Wav2Vec2ForVocalBurst, "to", lambda self, device: moves.append(torch.device(device)))
    monkeypatch.setattr(precision, "time_steps", lambda *args: moves.append("timed") or FASTER)
    args = VocalBurstTrainingArguments(output_dir=str(tmp_path / "run"))
    settle_precision(args, "auto", None, model, lambda: batch)
    assert moves == [args.device, "timed", model.device]


@pytest.mark.parametrize(("bf16", "chosen"), [(0.5, True), (0.89, True), (0.95, False), (1.0, False), (2.0, False)])
def test_auto_takes_bf16_only_where_it_is_clearly_faster(settle, timed, bf16, chosen):
    calls = timed({"fp32": 1.0, "bf16": bf16})
    args = settle("auto")
    assert args.bf16 is chosen
    assert len(calls) == 1


def test_nothing_is_timed_where_bf16_is_emulated(settle, never_timed, monkeypatch):
    monkeypatch.setattr(precision, "bf16_is_emulated", lambda: True)
    never_timed()
    assert not settle("auto").bf16


@pytest.mark.parametrize("before", [True, False])
def test_a_resumed_run_goes_on_in_its_precision(settle, never_timed, before):
    never_timed()
    assert settle("auto", before).bf16 is before


@pytest.mark.parametrize("wanted", ["fp32", "bf16"])
def test_what_is_asked_for_is_not_timed(settle, never_timed, wanted):
    never_timed()
    assert settle(wanted).bf16 is (wanted == "bf16")
    assert settle(wanted, before=wanted == "fp32").bf16 is (wanted == "bf16")
    assert settle("auto", bf16=True).bf16


def test_a_run_that_does_not_train_computes_in_fp32(settle, never_timed):
    never_timed()
    assert not settle("auto", do_predict=True).bf16


def test_two_precisions_contradict_each_other(settle):
    with pytest.raises(ValueError, match="--precision fp32 and --bf16 contradict"):
        settle("fp32", bf16=True)


@pytest.mark.slow
def test_bf16_by_either_flag_is_the_same_run(train, digest, read_json):
    one, two = train("--precision", "bf16"), train("--precision", "auto", "--bf16")
    assert digest(one) == digest(two)
    for folder in (one, two):
        assert read_json(folder, "resolved_config.json")["flags"]["bf16"] is True
    assert digest(one) != digest(train("--precision", "fp32"))


@pytest.mark.slow
@pytest.mark.parametrize("seconds", [FASTER, SLOWER], ids=["faster", "slower"])
def test_the_choice_is_written_down_and_is_that_run(train, digest, read_json, timed, seconds):
    calls = timed(seconds)
    chosen = train(*AUTO, "--save_strategy", "epoch")
    assert len(calls) == 1
    is_bf16 = seconds is FASTER
    assert read_json(chosen, "resolved_config.json")["flags"]["bf16"] is is_bf16
    checkpoints = list(chosen.glob("checkpoint-*"))
    assert len(checkpoints) == 2
    for folder in (chosen, *checkpoints):
        assert read_json(folder, "training_args.json")["bf16"] is is_bf16
    assert digest(chosen) == digest(train("--precision", "bf16" if is_bf16 else "fp32"))


@pytest.mark.slow
def test_timing_for_real_ends_as_its_choice(train, digest, read_json):
    chosen = train(*AUTO)
    is_bf16 = read_json(chosen, "resolved_config.json")["flags"]["bf16"]
    assert digest(chosen) == digest(train("--precision", "bf16" if is_bf16 else "fp32"))
    assert read_json(chosen, "all_results.json")["precision_runtime"] > 0


@pytest.mark.slow
@pytest.mark.parametrize("steps", [1, 4], ids=["before the first checkpoint", "behind it"])
def test_a_resume_never_times_again(train, digest, timed, never_timed, cut_after, tmp_path, steps):
    whole = train("--precision", "bf16", "--save_strategy", "epoch")
    timed(FASTER)
    cut_after(steps, lambda: train(*AUTO, "--save_strategy", "epoch", folder=tmp_path / "cut"))
    assert len(list((tmp_path / "cut").glob("checkpoint-*"))) == steps // 3
    never_timed()
    resumed = train(*AUTO, "--save_strategy", "epoch", "--resume", "auto", folder=tmp_path / "cut")
    assert digest(resumed) == digest(whole)


@pytest.mark.slow
def test_a_trained_run_is_predicted_in_its_precision(train, read_json, timed, never_timed, tmp_path):
    timed(FASTER)
    whole, later = train(*AUTO, only=()), train(*AUTO)
    never_timed()
    train(*AUTO, "--resume", "auto", only=["--do_predict", "--do_eval"], folder=later)
    assert (later / "predictions.csv").read_bytes() == (whole / "predictions.csv").read_bytes()


def test_a_contradiction_ends_a_run(train, capsys):
    folder = train("--precision", "fp32", "--bf16", code=2)
    assert "--precision fp32 and --bf16" in capsys.readouterr().err
    assert not (folder / "resolved_config.json").exists()


@pytest.mark.slow
def test_the_command_line_overrides_a_recipes_precision(run_flags, states_dir, read_json, tmp_path):
    recipe = tmp_path / "recipe.json"
    recipe.write_text(json.dumps({"precision": "fp32", "max_steps": 1}))
    flags = run_flags()
    del flags[(place := flags.index("--precision")) : place + 2]
    for name, own in {"bare": [], "other": ["--bf16"], "same": ["--precision", "bf16"]}.items():
        words = [str(recipe), *flags, *own, "--do_train", "--output_dir", str(tmp_path / name)]
        assert run("train", words) == 0
        assert read_json(tmp_path / name, "resolved_config.json")["flags"]["bf16"] is (name != "bare")
