"""`avb submit-check`: is a contest file fit to be handed in?"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from transformers.hf_argparser import HfArg

from avb_hf.cli.flags import FlagParser, print_help
from avb_hf.tasks import TASKS, check_choice

USAGE = "avb submit-check FILE --task TASK [--labels-template TEMPLATE]"
EXPLANATION = """
FILE is A-VB-High_<team>_<n>.csv, as `avb train` leaves it. A template is the organisers' table of the test clips, or
their table of labels, of which the test split counts; FILE may have its column names instead of the official ones,
the organisers' misspelt one included. The exit code is 1 if anything is wrong.
"""


@dataclass
class SubmitCheckArguments:
    """What a contest file is checked against."""

    _argument_group_name: ClassVar[str] = "submit-check"

    task: str | None = HfArg(default=None, help="high, two, culture or type (required)")  # type: ignore[assignment]
    labels_template: str | None = HfArg(  # type: ignore[assignment]
        default=None, help="CSV table that names the test clips: none may be missing and no other be there"
    )

    def __post_init__(self) -> None:
        check_choice("--task", self.task, tuple(name for name, task in TASKS.items() if task.submission_name))


def main(argv: list[str]) -> int:
    """Check a contest file and print each problem with its line and File_ID.

    Args:
        argv: The file, and flags.

    Returns:
        1 if anything is wrong, else 0.

    Raises:
        ValueError: If flags or template cannot be used, or there is no such file.
    """
    if "-h" in argv or "--help" in argv:
        print_help([SubmitCheckArguments], USAGE)
        sys.stdout.write(EXPLANATION)
        return 0
    parser = FlagParser([SubmitCheckArguments], usage=USAGE)
    parser.add_argument("file", metavar="FILE")
    args, words = parser.parse(argv)

    from avb_hf.evaluation.submission import check_submission, read_template

    path, task = Path(words.file), TASKS[args.task]
    if not path.is_file():
        raise ValueError(f"there is no file {path}")
    template = None if args.labels_template is None else read_template(Path(args.labels_template), task)
    problems = check_submission(path, task, template)
    sys.stdout.writelines(f"{problem}\n" for problem in problems)
    against = "" if template is None else f", with the {len(template.file_ids)} clips of the template"
    count = f"{len(problems)} problem{'s' * (len(problems) > 1)}"
    verdict = count if problems else f"a fit file for A-VB {task.submission_name}{against}"
    sys.stdout.write(f"{path}: {verdict}\n")
    return int(bool(problems))
