"""Checkpoints that say whether they are whole: sealed when written, verified before they are resumed from."""

from __future__ import annotations

import hashlib
import logging
import shutil
import uuid
from collections.abc import Container, Iterable
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_pt_utils import safe_globals

from avb_hf.whole_files import is_draft, read_json, sync, write_json

logger = logging.getLogger(__name__)

SEAL = "avb_complete.json"
PREFIX = "checkpoint-"
PICKLED = (".pt", ".pth", ".bin")


def seal(folder: str | Path, files: Iterable[Path] | None = None) -> None:
    """Force a folder's files onto the disk, then write down their sizes and digests, in one stroke and last.

    Args:
        folder: A folder, such as a checkpoint, that is completely written.
        files: What to seal of it; None seals every file below it.
    """
    folder = Path(folder)
    paths = _files(folder) if files is None else sorted(files)
    sync(paths)
    names = (path.relative_to(folder).as_posix() for path in paths)
    contents = {
        name: {"size": path.stat().st_size, "sha256": _digest(path)} for name, path in zip(names, paths, strict=True)
    }
    write_json(folder / SEAL, contents)
    sync([folder.parent])


def find_damage(folder: str | Path) -> str | None:
    """Tell what is wrong with a checkpoint, or return None if it is as it was sealed."""
    folder = Path(folder)
    try:
        contents = _read_seal(folder)
    except FileNotFoundError:
        return f"it was not completely written: {SEAL} is missing"
    except ValueError:
        return f"{SEAL} is damaged"
    for name, expected in contents.items():
        path = folder / name
        if not path.is_file():
            return f"{name} is missing, which {SEAL} lists"
        if not _is_as_sealed(path, expected):
            return f"{name} is not as {SEAL} says"
    return None


def whole_files(folder: str | Path, to_read: Container[str] | None = None) -> set[str]:
    """Return the names of a folder's files that are as they were sealed; none if there is no readable seal.

    Args:
        folder: A sealed folder.
        to_read: Names of the files whose content is compared, which takes time; of others the size is. None reads all.
    """
    folder = Path(folder)
    try:
        contents = _read_seal(folder)
    except (FileNotFoundError, ValueError):
        return set()
    return {
        name
        for name, expected in contents.items()
        if _is_as_sealed(folder / name, expected, to_read is None or name in to_read)
    }


def require_tensors_only(folder: str | Path) -> None:
    """Refuse a checkpoint with a file that holds more than tensors and numbers, and so might run code when it is read.

    A seal does not help: whoever planted the file may have sealed the folder.

    Raises:
        ValueError: If there is one; nothing of it was executed.
    """
    for path in (path for path in _files(Path(folder)) if path.suffix in PICKLED):
        try:
            with safe_globals():
                torch.load(path, map_location="cpu", mmap=True, weights_only=True)
        except (UnpicklingError, RuntimeError) as error:
            raise ValueError(f"{path} holds more than tensors, so it is no part of a checkpoint of ours") from error


def newest_whole(folder: str | Path) -> str | None:
    """Return the newest checkpoint below a run's folder that is whole; newer ones that are not are named in the log."""
    for path in _numbered(folder):
        damage = find_damage(path)
        if damage is None:
            return str(path)
        logger.warning("skipping %s: %s", path, damage)
    return None


def set_aside(folder: str | Path, checkpoint: str | None = None) -> None:
    """Take checkpoints that are not whole, or from behind the place where a run goes on, out of the way of new ones.

    Half-written ones are deleted, those that were damaged afterwards are renamed to `damaged-*`, later ones to
    `superseded-*`.

    Args:
        folder: The output folder of a run.
        checkpoint: Where the run goes on from, or None.
    """
    last = None if checkpoint is None else read_json(Path(checkpoint) / TRAINER_STATE_NAME)["global_step"]
    for path in _numbered(folder):
        if not (path / SEAL).is_file():
            shutil.rmtree(path)
        elif find_damage(path) is not None:
            _rename(path, "damaged")
        elif last is not None and _step(path) > last:
            _rename(path, "superseded")


def _rename(path: Path, reason: str) -> None:
    target = path.with_name(f"{reason}-{path.name}-{uuid.uuid4().hex[:8]}")
    logger.warning("%s is now %s", path, target.name)
    path.rename(target)


def _step(checkpoint: Path) -> int:
    return int(checkpoint.name.removeprefix(PREFIX))


def _numbered(folder: str | Path) -> list[Path]:
    """Return the checkpoints below a folder, the newest first."""
    paths = [path for path in Path(folder).glob(f"{PREFIX}*") if path.name.removeprefix(PREFIX).isdigit()]
    return sorted(paths, key=_step, reverse=True)


def _read_seal(folder: Path) -> dict[str, dict[str, Any]]:
    contents = read_json(folder / SEAL)
    facts = contents.values() if isinstance(contents, dict) else [contents]
    if not all(isinstance(fact, dict) and set(fact) == {"size", "sha256"} for fact in facts):
        raise ValueError(f"{folder / SEAL} must hold size and sha256 of each file")
    return contents


def _is_as_sealed(path: Path, expected: dict[str, Any], is_read: bool = True) -> bool:
    is_of_size = path.is_file() and path.stat().st_size == expected["size"]
    return is_of_size and (not is_read or _digest(path) == expected["sha256"])


def _files(folder: Path) -> list[Path]:
    return [path for path in sorted(folder.rglob("*")) if path.is_file() and path.name != SEAL and not is_draft(path)]


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
