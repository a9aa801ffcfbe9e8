"""The record of a run: what made it, and in what another run differs."""

from __future__ import annotations

import json
import logging
import os
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from avb_hf import __version__
from avb_hf.whole_files import read_json

logger = logging.getLogger(__name__)

RESOLVED_CONFIG = "resolved_config.json"
RECORDED_PACKAGES = ("torch", "transformers", "datasets", "accelerate", "numpy", "soundfile", "librosa", "soxr")
# Flags that say how a run is started or shown, not what it computes; what lies where the data are is in their digest.
FREE_TO_CHANGE = {
    "resume", "resume_from_checkpoint", "overwrite", "allow_changed_args", "dry_run", "disable_tqdm", "do_train",
    "do_eval", "do_predict", "report_to", "run_name", "team_name", "submission", "output_dir", "transformers_version",
    "expect_world_size", "local_rank", "dataloader_num_workers", "estimate", "push_to_hub", "hub_model_id",
    "hub_strategy", "hub_private_repo", "hub_always_push", "hub_revision", "resume_from_hub", "license",
    "model_revision", "data_dir", "manifest", "split_file", "ddp_timeout",
}  # fmt: skip
# Flags that mean nothing where nothing is trained, and are turned off there.
OF_TRAINING = {"eval_strategy", "save_strategy", "load_best_model_at_end"}
# Parts of the record that must not change between a run and its resume.
BINDING = ("flags", "task", "model", "data", "processes")


def find_record(folder: str | Path, checkpoint: str | None) -> Path:
    """Return where the record of a run stands.

    Args:
        folder: The output folder.
        checkpoint: Where the run goes on from, or None; the record stands beside it.
    """
    return (Path(folder) if checkpoint is None else Path(checkpoint).parent) / RESOLVED_CONFIG


def make_record(arguments: list[Any], facts: dict[str, Any], backbone_learning_rate: float) -> dict[str, Any]:
    """Collect what made a run: flags, versions, machine, and what follows from them.

    Args:
        arguments: The argument objects of the run.
        facts: Task, data, model and processes.
        backbone_learning_rate: What that flag was resolved to.
    """
    flags: dict[str, Any] = {}
    for group in arguments:
        flags |= group.to_dict() if hasattr(group, "to_dict") else vars(group)
    versions = {"avb_hf": __version__, "python": sys.version.split()[0]}
    versions |= {name: version(name) for name in RECORDED_PACKAGES}
    machine = {
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "processes": int(os.environ.get("LOCAL_WORLD_SIZE", "0")) or None,  # that torchrun started here
    }
    flags["backbone_learning_rate"] = backbone_learning_rate
    record = {"flags": flags, "command": sys.argv, "versions": versions, "machine": machine, **facts}
    return json.loads(json.dumps(record, default=str))


def find_changes(folder: str | Path, record: dict[str, Any], checkpoint: str | None) -> list[str]:
    """Tell in what a run that is about to go on differs from the one that is to be resumed.

    Versions and machine may differ, which the log says: results may then differ in their last digits.

    Args:
        folder: The output folder.
        record: The record of the run that is about to go on.
        checkpoint: Where it goes on from, or None; the record of the run so far stands beside it.

    Returns:
        One line for each flag, or other fact that binds, which has changed.
    """
    path = find_record(folder, checkpoint)
    if not path.is_file():
        return [] if checkpoint is None else [f"{path} is missing, so nobody knows what made {checkpoint}"]
    before = read_json(path)
    for line in _differences(before, record, ("versions", "machine"), set()):
        logger.warning("resumed under other conditions, so the last digits may differ: %s", line)
    return compare_records(before, record)


def compare_records(before: dict[str, Any], record: dict[str, Any]) -> list[str]:
    """Tell in which flags, and other facts that bind, a run differs from an earlier one; one line for each."""
    free = FREE_TO_CHANGE if record["flags"]["do_train"] else FREE_TO_CHANGE | OF_TRAINING
    if record["flags"]["cache_dtype"] == "float32":  # then states are the same to the last bit, cached or not
        free = free | {"cache"}
    return _differences(before, record, BINDING, free)


def _differences(before: dict[str, Any], after: dict[str, Any], parts: tuple[str, ...], free: set[str]) -> list[str]:
    return [
        f"{part}.{name}: {before.get(part, {}).get(name)!r} is now {after.get(part, {}).get(name)!r}"
        for part in parts
        for name in sorted({*before.get(part, {}), *after.get(part, {})} - free)
        if before.get(part, {}).get(name) != after.get(part, {}).get(name)
    ]
