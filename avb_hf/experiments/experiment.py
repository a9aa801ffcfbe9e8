"""What an experiment is: runs, and a report of what became of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from avb_hf.experiments.jobs import Job, Run


@dataclass(frozen=True)
class Report:
    """What an experiment found.

    Attributes:
        text: The findings as Markdown.
        files: What was written.
        is_complete: Whether nothing that was asked for is missing.
    """

    text: str
    files: tuple[Path, ...]
    is_complete: bool


class Experiment(Protocol):
    """Runs, and what is to be told of them.

    Attributes:
        runs: The runs that were asked for.
        other_runs: Runs that are told of as well where they are finished.
    """

    runs: list[Run]
    other_runs: list[Run]

    def require(self) -> None:
        """Refuse to begin where a package is missing that the report needs.

        Raises:
            ImportError: If one is; the message says how to get it.
        """

    def report(self, outcomes: Mapping[Job, str], folder: Path) -> Report:
        """Write tables into a folder, from what became of each job."""
