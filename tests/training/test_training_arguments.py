"""Defaults, steps that are asked for, and what is refused."""

import dataclasses

import pytest
from transformers import TrainingArguments

from avb_hf.training.arguments import CommonArguments, RunArguments
from avb_hf.training.training_arguments import REFUSED, VocalBurstTrainingArguments


def arguments(tmp_path, **fields):
    return VocalBurstTrainingArguments(output_dir=str(tmp_path), **fields)


def steps(args):
    return (args.do_train, args.do_eval, args.do_predict)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, (True, True, True)),
        ({"do_train": True}, (True, False, False)),
        ({"do_eval": True}, (False, True, False)),
        ({"do_predict": True}, (False, False, True)),
        ({"do_train": True, "do_predict": True}, (True, False, True)),
        ({"do_train": False, "do_eval": True}, (False, True, False)),
    ],
)
def test_steps(tmp_path, given, expected):
    assert steps(arguments(tmp_path, **given)) == expected


def test_nothing_to_do(tmp_path):
    with pytest.raises(ValueError, match="nothing to do"):
        arguments(tmp_path, do_train=False, do_eval=False, do_predict=False)


def test_no_training_needs_no_evaluation_strategy(tmp_path):
    args = arguments(tmp_path, do_eval=True)
    assert (args.eval_strategy, args.save_strategy, args.load_best_model_at_end) == ("no", "no", False)


@pytest.mark.parametrize(
    ("fields", "advice"),
    [
        ({"hub_token": "hf_secret"}, "HF_TOKEN"),
        ({"train_sampling_strategy": "group_by_length"}, "leave it out"),
        ({"remove_unused_columns": True}, "leave it out"),
        ({"dataloader_drop_last": True}, "leave it out"),
        ({"prediction_loss_only": True}, "leave it out"),
        ({"per_device_train_batch_size": 0}, "at least 1"),
        ({"gradient_accumulation_steps": 0}, "at least 1"),
        ({"output_dir": None}, "--output_dir is required"),
    ],
)
def test_what_does_not_work_here_is_refused_with_advice(tmp_path, fields, advice):
    with pytest.raises(ValueError, match=advice) as caught:
        VocalBurstTrainingArguments(**{"output_dir": str(tmp_path)} | fields)
    assert next(iter(fields)) in str(caught.value)
    assert "hf_secret" not in str(caught.value)


@pytest.mark.parametrize("flag", ["length_pool", "early_stopping_patience"])
def test_counts_start_at_one(flag):
    with pytest.raises(ValueError, match=f"--{flag} must be at least 1, got 0"):
        RunArguments(**{flag: 0})
    assert getattr(RunArguments(**{flag: 1}), flag) == 1


@pytest.mark.parametrize("fields", [{"freeze": "backbone"}, {"freeze": "none", "cache": "off"}], ids=str)
def test_frozen_dropout_needs_something_frozen_and_no_cache(fields):
    with pytest.raises(ValueError, match="--frozen_dropout goes with something frozen, and needs --cache off"):
        RunArguments(frozen_dropout=True, **fields)
    assert RunArguments(frozen_dropout=True, freeze="backbone", cache="off").frozen_dropout


def test_optimizers_are_ours_or_those_of_transformers(tmp_path):
    assert arguments(tmp_path).optim == TrainingArguments.default_optim
    assert arguments(tmp_path, optim="sgd").optim == "sgd"
    assert arguments(tmp_path, optim="adam").optim == "adam"
    assert arguments(tmp_path, optim="adam").to_sanitized_dict()["optim"] == "adam"
    with pytest.raises(ValueError, match="adamm"):
        arguments(tmp_path, optim="adamm")


def test_refused_values_are_no_defaults(tmp_path):
    args = arguments(tmp_path)
    assert all(getattr(args, flag) != refused for flag, (refused, _) in REFUSED.items())


def test_sensible_defaults(tmp_path):
    args = arguments(tmp_path)
    assert args.logging_nan_inf_filter is False
    assert args.remove_unused_columns is False
    assert args.load_best_model_at_end is True
    assert args.eval_strategy == args.save_strategy == "epoch"
    assert args.report_to == []


def test_common_arguments_tell_the_defaults_that_are_in_force(tmp_path):
    args = arguments(tmp_path)
    resolved = {"output_dir": str(tmp_path), "do_train": True, "do_eval": True, "do_predict": True, "report_to": []}
    for field in dataclasses.fields(CommonArguments):
        assert getattr(args, field.name) == resolved.get(field.name, field.default), field.name
