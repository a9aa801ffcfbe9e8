"""`avb_corpus.json` in a published dataset: which tasks its columns are labels of, and which files are its own."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from avb_hf import __version__
from avb_hf.tasks import TaskSpec, task_from_mapping

FACTS_FILE = "avb_corpus.json"
FORMAT, VERSION = "avb_hf corpus", 1


@dataclass(frozen=True)
class DatasetFacts:
    """What a published dataset says about itself.

    Attributes:
        tasks: The tasks whose labels are there, by name; none of a dataset that is not ours.
        scored_tests: Names of the tasks whose test split has labels.
        preparation: Settings by which the audio was made of recordings.
        files: Its Parquet files as they were written: their sizes in bytes, by their paths with slashes.
    """

    tasks: dict[str, TaskSpec] = field(default_factory=dict)
    scored_tests: Sequence[str] = ()
    preparation: dict[str, Any] = field(default_factory=dict)
    files: Mapping[str, int] = field(default_factory=dict)


def write_facts(facts: DatasetFacts, folder: Path) -> None:
    """Write the facts of a dataset into its folder."""
    content = {
        "format": FORMAT,
        "version": VERSION,
        "avb_hf": __version__,
        "tasks": {name: dataclasses.asdict(task) for name, task in facts.tasks.items()},
        "scored_tests": list(facts.scored_tests),
        "preparation": facts.preparation,
        "files": dict(facts.files),
    }
    (folder / FACTS_FILE).write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def read_facts(folder: Path) -> DatasetFacts:
    """Read what a dataset says about itself; nothing, where the folder holds no published corpus of ours.

    Raises:
        ValueError: If the file is damaged, or of a later version.
    """
    path = folder / FACTS_FILE
    if not path.is_file():
        return DatasetFacts()
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if (content["format"], content["version"]) != (FORMAT, VERSION):
            raise ValueError(f"its version is {content['version']!r}, this avb_hf reads {VERSION}")
        tasks = {name: task_from_mapping(fields, f"{path}: {name}") for name, fields in content["tasks"].items()}
        return DatasetFacts(tasks, content["scored_tests"], content["preparation"], dict(content.get("files", {})))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} cannot be used: {error!r}") from error
