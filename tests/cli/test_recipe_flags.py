"""Every flag of the recipes `paper`, `released` and `recommended`: what it says is what is built and done."""

import json
from functools import cached_property
from importlib.resources import files
from pathlib import Path

import pytest
import torch
import yaml
from recipe_effects import EFFECTS, Effect, trained
from safetensors.torch import load_file

from avb_hf.cli.train import parse
from avb_hf.data.arguments import DataArguments
from avb_hf.data.clips import ClipReader
from avb_hf.data.sources import load_corpus
from avb_hf.tasks import TASKS
from avb_hf.training.build import build_for_run
from avb_hf.training.trainer import make_trainer

TESTS = Path(__file__).parents[1]
RECIPES = {
    name: yaml.safe_load(files("avb_hf").joinpath("recipes", f"{name}.yaml").read_text(encoding="utf-8"))
    for name in ("paper", "released", "recommended")
}
LABELS = [*range(8), 0]  # of the task type: the first class twice, all others once


class Made:
    """What flags stand for: a model, and a trainer as soon as it is asked for."""

    def __init__(self, words, splits, task):
        self.task, self.splits = TASKS[task], splits
        self.data, self.model_args, self.run_args, self.args = parse([str(word) for word in words])
        torch.manual_seed(0)
        labels = LABELS if self.task.is_classification else None
        self.model, self.extractor = build_for_run(self.task, self.model_args, self.run_args, labels)

    @cached_property
    def trainer(self):
        return make_trainer(self.model, self.extractor, self.splits, self.task, self.run_args, self.args)

    def group_of(self, parameter):
        """The optimizer's group that holds a parameter."""
        groups = self.trainer.create_optimizer().param_groups
        return next(group for group in groups if any(parameter is other for other in group["params"]))

    def is_trained(self, part):
        return any(parameter.requires_grad for parameter in part.parameters())


@pytest.fixture(scope="module")
def splits(corpus_dir):
    data = DataArguments(data_dir=str(corpus_dir), task="two")
    return load_corpus(TASKS["two"], data).with_transform(ClipReader(data))


@pytest.fixture
def make(splits, tiny_backbone, tmp_path):
    """Give a function that makes what a recipe stands for, with a flag of another value, if one is given."""

    def go(recipe, flag, effect, value=None):
        backbone = json.dumps(tiny_backbone | dict(effect.backbone))
        small = {"rnn_hidden_size": 8, "rnn_num_layers": 1, "precision": "fp32"} | dict(effect.common)
        words = [
            recipe,
            "--encoder_config",
            backbone,
            "--output_dir",
            tmp_path / f"out{value}",
            "--disable_tqdm",
            "true",
        ]
        words += [word for name, given in small.items() if name != flag for word in (f"--{name}", given)]
        words += [] if value is None else [f"--{flag}", str(value).lower()]
        return Made(words, splits, effect.task)

    return go


# Flags whose effect takes a whole run to see, and the test that does it.
ELSEWHERE = {
    "cache": "training/test_frozen.py::test_cached_and_live_runs_end_alike",
    "gradient_accumulation_steps": "cli/test_recipes.py::test_what_was_published_is_trained_on_whole_batches",
    "load_best_model_at_end": "cli/test_recipe_flags.py::test_the_best_epoch_is_kept",
}


def cases():
    for recipe, flags in RECIPES.items():
        for flag in (flag for flag in flags if flag in EFFECTS):
            yield pytest.param(recipe, flag, marks=[pytest.mark.slow] * EFFECTS[flag].trains)


@pytest.mark.wide
@pytest.mark.parametrize(("recipe", "flag"), cases())
def test_a_flag_does_what_it_says(recipe, flag, make):
    effect, own = EFFECTS[flag], RECIPES[recipe][flag]
    other = next(value for value, seen in effect.expected.items() if seen != effect.expected[own])
    assert effect.observe(make(recipe, flag, effect)) == effect.expected[own]
    assert effect.observe(make(recipe, flag, effect, other)) == effect.expected[other]


@pytest.mark.parametrize("recipe", RECIPES)
def test_every_flag_has_a_test(recipe):
    assert RECIPES[recipe].keys() <= EFFECTS.keys() | ELSEWHERE.keys()


@pytest.mark.parametrize("flag", ELSEWHERE)
def test_the_tests_elsewhere_are_there(flag):
    path, _, name = ELSEWHERE[flag].partition("::")
    assert f"\ndef {name}(" in (TESTS / path).read_text(encoding="utf-8")


@pytest.mark.slow
@pytest.mark.parametrize("recipe", RECIPES)
def test_the_best_epoch_is_kept(recipe, make):
    for value, kept in ((True, 2), (False, 3)):
        effect = Effect(trained, {}, {"num_train_epochs": 3, "save_total_limit": 3})
        made, scores = make(recipe, "load_best_model_at_end", effect, value), iter([0.1, 0.3, 0.2])
        made.trainer.compute_metrics = lambda prediction, scores=scores: {"ccc": next(scores)}
        made.trainer.train()
        weights = made.model.state_dict()
        for epoch in (1, 2, 3):
            stored = load_file(Path(made.args.output_dir) / f"checkpoint-{2 * epoch}" / "model.safetensors")
            assert all(torch.equal(weights[name], weight) for name, weight in stored.items()) == (epoch == kept)
