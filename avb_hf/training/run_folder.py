"""The output folder: refused if used, resumed if asked, and what is written into it beside the model."""

from __future__ import annotations

import json
import logging
import shutil
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

from datasets import DatasetDict

from avb_hf import __version__
from avb_hf.data.splits import write_split_table
from avb_hf.training.arguments import RunArguments
from avb_hf.training.checkpoints import find_damage, newest_whole

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
}  # fmt: skip
# What a run of ours leaves; only this is deleted by --overwrite.
RUN_FILES = (
    "checkpoint-*", "config.json", "model.safetensors", "preprocessor_config.json", "training_args.json",
    "trainer_state.json", "*_results.json", PREDICTIONS, SPLIT_TABLE, RESOLVED_CONFIG, "A-VB-*.csv", ".*.tmp",
)  # fmt: skip


def check_output_dir(folder: str | Path, resume: str | None, overwrite: bool) -> None:
    """Refuse a folder that holds anything, unless the run there is resumed or overwritten.

    Raises:
        ValueError: If the folder is used, or holds files that no run of ours left.
    """
    folder = Path(folder)
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"--output_dir {folder} is a file")
    if resume is not None and overwrite:
        raise ValueError("--resume goes on with a run, --overwrite deletes it: give one of them")
    if not folder.is_dir() or not any(folder.iterdir()) or resume is not None:
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
        logger.info("resuming from %s", newest or "the beginning: there is no whole checkpoint")
        return newest
    if not Path(resume).is_dir():
        raise ValueError(f"--resume must be auto or a checkpoint folder, got {resume!r}, which does not exist")
    damage = find_damage(resume)
    if damage is not None:
        raise ValueError(f"--resume {resume}: {damage}; --resume auto takes the newest checkpoint that is whole")
    return resume


def make_record(arguments: list[Any], facts: dict[str, Any], resolved: dict[str, Any]) -> dict[str, Any]:
    """Collect what made a run: flags, versions, and what follows from them.

    Args:
        arguments: The argument objects of the run.
        facts: Task, audio counts and model configuration.
        resolved: Values of flags that were left to be resolved.
    """
    flags: dict[str, Any] = {}
    for group in arguments:
        flags |= group.to_dict() if hasattr(group, "to_dict") else vars(group)
    versions = {"avb_hf": __version__, "python": sys.version.split()[0]}
    versions |= {name: version(name) for name in RECORDED_PACKAGES}
    record = {"flags": flags | resolved, "command": sys.argv, "versions": versions, **facts}
    return json.loads(json.dumps(record, default=str))


def require_same_run(folder: str | Path, record: dict[str, Any]) -> None:
    """Refuse to resume a run with other flags, task or model.

    Args:
        folder: The output folder, with the record of the run so far.
        record: The record of the run that is about to go on.

    Raises:
        ValueError: If they differ; the message shows where.
    """
    path = Path(folder) / RESOLVED_CONFIG
    if not path.is_file():
        return
    before = json.loads(path.read_text(encoding="utf-8"))
    changes = [
        f"{part}.{name}: {before.get(part, {}).get(name)!r} is now {record[part].get(name)!r}"
        for part in ("flags", "task", "model")
        for name in sorted({*before.get(part, {}), *record[part]} - FREE_TO_CHANGE)
        if before.get(part, {}).get(name) != record[part].get(name)
    ]
    if changes:
        raise ValueError(
            "the run is not the one to be resumed (--allow_changed_args goes on all the same):\n  "
            + "\n  ".join(changes)
        )


def begin(folder: str | Path, record: dict[str, Any], drawn: DatasetDict | None, run_args: RunArguments) -> None:
    """Write what is known of a run before it starts.

    Args:
        folder: The output folder.
        record: The record of the run.
        drawn: The corpus, if its split was drawn, so that the split must be written down.
        run_args: Whether to delete an earlier run first, or to go on with it.

    Raises:
        ValueError: If a run is resumed with other flags, task or model, and that was not allowed.
    """
    folder = Path(folder)
    if run_args.overwrite:
        clear_output_dir(folder)
    if run_args.resume is not None and not run_args.allow_changed_args:
        require_same_run(folder, record)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / RESOLVED_CONFIG).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    if drawn is not None:
        write_split_table(drawn, folder / SPLIT_TABLE)
