"""`avb baseline`: the systems that the paper compares itself with, on the same data and scored by the same code."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from avb_hf.baselines.emo18_arguments import Emo18Arguments, Emo18CommonArguments, Emo18RunArguments
from avb_hf.baselines.functionals_arguments import FunctionalsArguments
from avb_hf.cli import train
from avb_hf.cli.flags import FlagParser, print_help
from avb_hf.cli.system import System
from avb_hf.data.arguments import DataArguments
from avb_hf.tasks import check_choice

if TYPE_CHECKING:
    from avb_hf.training.build import ModelBuilder
    from avb_hf.training.training_arguments import VocalBurstTrainingArguments

USAGE = "usage: avb baseline SYSTEM [--flag value ...]"
EXPLANATION = """
`avb baseline SYSTEM --help` tells a system's flags. Each leaves scores and predictions as `avb train` does.
"""


def _load_emo18() -> tuple[type[VocalBurstTrainingArguments], ModelBuilder]:
    from avb_hf.baselines.emo18_training import Emo18TrainingArguments, build_emo18

    return Emo18TrainingArguments, build_emo18


EMO18 = System(
    "avb baseline emo18 [--flag value ...]",
    (DataArguments, Emo18Arguments, Emo18RunArguments),
    Emo18CommonArguments,
    _load_emo18,
)


def functionals(argv: list[str], name: str) -> int:
    """Train the challenge's multilayer perceptron on functionals, score and predict.

    Args:
        argv: Flags.
        name: Which functionals.

    Raises:
        ValueError: If flags or data cannot be used.
    """
    usage = f"avb baseline {name} [--flag value ...]"
    if "-h" in argv or "--help" in argv:
        print_help([DataArguments, FunctionalsArguments], usage)
        return 0
    data, args = FlagParser([DataArguments, FunctionalsArguments], usage=usage).parse(argv)

    from avb_hf.baselines.run_functionals import run_functionals

    run_functionals(name, data, args)
    return 0


class Baseline(NamedTuple):
    """A system of the paper.

    Attributes:
        description: What it is.
        main: Takes its flags, and returns the exit code.
    """

    description: str
    main: Callable[[list[str]], int]


BASELINES: dict[str, Baseline] = {
    "emo18": Baseline(
        "End2You's Emo-18: convolutions and LSTM, trained from the waveform", partial(train.main, system=EMO18)
    ),
    "compare": Baseline(
        "openSMILE's ComParE functionals and the challenge's MLP", partial(functionals, name="compare")
    ),
    "egemaps": Baseline(
        "openSMILE's eGeMAPS functionals and the challenge's MLP", partial(functionals, name="egemaps")
    ),
}


def main(argv: list[str]) -> int:
    """Train, score and predict with one of the paper's baselines.

    Args:
        argv: The system and its flags.

    Returns:
        The system's exit code.

    Raises:
        ValueError: If there is no such system, or its flags or the data cannot be used.
    """
    if not argv or argv[0] in ("-h", "--help"):
        lines = [f"  {name:<10} {baseline.description}" for name, baseline in BASELINES.items()]
        sys.stdout.write("\n".join([USAGE, "", *lines, EXPLANATION]))
        return 0
    check_choice("the system", argv[0], tuple(BASELINES))
    return BASELINES[argv[0]].main(argv[1:])
