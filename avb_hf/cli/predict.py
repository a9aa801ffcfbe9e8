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
of clips in --path_column, relative to the table; or a dataset with the audio in it: a Parquet file, a folder that
`avb prepare --parquet_dir` wrote, or hf://datasets/user/name[@revision]. FILE has a row a clip in that order: file, a
score per label, error. After a kill the same call goes on where it was. FILE appears when it is complete; FILE.json
says what it was made of. The exit code is 3 where clips have no scores. `torchrun --nproc_per_node 2 -m avb_hf predict
...` shares the work; torchrun makes 1 of the exit code 3, and shows the main process as failed, whose work is done.
With --onnx there is no CHECKPOINT: `avb predict --onnx MODEL.onnx INPUT ... --output FILE`.
"""
WITHOUT_SCORES = 3
_LAUNCHED = f"the file is complete; the exit code {WITHOUT_SCORES} tells of clips without scores, not of a failure\n"


@dataclass
class OutputArguments:
    """Where scores go."""

    _argument_group_name: ClassVar[str] = "output"

    output: str = field(metadata={"help": "a .csv, .jsonl or .parquet file"})
    overwrite: bool = field(
        default=False, metadata={"help": "replace a file of another checkpoint, other options or other inputs"}
    )
    onnx: str | None = field(
        default=None, metadata={"help": "score by this file, which `avb export` wrote, instead of a CHECKPOINT"}
    )

    def __post_init__(self) -> None:
        if self.onnx is not None and not self.onnx.endswith(".onnx"):
            raise ValueError(f"--onnx must be a file .onnx, got {self.onnx}")


def main(argv: list[str]) -> int:
    """Score clips and say what came of it.

    Args:
        argv: Checkpoint, inputs and flags.

    Returns:
        0, or 3 if clips could not be used and so have no scores; of several processes the main one alone tells that.

    Raises:
        ValueError: If flags, checkpoint, inputs or output cannot be used.
    """
    if "-h" in argv or "--help" in argv:
        print_help([OutputArguments, PredictArguments], USAGE)
        sys.stdout.write(EXPLANATION)
        return 0
    parser = FlagParser([OutputArguments, PredictArguments], usage=USAGE)
    if not any(word.partition("=")[0] == "--onnx" for word in argv):
        parser.add_argument("checkpoint", metavar="CHECKPOINT")
    parser.add_argument("inputs", metavar="INPUT", nargs="+")
    output_args, args, words = parser.parse(argv)

    from accelerate import PartialState

    import avb_hf.baselines.emo18  # noqa: F401 - so that its checkpoints are known
    from avb_hf.inference.predict import predict_to_file

    checkpoint = output_args.onnx or words.checkpoint
    report = predict_to_file(checkpoint, words.inputs, output_args.output, args, overwrite=output_args.overwrite)
    state = PartialState()
    state.destroy_process_group()
    if not state.is_main_process:
        return 0
    sys.stdout.write(report.describe() + "\n")
    if not report.failed:
        return 0
    if state.num_processes > 1:
        sys.stdout.write(_LAUNCHED)
    return WITHOUT_SCORES
