"""The clips of a corpus in the order of their rows, and how long each is."""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
from tqdm.auto import tqdm

from avb_hf.data.arguments import DataArguments
from avb_hf.data.audio import SAMPLING_RATE, AudioFileError, check_header, read_header
from avb_hf.data.contents import file_stamp
from avb_hf.data.dataset_facts import FACTS_FILE
from avb_hf.data.dataset_folder import download_dataset
from avb_hf.data.parquet_parts import Part, find_parts, holds_audio, list_rows, read_part
from avb_hf.data.tables import READERS, read_table, require_columns
from avb_hf.inference.sample_clips import find_audio

logger = logging.getLogger(__name__)

_BLOCK = 4_096  # headers that are asked for at once
_HUB_DATASET = "hf://datasets/"


@dataclass(frozen=True)
class ClipList:
    """Clips in the order of their rows.

    Attributes:
        files: What the user calls each clip: its path as given, below the folder as given, or as a table has it.
        paths: Where each clip lies.
        commits: Names of datasets of the Hub with their commits, by the folders that they were downloaded to.
    """

    files: list[str]
    paths: list[str]
    commits: Mapping[str, str] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.files)

    def digest(self) -> str:
        """Return the SHA-256 of all names, sizes and times of writing, as hexadecimal text.

        Of a dataset of the Hub its commit stands for place and time, which differ from machine to machine.
        """
        digest = hashlib.sha256()
        for file, path in zip(self.files, self.paths, strict=True):
            digest.update(f"{file}\0{self._identify(path)}\n".encode(errors="surrogateescape"))
        return digest.hexdigest()

    def _identify(self, path: str) -> str:
        for folder, commit in self.commits.items():
            if path.startswith(folder + os.sep):
                row = path.removeprefix(folder).replace(os.sep, "/")
                return f"{commit}{row}\0{file_stamp(path)[0]}"
        return f"{path}\0{_stamp(path)}"


def list_clips(inputs: Sequence[str | Path], path_column: str = "path") -> ClipList:
    """List the clips among files, in folders, in tables and in datasets, in that order, each once.

    Args:
        inputs: Audio files; folders, which are searched recursively for audio suffixes and sorted by path; CSV, TSV or
            Parquet tables; and datasets that hold the audio: Parquet files, folders of them that `avb prepare` wrote,
            and `hf://datasets/user/name` or `hf://datasets/user/name@revision` on the Hub, of which a clip is called by
            its File_ID. A file that is named, here or in a table, may have any suffix, and need not exist.
        path_column: Column of a table with the clips' paths; relative ones are relative to the table's folder.

    Raises:
        ValueError: If there is no clip, an input does not exist, or a table cannot be read or has an empty path.
    """
    clips: dict[str, str] = {}
    commits: dict[str, str] = {}
    repeated = 0
    for source in inputs:
        for path, file in _clips_of(source, path_column, commits):
            repeated += path in clips
            clips.setdefault(path, file)
    if not clips:
        raise ValueError("no clips to score: give files, folders or tables")
    if repeated:
        logger.warning("%d clips are named more than once; each has one row, where it is named first", repeated)
    return ClipList(list(clips.values()), list(clips), commits)


def read_lengths(clips: ClipList, args: DataArguments, min_samples: int, num_workers: int, stop: bool) -> np.ndarray:
    """Read how long each clip is from its file's header.

    Args:
        clips: The clips.
        args: How clips will be decoded.
        min_samples: Shortest clip that the model takes, in samples at 16 kHz.
        num_workers: Threads that read.
        stop: Whether a clip whose header shows that it cannot be used is an error.

    Returns:
        Samples at 16 kHz of shape `(clips,)`; 0 where the header shows that the clip cannot be used.

    Raises:
        AudioFileError: If there is such a clip and `stop` is set.
    """
    samples = np.zeros(len(clips), dtype=np.int64)
    measure = partial(_length, args=args, min_samples=min_samples, stop=stop)
    bar = tqdm(total=len(clips), desc="reading audio headers", unit="clip", disable=None)
    with bar, ThreadPoolExecutor(num_workers) as pool:
        for start in range(0, len(clips), _BLOCK):
            block = slice(start, start + _BLOCK)
            samples[block] = list(pool.map(measure, clips.paths[block], clips.files[block]))
            bar.update(len(samples[block]))
    return samples


def _clips_of(given: str | Path, path_column: str, commits: dict[str, str]) -> Iterator[tuple[str, str]]:
    """Yield path and name of each clip of one input; `commits` takes up what is downloaded."""
    source = Path(given)
    parts = _parts_of(str(given), commits)
    if parts is not None:
        yield from ((path, file_id) for file_id, path in list_rows(parts))
        return
    if source.suffix.lower() in READERS and not source.is_dir():
        table = read_table(source)
        require_columns(table, [path_column])
        for row in table.rows:
            file = row.cells[path_column].strip()
            if not file:
                raise ValueError(f"{row.place}: {path_column} is empty")
            yield str(source.parent / file), file
        return
    for path in map(str, find_audio([source])):
        yield path, _as_text(path)


def _parts_of(given: str, commits: dict[str, str]) -> list[Part] | None:
    """Return the Parquet files with the audio of an input's clips; None if it is no dataset."""
    if given.startswith(_HUB_DATASET):
        name, _, revision = given.removeprefix(_HUB_DATASET).partition("@")
        folder = download_dataset(name, revision or None)  # which has the commit's name
        commits[str(folder)] = f"{name}@{folder.name}"
        return find_parts(folder)
    source = Path(given)
    if source.is_dir():
        return find_parts(source) if (source / FACTS_FILE).is_file() else None
    return [read_part(source, source.name)] if holds_audio(source) else None


def _as_text(path: str) -> str:
    """Escape what of a name is no UTF-8, so that it can be written."""
    return path.encode("utf-8", "backslashreplace").decode()


def _stamp(path: str) -> str:
    try:
        return " ".join(map(str, file_stamp(path)))
    except OSError:
        return "missing"


def _length(path: str, file: str, args: DataArguments, min_samples: int, stop: bool) -> int:
    try:
        header = read_header(path, file)
        check_header(header, path, file, args, min_samples)
    except AudioFileError:
        if stop:
            raise
        return 0
    return int(np.ceil(min(header.duration, args.max_duration) * SAMPLING_RATE))
