"""Texts that name recordings by path, whatever their layout is."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import PurePosixPath

TEXT_SUFFIXES = (".csv", ".tsv", ".txt", ".json", ".jsonl", ".yaml", ".yml")
_PART_OF_A_NAME = rb"[\w.\x80-\xff-]"


def is_text(name: str) -> bool:
    """Whether a file's suffix is that of a text that may list recordings."""
    return PurePosixPath(name).suffix.lower() in TEXT_SUFFIXES


class PathFinder:
    """Finds the first of many paths that a text names.

    Args:
        outputs: What each path becomes; both are relative, with slashes.
    """

    def __init__(self, outputs: Mapping[str, str]) -> None:
        self._outputs = {os.fsencode(name): (name, output) for name, output in outputs.items()}
        self._lengths = {len(name) for name in self._outputs}
        suffixes = {re.escape(os.fsencode(PurePosixPath(name).suffix)) for name in outputs}
        self._end = re.compile(rb"(?:%b)(?![\w-]|\.\w)" % b"|".join(suffixes)) if outputs else None

    def find(self, text: bytes) -> tuple[str, str] | None:
        """Return a path that is named, alone or at the end of a longer one, and what it becomes; None without one."""
        for match in self._end.finditer(text) if self._end else ():
            for start in (match.end() - length for length in self._lengths):
                found = self._outputs.get(text[start : match.end()]) if start >= 0 else None
                if found is not None and not re.match(_PART_OF_A_NAME, text[start - 1 : start]):
                    return found
        return None
