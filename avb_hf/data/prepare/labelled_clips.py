"""What is published of a prepared corpus: its clips with the labels of all tasks, checked as training checks them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
from datasets import Audio, DatasetDict, Features, Value

from avb_hf.data.arguments import DataArguments
from avb_hf.data.audio import SAMPLING_RATE
from avb_hf.data.clips import describe_audio, is_labelled
from avb_hf.data.contents import AUDIO_COLUMN
from avb_hf.data.dataset_facts import DatasetFacts
from avb_hf.data.labels import is_given
from avb_hf.data.parquet_parts import ID_COLUMN, SPEAKER_COLUMN
from avb_hf.data.sources import load_corpus
from avb_hf.tasks import TaskSpec

PATH_COLUMN = "path"


@dataclass(frozen=True)
class LabelledClips:
    """The clips of a corpus with all of their labels.

    Attributes:
        splits: For each split a row a clip: its `path`, and all columns that are published but the audio; null where a
            label is missing.
        features: Types of the columns that are published, the audio first.
        facts: Whose labels these are.
        audio: Clips and hours of each split, as `avb_hf.data.clips.describe_audio` counts them.
    """

    splits: dict[str, pa.Table]
    features: Features
    facts: DatasetFacts
    audio: dict[str, dict[str, Any]]


def read_labelled_clips(
    tasks: dict[str, TaskSpec], reading: DataArguments, preparation: dict[str, Any]
) -> LabelledClips:
    """Read a corpus under each task.

    Args:
        tasks: The tasks by name, at least one; the order of the first one's clips is that of all.
        reading: How the corpus is read.
        preparation: Settings by which its audio was made.

    Raises:
        ValueError: If the corpus cannot be used, or two tasks have other clips or columns of one name.
    """
    # What is published need not be complete, as the contest file of a task must be.
    corpora = {name: load_corpus(replace(task, submission_name=None), reading) for name, task in tasks.items()}
    _check_same_clips(corpora)
    first = next(iter(corpora.values()))
    has_speakers = all(SPEAKER_COLUMN in split.column_names for split in first.values())
    kinds = {ID_COLUMN: "string"} | ({SPEAKER_COLUMN: "string"} if has_speakers else {})
    labels = [(column, _kind(task)) for task in tasks.values() for column in task.label_columns]
    _check_columns([AUDIO_COLUMN, PATH_COLUMN, *kinds, *(column for column, _ in labels)])
    features = Features(
        {AUDIO_COLUMN: Audio(sampling_rate=SAMPLING_RATE, decode=False)}
        | {column: Value(kind) for column, kind in (*kinds.items(), *labels)}
    )
    splits = {name: _tabulate(name, list(kinds), corpora, tasks) for name in first}
    scored = [name for name, corpus in corpora.items() if "test" in corpus and is_labelled(corpus["test"], tasks[name])]
    return LabelledClips(splits, features, DatasetFacts(tasks, scored, preparation), describe_audio(first))


def _kind(task: TaskSpec) -> str:
    return "string" if task.is_classification else "float64"


def _check_same_clips(corpora: Mapping[str, DatasetDict]) -> None:
    clips = {name: set(_place_clips(corpus)) for name, corpus in corpora.items()}
    first, *others = clips
    for name in others:
        differing = sorted(clips[first] ^ clips[name])
        if differing:
            file_id, split, _ = differing[0]
            raise ValueError(
                f"the tasks {first} and {name} differ in {len(differing)} clips or their splits, first "
                f"File_ID {file_id} ({split}): publish one of them by --task"
            )


def _place_clips(corpus: DatasetDict) -> Iterator[tuple[str, str, str]]:
    """Yield File_ID, split and path of each clip."""
    for name, split in corpus.items():
        columns = split.with_format(None, columns=["file_id", "path"])[:]
        yield from ((file_id, name, path) for file_id, path in zip(columns["file_id"], columns["path"], strict=True))


def _check_columns(columns: Sequence[str]) -> None:
    repeated = sorted({column for column in columns if columns.count(column) > 1})
    if repeated:
        raise ValueError(f"a dataset has one column of each name, and the labels would make two of each of {repeated}")


def _tabulate(
    name: str, columns: Sequence[str], corpora: Mapping[str, DatasetDict], tasks: Mapping[str, TaskSpec]
) -> pa.Table:
    first = next(iter(corpora.values()))[name].with_format(None)
    cells: dict[str, Any] = {column: first[column][:] for column in (PATH_COLUMN, *columns)}
    for task_name, task in tasks.items():
        split = corpora[task_name][name].with_format(None)
        row_of = {file_id: row for row, file_id in enumerate(split["file_id"])}
        cells |= _label_cells(np.asarray(split["labels"][:])[[row_of[file_id] for file_id in cells[ID_COLUMN]]], task)
    return pa.table(cells)


def _label_cells(labels: np.ndarray, task: TaskSpec) -> dict[str, pa.Array]:
    missing = ~is_given(labels, task)
    if task.is_classification:
        names = [None if absent else task.labels[index] for index, absent in zip(labels, missing, strict=True)]
        return {task.label_columns[0]: pa.array(names, pa.string())}
    return {
        column: pa.array(values, pa.float64(), mask=absent)
        for column, values, absent in zip(task.label_columns, labels.T, missing.T, strict=True)
    }
