"""The output folder: refused if used, resumed if asked, and what is written into it beside the model."""

from __future__ import annotations

import json
import logging
import shutil
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import torch
from datasets import DatasetDict

from avb_hf import __version__
from avb_hf.data.splits import write_split_table
from avb_hf.training.arguments import RunArguments
from avb_hf.training.checkpoints import (
    SEAL,
    find_damage,
    newest_whole,
    require_tensors_only,
    seal,
    set_aside,
    whole_files,
)
from avb_hf.training.durable import read_json, write_json
from avb_hf.training.training_arguments import ARGUMENTS_FILE

logger = logging.getLogger(__name__)

RESOLVED_CONFIG = "resolved_config.json"
PREDICTIONS = "predictions.csv"
SPLIT_TABLE = "split.csv"
RECORDED_PACKAGES = ("torch", "transformers", "datasets", "accelerate", "numpy", "soundfile", "librosa", "soxr")
TRACKER_FOLDER = "runs"  # transformers' loggers write there; it is left alone
# Flags that say how a run is started or shown, not what it computes.
FREE_TO_CHANGE = {
    "resume", "resume_from_checkpoint", "overwrite", "allow_changed_args", "dry_run", "disable_tqdm", "do_train",
    "do_eval", "do_predict", "report_to", "run_name", "team_name", "submission", "output_dir", "transformers_version",
    "expect_world_size", "local_rank", "dataloader_num_workers", "estimate",
}  # fmt: skip
MODEL_FILES = {"config.json", "model.safetensors", "preprocessor_config.json"}
# Flags that mean nothing where nothing is trained, and are turned off there.
OF_TRAINING = {"eval_strategy", "save_strategy", "load_best_model_at_end"}
# Parts of the record that must not change between a run and its resume.
BINDING = ("flags", "task", "model", "data", "processes")

Progress = Literal["new", "trained", "finished"]
# What a run of ours leaves; only this is deleted by --overwrite.
RUN_FILES = (
    "checkpoint-*", "damaged-*", "config.json", "model.safetensors", "preprocessor_config.json", "training_args.json",
    "trainer_state.json", "*_results.json", PREDICTIONS, SPLIT_TABLE, RESOLVED_CONFIG, SEAL, "A-VB-*.csv", ".*.tmp",
)  # fmt: skip


def check_output_dir(folder: str | Path, resume: str | None, overwrite: bool) -> None:
    """Refuse a folder that holds anything, unless the run there is resumed or overwritten.

    Raises:
        ValueError: If the folder is used, holds files that no run of ours left, or is to be resumed and holds no run.
    """
    folder = Path(folder)
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"--output_dir {folder} is a file")
    if resume is not None and overwrite:
        raise ValueError("--resume goes on with a run, --overwrite deletes it: give one of them")
    if not folder.is_dir() or not any(folder.iterdir()):
        return
    if resume is not None:
        if not (folder / RESOLVED_CONFIG).is_file() and not any(folder.glob("checkpoint-*")):
            raise ValueError(f"--resume: {folder} holds files, but no run of ours: choose another --output_dir")
        return
    if not overwrite:
        raise ValueError(
            f"{folder} is not empty: choose another --output_dir, go on with the run by --resume auto, "
            "or delete it by --overwrite"
        )
    ours = {path for pattern in RUN_FILES for path in folder.glob(pattern)}
    others = sorted(path.name for path in folder.iterdir() if path not in ours and path.name != TRACKER_FOLDER)
    if others:
        raise ValueError(
            f"--overwrite deletes what a run left, but {folder} also holds {others[:10]}: remove them first"
        )


def clear_output_dir(folder: str | Path) -> None:
    """Delete what an earlier run left in the folder."""
    for pattern in RUN_FILES:
        for path in Path(folder).glob(pattern):
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()


def find_checkpoint(folder: str | Path, resume: str | None) -> str | None:
    """Return the checkpoint to go on from: None for a new run, for `auto` the newest whole one, else the one named.

    Raises:
        ValueError: If the one that is named does not exist or is damaged.
    """
    if resume is None:
        return None
    if resume == "auto":
        newest = newest_whole(folder)
        if newest is not None:
            require_tensors_only(newest)
        logger.info("resuming from %s", newest or "the beginning: there is no whole checkpoint")
        return newest
    if not Path(resume).is_dir():
        raise ValueError(f"--resume must be auto or a checkpoint folder, got {resume!r}, which does not exist")
    damage = find_damage(resume)
    if damage is not None:
        raise ValueError(f"--resume {resume}: {damage}; --resume auto takes the newest checkpoint that is whole")
    require_tensors_only(resume)
    return resume


