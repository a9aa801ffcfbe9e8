"""Recipes and flags: which wins, and how mistakes are answered."""

import json
from importlib.resources import files
from pathlib import Path

import pytest
import yaml

from avb_hf.cli import run
from avb_hf.cli.flags import recipe_flags, split_recipe
from avb_hf.cli.train import parse

CONTENT = {
    "task": "two", "learning_rate": 1e-4, "do_train": True, "label_columns": ["a", "b"],
    "encoder_config": {"conv_dim": [8]},
}  # fmt: skip
RECIPES = {
    ".yaml": "task: two\nlearning_rate: 1e-4\ndo_train: true\nlabel_columns: [a, b]\n"
    "encoder_config:\n  conv_dim: [8]\n",
    ".toml": 'task = "two"\nlearning_rate = 1e-4\ndo_train = true\nlabel_columns = ["a", "b"]\n'
    "[encoder_config]\nconv_dim = [8]\n",
    ".json": json.dumps(CONTENT),
}


@pytest.fixture
def recipe(tmp_path):
    """Give a function that writes a recipe and returns its path."""

    def write(text, suffix=".yaml"):
        path = tmp_path / f"mine{suffix}"
        path.write_text(text)
        return str(path)

    return write


def parsed(argv, tmp_path):
    return parse([*argv, "--output_dir", str(tmp_path / "out")])


@pytest.mark.parametrize("suffix", RECIPES)
def test_a_recipe_of_each_kind(recipe, tmp_path, suffix):
    data, model, _, args = parsed([recipe(RECIPES[suffix], suffix)], tmp_path)
    assert (data.task, data.label_columns) == ("two", ["a", "b"])
    assert args.learning_rate == 1e-4
    assert (args.do_train, args.do_eval, args.do_predict) == (True, False, False)
    assert json.loads(model.encoder_config) == {"conv_dim": [8]}


def test_flags_beat_the_recipe(recipe, tmp_path):
    path = recipe("task: two\nlearning_rate: 1e-4\ndo_train: true\ndo_eval: true\npooling_mask: true\n")
    flags = ["--learning_rate", "0.5", "--do_train", "false", "--pooling_mask", "false"]
    data, model, _, args = parsed([path, *flags], tmp_path)
    assert (data.task, args.learning_rate, args.do_train, args.do_eval) == ("two", 0.5, False, True)
    assert model.pooling_mask is False


@pytest.mark.parametrize("entry", sorted(entry.name for entry in files("avb_hf").joinpath("recipes").iterdir()))
def test_every_packaged_recipe_parses(tmp_path, entry):
    data, model, _, args = parsed([Path(entry).stem], tmp_path)
    assert (args.do_train, args.do_eval, args.do_predict) == (True, True, True)
    assert args.output_dir == str(tmp_path / "out")
    stated = yaml.safe_load(files("avb_hf").joinpath("recipes", entry).read_text())
    assert data.source == stated.get("source", "avb")
    assert model.pooling == stated["pooling"]


def test_an_empty_value_leaves_the_default(recipe, tmp_path):
    assert parsed([recipe("trim_db:\ntask: two\n")], tmp_path)[0].trim_db is None


def test_a_flag_without_a_recipe_stays_as_it_is():
    assert split_recipe(["--task", "two"]) == ["--task", "two"]
    assert split_recipe([]) == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("learning_rte: 0.1\n", "--learning_rte; did you mean --learning_rate?"),
        ("poling: max\n", "did you mean --pooling?"),
        ("learning_rate: quick\n", "invalid float value: 'quick'"),
        ("per_device_train_batch_size: 2.5\n", "invalid int value: '2.5'"),
        ("do_train: perhaps\n", "perhaps"),
        ("pooling: maxx\n", "maxx"),
        ("- task\n", "mapping"),
        ("task: [two\n", "cannot be read"),
        ("learning_rate: [0.1, 0.2]\n", "0.2"),
    ],
)
def test_mistakes_in_a_recipe(recipe, tmp_path, capsys, text, message):
    assert run("train", [recipe(text), "--output_dir", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["quickstrat"], "did you mean 'quickstart'?"),
        (["none.yaml"], "none.yaml does not exist"),
        (["--learningrate", "1"], "did you mean --learning_rate?"),
        (["--learning_rat", "1"], "did you mean --learning_rate?"),
        (["--seed"], "--seed"),
        (["--seed", "one"], "invalid int value"),
        ([], "--output_dir is required"),
        (["--rnn", "lstmm", "--output_dir", "x"], "lstm"),
    ],
)
def test_mistakes_on_the_command_line(capsys, tmp_path, monkeypatch, argv, message):
    monkeypatch.chdir(tmp_path)
    assert run("train", argv) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1, "one line, no usage, no traceback"
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--hub_token", "hf_secret"], "HF_TOKEN"),
        (["--train_sampling_strategy", "group_by_length"], "like length anyway"),
        (["--remove_unused_columns", "true"], "leave it out"),
    ],
)
def test_refused_flags(capsys, tmp_path, flags, message):
    assert run("train", [*flags, "--output_dir", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert flags[0] in error
    assert message in error
    assert "hf_secret" not in error
    assert not (tmp_path / "out").exists()


def test_transformers_resume_flag_is_ours(tmp_path):
    assert parsed(["--resume_from_checkpoint", "there"], tmp_path)[2].resume == "there"
    assert parsed(["--resume", "auto"], tmp_path)[2].resume == "auto"


def test_recipe_values_become_words(recipe):
    path = recipe("do_train: false\nmax_steps: -1\nclass_names: [a b, c]\n")
    assert recipe_flags(path) == ["--do_train", "false", "--max_steps", "-1", "--class_names", "a b", "c"]
