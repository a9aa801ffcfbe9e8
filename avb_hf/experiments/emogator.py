"""The paper's tables in miniature on EmoGator: its categories as classes, and as numbers of a regression."""

from __future__ import annotations

import csv
import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from avb_hf.data.arguments import DataArguments
from avb_hf.data.findings import Finding, raise_errors
from avb_hf.data.listing import Listing
from avb_hf.data.sources import infer_task, list_clips
from avb_hf.data.splits import SPLITS
from avb_hf.experiments.published import PublishedScore
from avb_hf.tasks import TaskSpec, task_from_mapping
from avb_hf.whole_files import whole_file

CLASSES, INDICATORS = "classes", "indicators"
GIVEN = "given"
TABLE, TASK_FILE = "indicators.csv", "indicators.yaml"


def scores_on_emogator(published: Sequence[PublishedScore], baseline: str) -> list[PublishedScore]:
    """Turn what is published of HUME-VB into what EmoGator can answer, on validation and test, without a number.

    The task of classes stays one, all regressions become that of the 30 indicators, and all extractors the given one.

    Args:
        published: Scores of the paper.
        baseline: The word for the organisers' baseline, which stays as it is.
    """
    scores = [
        dataclasses.replace(
            score,
            split=split,
            task=CLASSES if score.metric == "uar" else INDICATORS,
            backbone=baseline if score.backbone == baseline else GIVEN,
            score_percent="",
        )
        for score in published
        for split in ("val", "test")
    ]
    return sorted(dict.fromkeys(scores), key=lambda score: score.split, reverse=True)


def tasks_on_emogator(data: DataArguments, folder: Path) -> tuple[dict[str, TaskSpec], dict[str, DataArguments]]:
    """Return both tasks and what they read, by their words, without writing anything.

    Args:
        data: Where the corpus is, and how it is read.
        folder: Where `write_indicators` is to write.

    Raises:
        ValueError: If the corpus cannot be used.
    """
    classes = infer_task(data)
    _list_clips(classes, data)
    task_file = str(folder / TASK_FILE)
    indicators = dataclasses.replace(
        data, source="manifest", data_dir=None, split_file=None, manifest=str(folder / TABLE), task=task_file,
        id_column="file_id", split_column="split", speaker_column="speaker",
    )  # fmt: skip
    task = task_from_mapping(_task_fields(classes), task_file)
    return {CLASSES: classes, INDICATORS: task}, {CLASSES: data, INDICATORS: indicators}


def write_indicators(classes: TaskSpec, data: DataArguments, folder: Path) -> None:
    """Write the table of the indicators, one column a category that is 1 for its clips and else 0, and its task file.

    Args:
        classes: The task of classes.
        data: Where the corpus is, and how it is read.
        folder: Takes up `indicators.csv` and `indicators.yaml`.
    """
    listing = _list_clips(classes, data)
    folder.mkdir(parents=True, exist_ok=True)
    with whole_file(folder / TASK_FILE) as draft:
        draft.write_text(yaml.safe_dump(_task_fields(classes)), encoding="utf-8")
    with whole_file(folder / TABLE) as draft, draft.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["file_id", "path", "speaker", "split", *classes.labels])
        categories = listing.cells[str(classes.class_column)].to_pylist()
        for clip, own in zip(listing.clips, categories, strict=True):
            if clip.split in SPLITS:
                numbers = [int(label == own) for label in classes.labels]
                writer.writerow([clip.file_id, Path(clip.path).resolve(), clip.speaker, clip.split, *numbers])


def _task_fields(classes: TaskSpec) -> dict[str, Any]:
    return {"labels": list(classes.labels), "problem_type": "regression", "label_range": [0.0, 1.0]}


def _list_clips(classes: TaskSpec, data: DataArguments) -> Listing:
    findings: list[Finding] = []
    listing = list_clips(classes, data, findings)
    raise_errors(findings, str(listing.where))
    return listing
