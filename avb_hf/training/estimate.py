"""How long a run will take and how much memory, from a few steps of it."""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Callable
from typing import Any

import torch
from datasets import Dataset, DatasetDict
from torch import Tensor

from avb_hf.training.arguments import RunArguments
from avb_hf.training.precision import typical_clips
from avb_hf.training.trainer import VocalBurstTrainer

ROUNDS = 3


def peak_memory(device: torch.device) -> float:
    """Return the most memory that was taken so far, in GiB: of the accelerator, or of this process on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1024**3
    unit = 1024**2 if sys.platform == "linux" else 1024**3
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


def estimate_run(trainer: VocalBurstTrainer, splits: DatasetDict, run_args: RunArguments) -> str:
    """Run a few steps and tell, in lines, how long the whole run will take and what memory and room it needs.

    Weights are changed by it: the run itself must be started anew.

    Args:
        trainer: Holds model, training arguments and collator.
        splits: The corpus, decoding its clips.
        run_args: Our own flags of the run.
    """
    args, model = trainer.args, trainer.model
    clips = typical_clips(splits["train"], args.train_batch_size)
    batch = _batch(trainer, splits["train"], clips)
    seconds_of_audio = sum(splits["train"].with_format(None)[clips]["duration"])
    hours = {name: sum(split.with_format(None)["duration"]) / 3600 for name, split in splits.items()}
    is_cached = model.frozen_blocks is not None and run_args.cache == "auto"

    lines, filling = [], 0.0
    if is_cached:
        seconds, batch = _timed(lambda: _frozen(trainer, batch))
        filling = seconds / seconds_of_audio * sum(hours.values())
        lines.append(f"frozen states, once: {_clock(filling)}, {_room(batch, seconds_of_audio, hours):.2f} GB")
    optimizer = trainer.create_optimizer()
    training = min(_timed(lambda: _step(trainer, batch, optimizer))[0] for _ in range(ROUNDS)) / seconds_of_audio
    scoring = min(_timed(lambda: _score(trainer, batch))[0] for _ in range(ROUNDS)) / seconds_of_audio
    is_run_twice = args.gradient_accumulation_steps > 1 and model.config.loss == "ccc" and run_args.ccc_scope == "batch"
    epoch = hours["train"] * (training + scoring * is_run_twice) / args.world_size
    epochs = args.num_train_epochs
    if args.max_steps > 0:
        clips_a_step = args.train_batch_size * args.world_size * args.gradient_accumulation_steps
        epochs = args.max_steps * clips_a_step / len(splits["train"])
    evaluation = scoring * hours.get("validation", 0.0) * (args.eval_strategy != "no") / args.world_size
    test = scoring * hours.get("test", 0.0) / args.world_size
    total = filling + epochs * (epoch + evaluation) + test

    longest = torch.tensor(splits["train"].with_format(None)["duration"][:]).argsort(descending=True)
    longest_batch = _batch(trainer, splits["train"], longest[: args.train_batch_size].tolist())
    _step(trainer, _frozen(trainer, longest_batch) if is_cached else longest_batch, optimizer)
    return "\n".join(
        [
            *lines,
            f"an epoch: {_clock(epoch)} of training, {_clock(evaluation)} of evaluation, {trainer.precision}",
            f"the run: {_clock(total)} at most; peak memory {peak_memory(args.device):.2f} GiB",
        ]
    )


def _batch(trainer: VocalBurstTrainer, split: Dataset, clips: list[int]) -> dict[str, Tensor]:
    batch = trainer.data_collator([split[index] for index in clips])
    return {name: value.to(trainer.args.device) for name, value in batch.items()}


def _frozen(trainer: VocalBurstTrainer, batch: dict[str, Tensor]) -> dict[str, Tensor]:
    with trainer.autocast():
        states, num_frames = trainer.model.run_frozen(batch["input_values"], batch["attention_mask"])
    return {"frozen_states": states, "num_frames": num_frames, "labels": batch["labels"]}


def _step(trainer: VocalBurstTrainer, batch: dict[str, Tensor], optimizer: torch.optim.Optimizer) -> None:
    trainer.model.train()
    with trainer.autocast():
        loss = trainer.model(**batch).loss
    loss.backward()
    optimizer.step()
    trainer.model.zero_grad()


def _score(trainer: VocalBurstTrainer, batch: dict[str, Tensor]) -> None:
    trainer.model.eval()
    with torch.no_grad(), trainer.autocast():
        trainer.model(**batch)


def _timed(deed: Callable[[], Any]) -> tuple[float, Any]:
    began = time.perf_counter()
    result = deed()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - began, result


def _room(batch: dict[str, Tensor], seconds: float, hours: dict[str, float]) -> float:
    states = batch["frozen_states"]
    frames = int(batch["num_frames"].sum())
    return frames * states.shape[-1] * states.element_size() / seconds * sum(hours.values()) * 3600 / 1e9


def _clock(hours: float) -> str:
    minutes = round(hours * 60)
    return f"{minutes // 60} h {minutes % 60:02d} min" if minutes >= 1 else f"{hours * 3600:.1f} s"
