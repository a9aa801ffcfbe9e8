"""One short line an epoch beside the progress bar."""

from __future__ import annotations

import time
from typing import Any

from tqdm.auto import tqdm
from transformers import ProgressCallback, TrainerCallback, TrainerControl, TrainerState, TrainingArguments


class Bars(ProgressCallback):
    """transformers' progress bars without all logged values written between them."""

    def on_log(self, *args: Any, **kwargs: Any) -> None:
        """Write nothing: `EpochLine` does."""


class EpochLine(TrainerCallback):
    """Writes loss, headline score and seconds of each epoch.

    Args:
        headline: Key of the headline score among the logged values.
    """

    def __init__(self, headline: str) -> None:
        self.headline = headline
        self.loss: float | None = None
        self.began = 0.0
        self.seconds = 0.0

    def on_epoch_begin(self, *args: Any, **kwargs: Any) -> None:
        """Start the epoch's clock."""
        self.began = time.perf_counter()

    def on_epoch_end(self, *args: Any, **kwargs: Any) -> None:
        """Stop the epoch's clock."""
        self.seconds = time.perf_counter() - self.began

    def on_log(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, logs: dict, **kwargs: Any
    ) -> None:
        """Write the line when the headline score comes in."""
        self.loss = logs.get("loss", self.loss)
        if self.headline in logs and state.is_world_process_zero and state.max_steps > 0:
            loss = "" if self.loss is None else f"loss {float(self.loss):.4f}  "
            tqdm.write(
                f"epoch {state.epoch or 0:g} of {state.num_train_epochs}:  {loss}"
                f"{self.headline} {logs[self.headline]:.4f}  {self.seconds:.1f} s"
            )


class HeadlineMustExist(TrainerCallback):
    """Stop a run that would choose its best epoch by a score that is not there.

    Args:
        headline: Key of the headline score among the evaluation results.
    """

    def __init__(self, headline: str) -> None:
        self.headline = headline

    def on_evaluate(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, metrics: dict, **kwargs: Any
    ) -> None:
        """Raise a ValueError unless the headline score was computed."""
        if self.headline not in metrics:
            raise ValueError(f"the validation split gave no {self.headline}: it needs labels")
