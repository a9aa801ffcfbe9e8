"""The recipes `paper`, `released` and `recommended`: they train, and say what they do."""

import json
import subprocess
import sys
from importlib.resources import files

import pytest
import torch
import yaml

from avb_hf.cli import run
from avb_hf.cli.train import parse
from avb_hf.tasks import TASKS
from avb_hf.training.build import build_for_run
from avb_hf.training.training_arguments import VocalBurstTrainingArguments

RECIPES = ("paper", "released", "recommended")
TASK_NAMES = ("two", "type")  # a regression and a classification


def content(recipe):
    return yaml.safe_load(files("avb_hf").joinpath("recipes", f"{recipe}.yaml").read_text(encoding="utf-8"))


def comments(recipe):
    """What stands behind each flag."""
    text = files("avb_hf").joinpath("recipes", f"{recipe}.yaml").read_text(encoding="utf-8")
    lines = [line.partition("#") for line in text.splitlines() if line and not line.startswith("#")]
    return {flag.partition(":")[0]: comment.strip() for flag, _, comment in lines}


@pytest.fixture
def train(corpus_dir, tiny_backbone, tmp_path):
    """Give a function that trains by a recipe on a few clips and a tiny backbone, and returns folder and exit code."""

    def go(recipe, *flags, task="two", folder="out"):
        base = ["--data_dir", corpus_dir, "--task", task, "--encoder_config", json.dumps(tiny_backbone)]
        small = ["--max_train_samples", "12", "--per_device_train_batch_size", "6", "--num_train_epochs", "1"]
        quick = ["--rnn_hidden_size", "8", "--precision", "fp32"]
        words = [recipe, *base, *small, *quick, "--output_dir", tmp_path / folder, *flags]
        return tmp_path / folder, run("train", [str(word) for word in words])

    return go


def built(recipe, tiny_backbone, tmp_path, task="two", *flags):
    """Model, feature extractor and arguments that a recipe stands for; None for what holds without one."""
    first = [] if recipe is None else [recipe]
    argv = [*first, "--encoder_config", json.dumps(tiny_backbone), "--output_dir", str(tmp_path / "out"), *flags]
    data, model_args, run_args, args = parse(argv)[:4]
    torch.manual_seed(0)
    return *build_for_run(TASKS[task], model_args, run_args), (data, model_args, run_args, args)


@pytest.mark.slow
@pytest.mark.parametrize("task", TASK_NAMES)
@pytest.mark.parametrize("recipe", RECIPES)
def test_a_recipe_trains_every_kind_of_task_by_its_own_loss(train, recipe, task):
    folder, code = train(recipe, task=task)
    assert code == 0
    config = json.loads((folder / "config.json").read_text())
    assert config["loss"] == TASKS[task].loss
    results = json.loads((folder / "all_results.json").read_text())
    assert f"test_{TASKS[task].metric}" in results


@pytest.mark.slow
@pytest.mark.parametrize("recipe", RECIPES)
def test_a_recipe_runs_on_the_demo_corpus(recipe, tiny_backbone, tmp_path, monkeypatch):
    (tmp_path / "tiny.json").write_text(json.dumps(tiny_backbone))
    flags = ["--source", "demo", "--encoder_config", tmp_path / "tiny.json", "--output_dir", tmp_path / "out"]
    small = ["--max_train_samples", "32", "--max_eval_samples", "32", "--max_steps", "2"]
    assert run("train", [recipe, *map(str, [*flags, *small])]) == 0


WORDS = {
    "paper": ("paper", "ours"),
    "released": ("code", "ours", "follows"),
    "recommended": ("paper", "code", "ours"),
}


@pytest.mark.parametrize("recipe", RECIPES)
def test_every_flag_says_whose_word_it_is(recipe):
    assert [flag for flag, comment in comments(recipe).items() if not comment.startswith(WORDS[recipe])] == []
    assert comments(recipe).keys() == content(recipe).keys()


def test_recommended_is_what_holds_without_a_recipe(tiny_backbone, tmp_path):
    for task in TASK_NAMES:
        by_recipe, by_default = (built(recipe, tiny_backbone, tmp_path, task) for recipe in ("recommended", None))
        assert by_recipe[0].config.to_dict() == by_default[0].config.to_dict()
        assert by_recipe[1].to_dict() == by_default[1].to_dict()
        (data, _, ours, args), (no_data, _, default, no_args) = by_recipe[2], by_default[2]
        assert (data, args.to_dict()) == (no_data, no_args.to_dict())
        assert vars(ours) | {"backbone_learning_rate": None} == vars(default)
        assert ours.backbone_learning_rate == pytest.approx(0.1 * args.learning_rate)


def head_of(model):
    config = model.config
    return {
        "shape": (config.rnn, config.rnn_hidden_size, config.rnn_num_layers, config.states_norm),
        "pooling": (config.pooling, config.pool_over, config.pooling_mask),
        "output": (config.output_norm, config.output_activation, config.activation_before_pooling),
        "loss": (config.loss, config.ccc_reduction),
    }


LSTM = ("lstm", 512, 2, "none")
HEADS = {
    ("paper", "two"): ((True, "none", "none", False), ("ccc", "mean")),
    ("paper", "type"): ((True, "none", "none", False), ("cross_entropy", "mean")),
    ("released", "two"): ((False, "batch", "sigmoid", True), ("ccc", "sum")),
    ("released", "type"): ((False, "none", "none", True), ("cross_entropy", "sum")),
    ("recommended", "two"): ((True, "none", "sigmoid", False), ("ccc", "mean")),
}


