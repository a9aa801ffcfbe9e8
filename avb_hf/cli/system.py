"""What the systems that are trained end to end differ in, seen from the command line."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from avb_hf.cli.flags import print_help
from avb_hf.data.arguments import DataArguments
from avb_hf.training.arguments import CommonArguments, RunArguments
from avb_hf.training.lora_arguments import LoraArguments

if TYPE_CHECKING:
    from avb_hf.training.build import ModelBuilder
    from avb_hf.training.training_arguments import VocalBurstTrainingArguments


@dataclass(frozen=True)
class System:
    """A system's flags, and what builds its model.

    Attributes:
        usage: How it is called.
        flags: Argument dataclasses of data, model and run, which import no torch.
        common: Argument dataclass of those of transformers' flags that everyone needs, which imports none either.
        load: Imports the rest: the argument dataclass of all of transformers' flags, and the builder of the model.
    """

    usage: str
    flags: tuple[type, type, type]
    common: type
    load: Callable[[], tuple[type[VocalBurstTrainingArguments], ModelBuilder]]

    def helps(self, argv: list[str]) -> bool:
        """Print the help if it is asked for, and tell whether it was."""
        if "-h" in argv or "--help" in argv:
            print_help([*self.flags, self.common], self.usage)
        elif "--help_all" in argv:
            print_help([*self.flags, self.load()[0]], self.usage)
        else:
            return False
        return True


def _load_proposed() -> tuple[type[VocalBurstTrainingArguments], ModelBuilder]:
    from avb_hf.training.lora import build_adapted
    from avb_hf.training.training_arguments import VocalBurstTrainingArguments

    return VocalBurstTrainingArguments, build_adapted


PROPOSED = System(
    "run_avb.py [recipe] [--flag value ...]",
    (DataArguments, LoraArguments, RunArguments),
    CommonArguments,
    _load_proposed,
)
