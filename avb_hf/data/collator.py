"""From rows with decoded audio to a padded batch of tensors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import SequenceFeatureExtractor

from avb_hf.tasks import TaskSpec


class ClipBatch(dict[str, Tensor]):
    """A batch of tensors that knows its clips.

    Attributes:
        file_ids: File_ID of each clip.
    """

    file_ids: list[str]


@dataclass
class VocalBurstCollator:
    """Make a batch of the rows that `ClipReader` gives.

    Attributes:
        feature_extractor: Normalises and pads the clips.
        task: Says whether labels are intensities or classes.
    """

    feature_extractor: SequenceFeatureExtractor
    task: TaskSpec

    def __call__(self, rows: list[dict[str, Any]]) -> ClipBatch:
        """Return `input_values` and `attention_mask` `(batch, samples)`, and `labels` where the rows have them.

        Rows with `frozen_states` `(frames, width)` give those, padded, and `num_frames` `(batch,)` instead.

        Raises:
            ValueError: If a clip is shorter than the model's receptive field; the message names it.
        """
        batch = self._pad_states(rows) if "frozen_states" in rows[0] else self._pad_audio(rows)
        if "labels" in rows[0]:
            dtype = torch.long if self.task.is_classification else torch.float32
            batch["labels"] = torch.tensor([row["labels"] for row in rows], dtype=dtype)
        batch.file_ids = [row["file_id"] for row in rows]
        return batch

    def _pad_states(self, rows: list[dict[str, Any]]) -> ClipBatch:
        states = [row["frozen_states"] for row in rows]
        num_frames = torch.tensor([len(clip) for clip in states])
        return ClipBatch(frozen_states=pad_sequence(states, batch_first=True), num_frames=num_frames)

    def _pad_audio(self, rows: list[dict[str, Any]]) -> ClipBatch:
        shortest = self.feature_extractor.min_samples
        for row in rows:
            if len(row["audio"]) < shortest:
                raise ValueError(f"{row['file_id']}: a clip needs at least {shortest} samples, got {len(row['audio'])}")
        return ClipBatch(self.feature_extractor([row["audio"] for row in rows], padding=True, return_tensors="pt"))
