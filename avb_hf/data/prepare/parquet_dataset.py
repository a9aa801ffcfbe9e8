"""A corpus as a folder of Parquet files with the audio in them, as the Hub keeps datasets."""

from __future__ import annotations

import dataclasses
import logging
import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa
from huggingface_hub.constants import REPOCARD_NAME
from pyarrow import parquet
from tqdm.auto import tqdm

from avb_hf.card_marker import CARD_MARKER, is_ours
from avb_hf.data.contents import AUDIO_COLUMN
from avb_hf.data.dataset_facts import FACTS_FILE, read_facts, write_facts
from avb_hf.data.prepare.labelled_clips import PATH_COLUMN, LabelledClips

logger = logging.getLogger(__name__)

DATA_FOLDER = "data"
# Bytes of audio in a file, as the Hub likes them, and in a group of rows, which is read whole for one clip of it.
FILE_BYTES = 500_000_000
GROUP_BYTES = 1_000_000


def check_parquet_folder(folder: Path, *others: Path) -> None:
    """Check that a dataset may be written into a folder: to a new or empty one, or in place of an earlier one of ours.

    Args:
        folder: The folder, absolute.
        *others: Folders with recordings or clips, absolute, which must neither hold it nor be in it.

    Raises:
        ValueError: If it may not, since something of somebody else would be lost.
    """
    for other in others:
        if folder.is_relative_to(other) or other.is_relative_to(folder):
            raise ValueError(f"neither of --parquet_dir {folder} and {other} may be inside the other")
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"--parquet_dir {folder} is a file")
    if folder.is_dir() and any(folder.iterdir()) and not (folder / FACTS_FILE).is_file():
        raise ValueError(f"--parquet_dir {folder} holds files, but no {FACTS_FILE} of ours; choose another one")
    foreign = _find_foreign(folder)
    if foreign:
        raise ValueError(
            f"--parquet_dir {folder} is to be replaced, and also holds what is not of the dataset, or not as it was "
            f"written: {foreign[:10]}; move it away, or choose another folder"
        )


def write_dataset(clips: LabelledClips, card: str, out: Path, folder: Path) -> None:
    """Write a dataset, in place of an earlier one, wholly or not at all; clips are read a megabyte at a time.

    A README of somebody else stays. If a call is cut off between the two renames at the end, the earlier dataset is not
    in its place; the next call puts it back.

    Args:
        clips: The clips.
        card: Text of its README.
        out: The folder with the prepared clips, to which the paths of the published audio are relative.
        folder: The folder to write, which `check_parquet_folder` let pass.

    Raises:
        ValueError: If something else was put into the folder meanwhile.
    """
    draft, earlier = (folder.with_name(f".{folder.name}.{word}") for word in ("part", "earlier"))
    if earlier.exists() and not folder.exists():
        earlier.rename(folder)
    for left in (draft, earlier):
        shutil.rmtree(left, ignore_errors=True)
    (draft / DATA_FOLDER).mkdir(parents=True)
    _write_parts(clips, out, draft / DATA_FOLDER)
    files = {path.relative_to(draft).as_posix(): path.stat().st_size for path in sorted(draft.rglob("*.parquet"))}
    write_facts(dataclasses.replace(clips.facts, files=files), draft)
    (draft / REPOCARD_NAME).write_text(card, encoding="utf-8")
    check_parquet_folder(folder)
    _keep_edited_card(folder, draft)
    if folder.exists():
        folder.rename(earlier)
    draft.rename(folder)
    shutil.rmtree(earlier, ignore_errors=True)


def _find_foreign(folder: Path) -> list[str]:
    """Name what a folder holds beside a dataset of ours, and Parquet files of other sizes than were written."""
    sizes = read_facts(folder).files
    found = [path for path in sorted(folder.rglob("*")) if path.is_symlink() or not path.is_dir()]
    names = {path.relative_to(folder).as_posix(): path for path in found}
    return [
        name
        for name, path in names.items()
        if name not in (FACTS_FILE, REPOCARD_NAME) and path.lstat().st_size != sizes.get(name)
    ]


def _keep_edited_card(folder: Path, draft: Path) -> None:
    card = folder / REPOCARD_NAME
    if card.is_file() and not is_ours(card):
        logger.warning("%s was written by somebody else and stays: it lacks the line %s", card, CARD_MARKER)
        shutil.copy2(card, draft / REPOCARD_NAME)


def _write_parts(clips: LabelledClips, out: Path, folder: Path) -> None:
    """Write the Parquet files of all splits."""
    total = sum(len(table) for table in clips.splits.values())
    with tqdm(total=total, desc="writing Parquet", unit="clip", disable=None) as bar:
        for split, table in clips.splits.items():
            sizes = [os.stat(path).st_size for path in table[PATH_COLUMN].to_pylist()]
            files = list(_cut(sizes, FILE_BYTES))
            for number, rows in enumerate(files):
                name = f"{split}-{number:05d}-of-{len(files):05d}.parquet"
                with _open_writer(folder / name, clips) as writer:
                    for group in _cut(sizes[rows.start : rows.stop], GROUP_BYTES):
                        part = table.slice(rows.start + group.start, len(group))
                        writer.write_table(_with_audio(part, out, writer.schema))
                        bar.update(len(group))


def _cut(sizes: Sequence[int], limit: int) -> Iterator[range]:
    """Cut rows into runs of at most so many bytes, and at least one row."""
    start, total = 0, 0
    for row, size in enumerate(sizes):
        if row > start and total + size > limit:
            yield range(start, row)
            start, total = row, 0
        total += size
    if sizes:
        yield range(start, len(sizes))


def _open_writer(path: Path, clips: LabelledClips) -> parquet.ParquetWriter:
    """Open a file in which audio is neither compressed nor indexed, which would cost time and gain nothing."""
    schema = clips.features.arrow_schema
    others = [name for name in schema.names if name != AUDIO_COLUMN]
    codecs = {f"{AUDIO_COLUMN}.bytes": "NONE", f"{AUDIO_COLUMN}.path": "SNAPPY"} | dict.fromkeys(others, "SNAPPY")
    return parquet.ParquetWriter(path, schema, compression=codecs, use_dictionary=others, write_statistics=others)


def _with_audio(part: pa.Table, out: Path, schema: pa.Schema) -> pa.Table:
    paths = part[PATH_COLUMN].to_pylist()
    contents = pa.array([Path(path).read_bytes() for path in paths], pa.binary())
    names = pa.array([Path(os.path.relpath(path, out)).as_posix() for path in paths], pa.string())
    audio = pa.StructArray.from_arrays([contents, names], ["bytes", "path"])
    return pa.table({AUDIO_COLUMN: audio} | {name: part[name] for name in schema.names[1:]}, schema=schema)
