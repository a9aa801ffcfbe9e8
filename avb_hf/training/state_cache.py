"""States that were computed once, kept on disk: memory-mapped, checked before use, shared by runs and processes."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import uuid
import zlib
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor
from tqdm.auto import tqdm

from avb_hf.data.contents import file_stamp, open_content
from avb_hf.data.user_cache import cache_folder, writing_to_cache
from avb_hf.whole_files import read_json, whole_file, write_json

logger = logging.getLogger(__name__)

FACTS = "facts.json"
_BYTES = torch.uint8


@dataclass(frozen=True)
class ClipStamp:
    """What tells whether an audio file is the one that states were made of.

    Attributes:
        path: Absolute path of the file, or of a row of a Parquet file.
        size: The file's size in bytes.
        mtime_ns: When it was changed last, in nanoseconds.
        digest: SHA-256 of the clip's content; empty where it was not read yet.
    """

    path: str
    size: int
    mtime_ns: int
    digest: str = ""

    @classmethod
    def of(cls, path: str | Path) -> ClipStamp:
        """Stamp a file without reading it."""
        return cls(os.path.abspath(path), *file_stamp(path))

    def with_digest(self) -> ClipStamp:
        """Read the file, and add the digest of its content."""
        with open_content(self.path) as file:
            return ClipStamp(self.path, self.size, self.mtime_ns, hashlib.file_digest(file, "sha256").hexdigest())

    def is_current(self) -> bool:
        """Whether the file is there as it was stamped, by size and time."""
        try:
            return file_stamp(self.path) == (self.size, self.mtime_ns)
        except OSError:
            return False


@dataclass(frozen=True)
class Entry:
    """Where one clip's states are.

    Attributes:
        shard: The file that holds them.
        name: Their name in it: the digest of the audio file.
        crc: CRC-32 of their bytes.
    """

    shard: Path
    name: str
    crc: int


class StateCache:
    """The states of clips under one set of facts: weights, block, preprocessing.

    Args:
        facts: All that the states depend on besides the audio.
    """

    def __init__(self, facts: dict[str, Any]) -> None:
        self.facts = json.loads(json.dumps(facts, default=str))
        key = hashlib.sha256(json.dumps(self.facts, sort_keys=True).encode()).hexdigest()[:16]
        self.folder = states_folder() / key
        self._files: dict[Path, Any] = {}

    def __getstate__(self) -> dict[str, Any]:
        """Leave open files behind: another process opens its own."""
        return vars(self) | {"_files": {}}

    def find(self, paths: Sequence[str]) -> dict[str, Entry]:
        """Look for the states of audio files; an entry that is damaged is named in the log and not found.

        Args:
            paths: The audio files.

        Returns:
            Entry by path, of those that are there and whole.
        """
        by_stamp, by_digest = read_shards(self.folder)
        found = {}
        for path in tqdm(paths, desc="checking cached states", unit="clip", disable=None if by_digest else True):
            stamp = ClipStamp.of(path)
            entries = by_stamp.get((stamp.path, stamp.size, stamp.mtime_ns))
            if entries is None and by_digest:
                entries = by_digest.get(stamp.with_digest().digest)
            entry = next(filter(self._is_whole, entries or ()), None)
            if entry is not None:
                found[path] = entry
        return found

    def make_folder(self) -> None:
        """Make the folder and say in it what the states depend on.

        Raises:
            ValueError: If that cannot be written.
        """
        with writing_to_cache():
            self.folder.mkdir(parents=True, exist_ok=True)
            if not (self.folder / FACTS).is_file():
                write_json(self.folder / FACTS, self.facts)

    def write(self, states: Sequence[tuple[ClipStamp, Tensor]]) -> None:
        """Keep the states of some clips, in one file that is there whole or not at all.

        Args:
            states: Each clip's stamp with its digest, taken before the clip was read, and its states of shape
                `(frames, width)`.

        Raises:
            ValueError: If a file is no more as it was stamped, or the cache cannot be written.
        """
        self.make_folder()
        tensors, metadata = {}, {}
        for stamp, tensor in states:
            if not stamp.is_current():
                raise ValueError(f"{stamp.path} has changed while it was read: start again once it stays as it is")
            tensors[stamp.digest] = tensor.contiguous()
            metadata[stamp.digest] = json.dumps(asdict(stamp) | {"crc": _crc(tensor)})
        with writing_to_cache(), whole_file(self.folder / f"{uuid.uuid4().hex}.safetensors") as draft:
            save_file(tensors, draft, metadata=metadata)

    def load(self, entry: Entry) -> Tensor:
        """Return the states of an entry, `(frames, width)`, mapped from the disk."""
        if entry.shard not in self._files:
            self._files[entry.shard] = safe_open(entry.shard, framework="pt")
        return self._files[entry.shard].get_tensor(entry.name)

    def _is_whole(self, entry: Entry) -> bool:
        try:
            is_whole = _crc(self.load(entry)) == entry.crc
        except (SafetensorError, OSError) as error:
            logger.warning("%s cannot be read (%s)", entry.shard, error)
            return False
        if not is_whole:
            logger.warning("cached states in %s are not as they were written, and made again", entry.shard)
        return is_whole


def states_folder() -> Path:
    """Return where all cached states lie, in the user's cache."""
    return cache_folder() / "states"


