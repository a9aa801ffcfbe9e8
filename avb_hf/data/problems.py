"""Telling the user about every problem of a corpus at once."""

from collections.abc import Sequence

MAX_LISTED = 20


def raise_together(problems: Sequence[str], heading: str) -> None:
    """Raise one error for all `problems`, unless there are none.

    Args:
        problems: One line each, which names the file, line or File_ID.
        heading: What was read, and where.

    Raises:
        ValueError: If there is a problem; the first 20 are listed and all are counted.
    """
    if not problems:
        return
    lines = [f"{heading}: {len(problems)} problem{'s' if len(problems) > 1 else ''}"]
    lines += [f"  {problem}" for problem in problems[:MAX_LISTED]]
    if len(problems) > MAX_LISTED:
        lines.append(f"  ... and {len(problems) - MAX_LISTED} more")
    raise ValueError("\n".join(lines))
