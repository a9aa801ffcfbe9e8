"""transformers' Trainer with pushes that can be loaded, and cards that say what was made."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn
from transformers.trainer_utils import SaveStrategy
from transformers.utils import CONFIG_NAME

from avb_hf.data.hub_account import HubRepo
from avb_hf.tasks import TaskSpec
from avb_hf.training.checkpoints import PREFIX
from avb_hf.training.durable_trainer import DurableTrainer
from avb_hf.training.hub import Publisher
from avb_hf.training.lora import is_adapted, merged_weights
from avb_hf.training.processes import on_first
from avb_hf.training.run_card import RunCard


class PublishingTrainer(DurableTrainer):
    """A Trainer that writes a card with each model, and pushes by its `publisher` where transformers would push.

    Args:
        *args: Passed on to transformers' Trainer.
        **kwargs: Passed on as well.

    Attributes:
        card: Writes the cards; None writes none.
        publisher: Pushes, in the first process; None does not.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.card: RunCard | None = None
        self.publisher: Publisher | None = None
        super().__init__(*args, **kwargs)

    def init_hf_repo(self, *args: Any, **kwargs: Any) -> None:
        """Make no repository yet: a run that is refused shall leave none."""

    def publish(self, task: TaskSpec, record: Mapping[str, Any], repo: HubRepo | None, license: str | None) -> None:
        """Write cards from now on, and push if there is a repository; nothing is made of it yet.

        Args:
            task: What the model predicts.
            record: The run's record.
            repo: Where to push to, or None.
            license: Identifier of the model's licence, or None.
        """
        self.card = RunCard(task, record, None if repo is None else repo.repo_id, license)
        if repo is not None and self.is_world_process_zero():
            self.publisher = Publisher(repo, self.args, self.say)

    def begin_push(self) -> None:
        """Make the repository; all processes must call this.

        Raises:
            OSError: On every process, if the Hub refuses or is not reached.
        """
        if self.args.push_to_hub:
            on_first(lambda: None if self.publisher is None else self.publisher.begin())

    def may_push_result(self) -> bool:
        """Whether the card in the output folder says where the model is pushed to, and under which licence it is."""
        return self.card is None or self.card.is_current(Path(self.args.output_dir))

    def train_and_save(self, checkpoint: str | None) -> None:
        """Train and save as `DurableTrainer` does, and wait for what is being pushed, also if the training stops."""
        try:
            super().train_and_save(checkpoint)
        finally:
            self._finish_current_push()

    def push_to_hub(self, *args: Any, **kwargs: Any) -> None:
        """Push the final model as it lies in the output folder, if it is to be pushed; all processes must call this.

        Raises:
            PushError: If that fails; the model is on the disk. On other processes than the first, an OSError says so.
            ValueError: If it is to be pushed, and `publish` was not told where to.
        """
        self._require_published()
        on_first(lambda: None if self.publisher is None else self.publisher.push_result())

    def create_model_card(self, *args: Any, **kwargs: Any) -> None:
        """Write the card of the final model into the output folder, if the model is there.

        Raises:
            ValueError: If it is to be pushed, and `publish` was not told where to.
        """
        self._require_published()
        folder = Path(self.args.output_dir)
        if self.card is not None and self.is_world_process_zero() and (folder / CONFIG_NAME).is_file():
            self.card.write(folder, self.accelerator.unwrap_model(self.model))

    def _require_published(self) -> None:
        if self.args.push_to_hub and (self.card is None or self.card.repo_id is None):
            raise ValueError(
                "push_to_hub=True needs `publish(task, record, repo, license)` before: it says where to push, as "
                "`avb_hf.training.hub.check_push` finds out, and what the card tells"
            )

    def save_merged(self, folder: Path) -> None:
        """Write the model as it would be at the end of the training, adapters merged, with the card of a checkpoint."""
        model = self.accelerator.unwrap_model(self.model)
        model.save_pretrained(folder, state_dict=merged_weights(model))
        self.processing_class.save_pretrained(folder)
        if self.card is not None:
            self.card.write_short(folder, model, self.state)

    def _save(self, output_dir: str | None = None, state_dict: dict | None = None) -> None:
        """Save as `DurableTrainer` does, and the card; adapters alone are no model, and have none."""
        super()._save(output_dir, state_dict)
        model = self.accelerator.unwrap_model(self.model)
        if self.card is None or not self.args.should_save or is_adapted(model):
            return
        if output_dir is None or Path(output_dir) == Path(self.args.output_dir):
            self.create_model_card()
        else:
            self.card.write_short(Path(output_dir), model, self.state)

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        super()._save_checkpoint(model, trial)
        if self.publisher is None:
            return
        by_step = self.args.save_strategy == SaveStrategy.STEPS
        title = f"step {self.state.global_step}" if by_step else f"epoch {self.state.epoch or 0:.4g}"
        self.publisher.push_checkpoint(
            Path(self._get_output_dir(trial)) / f"{PREFIX}{self.state.global_step}",
            self.state.best_model_checkpoint,
            f"Training in progress, {title}",
            self.save_merged if is_adapted(self.accelerator.unwrap_model(self.model)) else None,
        )

    def _push_from_checkpoint(self, checkpoint_folder: str) -> None:
        """Push nothing where transformers would: the checkpoint is not sealed yet."""

    def _finish_current_push(self) -> None:
        if self.publisher is not None:
            self.publisher.finish()
