"""Stop before a gradient that is not finite destroys the weights."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from avb_hf.training.exact import num_processes
from avb_hf.training.processes import of_all_processes

MAX_NAMED = 32


class NonFiniteGradientError(ValueError):
    """A gradient is NaN or infinite; no optimizer step was taken with it."""


class FiniteGradients(TrainerCallback):
    """Check every gradient before the optimizer steps, on all processes together.

    Args:
        clips_of_step: Tells the File_IDs of the step's clips on this process.
        norm_of_step: Tells the norm that the gradients had before they were clipped.
    """

    def __init__(self, clips_of_step: Callable[[], list[str]], norm_of_step: Callable[[], float]) -> None:
        self.clips_of_step, self.norm_of_step = clips_of_step, norm_of_step

    def on_pre_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Raise NonFiniteGradientError on every process if any of them has a gradient that is not finite."""
        is_bad = not math.isfinite(self.norm_of_step())
        if num_processes() > 1:
            bad = torch.tensor(float(is_bad), device=args.device)
            dist.all_reduce(bad)
            is_bad = bool(bad)
        if is_bad:
            clips = [clip for clips in of_all_processes(self.clips_of_step()) for clip in clips]
            more = f" and {len(clips) - MAX_NAMED} more" if len(clips) > MAX_NAMED else ""
            raise NonFiniteGradientError(
                f"step {state.global_step + 1}: a gradient is not finite, so no optimizer step was taken; the clips of "
                f"the step are {', '.join(clips[:MAX_NAMED])}{more}"
            )
