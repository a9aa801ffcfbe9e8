"""A run that is told to stop saves a checkpoint first."""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

import torch
import torch.distributed as dist
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from avb_hf.training.exact import num_processes

logger = logging.getLogger(__name__)

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)


class StoppedBySignalError(Exception):
    """Training was told to stop, and saved a checkpoint from which it can go on.

    Args:
        number: The signal's number.
        step: Optimizer steps done.

    Attributes:
        exit_code: What the process should exit with: 128 and the signal's number, as shells say it.
    """

    def __init__(self, number: int, step: int) -> None:
        super().__init__(f"{signal.Signals(number).name}: stopped and saved after step {step}")
        self.exit_code = 128 + number


class StopOnSignal(TrainerCallback):
    """Save and stop, all processes together, at the end of the step in which any of them got a signal.

    A run that goes on from there ends as one that was never stopped. A second Ctrl-C does not wait for the step's end.
    """

    def __init__(self) -> None:
        self._number = 0

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Catch SIGTERM, SIGINT and SIGUSR1 inside the block; outside of a main thread, which cannot, do nothing."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, self._take_note) for number in SIGNALS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object
    ) -> None:
        """Ask for a checkpoint; at the end of an epoch not before its evaluation, which a resumed run would miss."""
        is_last_of_epoch = state.epoch is not None and float(state.epoch).is_integer()
        if not is_last_of_epoch and self._noted_by_any(args.device):
            control.should_save = True

    def on_epoch_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object
    ) -> None:
        """Ask for a checkpoint behind the epoch's evaluation."""
        if self._noted_by_any(args.device):
            control.should_save = True

    def raise_if_told(self, device: torch.device, step: int) -> None:
        """Raise StoppedBySignalError on every process if any got a signal.

        Args:
            device: Where the processes exchange tensors.
            step: Optimizer steps done.
        """
        number = self._noted_by_any(device)
        if number:
            raise StoppedBySignalError(number, step)

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object) -> None:
        """Raise StoppedBySignalError on every process, now that there is a checkpoint."""
        self.raise_if_told(args.device, state.global_step)

    def _take_note(self, number: int, frame: FrameType | None) -> None:
        if self._number and number == signal.SIGINT:
            raise KeyboardInterrupt
        self._number = number
        logger.warning("%s: saving and stopping at the end of this step", signal.Signals(number).name)

    def _noted_by_any(self, device: torch.device) -> int:
        if num_processes() == 1:
            return self._number
        number = torch.tensor(self._number, device=device)
        dist.all_reduce(number, op=dist.ReduceOp.MAX)
        return int(number)