@pytest.mark.parametrize(("recipe", "task"), HEADS)
def test_heads(recipe, task, tiny_backbone, tmp_path):
    (mask, *output), loss = HEADS[recipe, task]
    model, *_ = built(recipe, tiny_backbone, tmp_path, task)
    expected = {"shape": LSTM, "pooling": ("last", "logits", mask), "output": tuple(output), "loss": loss}
    assert head_of(model) == expected


def test_the_released_code_has_no_batch_norm_with_the_squared_error(tiny_backbone, tmp_path):
    model, *_ = built("released", tiny_backbone, tmp_path, "two", "--loss", "mse")
    assert (model.config.loss, model.config.output_norm) == ("mse", "none")


# What is trained, whether dropout is on in the backbone, and how clips are normalised.
BACKBONES = {"paper": ("all", True, False), "released": ("head", True, False), "recommended": ("blocks", True, True)}


@pytest.mark.parametrize("recipe", RECIPES)
def test_backbones(recipe, tiny_backbone, tmp_path):
    what, has_dropout, do_normalize = BACKBONES[recipe]
    model, extractor, _ = built(recipe, tiny_backbone, tmp_path)
    model.train()
    encoder = model.encoder
    assert all(p.requires_grad == (what == "all") for p in encoder.feature_extractor.parameters())
    assert all(p.requires_grad == (what != "head") for p in encoder.encoder.parameters())
    assert all(module.training == has_dropout for module in encoder.encoder.modules())
    assert extractor.do_normalize is do_normalize


def test_optimisation(tiny_backbone, tmp_path):
    paper, released = (built(recipe, tiny_backbone, tmp_path)[2] for recipe in ("paper", "released"))
    assert (paper[3].optim, released[3].optim) == ("adam", "adamw_torch")
    assert paper[2].backbone_learning_rate == paper[3].learning_rate == released[3].learning_rate == 1e-4
    for _, _, run_args, args in (paper, released):
        assert (args.weight_decay, run_args.decay_all, args.max_grad_norm) == (0.0625, True, 0)
        assert (args.lr_scheduler_type, args.get_warmup_steps(1000)) == ("cosine", 0)
        assert (args.per_device_train_batch_size, args.num_train_epochs, run_args.length_pool) == (16, 20, 1)
        assert (args.eval_strategy, args.load_best_model_at_end) == ("epoch", True)


def test_what_was_published_is_trained_without_cache(train, capsys):
    folder, code = train("released", "--cache", "auto")
    assert code == 2
    assert "--frozen_dropout goes with something frozen, and needs --cache off" in capsys.readouterr().err
    assert not (folder / "model.safetensors").exists()


@pytest.mark.parametrize("processes", [1, 2])
@pytest.mark.parametrize("flags", [["two"], ["two", "--loss", "mse"], ["type"]], ids=" ".join)
def test_what_was_published_is_trained_on_whole_batches(train, flags, processes, monkeypatch, capsys):
    monkeypatch.setattr(VocalBurstTrainingArguments, "world_size", processes)
    task, *more = flags
    accumulation = 3 - processes
    folder, code = train("released", *more, "--gradient_accumulation_steps", accumulation, task=task)
    assert code == 2
    told = capsys.readouterr().err
    assert (
        f"no batch may be cut: train in one process with --gradient_accumulation_steps 1, got {processes} and" in told
    )
    assert "frozen_dropout" in told
    assert not (folder / "model.safetensors").exists()


@pytest.mark.slow
def test_what_was_published_is_not_trained_in_two_processes(corpus_dir, tiny_backbone, tmp_path):
    words = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", "-m", "avb_hf"]
    words += ["train", "released", "--data_dir", corpus_dir, "--task", "type", "--use_cpu"]
    words += ["--encoder_config", json.dumps(tiny_backbone), "--output_dir", tmp_path / "out"]
    done = subprocess.run([*map(str, words)], capture_output=True, text=True, timeout=300)
    assert done.returncode == 1
    assert "no batch may be cut" in done.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_an_audit_names_the_unmasked_pooling(train, capsys):
    folder, _ = train("released", "--pooling", "mean")
    capsys.readouterr()
    assert run("audit", [str(folder), "--max_clips", "4"]) == 1
    assert "FAIL, probably since pooling_mask is false: mean pooling reads padded frames" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize(
    ("task", "norm"), [("two", " (its batch norm, in training, did take padded frames)"), ("type", "")]
)
def test_an_audit_names_the_unmasked_pooling_where_no_score_shows_it(train, task, norm, caplog):
    folder, _ = train("released", task=task)
    caplog.clear()
    assert run("audit", [str(folder), "--max_clips", "4"]) == 0
    (told,) = [record.getMessage() for record in caplog.records if "pooling_mask" in record.getMessage()]
    assert told.startswith(f"pooling_mask is false: last pooling picks one frame, so no score shows it{norm};")


@pytest.mark.slow
def test_an_audit_passes_what_the_paper_says(train, caplog):
    folder, _ = train("paper", "--pooling", "mean")
    caplog.clear()
    assert run("audit", [str(folder), "--max_clips", "4"]) == 0
    assert not [record for record in caplog.records if "pooling_mask" in record.getMessage()]
