"""What a call of `avb prepare` made, and what is wrong."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from avb_hf.data.prepare.plan import RECORD
from avb_hf.data.problems import MAX_LISTED


@dataclass(frozen=True)
class PrepareReport:
    """What a call of `avb prepare` made, and what is wrong.

    Attributes:
        out: The folder with the prepared clips.
        prepared: Number of clips that this call made.
        skipped: Number of clips that were there already.
        other_files: Number of files that are no clips.
        bad: Reason why there is no clip, by the recording's path below RAW.
        warnings: What is remarkable about a file that was made, likewise.
        hours: Length of all clips in OUT, in hours.
        seconds: Time that this call took, in seconds.
    """

    out: Path
    prepared: int
    skipped: int
    other_files: int
    bad: dict[str, str]
    warnings: dict[str, str]
    hours: float
    seconds: float

    def describe(self) -> str:
        """Return the report as lines of text, with at most 20 bad and 20 remarkable files."""
        lines = _list("warning", self.warnings) + _list("bad", self.bad)
        lines.append(
            f"{self.prepared} clips prepared, {self.skipped} already there, {len(self.bad)} bad, {self.hours:.2f} h, "
            f"{self.prepared / max(self.seconds, 1e-9):.0f} clips/s; {self.other_files} other files"
        )
        if self.bad:
            total = self.prepared + self.skipped + len(self.bad)
            lines.append(f"{len(self.bad)} of {total} clips are missing in {self.out}; {RECORD} there names them all")
        return "\n".join(lines).encode(errors="backslashreplace").decode()  # a file's name need not be text


def make_report(out: Path, record: Mapping[str, Any], made: set[str], seconds: float) -> PrepareReport:
    """Sum up a record.

    Args:
        out: The folder with the prepared clips.
        record: The record of a call that has ended.
        made: Paths below `out` of the files that this call tried to make.
        seconds: Time that it took, in seconds.
    """
    files = record["files"]
    clips = {name: entry for name, entry in files.items() if entry["kind"] == "clip"}
    good = {name: entry for name, entry in clips.items() if "error" not in entry["result"]}
    return PrepareReport(
        out=out,
        prepared=len(made & good.keys()),
        skipped=len(good.keys() - made),
        other_files=len(files) - len(clips),
        bad=_collect(files, "error"),
        warnings=_collect(files, "warning"),
        hours=sum(entry["result"]["duration"] for entry in good.values()) / 3600,
        seconds=seconds,
    )


def _collect(files: Mapping[str, Any], key: str) -> dict[str, str]:
    return {entry["source"]: entry["result"][key] for entry in files.values() if key in entry["result"]}


def _list(kind: str, findings: Mapping[str, str]) -> list[str]:
    lines = [f"{kind}: {source}: {reason}" for source, reason in list(findings.items())[:MAX_LISTED]]
    more = len(findings) - len(lines)
    return [*lines, f"{kind}: ... and {more} more"] if more > 0 else lines
