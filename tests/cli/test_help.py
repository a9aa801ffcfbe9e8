"""`--help`: grouped, and true."""

import dataclasses
import re
import subprocess
import sys
from pathlib import Path

import pytest

from avb_hf.cli import COMMANDS, main, run
from avb_hf.training.arguments import CommonArguments

ROOT = Path(__file__).resolve().parents[2]


def helped(capsys, flag="--help"):
    assert run("train", [flag]) == 0
    return capsys.readouterr().out


def told(text):
    """What the help says of each flag, line breaks removed."""
    parts = re.split(r"\n  (?=--)", text.split("\ndata:", 1)[1])
    return {re.match(r"--(\w+)", part)[1]: " ".join(part.split()) for part in parts if part.startswith("--")}


def test_groups_stand_in_order_with_transformers_flags_last(capsys):
    text = helped(capsys)
    heads = re.findall(r"^(\w[^\n]*):$", text, re.MULTILINE)
    assert [head.split(" ")[0] for head in heads] == ["data", "model", "run", "training"]
    last = text[text.index("\ntraining") :]
    everyone_needs = [
        "output_dir",
        "do_train",
        "do_eval",
        "do_predict",
        "learning_rate",
        "num_train_epochs",
        "max_steps",
        "per_device_train_batch_size",
        "per_device_eval_batch_size",
        "gradient_accumulation_steps",
        "seed",
        "bf16",
        "push_to_hub",
        "hub_model_id",
        "hub_strategy",
        "hub_private_repo",
        "report_to",
    ]
    assert re.findall(r"^  --(\w+)", last, re.MULTILINE) == everyone_needs


def test_defaults_that_are_shown_are_those_in_force(capsys, tmp_path):
    from avb_hf.cli.train import parse

    flags = told(helped(capsys))
    parsed = parse(["--output_dir", str(tmp_path)])[3]
    for field in dataclasses.fields(CommonArguments):
        shown = re.search(r"\(default: (\S+)\)$", flags[field.name])
        assert (shown is None) == (field.default is None), field.name
        if shown and field.name != "report_to":
            value = getattr(parsed, field.name)
            assert shown[1] == str(getattr(value, "value", value)), field.name
    assert flags["report_to"].endswith("(default: none)")
    assert parsed.report_to == []


def test_each_flag_has_its_own_help(capsys):
    flags = {name: re.sub(r"^--\w+( \[?[A-Z_]+\]?| \{\S+\})*", "", text) for name, text in told(helped(capsys)).items()}
    flags = {name: text for name, text in flags.items() if not name.startswith("no_")}
    assert all(len(text.strip()) > 5 for text in flags.values())
    assert len(set(flags.values())) == len(flags)


def test_help_all_has_more(capsys):
    some, every = told(helped(capsys)), told(helped(capsys, "--help_all"))
    assert set(some) <= set(every)
    assert {"weight_decay", "save_total_limit", "dataloader_num_workers"} <= set(every) - set(some)


def test_avb_lists_its_commands(capsys):
    assert main([]) == main(["--help"]) == 0
    shown = capsys.readouterr().out
    assert [name for name in COMMANDS if f"  {name} " not in shown] == []
    assert main(["trian"]) == 2
    assert "'train'" in capsys.readouterr().err


@pytest.mark.slow
def test_avb_is_a_module():
    command = [sys.executable, "-m", "avb_hf", "train", "--help"]
    assert "--learning_rate" in subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
