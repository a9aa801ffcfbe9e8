"""What FSDP is told: the classes to wrap, and the example configuration."""

from pathlib import Path

import pytest
from accelerate import FullyShardedDataParallelPlugin
from accelerate.commands.config.config_args import load_config_from_file
from accelerate.commands.launch import _validate_launch_command, launch_command_parser
from accelerate.utils.dataclasses import get_module_class_from_name
from accelerate.utils.fsdp_utils import fsdp2_prepare_auto_wrap_policy
from accelerate.utils.launch import prepare_multi_gpu_env

CONFIG = str(Path(__file__).resolve().parents[2] / "examples" / "fsdp.yaml")


def blocks_of(model):
    encoder = model.encoder if hasattr(model.encoder, "layers") else model.encoder.encoder
    return list(encoder.layers)


@pytest.fixture
def launched(monkeypatch):
    """The arguments of `accelerate launch` with the example, and its environment in force."""
    args = launch_command_parser().parse_args(["--config_file", CONFIG, "run_avb.py", "quickstart"])
    args, _, _ = _validate_launch_command(args)
    for name, value in prepare_multi_gpu_env(args).items():
        if name.startswith(("FSDP_", "ACCELERATE_")):
            monkeypatch.setenv(name, value)
    return args


def test_uncut_classes_are_there(backbone, make_model):
    model = make_model(backbone)
    assert {type(block).__name__ for block in blocks_of(model)} <= model._no_split_modules
    assert [name for name in model._no_split_modules if get_module_class_from_name(model, name) is None] == []


def test_accelerate_takes_every_key_of_the_example(launched):
    config = load_config_from_file(CONFIG)
    known = vars(launch_command_parser().parse_args(["run_avb.py"]))
    assert [key for key in config.fsdp_config if key not in known] == []
    in_force = {key: str(getattr(launched, key)) for key in config.fsdp_config}
    assert in_force == {key: str(value) for key, value in config.fsdp_config.items()}
    assert (launched.use_fsdp, launched.num_processes) == (True, 2)


@pytest.mark.wide
def test_under_the_example_every_block_is_wrapped(backbone, make_model, launched):
    model = make_model(backbone)
    plugin = FullyShardedDataParallelPlugin()
    wraps = fsdp2_prepare_auto_wrap_policy(plugin, model)
    wrapped = [module for module in model.modules() if wraps(module)]
    assert plugin.fsdp_version == 2
    assert set(blocks_of(model)) <= set(wrapped)
    assert {type(module).__name__ for module in wrapped} == model._no_split_modules
