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
from avb_hf.training.arguments import RunArguments
from avb_hf.training.lora_arguments import LoraArguments

USAGE = "avb doctor [recipe] [--flag value ...]"
EXPLANATION = """
The exit code is 1 if there is an error: what training would refuse whatever the model, or one clip in two splits. A
model may take less: Whisper takes 30 s, so a corpus for it is looked at, and trained on, with --max_duration 30.
Audio files that no row names are searched for in the corpus's folder; for a manifest, in --data_dir if that is given.
"""


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
        sys.stdout.write(EXPLANATION)
        return 0
    data, options = FlagParser([DataArguments, DoctorArguments], usage=USAGE).parse(_without_training(argv))
    from avb_hf.data.doctor import as_report, as_text, check_report_path, diagnose, write_report

    if options.report is not None:
        check_report_path(Path(options.report))
    diagnosis = diagnose(data, options.headers_only, options.num_workers or min(os.cpu_count() or 1, 8))
    sys.stdout.write(as_text(diagnosis) + "\n")
    sys.stdout.flush()
    if options.report is not None:
        write_report(as_report(diagnosis, vars(data) | vars(options)), Path(options.report))
    return int(diagnosis.count("error") > 0)


def _without_training(argv: list[str]) -> list[str]:
    """Put a recipe's flags but those of training, if the first argument is one, before the rest: the command line wins.

    What is a flag of neither stays, to be refused.
    """
    if not argv or argv[0].startswith("-"):
        return argv
    from avb_hf.training.training_arguments import VocalBurstTrainingArguments

    groups = (LoraArguments, RunArguments, VocalBurstTrainingArguments)
    names = [field.name for group in groups for field in dataclasses.fields(group)]
    hyphened = [name.replace("_", "-") for name in names]  # a recipe may spell its flags so
    return recipe_flags(argv[0], left_out=names + hyphened) + argv[1:]
