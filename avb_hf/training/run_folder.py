"""The output folder: refused if used, resumed if asked, and what is written into it beside the model."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Literal

from datasets import DatasetDict

from avb_hf.card_marker import is_ours
from avb_hf.data.arguments import DataArguments
from avb_hf.data.sources import resolve_commit
from avb_hf.data.splits import write_split_table
from avb_hf.folder_lock import locked
from avb_hf.model.card_vocal_burst import CARD_FILE
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
from avb_hf.training.processes import on_first
from avb_hf.training.run_record import RESOLVED_CONFIG, find_changes, find_record
from avb_hf.training.training_arguments import ARGUMENTS_FILE
from avb_hf.whole_files import read_json, write_json

logger = logging.getLogger(__name__)

PREDICTIONS = "predictions.csv"
SPLIT_TABLE = "split.csv"
RESULTS = tuple(f"{part}_results.json" for part in ("train", "eval", "test", "all"))
TRACKER_FOLDER = "runs"  # transformers' loggers write there; it is left alone
MODEL_FILES = {"config.json", "model.safetensors", "preprocessor_config.json"}
Progress = Literal["new", "trained", "finished"]
# What a run of ours leaves; only this is deleted by --overwrite.
RUN_FILES = (
    "checkpoint-*", "damaged-*", "superseded-*", "config.json", "model.safetensors", "preprocessor_config.json",
    "training_args.json", "trainer_state.json", "*_results.json", PREDICTIONS, SPLIT_TABLE, SEAL, "A-VB-*.csv",
    ".*.tmp", CARD_FILE, "*_vocal_burst.py", RESOLVED_CONFIG,  # last: what a cut-off deletion leaves is known as ours
)  # fmt: skip


def settle(folder: str | Path, run_args: RunArguments, model_args: Any, data: DataArguments) -> str | None:
    """Refuse a folder that cannot be used, find the checkpoint to go on from, and keep to what a run began with.

    Args:
        folder: The output folder.
        run_args: Whether a run is resumed or overwritten.
        model_args: The model's flags; unless they name a revision, a run that is resumed takes its pretrained model at
            the commit that it was at.
        data: Which clips are read. A dataset of the Hub is read at one commit from here on, by all processes: at the
            one that a run that is resumed began with, unless a revision is named.

    Returns:
        The checkpoint; None for a new run.

    Raises:
        ValueError: As `check_output_dir` and `find_checkpoint` do, or if there is no such dataset.
        OSError: If the Hub cannot be reached, and the dataset is not in the cache.
    """
    check_output_dir(folder, run_args.resume, run_args.overwrite)
    checkpoint = find_checkpoint(folder, run_args.resume)
    path = find_record(folder, checkpoint)
    before = read_json(path) if run_args.resume is not None and path.is_file() else {}
    model, flags = before.get("model", {}), before.get("flags", {})
    if getattr(model_args, "model_revision", "") is None and model.get("base_model") == model_args.model_name_or_path:
        model_args.model_revision = model.get("base_model_revision")
    if data.dataset_revision is None and flags.get("dataset_name") == data.dataset_name:
        data.dataset_revision = flags.get("dataset_revision")
    data.dataset_revision = on_first(lambda: resolve_commit(data))
    return checkpoint


@contextmanager
def claimed(folder: str | Path, run_args: RunArguments) -> Iterator[None]:
    """Keep other runs away from the output folder, unless this one is only to be rehearsed; all processes call this.

    Args:
        folder: The output folder; it may not exist yet, and is taken away again if nothing comes to lie in it.
        run_args: Whether the run is rehearsed.

    Raises:
        ValueError: On every process, if another run works on the folder, or it is a file.
    """
    with ExitStack() as stack:
        if not (run_args.dry_run or run_args.estimate):
            on_first(lambda: stack.enter_context(locked(_require_folder(folder))))
        yield


def check_output_dir(folder: str | Path, resume: str | None, overwrite: bool) -> None:
    """Refuse a folder that holds anything, unless the run there is resumed or overwritten.

    Raises:
        ValueError: If the folder is used, holds files that no run of ours left, or is to be resumed and holds no run.
    """
    folder = _require_folder(folder)
    if resume is not None and overwrite:
        raise ValueError("--resume goes on with a run, --overwrite deletes it: give one of them")
    if not folder.is_dir() or not any(folder.iterdir()):
        return
    is_run = (folder / RESOLVED_CONFIG).is_file() or any(folder.glob("checkpoint-*"))
    if resume is not None:
        if not is_run:
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
    if ours and not is_run:
        raise ValueError(
            f"--overwrite deletes what a run left, but {folder} holds neither {RESOLVED_CONFIG} nor a checkpoint: "
            "choose another --output_dir"
        )


def _require_folder(folder: str | Path) -> Path:
    folder = Path(folder)
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"--output_dir {folder} is a file")
    return folder


def clear_output_dir(folder: str | Path) -> None:
    """Delete what an earlier run left in the folder, but a card that a person has taken over."""
    for pattern in RUN_FILES:
        for path in Path(folder).glob(pattern):
            if path.is_dir():
                shutil.rmtree(path)
            elif path.name != CARD_FILE or is_ours(path):
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


def begin(
    folder: str | Path,
    record: dict[str, Any],
    drawn: DatasetDict | None,
    overwrite: bool,
    checkpoint: str | None = None,
) -> None:
    """Write what is known of a run before it starts.

    Args:
        folder: The output folder.
        record: The record of the run.
        drawn: The corpus, if its split was drawn, so that the split must be written down.
        overwrite: Whether to delete an earlier run first.
        checkpoint: Where the run goes on from, or None.
    """
    folder = Path(folder)
    if overwrite:
        clear_output_dir(folder)
    set_aside(folder, checkpoint)
    folder.mkdir(parents=True, exist_ok=True)
    for name in (SEAL, *RESULTS, PREDICTIONS):  # of the model that the training will replace
        (folder / name).unlink(missing_ok=True)
    write_json(folder / RESOLVED_CONFIG, record)
    if drawn is not None:
        write_split_table(drawn, folder / SPLIT_TABLE)


def seal_results(folder: str | Path) -> None:
    """Seal all that a run has left so far, its checkpoints apart: a resume need not do it again."""
    found = {path for pattern in RUN_FILES for path in Path(folder).glob(pattern)}
    seal(folder, [path for path in found if path.is_file() and path.name != SEAL and path.suffix != ".tmp"])
