"""Headers of audio files that were read before, kept in the user's cache."""

import hashlib
import logging
import os
import sys
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import soundfile

from avb_hf.data.audio import AudioHeader, read_header
from avb_hf.data.contents import exists, file_stamp
from avb_hf.data.tables import as_texts
from avb_hf.data.user_cache import cache_folder
from avb_hf.whole_files import is_draft, whole_file

logger = logging.getLogger(__name__)

# Fewer headers than these are read faster than one would wait for them.
MIN_FRESH = 500
# A file that was written this shortly ago may change again without another modification time.
SETTLED_NS = 2_000_000_000
_DIGEST_SIZE = hashlib.sha256().digest_size
# What makes headers another reader's, and so none of ours.
_READER = {"version": "1", "libsndfile": soundfile.__libsndfile_version__}
_SCHEMA = pa.schema(
    {
        "path": pa.string(),
        "size": pa.int64(),
        "mtime_ns": pa.int64(),
        "sampling_rate": pa.int64(),
        "channels": pa.int64(),
        "num_frames": pa.int64(),
        "format": pa.string(),
    },
    metadata=_READER,
)
_NUMBERS = [name for name, kind in zip(_SCHEMA.names, _SCHEMA.types, strict=True) if kind == pa.int64()]


class HeaderIndex:
    """Reads headers, and each of them once: a file is opened again when its size or modification time is another one.

    What is known lies in one file for all audio below a folder: an Arrow table behind its own SHA-256. It appears
    whole or not at all, so processes may read and write it at any time; the last one to write wins. A file that is
    damaged, of another version, or cannot be read or written costs time alone.

    Args:
        paths: The audio files that are to be read; the folder that holds them all decides on the table.
    """

    def __init__(self, paths: Iterable[str]) -> None:
        self._here = os.getcwd()
        self.file = self._find_file(paths)
        known = self._load()
        self._known = {path: row for row, path in enumerate(as_texts(known["path"]))}
        self._numbers = np.column_stack([known[name] for name in _NUMBERS])
        self._formats = list(map(sys.intern, as_texts(known["format"])))
        self._fresh: dict[str, tuple[int, int, AudioHeader]] = {}

    def read_header(self, path: str, file_id: str) -> AudioHeader:
        """Return what `avb_hf.data.audio.read_header` returns, or has returned for the file as it is.

        Raises:
            AudioFileError: If the file is missing, no audio, or a wav file that was cut off; these are never kept.
        """
        try:
            changed = file_stamp(path)
        except OSError:
            return read_header(path, file_id)
        key = self._key(path)
        row = self._known.get(key)
        if row is not None:
            size, mtime_ns, rate, channels, num_frames = self._numbers[row].tolist()
            if (size, mtime_ns) == changed:
                return AudioHeader(rate, channels, num_frames, self._formats[row])
        header = read_header(path, file_id)
        if time.time_ns() - changed[1] > SETTLED_NS:
            self._fresh[key] = (*changed, header)
        return header

    def save(self) -> None:
        """Keep what was read, unless that is too little to be worth it, and forget files that are gone."""
        if self.file is None or len(self._fresh) < MIN_FRESH:
            return
        # Another process may have written since this one read.
        others = self._load()
        is_kept = [path not in self._fresh and exists(path) for path in as_texts(others["path"])]
        others = others.filter(pa.array(is_kept, pa.bool_()))
        try:
            _write(pa.concat_tables([others, self._tabulate_fresh()]), self.file)
        except OSError as error:
            logger.warning("the headers of the audio files could not be kept in %s (%s)", self.file, error)

    def _tabulate_fresh(self) -> pa.Table:
        entries = self._fresh.values()
        columns = {
            "path": list(self._fresh),
            "size": [size for size, _, _ in entries],
            "mtime_ns": [mtime_ns for _, mtime_ns, _ in entries],
        }
        columns |= {name: [getattr(header, name) for _, _, header in entries] for name in _SCHEMA.names[3:]}
        return pa.table(columns, schema=_SCHEMA)

    def _load(self) -> pa.Table:
        nothing = _SCHEMA.empty_table()
        if self.file is None:
            return nothing
        try:
            content = self.file.read_bytes()
        except FileNotFoundError:
            return nothing
        except OSError as error:
            logger.warning("%s cannot be read (%s): the headers of the audio files are read again", self.file, error)
            return nothing
        table = _parse(content)
        if table is None:
            logger.warning("%s is damaged: the headers of the audio files are read again", self.file)
            with suppress(OSError):
                self.file.unlink()
            return nothing
        return table if table.schema.equals(_SCHEMA, check_metadata=True) else nothing

    def _key(self, path: str) -> str:
        return os.path.join(self._here, path)

    def _find_file(self, paths: Iterable[str]) -> Path | None:
        folders = {self._key(folder) for folder in {os.path.dirname(path) for path in paths}}
        if not folders:
            return None
        name = hashlib.sha256(os.fsencode(os.path.commonpath(folders))).hexdigest()[:16]
        try:
            return headers_folder() / name
        except RuntimeError as error:  # a user without a home
            logger.warning("the headers of the audio files are not kept: %s", error)
            return None


def headers_folder() -> Path:
    """Return where all indexes lie, in the user's cache."""
    return cache_folder() / "headers"


@dataclass(frozen=True)
class IndexSummary:
    """The headers that are kept of the audio below one folder.

    Attributes:
        file: Where they lie; its name is the key.
        audio: The folder; None where the index is damaged, which its next reader sees, or empty.
        num_files: Number of audio files.
        size: Bytes on disk.
    """

    file: Path
    audio: str | None
    num_files: int
    size: int


def list_indexes() -> list[IndexSummary]:
    """Return all indexes of headers."""
    files = sorted(headers_folder().glob("*"))
    return [_summarise(file) for file in files if file.is_file() and not is_draft(file)]


def _summarise(file: Path) -> IndexSummary:
    content = file.read_bytes()
    table = _parse(content)
    if table is None:
        return IndexSummary(file, None, 0, len(content))
    folders = {os.path.dirname(path) for path in as_texts(table["path"])}
    return IndexSummary(file, os.path.commonpath(folders) if folders else None, len(table), len(content))


def _parse(content: bytes) -> pa.Table | None:
    """Return the table in a file's content; None if that is damaged."""
    body = content[_DIGEST_SIZE:]
    if hashlib.sha256(body).digest() != content[:_DIGEST_SIZE]:
        return None
    try:
        return pa.ipc.open_file(body).read_all()
    except pa.ArrowInvalid:  # what another version wrote
        return None


def _write(table: pa.Table, path: Path) -> None:
    buffer = pa.BufferOutputStream()
    with pa.ipc.new_file(buffer, table.schema, options=pa.ipc.IpcWriteOptions(compression="zstd")) as writer:
        writer.write_table(table)
    body = buffer.getvalue().to_pybytes()
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(path, durable=False) as draft:  # the digest tells what a power cut leaves
        draft.write_bytes(hashlib.sha256(body).digest() + body)
