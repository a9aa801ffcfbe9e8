"""JSON files that are there whole or not at all, also after the power went."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from avb_hf.whole_files import whole_file


def write_json(path: str | Path, content: Any) -> None:
    """Write a JSON file in one stroke: a reader finds the old one or the whole new one.

    Args:
        path: The file; its folder must exist.
        content: What to write; what JSON does not know is written as text.
    """
    with whole_file(Path(path)) as draft:
        draft.write_text(json.dumps(content, indent=2, default=str) + "\n", encoding="utf-8")


def read_json(path: str | Path) -> Any:
    """Read a JSON file.

    Raises:
        ValueError: If it is damaged; the message names it.
    """
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is damaged: {error}") from error
