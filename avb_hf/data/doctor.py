"""One scan of a corpus for all that is wrong with it, and what it found as text and JSON."""

import dataclasses
import json
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from avb_hf import __version__
from avb_hf.data.arguments import DataArguments
from avb_hf.data.clips import count, count_audio
from avb_hf.data.corpus import examine
from avb_hf.data.findings import KINDS, CorpusError, Finding
from avb_hf.data.inspection import ClipAudio, find_twins
from avb_hf.data.listing import Listing
from avb_hf.data.locations import find_orphans
from avb_hf.data.sources import infer_task, list_clips
from avb_hf.data.splits import SPLITS
from avb_hf.whole_files import whole_file

REPORT_FORMAT = "avb_hf doctor"
REPORT_VERSION = 1
RECORDED_PACKAGES = ("soundfile", "librosa", "soxr", "numpy")
MAX_SHOWN = 5


@dataclass(frozen=True)
class Diagnosis:
    """What a scan found.

    Attributes:
        where: The table or folder that names the clips; None if the scan did not come so far.
        task: Name of the task; None likewise.
        splits: For each split `clips`, `hours`, and how many clips have each of `sampling_rates` (Hz), `channels` and
            `formats` (libsndfile's words), which count files whose header can be read; for a classification, where the
            split has labels, also how many clips have each of `classes`.
        findings: All that is wrong.
        searched: The folder that was searched for audio files that no row names; None if there is none.
    """

    where: str | None
    task: str | None
    splits: dict[str, dict[str, Any]]
    findings: list[Finding]
    searched: str | None = None

    def count(self, severity: str) -> int:
        """Return how many findings are of a severity."""
        return sum(finding.severity == severity for finding in self.findings)


def diagnose(args: DataArguments, headers_only: bool = False, num_workers: int = 1) -> Diagnosis:
    """Scan a corpus, all of it, whatever `max_train_samples` and `max_eval_samples` say.

    Args:
        args: Which corpus to read, and how training would read it.
        headers_only: Whether not to decode the audio: quick, and blind for what only samples tell.
        num_workers: Threads that read the audio.

    Returns:
        The diagnosis. A table that cannot be read at all ends the scan, as a finding.

    Raises:
        ValueError: If the flags contradict each other, or name no corpus.
    """
    findings: list[Finding] = []
    try:
        task = infer_task(args)
        listing = list_clips(task, args, findings)
    except CorpusError as error:
        return Diagnosis(None, args.task, {}, [*findings, *error.findings])
    _, audio, classes = examine(listing, task, args, findings, not headers_only, num_workers)
    findings += find_twins(listing.clips, audio)
    findings += [Finding("orphan_audio", "no row names this file", path=str(path)) for path in find_orphans(listing)]
    searched = None if listing.folder is None else str(listing.folder)
    splits = _describe(listing, audio)
    for name, numbers in classes.items():
        splits[name]["classes"] = numbers
    return Diagnosis(str(listing.where), task.name, splits, findings, searched)


def as_text(diagnosis: Diagnosis) -> str:
    """Return the diagnosis for reading: the corpus, then each kind of finding with the first few of it."""
    lines = [f"{diagnosis.where or 'the corpus cannot be read'}"]
    for name, split in diagnosis.splits.items():
        rates = ", ".join(f"{rate} Hz" for rate in split["sampling_rates"])
        formats = ", ".join(split["formats"])
        lines.append(f"  {name:<10} {split['clips']:>7} clips {split['hours']:>9.3f} h  {formats}  {rates}")
    lines += _tabulate_classes(diagnosis)
    if diagnosis.where is not None and diagnosis.searched is None:
        lines.append("not searched for orphan audio: --data_dir names the folder in which every file should have a row")
    for kind in KINDS:
        lines += _list_kind(kind, [finding for finding in diagnosis.findings if finding.kind == kind])
    lines.append(f"{diagnosis.count('error')} errors, {diagnosis.count('warning')} warnings")
    return "\n".join(lines).encode(errors="backslashreplace").decode()  # a file's name need not be text


