"""How long a run will take and how much memory, from a few steps of it."""

from __future__ import annotations

import json
import resource
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset, DatasetDict
from torch import Tensor

from avb_hf.training.arguments import RunArguments
from avb_hf.training.frozen import is_read
from avb_hf.training.precision import typical_clips
from avb_hf.training.trainer import VocalBurstTrainer

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
        evaluation_hours: Evaluation after one epoch.
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
            f"an epoch: {as_clock(self.epoch_hours)} of training, {as_clock(self.evaluation_hours)} of evaluation, "
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
    clips = typical_clips(splits["train"], args.train_batch_size)
    batch = _batch(trainer, splits["train"], clips)
    seconds_of_audio = sum(splits["train"].with_format(None)[clips]["duration"])
    read = {name: split.with_format(None) for name, split in splits.items() if is_read(name, args)}
    hours = {name: sum(split["duration"]) / 3600 for name, split in read.items()}
    is_cached = model.frozen_blocks is not None and run_args.cache == "auto"

    filling, room = 0.0, 0.0
    if is_cached:
        seconds, batch = _timed(lambda: _frozen(trainer, batch))
        filling = seconds / seconds_of_audio * sum(hours.values()) / args.world_size
        room = _room(batch, seconds_of_audio, hours)
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
    sizes = model.num_parameters(), model.num_parameters(only_trainable=True)
    memory = peak_memory(args.device)
    return str(Estimate(*sizes, filling, room, epoch, evaluation, total, str(trainer.precision), memory))


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