def computed_in_bf16(folder: str | Path, resume: str | None, checkpoint: str | None) -> bool | None:
    """Tell whether the run that is to be resumed computes in bf16; None for a new run.

    Args:
        folder: The output folder.
        resume: The flag: None for a new run.
        checkpoint: Where the run goes on from, or None.
    """
    if checkpoint is not None:
        return read_json(Path(checkpoint) / ARGUMENTS_FILE)["bf16"]
    record = Path(folder) / RESOLVED_CONFIG
    if resume is None or not record.is_file():
        return None
    return read_json(record)["flags"]["bf16"]


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
    path = (Path(folder) if checkpoint is None else Path(checkpoint).parent) / RESOLVED_CONFIG
    if not path.is_file():
        return [] if checkpoint is None else [f"{path} is missing, so nobody knows what made {checkpoint}"]
    before = read_json(path)
    for line in _differences(before, record, ("versions", "machine"), set()):
        logger.warning("resumed under other conditions, so the last digits may differ: %s", line)
    free = FREE_TO_CHANGE if record["flags"]["do_train"] else FREE_TO_CHANGE | OF_TRAINING
    if record["flags"]["cache_dtype"] == "float32":  # then states are the same to the last bit, cached or not
        free = free | {"cache"}
    return _differences(before, record, BINDING, free)


def how_far(
    folder: str | Path, record: dict[str, Any], run_args: RunArguments, checkpoint: str | None, wanted: set[str]
) -> Progress:
    """Tell what of a run that is to be resumed is done already.

    Args:
        folder: The output folder.
        record: The record of the run that is about to go on.
        run_args: Whether a run is resumed, and may have changed.
        checkpoint: Where it goes on from, or None.
        wanted: Names of the files that the finished run leaves.

    Returns:
        `finished` if all of them are there and whole, `trained` if the model is; else `new`, as for a run that is to go
        on from a checkpoint that is named.

    Raises:
        ValueError: If the run has changed, and that was not allowed, or it is to be used without having been trained.
    """
    if run_args.resume is None:
        return "new"
    changes = find_changes(folder, record, checkpoint)
    if changes and not run_args.allow_changed_args:
        raise ValueError(
            "the run is not the one to be resumed (--allow_changed_args goes on all the same):\n  "
            + "\n  ".join(changes)
        )
    whole = set() if changes or run_args.resume != "auto" else whole_files(folder)
    if whole >= MODEL_FILES:
        return "finished" if whole >= wanted else "trained"
    if not record["flags"]["do_train"]:
        raise ValueError(f"--resume without --do_train needs a run that was trained to its end, {folder} holds none")
    return "new"


def begin(folder: str | Path, record: dict[str, Any], drawn: DatasetDict | None, overwrite: bool) -> None:
    """Write what is known of a run before it starts.

    Args:
        folder: The output folder.
        record: The record of the run.
        drawn: The corpus, if its split was drawn, so that the split must be written down.
        overwrite: Whether to delete an earlier run first.
    """
    folder = Path(folder)
    if overwrite:
        clear_output_dir(folder)
    set_aside(folder)
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / RESOLVED_CONFIG, record)
    if drawn is not None:
        write_split_table(drawn, folder / SPLIT_TABLE)


def seal_results(folder: str | Path) -> None:
    """Seal all that a run has left so far, its checkpoints apart: a resume need not do it again."""
    found = {path for pattern in RUN_FILES for path in Path(folder).glob(pattern)}
    seal(folder, [path for path in found if path.is_file() and path.name != SEAL and path.suffix != ".tmp"])


def _differences(before: dict[str, Any], after: dict[str, Any], parts: tuple[str, ...], free: set[str]) -> list[str]:
    return [
        f"{part}.{name}: {before.get(part, {}).get(name)!r} is now {after.get(part, {}).get(name)!r}"
        for part in parts
        for name in sorted({*before.get(part, {}), *after.get(part, {})} - free)
        if before.get(part, {}).get(name) != after.get(part, {}).get(name)
    ]
