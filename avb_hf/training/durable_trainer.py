"""transformers' Trainer that loses nothing: sealed checkpoints, stops that save first, no pickle of arguments."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from accelerate.utils import TorchDynamoPlugin
from safetensors import SafetensorError
from torch import nn
from transformers import EarlyStoppingCallback, Trainer, TrainerState
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_utils import EvalLoopOutput, rotate_checkpoints

from avb_hf.training.adapter_files import load_adapters, save_adapters
from avb_hf.training.checkpoints import PREFIX, find_damage, seal
from avb_hf.training.exact import RandomState
from avb_hf.training.lora import check_training, is_adapted, merge_adapters
from avb_hf.training.signals import StopOnSignal
from avb_hf.training.training_arguments import ARGUMENTS_FILE
from avb_hf.whole_files import read_json, write_json


@contextmanager
def _writing(folder: str | Path) -> Iterator[None]:
    """Name the folder that cannot be written to; torch reports a full disk as a RuntimeError."""
    try:
        yield
    except (OSError, RuntimeError, SafetensorError) as error:
        if isinstance(error, RuntimeError) and "PytorchStreamWriter" not in str(error):
            raise
        raise OSError(f"{folder} could not be written ({error}); what was whole before still is") from error


class DurableTrainer(Trainer):
    """A Trainer whose runs can be cut off anywhere and end as if they had not been.

    Args:
        *args: Passed on to transformers' Trainer.
        **kwargs: Passed on as well.

    Attributes:
        runtimes: Seconds that were spent before training, by what for; written beside `train_runtime`.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        check_training(self.model, self.args, self.is_fsdp_enabled or self.is_deepspeed_enabled)
        self.runtimes: dict[str, float] = {}
        self._limit = self.args.save_total_limit  # transformers must not delete before we have sealed
        self._best: str | None = None  # checkpoint of the run that is gone on with
        self._stop_on_signal = StopOnSignal()
        self.add_callback(self._stop_on_signal)

    def create_accelerator_and_postprocess(self) -> None:
        """Make the accelerator, and keep it from compiling the whole model, where only its blocks can be.

        Raises:
            ValueError: If the model is to be compiled and cut into shards.
        """
        super().create_accelerator_and_postprocess()
        if self.args.torch_compile and (self.is_fsdp_enabled or self.is_deepspeed_enabled):
            raise ValueError("--torch_compile does not go with FSDP or DeepSpeed: leave it out")
        self.accelerator.state.dynamo_plugin = TorchDynamoPlugin(backend="no")

    def train_and_save(self, checkpoint: str | None) -> None:
        """Train, from a checkpoint if there is one, and write the best model, the state and the training figures.

        Raises:
            StoppedBySignalError: If a signal stopped the training; there is a checkpoint to go on from.
            ValueError: If the best checkpoint before the one to go on from is wanted in the end, and is not whole.
        """
        self._best = None if checkpoint is None else self._find_best(checkpoint)
        if checkpoint is not None and self._stopped_early(checkpoint):
            metrics = {"epoch": self.state.epoch}
        else:
            with self._stop_on_signal.listening():
                metrics = self.train(resume_from_checkpoint=checkpoint).metrics
        merge_adapters(self.model)
        with _writing(self.args.output_dir):
            self.save_model(_internal_call=True)  # the scores are pushed with it, once they are there
            self.save_state()
            self.save_metrics("train", metrics | self.runtimes)

    def stop_if_told(self) -> None:
        """Stop if a signal came so late that the training went on to its end.

        Raises:
            StoppedBySignalError: If so.
        """
        self._stop_on_signal.raise_if_told(self.args.device, self.state.global_step)

    def load_trained(self, folder: Path) -> None:
        """Take the weights that an earlier training left in a folder."""
        merge_adapters(self.model)  # what a training leaves in the end has none
        self._load_from_checkpoint(str(folder))

    def save_metrics(self, split: str, metrics: dict[str, float], combined: bool = True) -> None:
        """Write `<split>_results.json` and add to `all_results.json`, each in one stroke."""
        if not self.is_world_process_zero():
            return
        folder = Path(self.args.output_dir)
        write_json(folder / f"{split}_results.json", metrics)
        everything = folder / "all_results.json"
        if combined:
            earlier = read_json(everything) if everything.is_file() else {}
            write_json(everything, dict(sorted((earlier | metrics).items())))

    def evaluation_loop(self, *args: Any, **kwargs: Any) -> EvalLoopOutput:
        """Evaluate or predict, and leave the random state as it was: evaluating more often must not change training."""
        before = RandomState.now()
        try:
            return super().evaluation_loop(*args, **kwargs)
        finally:
            before.restore()

    def say(self, text: str) -> None:
        """Write a text to the screen, from the first process only."""
        if self.is_world_process_zero():
            sys.stdout.write(text + "\n")

    def _stopped_early(self, checkpoint: str) -> bool:
        """Tell whether a run had run out of patience when it saved a checkpoint; then take its best weights."""
        state = TrainerState.load_from_json(str(Path(checkpoint) / TRAINER_STATE_NAME))
        stopping = state.stateful_callbacks.get("EarlyStoppingCallback")
        patience = [
            callback.early_stopping_patience
            for callback in self.callback_handler.callbacks
            if isinstance(callback, EarlyStoppingCallback)
        ]
        if not (stopping and patience and stopping["attributes"]["early_stopping_patience_counter"] >= patience[0]):
            return False
        self.state = state
        if self._best is not None:
            self.state.best_model_checkpoint = self._best
            self._load_best_model()
        else:
            self._load_from_checkpoint(checkpoint)
        return True

    def _find_best(self, checkpoint: str) -> str | None:
        """Return the best checkpoint, if it is wanted, beside one that came later: their run may have been moved."""
        state = TrainerState.load_from_json(str(Path(checkpoint) / TRAINER_STATE_NAME))
        if state.best_model_checkpoint is None or not self.args.load_best_model_at_end:
            return None
        is_itself = state.best_global_step == state.global_step
        path = Path(checkpoint) if is_itself else Path(checkpoint).with_name(Path(state.best_model_checkpoint).name)
        damage = find_damage(path)
        if damage is not None:
            raise ValueError(
                f"the best checkpoint {path} cannot be used: {damage}; go on from an earlier one, or without the best "
                "one by --load_best_model_at_end false --allow_changed_args"
            )
        return str(path)

    def _load_callback_state(self) -> None:
        """Load what callbacks keep, and say where the best checkpoint lies: transformers looks where it once was."""
        if self._best is not None:
            self.state.best_model_checkpoint = self._best
        super()._load_callback_state()

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        """Load a checkpoint's weights, or the part of them that it holds where there are adapters."""
        if is_adapted(self.model):
            load_adapters(self.model, resume_from_checkpoint)
        else:
            super()._load_from_checkpoint(resume_from_checkpoint, model)

    def _load_best_model(self) -> None:
        """Load the best checkpoint, if it is as it was written.

        Raises:
            ValueError: If it is damaged.
        """
        damage = find_damage(self.state.best_model_checkpoint)
        if damage is not None:
            raise ValueError(f"the best checkpoint {self.state.best_model_checkpoint} cannot be used: {damage}")
        if is_adapted(self.model):
            load_adapters(self.model, self.state.best_model_checkpoint)
        else:
            super()._load_best_model()

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        """Save a checkpoint and seal it; only then are older ones deleted."""
        folder = Path(self._get_output_dir(trial))
        checkpoint = folder / f"{PREFIX}{self.state.global_step}"
        if self.args.should_save and checkpoint.exists():
            shutil.rmtree(checkpoint)  # what a save that was cut off left
        self.accelerator.wait_for_everyone()
        limit, self.args.save_total_limit = self._limit, None
        try:
            with _writing(checkpoint):
                super()._save_checkpoint(model, trial)
        finally:
            self.args.save_total_limit = limit
        self.accelerator.wait_for_everyone()  # every process writes its own random state
        if self.args.should_save:
            with _writing(checkpoint):
                seal(checkpoint)
            rotate_checkpoints(str(folder), limit, self.state.best_model_checkpoint)
        self.accelerator.wait_for_everyone()

    def _save(self, output_dir: str | None = None, state_dict: dict | None = None) -> None:
        """Save model and feature extractor, and the arguments as JSON: transformers would pickle them."""
        if not self.args.should_save:
            return
        folder = Path(output_dir or self.args.output_dir)
        model = self.accelerator.unwrap_model(self.model)
        if is_adapted(model):
            save_adapters(model, folder)
        else:
            model.save_pretrained(folder, state_dict=state_dict)
        self.processing_class.save_pretrained(folder)
        arguments = self.args.to_sanitized_dict() | {"save_total_limit": self._limit}
        write_json(folder / ARGUMENTS_FILE, dict(sorted(arguments.items())))