@dataclass(frozen=True)
class CacheSummary:
    """One cache of frozen states.

    Attributes:
        folder: Where it lies; its name is the key.
        facts: What the states depend on; None where that is damaged or missing.
        num_clips: Number of clips.
        size: Bytes on disk.
    """

    folder: Path
    facts: dict[str, Any] | None
    num_clips: int
    size: int


def list_caches() -> list[CacheSummary]:
    """Return all caches of frozen states."""
    return [_summarise(path) for path in sorted(states_folder().glob("*")) if path.is_dir()]


def clear_cache(key: str) -> int:
    """Delete one cache and return its bytes.

    Args:
        key: Name of its folder.

    Raises:
        ValueError: If there is none of that name.
    """
    caches = {cache.folder.name: cache for cache in list_caches()}
    if key not in caches:
        raise ValueError(f"no cache is named {key!r}; there are {sorted(caches)}")
    shutil.rmtree(caches[key].folder)
    return caches[key].size


def read_shards(folder: Path) -> tuple[dict[tuple[str, int, int], list[Entry]], dict[str, list[Entry]]]:
    """Read what a cache's files hold; one that cannot be read is named in the log and left out.

    Returns:
        Entries by path, size and modification time of the audio file, and by the digest of its content; there are
        several where one was damaged and made again.
    """
    by_stamp, by_digest = defaultdict(list), defaultdict(list)
    for shard in sorted(folder.glob("*.safetensors")):
        try:
            with safe_open(shard, framework="pt") as file:
                facts = {name: json.loads(text) for name, text in (file.metadata() or {}).items()}
            stamps = {name: (fact["path"], fact["size"], fact["mtime_ns"], fact["crc"]) for name, fact in facts.items()}
        except (SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
            logger.warning("cached states in %s are damaged and not used (%s)", shard, error)
            continue
        for name, (*stamp, crc) in stamps.items():
            entry = Entry(shard, name, crc)
            by_digest[name].append(entry)
            by_stamp[tuple(stamp)].append(entry)
    return by_stamp, by_digest


def _summarise(folder: Path) -> CacheSummary:
    try:
        facts = read_json(folder / FACTS)
    except (OSError, ValueError):
        facts = None
    _, by_digest = read_shards(folder)
    size = sum(file.stat().st_size for file in folder.iterdir() if file.is_file())
    return CacheSummary(folder, facts if isinstance(facts, dict) else None, len(by_digest), size)


def _crc(tensor: Tensor) -> int:
    return zlib.crc32(memoryview(tensor.contiguous().view(-1).view(_BYTES).numpy()))
