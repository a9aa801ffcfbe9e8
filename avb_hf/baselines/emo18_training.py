"""From flags to an Emo-18 that can be trained."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from avb_hf.baselines.emo18 import Emo18Config, Emo18ForVocalBurst
from avb_hf.baselines.emo18_arguments import Emo18Arguments, Emo18CommonArguments, with_default
from avb_hf.baselines.losses import FITTING_LOSSES
from avb_hf.model import VocalBurstFeatureExtractor
from avb_hf.tasks import TaskSpec
from avb_hf.training.arguments import RunArguments
from avb_hf.training.build import task_fields
from avb_hf.training.training_arguments import VocalBurstTrainingArguments


@dataclass
class Emo18TrainingArguments(Emo18CommonArguments, VocalBurstTrainingArguments):
    """Our training arguments with End2You's defaults: plain Adam at a constant rate."""

    optim: str = with_default(VocalBurstTrainingArguments, "optim", "adam")
    weight_decay: float = with_default(VocalBurstTrainingArguments, "weight_decay", 0.0)
    lr_scheduler_type: str = field(default="constant", metadata={"help": "schedule of the learning rate"})
    warmup_steps: float = with_default(VocalBurstTrainingArguments, "warmup_steps", 0.0)


def build_emo18(
    task: TaskSpec, args: Emo18Arguments, run_args: RunArguments, train_labels: Sequence[Any] | None = None
) -> tuple[Emo18ForVocalBurst, VocalBurstFeatureExtractor]:
    """Make an Emo-18 with random weights, and the feature extractor that belongs to it: clips as they are read.

    Args:
        task: What the model predicts.
        args: The model's flags.
        run_args: Flags of the run, of which none concerns the model.
        train_labels: Labels of the training split, from which balanced class weights follow; None if not trained.

    Raises:
        ValueError: If loss or class weights do not fit the task.
    """
    fields = task_fields(task, args, train_labels) | {"loss": args.loss or FITTING_LOSSES[task.problem_type][0]}
    model = Emo18ForVocalBurst(Emo18Config(**fields))
    return model, VocalBurstFeatureExtractor(do_normalize=False, min_samples=model.config.min_samples)
