"""`avb predict`: score the clips of a corpus into a CSV, JSONL or Parquet file."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from typing import ClassVar

from avb_hf.cli.flags import FlagParser, print_help
from avb_hf.inference.predict_arguments import PredictArguments

USAGE = "avb predict CHECKPOINT INPUT [INPUT ...] --output FILE [--flag value ...]"
EXPLANATION = """
An INPUT is an audio file, a folder (searched recursively, sorted by path) or a CSV, TSV or Parquet table with the paths
of clips in --path_column, relative to the table. FILE has a row a clip in that order: file, a score per label, error.
After a kill the same call goes on where it was. FILE appears when it is complete; FILE.json says what it was made of.
The exit code is 3 where clips have no scores. `torchrun --nproc_per_node 2 -m avb_hf predict ...` shares the work.
"""
WITHOUT_SCORES = 3


@dataclass
class OutputArguments:
    """Where scores go."""

    _argument_group_name: ClassVar[str] = "output"

    output: str = field(metadata={"help": "a .csv, .jsonl or .parquet file"})
    overwrite: bool = field(
        default=False, metadata={"help": "replace a file of another checkpoint, other options or other inputs"}
    )


def main(argv: list[str]) -> int:
    """Score clips and say what came of it.

    Args:
        argv: Checkpoint, inputs and flags.

    Returns:
        0, or 3 if clips could not be used and so have no scores.

    Raises:
        ValueError: If flags, checkpoint, inputs or output cannot be used.
    """
    if "-h" in argv or "--help" in argv:
        print_help([OutputArguments, PredictArguments], USAGE)
        sys.stdout.write(EXPLANATION)
        return 0
    parser = FlagParser([OutputArguments, PredictArguments], usage=USAGE)
    parser.add_argument("checkpoint", metavar="CHECKPOINT")
    parser.add_argument("inputs", metavar="INPUT", nargs="+")
    output_args, args, words = parser.parse(argv)

    from accelerate import PartialState

    import avb_hf.baselines.emo18  # noqa: F401 - so that its checkpoints are known
    from avb_hf.inference.predict import predict_to_file

    report = predict_to_file(words.checkpoint, words.inputs, output_args.output, args, overwrite=output_args.overwrite)
    state = PartialState()
    if state.is_main_process:
        sys.stdout.write(report.describe() + "\n")
    state.destroy_process_group()
    return WITHOUT_SCORES if report.failed else 0
