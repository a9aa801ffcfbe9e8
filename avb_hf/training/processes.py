"""Several processes that train one model: as many as meant, with the same data, and stopping together."""

from __future__ import annotations

import gc
import logging
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from transformers import TrainingArguments

from avb_hf.training.exact import num_processes

logger = logging.getLogger(__name__)


Answer = TypeVar("Answer")


class BadBatchError(ValueError):
    """The clips of a training step cannot be read."""


def leave() -> None:
    """Wait for the other processes and take leave of them, so that Python can end.

    The threads that exchange tensors need a running Python to let go of them, and crash one that ends (SIGABRT). They
    live as long as a model that was wrapped for several processes, which lies in a cycle with its trainer: hence the
    garbage collection. The last to hold the group is a name here: if a wrapped model were, Python would be locked
    while it waits for these threads, and they for Python.
    """
    if num_processes() > 1:
        dist.barrier()
        group = dist.group.WORLD
        dist.destroy_process_group()
        gc.collect()
        del group


def of_all_processes(mine: Any) -> list[Any]:
    """Put together what each process has, in the processes' order; all must call this."""
    everyone = [mine] * num_processes()
    if num_processes() > 1:
        dist.all_gather_object(everyone, mine)
    return everyone


def on_first(work: Callable[[], Answer]) -> Answer:
    """Do something in the first process alone, and hand its result to all; all must call this.

    Raises:
        ValueError: On every process, if the first raises one.
        OSError: So as well.
    """
    answer, problem = None, None
    if num_processes() == 1 or dist.get_rank() == 0:
        try:
            answer = work()
        except (ValueError, OSError) as error:
            problem = error
    answer, told = of_all_processes(
        (answer, None if problem is None else (isinstance(problem, OSError), str(problem)))
    )[0]
    if problem is not None:
        raise problem
    if told is not None:
        raise (OSError if told[0] else ValueError)(told[1])
    return answer


def require_world_size(args: TrainingArguments, expected: int | None) -> None:
    """Log how many processes train together, and refuse another number than is expected.

    Raises:
        ValueError: If there are more or fewer processes.
    """
    if num_processes() > 1:
        logger.info(
            "process %d of %d, backend %s, on %s", args.process_index, args.world_size, dist.get_backend(), args.device
        )
    if expected is not None and args.world_size != expected:
        raise ValueError(
            f"--expect_world_size {expected}, but the number of processes is {args.world_size}: start them by "
            f"`torchrun --nproc_per_node {expected} run_avb.py ...`; `accelerate launch --cpu` always starts one"
        )


def require_same_everywhere(facts: Mapping[str, str | None]) -> None:
    """Refuse to train in processes that hold different things.

    Args:
        facts: What must be equal, by what it is called.

    Raises:
        ValueError: On every process, if any differs from the first.
    """
    first, *others = of_all_processes(dict(facts))
    different = [
        f"process {rank}: {name} is {other[name]!r}, in process 0 it is {first[name]!r}"
        for rank, other in enumerate(others, start=1)
        for name in first
        if other[name] != first[name]
    ]
    if different:
        raise ValueError("all processes must hold the same:\n  " + "\n  ".join(different))


def raise_everywhere(problem: str | None, device: torch.device) -> None:
    """Stop every process if any has a problem; one that stopped alone would leave the others waiting for it.

    Args:
        problem: This process's, or None.
        device: Where the processes exchange tensors.

    Raises:
        BadBatchError: If there is any; the message holds those of all processes.
    """
    problems = [problem]
    if num_processes() > 1:
        any_problem = torch.tensor(float(problem is not None), device=device)
        dist.all_reduce(any_problem)
        if any_problem:
            problems = of_all_processes(problem)
    known = [text for text in problems if text is not None]
    if known:
        raise BadBatchError("\n".join(known))
