"""In what precision a run computes: asked for, or the one that a step is measured to be faster in."""

from __future__ import annotations

import logging
import math
import statistics
import time
from collections.abc import Callable

import torch
from datasets import Dataset
from torch import Tensor

from avb_hf.bf16_speed import bf16_is_emulated
from avb_hf.data.collator import VocalBurstCollator
from avb_hf.model import Wav2Vec2ForVocalBurst
from avb_hf.training.arguments import Precision
from avb_hf.training.exact import RandomState
from avb_hf.training.processes import of_all_processes
from avb_hf.training.training_arguments import VocalBurstTrainingArguments

logger = logging.getLogger(__name__)

DTYPES: dict[str, torch.dtype] = {"fp32": torch.float32, "bf16": torch.bfloat16}
ROUNDS = 3
# bf16 costs digits, so it must be faster by more than a clock's noise.
MARGIN = 0.9


def settle_precision(
    args: VocalBurstTrainingArguments,
    wanted: Precision,
    before: bool | None,
    model: Wav2Vec2ForVocalBurst,
    make_batch: Callable[[], dict[str, Tensor]],
) -> float:
    """Write into the arguments in what precision the run computes; a resumed run goes on in its own.

    Args:
        args: Training arguments; `bf16` given there stands.
        wanted: `fp32`, `bf16`, or `auto`, which times a step in both on the first process, unless its
            processor only emulates bf16.
        before: Whether the run that is resumed computes in bf16; None for a new run.
        model: The model; on the device while it is timed, and its weights untouched.
        make_batch: Makes the inputs of a short step, with labels, on the model's device.

    Returns:
        Seconds that it took.

    Raises:
        ValueError: If two precisions are asked for.
    """
    began = time.perf_counter()
    if args.bf16:
        if wanted == "fp32":
            raise ValueError("--precision fp32 and --bf16 contradict each other: give one of them")
        return 0.0
    if wanted == "auto" and before is not None:
        wanted = "bf16" if before else "fp32"
    if wanted == "auto":
        wanted = of_all_processes(_choose(args, model, make_batch))[0] if args.do_train else "fp32"
    if wanted == "bf16":
        args.bf16, args.mixed_precision = True, "bf16"
    return time.perf_counter() - began


def time_steps(
    model: Wav2Vec2ForVocalBurst, batch: dict[str, Tensor], dtypes: dict[str, torch.dtype]
) -> dict[str, float]:
    """Time forward and backward of one batch in several precisions, by turns; random state and weights stay.

    Args:
        model: The model, in training mode afterwards.
        batch: Inputs with labels, on the model's device.
        dtypes: What autocast computes in, by name.

    Returns:
        Median seconds by name, of the rounds behind a first one; infinite where the accelerator's memory is too small.
    """
    before = RandomState.now()
    buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
    model.train()
    seconds: dict[str, list[float]] = {name: [] for name in dtypes}
    for _ in range(ROUNDS):
        for name, dtype in dtypes.items():
            seconds[name].append(_time_step(model, batch, dtype))
    for name, buffer in model.named_buffers():
        buffer.copy_(buffers[name])
    before.restore()
    return {name: statistics.median(times[1:]) for name, times in seconds.items()}


def typical_clips(split: Dataset, count: int) -> list[int]:
    """Return the indices of the clips whose lengths are nearest the median."""
    durations = torch.tensor(split.with_format(None)["duration"][:])
    return (durations - durations.median()).abs().argsort(stable=True)[:count].tolist()


def collate(split: Dataset, clips: list[int], collator: VocalBurstCollator, device: torch.device) -> dict[str, Tensor]:
    """Make a batch of some clips of a split, on a device."""
    return {name: value.to(device) for name, value in collator([split[index] for index in clips]).items()}


def read_frozen(model: Wav2Vec2ForVocalBurst, batch: dict[str, Tensor]) -> dict[str, Tensor]:
    """Turn a batch into what a run that reads frozen states gets in its place."""
    states, num_frames = model.run_frozen(batch["input_values"], batch["attention_mask"])
    return {"frozen_states": states, "num_frames": num_frames, "labels": batch["labels"]}


def _time_step(model: Wav2Vec2ForVocalBurst, batch: dict[str, Tensor], dtype: torch.dtype) -> float:
    _wait_for(model.device)
    began = time.perf_counter()
    try:
        with torch.autocast(model.device.type, dtype=dtype, enabled=dtype != torch.float32):
            loss = model(**batch).loss
        loss.backward()
        _wait_for(model.device)
    except torch.OutOfMemoryError:
        return math.inf
    finally:
        model.zero_grad(set_to_none=True)
    return time.perf_counter() - began


def _wait_for(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _choose(
    args: VocalBurstTrainingArguments, model: Wav2Vec2ForVocalBurst, make_batch: Callable[[], dict[str, Tensor]]
) -> Precision | None:
    if args.process_index != 0:
        return None
    if args.device.type not in ("cpu", "cuda") or (args.device.type == "cuda" and not torch.cuda.is_bf16_supported()):
        return "fp32"
    if args.device.type == "cpu" and bf16_is_emulated():
        logger.info("precision fp32: this processor has no instructions for bf16")
        return "fp32"
    before = model.device
    model.to(args.device)
    seconds = time_steps(model, make_batch(), DTYPES)
    model.to(before)  # where the model of every process is; the Trainer places it
    if args.device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(args.device)
    choice: Precision = "bf16" if seconds["bf16"] < MARGIN * seconds["fp32"] else "fp32"
    logger.info("precision %s: a short step takes %.3f s in fp32, %.3f s in bf16", choice, *seconds.values())
    return choice
