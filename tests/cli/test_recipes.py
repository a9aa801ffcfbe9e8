"""The recipes `paper`, `released` and `recommended`: they train, say what they do, and every flag does something."""

import json
from importlib.resources import files

import pytest
import torch
import yaml
from safetensors.torch import load_file

from avb_hf.cli import run
from avb_hf.cli.train import parse
from avb_hf.tasks import TASKS
from avb_hf.training.build import build_for_run

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


@pytest.mark.parametrize("recipe", ["paper", "released"])
def test_every_flag_says_whose_word_it_is(recipe):
    words = {"paper": ("paper", "ours"), "released": ("code", "ours", "follows")}[recipe]
    together = {"save_strategy", "load_best_model_at_end"}  # with eval_strategy above them
    unsaid = [flag for flag, comment in comments(recipe).items() if not comment.startswith(words)]
    assert set(unsaid) == together
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


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--cache", "auto"], "--frozen_dropout goes with something frozen, and needs --cache off"),
        (["--gradient_accumulation_steps", "2"], "no batch may be cut"),
    ],
)
def test_what_the_released_code_cannot_do_is_refused_before_training(train, flags, message, capsys):
    folder, code = train("released", *flags)
    assert code == 2
    assert message in capsys.readouterr().err
    assert not (folder / "model.safetensors").exists()


def test_an_audit_names_the_unmasked_pooling(train, capsys):
    folder, _ = train("released", "--pooling", "mean")
    capsys.readouterr()
    assert run("audit", [str(folder), "--max_clips", "4"]) == 1
    assert "FAIL, probably since pooling_mask is false: mean pooling reads padded frames" in capsys.readouterr().out


def test_an_audit_passes_what_the_paper_says(train, capsys):
    folder, _ = train("paper", "--pooling", "mean")
    assert run("audit", [str(folder), "--max_clips", "4"]) == 0


GROUP_NORM = {"feat_extract_norm": "group", "do_stable_layer_norm": False}
# Another value of each flag of `released`, and what both runs have beside it so that it can be told.
OTHERS = {
    "do_normalize": ("true", []),
    "states_norm": ("layer", []),
    "masked_group_norm": ("true", ["--encoder_config", GROUP_NORM]),
    "rnn": ("gru", []),
    "rnn_hidden_size": ("4", []),
    "rnn_num_layers": ("1", []),
    "pool_over": ("states", ["--activation_before_pooling", "false"]),
    "pooling": ("max", []),
    "pooling_mask": ("true", []),
    "output_norm": ("none", []),
    "activation_before_pooling": ("false", ["--pooling", "mean"]),
    "ccc_reduction": ("mean", []),
    "freeze": ("feature_encoder", []),
    "frozen_dropout": ("false", []),
    "learning_rate": ("0.001", []),
    "lr_scheduler_type": ("constant", []),
    "warmup_steps": ("2", []),
    "optim": ("adam", []),
    "weight_decay": ("0.05", []),
    "decay_all": ("false", []),
    "max_grad_norm": ("0.001", []),
    "per_device_train_batch_size": ("4", []),
    "length_pool": ("50", []),
    "num_train_epochs": ("2", []),
    "precision": ("bf16", []),
}
# Flags that are tested where they are at home, or that change no weight of a short run.
ELSEWHERE = {
    "channels", "ccc_scope", "class_weights", "cache", "gradient_accumulation_steps", "per_device_eval_batch_size",
    "eval_strategy", "save_strategy", "load_best_model_at_end",
}  # fmt: skip


@pytest.mark.slow
def test_every_flag_of_the_released_recipe_changes_the_run(train, tiny_backbone):
    assert OTHERS.keys() | ELSEWHERE == content("released").keys()
    only = ["--do_train", "--eval_strategy", "no", "--save_strategy", "no", "--load_best_model_at_end", "false"]
    weights = {}

    def weights_of(*flags):
        words = [json.dumps(tiny_backbone | word) if isinstance(word, dict) else word for word in flags]
        if str(words) not in weights:
            folder, code = train("released", *only, *words, folder=f"run{len(weights)}")
            assert code == 0, words
            weights[str(words)] = load_file(folder / "model.safetensors")
        return weights[str(words)]

    def is_same(first, second):
        shapes = [{name: value.shape for name, value in run.items()} for run in (first, second)]
        return shapes[0] == shapes[1] and all(torch.equal(value, second[name]) for name, value in first.items())

    assert is_same(weights_of(), load_again(train, only)), "two equal runs must be equal"
    idle = [
        flag
        for flag, (value, common) in OTHERS.items()
        if is_same(weights_of(*common), weights_of(*common, f"--{flag}", value))
    ]
    assert idle == []


def load_again(train, flags):
    return load_file(train("released", *flags, folder="again")[0] / "model.safetensors")
