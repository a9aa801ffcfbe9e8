"""`avb doctor`: look for what is wrong with a corpus before anything is trained on it."""

from __future__ import annotations

import dataclasses
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from transformers.hf_argparser import HfArg

from avb_hf.cli.flags import FlagParser, print_help, recipe_flags
from avb_hf.data.arguments import DataArguments

USAGE = "avb doctor [recipe] [--flag value ...]"


@dataclass
class DoctorArguments:
    """How a corpus is looked at."""

    _argument_group_name: ClassVar[str] = "doctor"

    report: str | None = HfArg(default=None, help="JSON file that takes all findings")  # type: ignore[assignment]
    headers_only: bool = HfArg(  # type: ignore[assignment]
        default=False, help="decode nothing: quick, and blind for what only samples tell"
    )
    num_workers: int | None = HfArg(  # type: ignore[assignment]
        default=None, help="threads that read audio (default: as many as there are processors, 8 at most)"
    )

    def __post_init__(self) -> None:
        if self.num_workers is not None and self.num_workers < 1:
            raise ValueError(f"--num_workers must be at least 1, got {self.num_workers}")


def main(argv: list[str]) -> int:
    """Scan a corpus and print what is wrong with it.

    Args:
        argv: Arguments behind the program's name: a recipe, if any, of which the data flags count, and flags.

    Returns:
        1 if anything found is an error, else 0.

    Raises:
        ValueError: If flags cannot be used.
    """
    if "-h" in argv or "--help" in argv:
        print_help([DataArguments, DoctorArguments], USAGE)
        return 0
    data, options = FlagParser([DataArguments, DoctorArguments], usage=USAGE).parse(_without_training(argv))
    from avb_hf.data.doctor import as_report, as_text, check_report_path, diagnose, write_report

    if options.report is not None:
        check_report_path(Path(options.report))
    diagnosis = diagnose(data, options.headers_only, options.num_workers or min(os.cpu_count() or 1, 8))
    if options.report is not None:
        write_report(as_report(diagnosis, vars(data) | vars(options)), Path(options.report))
    sys.stdout.write(as_text(diagnosis) + "\n")
    return int(diagnosis.count("error") > 0)


def _without_training(argv: list[str]) -> list[str]:
    """Put a recipe's data flags, if the first argument is one, before the rest, so that the command line wins."""
    if not argv or argv[0].startswith("-"):
        return argv
    known = {f"--{field.name}" for field in dataclasses.fields(DataArguments)}
    words, is_ours = [], False
    for word in recipe_flags(argv[0]):
        is_ours = word in known if word.startswith("--") else is_ours
        words += [word] * is_ours
    return words + argv[1:]
