"""The output folder: refused if used, resumed if asked, and what is written into it beside the model."""

from __future__ import annotations

import json
import logging
import shutil
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

from avb_hf import __version__
from avb_hf.training.checkpoints import find_damage, newest_whole

logger = logging.getLogger(__name__)

RESOLVED_CONFIG = "resolved_config.json"
PREDICTIONS = "predictions.csv"
SPLIT_TABLE = "split.csv"
RECORDED_PACKAGES = ("torch", "transformers", "datasets", "accelerate", "numpy", "soundfile", "librosa", "soxr")
TRACKER_FOLDER = "runs"  # transformers' loggers write there; it is left alone
# What a run of ours leaves; only this is deleted by --overwrite.
RUN_FILES = (
    "checkpoint-*", "config.json", "model.safetensors", "preprocessor_config.json", "training_args.json",
    "trainer_state.json", "*_results.json", PREDICTIONS, SPLIT_TABLE, RESOLVED_CONFIG, "A-VB-*.csv",
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


def write_resolved_config(folder: str | Path, flags: dict[str, Any], facts: dict[str, Any]) -> None:
    """Write which flags, versions and data made a run.

    Args:
        folder: The output folder.
        flags: Every flag with its resolved value; no secrets.
        facts: What else is worth keeping: task, audio counts, model configuration.
    """
    versions = {"avb_hf": __version__, "python": sys.version.split()[0]}
    versions |= {name: version(name) for name in RECORDED_PACKAGES}
    record = {"flags": flags, "command": sys.argv, "versions": versions, **facts}
    path = Path(folder) / RESOLVED_CONFIG
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(record, indent=2, default=str) + "\n", encoding="utf-8")
