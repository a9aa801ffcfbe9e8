"""Telling the user about many problems at once."""

from collections.abc import Sequence

MAX_LISTED = 20


def list_problems(problems: Sequence[object], heading: str) -> str:
    """Return a text that lists the first 20 problems under a heading, one a line, and counts all.

    Args:
        problems: What is wrong; the text of each names the file, line or File_ID.
        heading: What was read, and where; may be empty.
    """
    count = f"{len(problems)} problem{'s' if len(problems) > 1 else ''}"
    lines = [f"{heading}: {count}" if heading else count]
    lines += [f"  {problem}" for problem in problems[:MAX_LISTED]]
    if len(problems) > MAX_LISTED:
        lines.append(f"  ... and {len(problems) - MAX_LISTED} more")
    return "\n".join(lines)


def raise_together(problems: Sequence[str], heading: str) -> None:
    """Raise one error for all `problems`, unless there are none.

    Args:
        problems: One line each, which names the file, line or File_ID.
        heading: What was read, and where.

    Raises:
        ValueError: If there is a problem; the first 20 are listed and all are counted.
    """
    if problems:
        raise ValueError(list_problems(problems, heading))
