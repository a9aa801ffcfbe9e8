"""How long a run will take and how much memory, from a few steps of it."""

from __future__ import annotations

import json
import math
import resource
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset, DatasetDict
from torch import Tensor
from transformers.trainer_utils import IntervalStrategy

from avb_hf.training.arguments import RunArguments
from avb_hf.training.frozen import DTYPES, is_read
from avb_hf.training.precision import collate, read_frozen, typical_clips
from avb_hf.training.sampler import longest_first
from avb_hf.training.trainer import VocalBurstTrainer
from avb_hf.training.training_arguments import VocalBurstTrainingArguments

ROUNDS = 3
# What the line with the numbers, as JSON, begins with.
NUMBERS = "in numbers: "


@dataclass(frozen=True)
class Estimate:
    """What a run will take.

    Attributes:
        num_parameters: Weights of the model.
        num_trained: Those of them that are trained.
        filling_hours: Making the frozen states of all clips, once for all runs that read them.
        states_gb: Their size; 0 where none are kept.
        epoch_hours: Training for one epoch.
        evaluation_hours: One evaluation of the validation split.
        run_hours: The whole run at most, with frozen states and test.
        precision: What is computed in.
        memory_gib: Peak memory.
    """

    num_parameters: int
    num_trained: int
    filling_hours: float
    states_gb: float
    epoch_hours: float
    evaluation_hours: float
    run_hours: float
    precision: str
    memory_gib: float

    def __str__(self) -> str:
        states = f"frozen states, once: {as_clock(self.filling_hours)}, {self.states_gb:.2f} GB\n"
        return (
            f"{states if self.states_gb else ''}"
            f"an epoch: {as_clock(self.epoch_hours)} of training, {as_clock(self.evaluation_hours)} an evaluation, "
            f"{self.precision}\n"
            f"the run: {as_clock(self.run_hours)} at most; peak memory {self.memory_gib:.2f} GiB\n"
            f"{NUMBERS}{json.dumps(asdict(self))}"
        )


def read_estimate(text: str) -> Estimate:
    """Find an estimate again in what `avb train --estimate` wrote.

    Raises:
        ValueError: If it told none.
    """
    told = [line.removeprefix(NUMBERS) for line in text.splitlines() if line.startswith(NUMBERS)]
    if len(told) != 1:
        raise ValueError(f"expected an estimate of a run, got {text[-500:]!r}")
    return Estimate(**json.loads(told[0]))


def as_clock(hours: float) -> str:
    """Return a duration as hours and minutes, or as seconds where it is less than a minute."""
    minutes = round(hours * 60)
    return f"{minutes // 60} h {minutes % 60:02d} min" if minutes else f"{hours * 3600:.1f} s"


def peak_memory(device: torch.device) -> float:
    """Return the most memory that was taken so far, in GiB: of the accelerator, or of this process on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1024**3
    status = Path("/proc/self/status")  # Linux hands `ru_maxrss` of a larger process on to those that it starts
    if not status.is_file():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024**3
    lines = dict(line.split(":", 1) for line in status.read_text(encoding="utf-8").splitlines())
    return int(lines["VmHWM"].split()[0]) / 1024**2


def estimate_run(trainer: VocalBurstTrainer, splits: DatasetDict, run_args: RunArguments) -> str:
    """Run a few steps and tell, in lines, how long the whole run will take and what memory and room it needs.

    The last line has the numbers, which `read_estimate` reads.

    Weights are changed by it: the run itself must be started anew.

    Args:
        trainer: Holds model, training arguments and collator.
        splits: The corpus, decoding its clips.
        run_args: Our own flags of the run.
    """
    args, model = trainer.args, trainer.model
    durations = {name: split.with_format(None)["duration"][:] for name, split in splits.items() if is_read(name, args)}
    clips = typical_clips(splits["train"], args.train_batch_size)
    batch = collate(splits["train"], clips, trainer.data_collator, args.device)
    is_cached = model.frozen_blocks is not None and run_args.cache == "auto"

    filling, room = 0.0, 0.0
    if is_cached:
        seconds, batch = _timed(lambda: _frozen(trainer, batch))
        share = sum(map(sum, durations.values())) / sum(durations["train"][clip] for clip in clips)
        filling = seconds / 3600 * share / args.world_size
        frames = int(batch["num_frames"].sum()) * share
        room = frames * batch["frozen_states"].shape[-1] * DTYPES[run_args.cache_dtype].itemsize / 1e9
    optimizer = trainer.create_optimizer()
    padded = padded_seconds(durations["train"], [clips])
    training = min(_timed(lambda: _step(trainer, batch, optimizer))[0] for _ in range(ROUNDS)) / padded / 3600
    scoring = min(_timed(lambda: _score(trainer, batch))[0] for _ in range(ROUNDS)) / padded / 3600

    batches = trainer.get_train_dataloader().batch_sampler
    is_run_twice = args.gradient_accumulation_steps > 1 and model.config.loss == "ccc" and run_args.ccc_scope == "batch"
    epoch = (training + scoring * is_run_twice) * padded_seconds(durations["train"], batches)
    passes = {
        name: scoring * padded_seconds(lengths, _evaluation_batches(splits[name], args)) / args.world_size
        for name, lengths in durations.items()
    }
    evaluation, test = passes.get("validation", 0.0), passes.get("test", 0.0)
    steps = args.max_steps if args.max_steps > 0 else math.ceil(args.num_train_epochs * batches.num_steps)
    evaluations = _evaluations(args, steps, batches.num_steps)
    total = filling + epoch * steps / batches.num_steps + evaluation * evaluations + test

    longest = longest_first(splits["train"])[: args.train_batch_size]
    longest_batch = collate(splits["train"], longest, trainer.data_collator, args.device)
    _step(trainer, _frozen(trainer, longest_batch) if is_cached else longest_batch, optimizer)
    sizes = model.num_parameters(), model.num_parameters(only_trainable=True)
    memory = peak_memory(args.device)
    return str(Estimate(*sizes, filling, room, epoch, evaluation, total, str(trainer.precision), memory))


def padded_seconds(durations: Sequence[float], batches: Iterable[Sequence[int]]) -> float:
    """Return the seconds of audio that batches hold, padding included.

    Args:
        durations: Of each clip, in seconds.
        batches: Indices of each batch's clips.
    """
    return sum(len(batch) * max(durations[clip] for clip in batch) for batch in batches)


def _evaluation_batches(split: Dataset, args: VocalBurstTrainingArguments) -> list[list[int]]:
    order, size = longest_first(split), args.eval_batch_size
    return [order[start : start + size] for start in range(0, len(order), size)]


def _evaluations(args: VocalBurstTrainingArguments, steps: int, steps_an_epoch: int) -> float:
    """Tell how often the validation split is evaluated: while training, and once behind it."""
    strategy = IntervalStrategy(args.eval_strategy).value
    every = {"epoch": steps_an_epoch, "steps": args.eval_steps or math.inf, "no": math.inf}[strategy]
    return (1 / every if every < 1 else steps / every) + bool(args.do_eval)


def _frozen(trainer: VocalBurstTrainer, batch: dict[str, Tensor]) -> dict[str, Tensor]:
    with trainer.autocast():
        return read_frozen(trainer.model, batch)


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
