"""What a run would do, told before it starts."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import torch
from datasets import DatasetDict
from transformers import PreTrainedModel

from avb_hf.data.clips import describe_audio
from avb_hf.data.findings import Finding
from avb_hf.data.fingerprint import fingerprint
from avb_hf.tasks import TaskSpec
from avb_hf.training.estimate import peak_memory
from avb_hf.training.trainer import VocalBurstTrainer


def describe_plan(trainer: VocalBurstTrainer, splits: DatasetDict, task: TaskSpec) -> str:
    """Tell task, data, model and steps of a run, one line each."""
    args, model = trainer.args, trainer.model
    lines = [f"task {task.name}: {len(task.labels)} labels, {task.problem_type}, loss {model.config.loss}"]
    for name, facts in describe_audio(splits).items():
        lines.append(f"{name}: {facts['clips']} clips, {facts['hours']:.2f} h")
    trainable = model.num_parameters(only_trainable=True)
    lines.append(f"model: {model.num_parameters():,} parameters, {trainable:,} of them trained")
    if args.do_train:
        clips_a_step = args.train_batch_size * args.world_size * args.gradient_accumulation_steps
        steps = math.ceil(len(splits["train"]) / clips_a_step)
        total = args.max_steps if args.max_steps > 0 else math.ceil(steps * args.num_train_epochs)
        lines.append(f"training: {steps} steps of {clips_a_step} clips an epoch, {total} in all, on {args.device}")
    return "\n".join(lines)


def describe(trainer: VocalBurstTrainer, splits: DatasetDict, skipped: list[Finding]) -> dict[str, Any]:
    """Collect the facts of a run that are not flags, for its record.

    Args:
        trainer: Holds model and task.
        splits: The corpus.
        skipped: Clips that were left out, and why.
    """
    return {
        "task": dataclasses.asdict(trainer.task),
        "model": trainer.model.config.to_dict(),
        "data": fingerprint(splits),
        "audio": describe_audio(splits),
        "skipped": [dataclasses.asdict(finding) for finding in skipped],
        "processes": {"world_size": trainer.args.world_size},
    }


def try_one_batch(trainer: VocalBurstTrainer, splits: DatasetDict) -> str:
    """Run the batch of the longest clips forward and backward once, without a step, and tell loss and peak memory."""
    split = splits["train"] if "train" in splits else next(iter(splits.values()))
    durations = torch.tensor(split.with_format(None)["duration"])
    longest = durations.argsort(descending=True)[: trainer.args.train_batch_size].tolist()
    batch = trainer.data_collator([split[index] for index in longest])
    batch = {name: value.to(trainer.args.device) for name, value in batch.items()}
    model: PreTrainedModel = trainer.model.train()
    with trainer.compute_loss_context_manager():
        loss = model(**batch).loss
    loss.backward()
    model.zero_grad()
    peak = peak_memory(trainer.args.device)
    return f"one batch of {len(longest)} clips: loss {loss.item():.4f}, peak memory {peak:.2f} GiB"
