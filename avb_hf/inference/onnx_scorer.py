"""Scores by a model in an ONNX file."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import ClassVar

import torch
from torch import Tensor
from transformers import BatchFeature

from avb_hf.inference.clip_scorer import ClipScorer
from avb_hf.inference.onnx_file import OnnxModel
from avb_hf.inference.predict_arguments import PredictArguments
from avb_hf.inference.quantities import scores_of
from avb_hf.inference.score_files import digest_file


class OnnxScorer(ClipScorer):
    """A model in an ONNX file with all that is needed to score clips.

    Args:
        model: The model.
        args: How clips are read.

    Raises:
        ValueError: If a precision is asked for, or the file does not hold what it needs to be used.
    """

    packages: ClassVar[tuple[str, ...]] = ("onnxruntime",)

    def __init__(self, model: OnnxModel, args: PredictArguments) -> None:
        self.model = model
        if args.precision != "fp32":
            raise ValueError(f"--precision {args.precision} is for checkpoints: {model.path} has its own")
        super().__init__(*model.parts(), args, torch.device("cpu"))

    def digest(self) -> str:
        """Return the SHA-256 of the file, as hexadecimal text."""
        return digest_file(self.model.path)

    def precisions(self, asked: str) -> tuple[str, ...]:
        """Return the file's own."""
        return (self.model.metadata["precision"],)

    def running(self, precision: str) -> AbstractContextManager[None]:
        """Do nothing: the file is ready to run."""
        return nullcontext()

    def run(self, inputs: BatchFeature) -> Tensor:
        """Score a prepared batch: `(clips, labels)`, float32, probabilities where the labels are classes.

        Clips run one by one, so that none has a share in how a quantised model rounds another, except where the model
        reads padding.
        """
        if self.config.pools_padding:
            return scores_of(self.model.run(inputs), self.config)
        lengths = inputs["attention_mask"].sum(dim=1).tolist()
        alone = (
            {name: rows[clip : clip + 1, :length] for name, rows in inputs.items()}
            for clip, length in enumerate(lengths)
        )
        return scores_of(torch.cat([self.model.run(clip) for clip in alone]), self.config)
