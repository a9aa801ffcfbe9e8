"""Headers of audio files that were read before, kept in the user's cache."""

import hashlib
import logging
import os
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import pyarrow as pa
import soundfile
from pyarrow import parquet

from avb_hf.data.audio import AudioHeader, read_header
from avb_hf.data.user_cache import cache_folder
from avb_hf.whole_files import whole_file

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

# What the columns after the path hold: plain tuples, which the garbage collector need not walk.
_Entry = tuple[int, int, int, int, int, str]


class HeaderIndex:
    """Reads headers, and each of them once: a file is opened again when its size or modification time is another one.

    What is known lies in one file for all audio below a folder: a Parquet table behind its own SHA-256. It appears
    whole or not at all, so processes may read and write it at any time; the last one to write wins. A file that is
    damaged, of another version, or cannot be read or written costs time alone.

    Args:
        paths: The audio files that are to be read; the folder that holds them all decides on the table.
    """

    def __init__(self, paths: Sequence[Path]) -> None:
        self._here = os.getcwd()
        self.file = self._find_file(paths)
        self._known = self._load()
        self._fresh: dict[str, _Entry] = {}

    def read_header(self, path: Path, file_id: str) -> AudioHeader:
        """Return what `avb_hf.data.audio.read_header` returns, or has returned for the file as it is.

        Raises:
            AudioFileError: If the file is missing, no audio, or a wav file that was cut off; these are never kept.
        """
        try:
            status = os.stat(path)
        except OSError:
            return read_header(path, file_id)
        key = self._key(path)
        entry = self._known.get(key)
        if entry is not None and entry[:2] == (status.st_size, status.st_mtime_ns):
            return AudioHeader(*entry[2:])
        header = read_header(path, file_id)
        if time.time_ns() - status.st_mtime_ns > SETTLED_NS:
            facts = (header.sampling_rate, header.channels, header.num_frames, header.format)
            self._fresh[key] = (status.st_size, status.st_mtime_ns, *facts)
        return header

    def save(self) -> None:
        """Keep what was read, unless that is too little to be worth it, and forget files that are gone."""
        if self.file is None or len(self._fresh) < MIN_FRESH:
            return
        # Another process may have written since this one read.
        entries = {key: entry for key, entry in self._load().items() if os.path.exists(key)} | self._fresh
        facts = entries.values()
        columns = [[entry[index] for entry in facts] for index in range(len(_SCHEMA) - 1)]
        table = pa.table([list(entries), *columns], schema=_SCHEMA)
        try:
            _write(table, self.file)
        except OSError as error:
            logger.warning("the headers of the audio files could not be kept in %s (%s)", self.file, error)

    def _load(self) -> dict[str, _Entry]:
        if self.file is None:
            return {}
        try:
            content = self.file.read_bytes()
        except FileNotFoundError:
            return {}
        except OSError as error:
            logger.warning("%s cannot be read (%s): the headers of the audio files are read again", self.file, error)
            return {}
        digest, body = content[:_DIGEST_SIZE], content[_DIGEST_SIZE:]
        if hashlib.sha256(body).digest() != digest:
            logger.warning("%s is damaged: the headers of the audio files are read again", self.file)
            with suppress(OSError):
                self.file.unlink()
            return {}
        table = parquet.read_table(pa.BufferReader(body))
        if not table.schema.equals(_SCHEMA, check_metadata=True):
            return {}
        columns = [column.to_pylist() for column in table.columns]
        return dict(zip(columns[0], zip(*columns[1:], strict=True), strict=True))

    def _key(self, path: Path) -> str:
        return os.path.join(self._here, path)

    def _find_file(self, paths: Sequence[Path]) -> Path | None:
        folders = {self._key(path).rpartition(os.sep)[0] for path in paths}
        if not folders:
            return None
        name = hashlib.sha256(os.fsencode(os.path.commonpath(folders))).hexdigest()[:16]
        try:
            return cache_folder() / "headers" / name
        except RuntimeError as error:  # a user without a home
            logger.warning("the headers of the audio files are not kept: %s", error)
            return None


def _write(table: pa.Table, path: Path) -> None:
    buffer = pa.BufferOutputStream()
    parquet.write_table(table, buffer)
    body = buffer.getvalue().to_pybytes()
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(path, durable=False) as draft:  # the digest tells what a power cut leaves
        draft.write_bytes(hashlib.sha256(body).digest() + body)
