"""What a push to the Hub holds: a folder of links to files of a checkpoint, which may go while they are uploaded.

In the root of the repository lies the model. Where the run shall be able to go on elsewhere, the checkpoint lies
beside it in a folder of its own, without pickle, with the run's record and sealed, and so does the best one so far, if
it is another, without the record.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

import torch
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_pt_utils import safe_globals

from avb_hf.training.checkpoints import PICKLED, PREFIX, SEAL, seal
from avb_hf.training.tensor_trees import load_tree, save_tree

LAST, BEST = "last-checkpoint", "best-checkpoint"
# All that is needed to load the model.
MODEL_PATTERNS = (
    "config.json", "*.safetensors", "*.safetensors.index.json", "preprocessor_config.json", "*_vocal_burst.py",
    "README.md",
)  # fmt: skip
UNPICKLED = ".safetensors"
STAGES = ".push-*.tmp"


def model_files(folder: str | Path, more: tuple[str, ...] = ()) -> dict[str, Path]:
    """Return the files of a folder that make the model, by name.

    Args:
        folder: A checkpoint or a run's folder.
        more: Patterns of further files.
    """
    paths = {path for pattern in (*MODEL_PATTERNS, *more) for path in Path(folder).glob(pattern)}
    return {path.name: path for path in sorted(paths) if path.is_file() and not path.name.startswith(".")}


def open_stage(folder: Path, step: int) -> Path:
    """Make an empty folder for a push below a run's folder; `clear_stages` deletes those that a killed run left.

    A step may be pushed twice, the second time while the first push still reads its own folder.
    """
    folder.mkdir(parents=True, exist_ok=True)
    before, after = STAGES.split("*")
    return Path(tempfile.mkdtemp(after, f"{before}{step}-", folder))


def clear_stages(folder: Path) -> None:
    """Delete the folders of pushes that never ended."""
    for stage in folder.glob(STAGES):
        shutil.rmtree(stage)


def link(files: dict[str, Path], folder: Path) -> None:
    """Link files into a folder, or copy them where the file system has no links."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, path in files.items():
        try:
            os.link(path, folder / name)
        except OSError:
            shutil.copy2(path, folder / name)


def link_checkpoint(checkpoint: Path, best: str | None, stage: Path, name: str) -> None:
    """Link a checkpoint, and the weights of the best one if it is another, into the folder of a push.

    Args:
        checkpoint: The checkpoint.
        best: The best one so far, or None.
        stage: The folder of the push.
        name: What the checkpoint's own folder is called there.
    """
    link({path.name: path for path in checkpoint.iterdir() if path.is_file()}, stage / name)
    if best is not None and Path(best) != checkpoint and Path(best).is_dir():
        files = {path.name: path for path in Path(best).iterdir() if path.is_file() and path.suffix not in PICKLED}
        files.pop(TRAINER_STATE_NAME, None)  # without it, no run goes on from there
        link(files, stage / BEST)


def unpickle_stage(stage: Path) -> None:
    """Rewrite the pickles of linked checkpoints without pickle, and seal them anew."""
    for folder in (path for path in stage.iterdir() if path.is_dir()):
        (folder / SEAL).unlink(missing_ok=True)
        for path in [path for path in folder.iterdir() if path.suffix in PICKLED]:
            with safe_globals():
                tree = torch.load(path, map_location="cpu", weights_only=True)
            save_tree(tree, folder / f"{path.name}{UNPICKLED}")
            path.unlink()
        seal(folder)


def restore_pickles(folder: Path) -> None:
    """Make a checkpoint that `unpickle_stage` rewrote what transformers reads, and seal it."""
    for suffix in PICKLED:
        for path in folder.glob(f"*{suffix}{UNPICKLED}"):
            torch.save(load_tree(path), path.with_name(path.name.removesuffix(UNPICKLED)))
            path.unlink()
    seal(folder)


def is_checkpoint(name: str) -> bool:
    """Whether a folder of a repository, by its name, holds a checkpoint to go on from."""
    return name == LAST or (name.startswith(PREFIX) and name.removeprefix(PREFIX).isdigit())
