"""What a run would do, told before it starts."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

from datasets import DatasetDict
from transformers import PreTrainedModel
from transformers.trainer_utils import HubStrategy

from avb_hf.data.clips import describe_audio
from avb_hf.data.findings import Finding
from avb_hf.data.fingerprint import fingerprint
from avb_hf.data.hub_account import HubRepo
from avb_hf.training.arguments import RunArguments
from avb_hf.training.estimate import estimate_run, peak_memory
from avb_hf.training.precision import collate
from avb_hf.training.sampler import longest_first
from avb_hf.training.trainer import VocalBurstTrainer


def describe_data(splits: DatasetDict, skipped: list[Finding]) -> dict[str, Any]:
    """Collect the facts of a corpus, for the plan and the record of a run; this looks at every file.

    Args:
        splits: The corpus.
        skipped: Clips that were left out, and why.
    """
    return {
        "data": fingerprint(splits),
        "audio": describe_audio(splits),
        "skipped": [dataclasses.asdict(finding) for finding in skipped],
    }


def describe_plan(trainer: VocalBurstTrainer, audio: dict[str, dict[str, Any]], repo: HubRepo | None = None) -> str:
    """Tell task, data, model and steps of a run, one line each.

    Args:
        trainer: Holds task, model and training arguments.
        audio: What each split holds, as `describe_data` tells it.
        repo: Where the run is pushed to, or None.
    """
    args, model, task = trainer.args, trainer.model, trainer.task
    lines = [f"task {task.name}: {len(task.labels)} labels, {task.problem_type}, loss {model.config.loss}"]
    for name, facts in audio.items():
        lines.append(f"{name}: {facts['clips']} clips, {facts['hours']:.2f} h")
    trainable = model.num_parameters(only_trainable=True)
    lines.append(f"model: {model.num_parameters():,} parameters, {trainable:,} of them trained")
    if args.do_train:
        clips_a_step = args.train_batch_size * args.world_size * args.gradient_accumulation_steps
        steps = trainer.get_train_dataloader().batch_sampler.num_steps
        total = args.max_steps if args.max_steps > 0 else math.ceil(steps * args.num_train_epochs)
        lines.append(f"training: {steps} steps of {clips_a_step} clips an epoch, {total} in all, on {args.device}")
    if repo is not None:
        lines.append(f"push: to {repo.repo_id} ({repo.visibility}), strategy {HubStrategy(args.hub_strategy).value}")
    return "\n".join(lines)


def describe_run(trainer: VocalBurstTrainer) -> dict[str, Any]:
    """Collect the facts of a run that are neither flags nor data, for its record."""
    return {
        "task": dataclasses.asdict(trainer.task),
        "model": trainer.model.config.to_dict(),
        "processes": {"world_size": trainer.args.world_size},
    }


def rehearse(trainer: VocalBurstTrainer, splits: DatasetDict, run_args: RunArguments) -> str:
    """Do the dry run or estimate that is asked for, and tell what came of it."""
    if run_args.dry_run:
        return try_one_batch(trainer, splits) + "\ndry run: nothing was written"
    return estimate_run(trainer, splits, run_args) + "\nestimate: nothing was written"


def try_one_batch(trainer: VocalBurstTrainer, splits: DatasetDict) -> str:
    """Run the batch of the longest clips forward and backward once, without a step, and tell loss and peak memory."""
    split = splits["train"] if "train" in splits else next(iter(splits.values()))
    longest = longest_first(split)[: trainer.args.train_batch_size]
    batch = collate(split, longest, trainer.data_collator, trainer.args.device)
    model: PreTrainedModel = trainer.model.train()
    with trainer.autocast():
        loss = model(**batch).loss
    loss.backward()
    model.zero_grad()
    peak = peak_memory(trainer.args.device)
    return f"one batch of {len(longest)} clips: loss {loss.item():.4f}, peak memory {peak:.2f} GiB"