def as_report(diagnosis: Diagnosis, arguments: dict[str, Any]) -> dict[str, Any]:
    """Return the diagnosis for machines.

    Args:
        diagnosis: What the scan found.
        arguments: Flags of the scan, to be written down.

    Returns:
        `format` and `version` of the report; `versions` of packages; `arguments`; `corpus` and `task`, null where the
        corpus cannot be read; `searched`, as in `Diagnosis`; `errors` and `warnings`, their numbers; `kinds`, the
        number of each kind that was found; `splits`, as in `Diagnosis`; `findings`, each with `kind`, `severity`,
        `message` and, null where there is none, `file_id`, `path` and `place`. Keys may come, none goes or changes
        without another `version`.
    """
    return {
        "format": REPORT_FORMAT,
        "version": REPORT_VERSION,
        "versions": {"avb_hf": __version__} | {name: version(name) for name in RECORDED_PACKAGES},
        "arguments": arguments,
        "corpus": diagnosis.where,
        "task": diagnosis.task,
        "searched": diagnosis.searched,
        "errors": diagnosis.count("error"),
        "warnings": diagnosis.count("warning"),
        "kinds": count(finding.kind for finding in diagnosis.findings),
        "splits": diagnosis.splits,
        "findings": [dataclasses.asdict(finding) | {"severity": finding.severity} for finding in diagnosis.findings],
    }


def check_report_path(path: Path) -> None:
    """Check that a report can be written, and may be: to a new file, or over an earlier report.

    Raises:
        ValueError: If the folder does not exist or cannot be written to, or the file is something else.
    """
    if not path.parent.is_dir():
        raise ValueError(f"--report {path}: the folder {path.parent} does not exist")
    try:
        tempfile.TemporaryFile(dir=path.parent).close()
    except OSError as error:
        raise ValueError(f"--report {path} cannot be written: {error}") from error
    if not path.exists():
        return
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        content = None
    if not isinstance(content, dict) or content.get("format") != REPORT_FORMAT:
        raise ValueError(f"--report {path} exists and is no report of the doctor; choose another file")


def write_report(report: dict[str, Any], path: Path) -> None:
    """Write a report as JSON, whole or not at all.

    Raises:
        ValueError: If the file may not be written, as `check_report_path` says.
    """
    check_report_path(path)
    with whole_file(path) as draft:
        text = json.dumps(report, indent=2, ensure_ascii=False)
        draft.write_text(text + "\n", encoding="utf-8", errors="backslashreplace")  # a file's name need not be text


def _describe(listing: Listing, audio: Sequence[ClipAudio]) -> dict[str, dict[str, Any]]:
    described = {}
    for name in (*SPLITS, None):
        part = [held for clip, held in zip(listing.clips, audio, strict=True) if clip.split == name]
        headers = [held.header for held in part if held.header is not None]
        counts = count_audio(
            [header.duration for header in headers],
            [header.sampling_rate for header in headers],
            [header.channels for header in headers],
        )
        counts |= {"clips": len(part), "formats": count(header.format for header in headers)}
        if part:
            described[name or "unknown"] = counts
    return described


def _tabulate_classes(diagnosis: Diagnosis) -> Iterator[str]:
    counts = {name: split["classes"] for name, split in diagnosis.splits.items() if "classes" in split}
    names = list(next(iter(counts.values()), {}))
    if not names:
        return
    width = max(len(title := "clips by class"), *(len(repr(name)) for name in names))
    yield f"  {title:<{width}}" + "".join(f" {split:>10}" for split in counts)
    for name in names:
        yield f"  {name!r:<{width}}" + "".join(f" {numbers[name]:>10}" for numbers in counts.values())


def _list_kind(kind: str, findings: Sequence[Finding]) -> Iterator[str]:
    if not findings:
        return
    yield f"{KINDS[kind].severity} {kind}, {len(findings)}: {KINDS[kind].meaning}"
    yield from (f"    {finding}" for finding in findings[:MAX_SHOWN])
    if len(findings) > MAX_SHOWN:
        yield f"    ... and {len(findings) - MAX_SHOWN} more"
