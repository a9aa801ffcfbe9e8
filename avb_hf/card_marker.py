"""How a card that was written here is told from one that a person has taken over."""

from __future__ import annotations

from pathlib import Path

CARD_MARKER = "<!-- Written by avb_hf, which replaces this card unless this line is removed. -->"


def is_ours(path: Path) -> bool:
    """Whether a card may be replaced: it bears the marker."""
    return CARD_MARKER in path.read_text(encoding="utf-8", errors="replace").splitlines()
