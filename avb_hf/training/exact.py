"""The loss of the whole effective batch: over gradient accumulation and over processes.

The CCC is a statistic of a batch, so its mean over parts of a batch is another loss. Here the parts of one optimizer
step, on all processes, make one loss, and its gradients are those of one large batch. Where the loss is no sum over
clips, accumulated batches are run twice: without gradient for the scores of all, then each with its share of the
gradient (L. Gao, Y. Zhang, J. Han, J. Callan, 2021, Scaling Deep Contrastive Learning Batch Size under Memory Limited
Setup).
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

Batch = dict[str, Tensor]


@dataclass
class RandomState:
    """The states of the random generators that dropout may draw from."""

    python: Any
    numpy: Any
    cpu: Tensor
    accelerators: list[Tensor]

    @classmethod
    def now(cls) -> RandomState:
        """Take down the states as they are."""
        gpus = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
        return cls(random.getstate(), np.random.get_state(), torch.get_rng_state(), gpus)

    def restore(self) -> None:
        """Go back to the states."""
        random.setstate(self.python)
        np.random.set_state(self.numpy)
        torch.set_rng_state(self.cpu)
        if self.accelerators:
            torch.cuda.set_rng_state_all(self.accelerators)


def num_processes() -> int:
    """Return the number of processes that train together."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def gather_rows(rows: Tensor) -> tuple[Tensor, slice]:
    """Put the rows of all processes together in their order, without gradient.

    Args:
        rows: Rows of this process, of shape `(num_rows, ...)`; the number may differ between processes.

    Returns:
        The rows of all processes, and where this process's own are among them.
    """
    rows = rows.detach()
    if num_processes() == 1:
        return rows, slice(0, len(rows))
    counts = [torch.zeros(1, dtype=torch.long, device=rows.device) for _ in range(num_processes())]
    dist.all_gather(counts, torch.tensor([len(rows)], device=rows.device))
    sizes = [int(count) for count in counts]
    padded = rows.new_zeros((max(sizes), *rows.shape[1:]))
    padded[: len(rows)] = rows
    parts = [torch.empty_like(padded) for _ in sizes]
    dist.all_gather(parts, padded)
    start = sum(sizes[: dist.get_rank()])
    everyone = torch.cat([part[:size] for part, size in zip(parts, sizes, strict=True)])
    return everyone, slice(start, start + len(rows))


def require_uncut_batches(model: nn.Module, accumulation: int, processes: int) -> None:
    """Refuse to cut the batches of a model whose scores of a clip depend, in training, on the rest of its batch.

    The loss of the parts of such a batch is not that of the whole. Nor is dropout inside what is frozen cut: it is
    there for the sake of code that was published, which had neither accumulation nor processes.

    Args:
        model: The model. What makes its scores so is a batch norm that is trained, pooling over padded frames, and a
            group norm whose statistics hold padding.
        accumulation: Batches that make one optimizer step.
        processes: Processes that train together.

    Raises:
        ValueError: If there is such a thing, and more than one batch or process.
    """
    if accumulation * processes == 1:
        return
    padded = getattr(model.config, "causes_of_padded_scores", ())
    causes = [*_trained_norms(model), *padded, *_keeps_dropout(model)]
    if causes:
        raise ValueError(
            "no batch may be cut: train in one process with --gradient_accumulation_steps 1, got "
            f"{processes} and {accumulation} ({'; '.join(causes)})"
        )


def _trained_norms(model: nn.Module) -> list[str]:
    mode = model.training
    norms = [name for name, part in model.train().named_modules() if isinstance(part, _BatchNorm) and part.training]
    model.train(mode)
    return [f"{name} is a batch norm" for name in norms]


def _keeps_dropout(model: nn.Module) -> list[str]:
    """Whatever is frozen, the front end is, and unless its dropout is kept, the model counts its frozen blocks."""
    if not hasattr(model, "encoder") or model.frozen_blocks is not None:
        return []
    front_end = [parameter for part in model.encoder.modules_up_to(0) for parameter in part.parameters()]
    is_frozen = not any(parameter.requires_grad for parameter in front_end)
    return ["frozen_dropout: what is frozen is run anew, with dropout, in every step"] * is_frozen


class EffectiveBatch:
    """The batches that one optimizer step is made of on this process, and the loss that all processes share.

    Args:
        batches: The batches of this process, in the order in which they will be run.
        model: A `Wav2Vec2ForVocalBurst`, which tells the loss.
        forward: Runs a batch to scores `(batch, num_labels)`, as training does.
    """

    def __init__(self, batches: list[Batch], model: Any, forward: Callable[[Batch], Tensor]) -> None:
        self.batches, self.model, self.forward = batches, model, forward
        self.total_weight: Tensor | None = None
        self.loss = torch.zeros(())
        self.gradients: list[Tensor] = []

    def part_of_loss(self, batch: Batch) -> Tensor:
        """Run the next batch; the parts of all batches, averaged over processes, add up to the loss of the whole.

        Its gradient is scaled for processes that average theirs, as DistributedDataParallel does.

        Args:
            batch: The next of `batches`, on the model's device.

        Returns:
            This batch's part of the loss.
        """
        if self.model.loss_weight(batch["labels"]) is not None:
            return self._weighted_part(batch)
        return self._spliced(batch) if len(self.batches) == 1 else self._replayed(batch)

    def _weighted_part(self, batch: Batch) -> Tensor:
        if self.total_weight is None:
            device = batch["labels"].device
            weights = [self.model.loss_weight(part["labels"].to(device)).double() for part in self.batches]
            self.total_weight = torch.stack(weights).sum()
            if num_processes() > 1:
                dist.all_reduce(self.total_weight)
            self.total_weight.clamp_(min=torch.finfo(torch.double).tiny)
        logits = self.forward(batch)
        share = self.model.loss_weight(batch["labels"]) / self.total_weight * num_processes()
        loss = self.model.compute_loss(logits, batch["labels"])
        return loss * share.to(loss.dtype)

    def _spliced(self, batch: Batch) -> Tensor:
        """Put the scores of the other processes beside our own: one batch each, so nothing need be run twice."""
        logits = self.forward(batch)
        everyone, own = gather_rows(logits)
        labels, _ = gather_rows(batch["labels"])
        loss = self.model.compute_loss(torch.cat([everyone[: own.start], logits, everyone[own.stop :]]), labels)
        return _with_gradient_of(loss, loss * num_processes())

    def _replayed(self, batch: Batch) -> Tensor:
        if not self.gradients:
            self._look_ahead(batch["labels"].device)
        gradient = self.gradients.pop(0)
        surrogate = (gradient * self.forward(batch)).sum() * num_processes()
        return _with_gradient_of(self.loss / len(self.batches), surrogate)

    def _look_ahead(self, device: torch.device) -> None:
        """Run all batches without gradient, as they will be run again, and differentiate the loss by their scores."""
        before = RandomState.now()
        on_device = [{name: value.to(device) for name, value in part.items()} for part in self.batches]
        with torch.no_grad():
            scores = [self.forward(part) for part in on_device]
        before.restore()
        everyone, own = gather_rows(torch.cat(scores))
        labels, _ = gather_rows(torch.cat([part["labels"] for part in on_device]))
        everyone.requires_grad_()
        loss = self.model.compute_loss(everyone, labels)
        (gradient,) = torch.autograd.grad(loss, everyone)
        self.loss = loss.detach()
        self.gradients = list(gradient[own].split([len(part) for part in scores]))


def _with_gradient_of(value: Tensor, source: Tensor) -> Tensor:
    return value.detach() + (source - source.detach())
