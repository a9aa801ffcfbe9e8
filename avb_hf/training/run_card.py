"""The card of what a run makes: a short one in each checkpoint, the whole one beside the final model."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset
from huggingface_hub import ModelCard
from transformers import PreTrainedModel, TrainerState

from avb_hf.card_marker import CARD_MARKER, is_ours
from avb_hf.evaluation.model_card import CardFacts, SplitScores, gather_scores, write_model_card
from avb_hf.evaluation.statistics import ScoreIntervals, bootstrap_intervals
from avb_hf.model.card_vocal_burst import CARD_FILE
from avb_hf.tasks import TaskSpec
from avb_hf.training.run_record import RESOLVED_CONFIG
from avb_hf.whole_files import read_json

logger = logging.getLogger(__name__)


class RunCard:
    """Writes the cards of a run.

    Args:
        task: What the model predicts.
        record: The run's record.
        repo_id: Where the model is pushed to; None if it is not.
        license: Identifier of its licence, or None.
    """

    def __init__(self, task: TaskSpec, record: Mapping[str, Any], repo_id: str | None, license: str | None) -> None:
        self.task, self.record, self.repo_id, self.license = task, record, repo_id, license
        self._splits: dict[str, SplitScores] = {}

    def take_up(self, folder: Path, prefixes: Mapping[str, str]) -> None:
        """Go on from what is known of a model that was trained already: the record of its training, and its scores.

        Args:
            folder: The output folder, which holds the model.
            prefixes: What precedes the names of a split's results, by split.
        """
        if (folder / RESOLVED_CONFIG).is_file():
            self.record = read_json(folder / RESOLVED_CONFIG)
        for name, prefix in prefixes.items():
            path = folder / f"{prefix}_results.json"
            results = read_json(path) if path.is_file() else {}
            if f"{prefix}_{self.task.metric}" in results:  # a split without labels was predicted alone
                self._splits[name] = gather_scores(results, self.task, name, prefix)

    def add_scores(
        self, name: str, prefix: str, results: Mapping[str, float], scores: np.ndarray, split: Dataset
    ) -> None:
        """Take up the scores of a split of the final model, and find out how sure they are.

        Args:
            name: The split's name.
            prefix: What precedes the names of the results.
            results: The scores by name.
            scores: Final scores or class probabilities of shape `(num_clips, num_labels)`.
            split: The split, whose rows are those of `scores`.
        """
        columns = split.with_format(None)
        labels = np.asarray(columns["labels"][:], dtype=np.float64)
        speakers = columns["speaker"][:] if "speaker" in split.column_names else []
        are_known = len(set(speakers)) > 1 and None not in speakers
        intervals: ScoreIntervals | None = None
        if len(scores) > 1:
            intervals = bootstrap_intervals(self.task, scores, labels, speakers if are_known else None)
        drawn = None if intervals is None else "speakers" if are_known else "clips"
        self._splits[name] = gather_scores(results, self.task, name, prefix, intervals, drawn)

    def write(self, folder: Path, model: PreTrainedModel) -> None:
        """Write the card of the final model."""
        self._write(folder, model, list(self._splits.values()), None)

    def write_short(self, folder: Path, model: PreTrainedModel, state: TrainerState) -> None:
        """Write the card of a checkpoint, with the scores of an evaluation at its step if there was one."""
        splits = [
            gather_scores(entry, self.task, "validation", "eval")
            for entry in state.log_history[-2:]
            if entry["step"] == state.global_step and self.task.headline in entry
        ]
        progress = f"step {state.global_step} of {state.max_steps}, epoch {state.epoch or 0:.4g}"
        self._write(folder, model, splits[:1], progress)

    def is_current(self, folder: Path) -> bool:
        """Whether the card in a folder names the licence and the repository that are asked for, if any, or stays."""
        if self.repo_id is None and self.license is None:
            return True
        if not (folder / CARD_FILE).is_file():
            return False
        if not is_ours(folder / CARD_FILE):
            return True
        card = ModelCard.load(folder / CARD_FILE)
        is_named = self.repo_id is None or f"avb predict {self.repo_id} " in card.content
        return card.data.license == self.license and is_named

    def _write(self, folder: Path, model: PreTrainedModel, splits: list[SplitScores], progress: str | None) -> None:
        path = folder / CARD_FILE
        if path.is_file() and not is_ours(path):
            logger.warning("%s was written by somebody else and stays: it lacks the line %s", path, CARD_MARKER)
            return
        location = self.repo_id or str(folder)
        facts = CardFacts(
            name=Path(location).name,
            location=location,
            task=self.task,
            record=self.record,
            splits=splits,
            license=self.license,
            travels=type(model)._auto_class is not None,
            progress=progress,
        )
        write_model_card(facts, folder)
