"""Whether an ONNX file says what the model says."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils import parametrize
from tqdm.auto import tqdm
from transformers import BatchFeature

from avb_hf.inference.onnx_file import OnnxModel
from avb_hf.inference.quantities import scores_of
from avb_hf.model import VocalBurstConfig, VocalBurstFeatureExtractor, Wav2Vec2ForVocalBurst, concordance_cc

TOLERANCE = 1e-4
LEAST_CCC = 0.98
_LARGEST_BATCH = 8
_UNITS = {"regression": "in a score", "single_label_classification": "in a probability"}


@dataclass(frozen=True)
class Agreement:
    """How far a file's outputs are from the model's; as text, the lowest CCC.

    Attributes:
        clips: Number of clips that were compared.
        difference: Largest absolute difference of a score; NaN or infinite where a score is.
        unit: What `difference` is measured in: probabilities where labels are classes, the width of a `label_range`, or
            scores without bounds.
        ccc: CCC of the file's scores with the model's for each label; NaN where it is not defined.
    """

    clips: int
    difference: float
    unit: str
    ccc: dict[str, float]

    @property
    def is_equal(self) -> bool:
        """Whether no score differs by more than `TOLERANCE`."""
        return self.difference <= TOLERANCE

    @property
    def is_alike(self) -> bool:
        """Whether every label has a CCC of at least `LEAST_CCC`."""
        return all(value >= LEAST_CCC for value in self.ccc.values())

    @property
    def worst(self) -> str:
        """The label with the lowest CCC, or one that has none."""
        return min(self.ccc, key=lambda label: (not np.isnan(self.ccc[label]), self.ccc[label]))

    def __str__(self) -> str:
        return f"{self.ccc[self.worst]:.3f} ({self.worst}, on {self.clips} clips)"


class Reference:
    """What a model says of clips in ragged batches of one to eight.

    Args:
        model: A model on the CPU, in float32 and evaluation mode.
        feature_extractor: Normalises and pads the clips.
        clips: Waveforms of shape `(samples,)` at 16 kHz.
        seed: Seed of the batches.
    """

    def __init__(
        self,
        model: Wav2Vec2ForVocalBurst,
        feature_extractor: VocalBurstFeatureExtractor,
        clips: Sequence[np.ndarray],
        seed: int = 0,
    ) -> None:
        self.config, self._extractor, self._clips = model.config, feature_extractor, clips
        self._unit, self._unit_name = _unit_of(model.config)
        order = iter(np.random.default_rng(seed).permutation(len(clips)).tolist())
        sizes = itertools.cycle(range(1, _LARGEST_BATCH + 1))
        self._batches = list(iter(lambda: list(itertools.islice(order, next(sizes))), []))
        with torch.no_grad(), parametrize.cached():
            self.logits = self._run(lambda batch: model(**batch).logits, len(self._batches), "scoring by PyTorch")

    def compare(self, path: Path, enough: int | None = None) -> Agreement:
        """Run a file on the same batches.

        Args:
            path: The file.
            enough: Number of clips with which no further batch is run; None runs all.
        """
        total = np.cumsum([len(batch) for batch in self._batches])
        count = len(total) if enough is None else min(len(total), 1 + int(np.searchsorted(total, enough)))
        found = self._run(OnnxModel(path).run, count, "scoring by ONNX Runtime")
        expected = self.logits[: len(found)]
        scores, target = scores_of(found, self.config), scores_of(expected, self.config)
        return Agreement(
            clips=len(found),
            difference=float((scores - target).abs().max() / self._unit),
            unit=self._unit_name,
            ccc=dict(zip(self.config.label_names, concordance_cc(scores, target).tolist(), strict=True)),
        )

    def _run(self, model: Callable[[BatchFeature], Tensor], count: int, doing: str) -> Tensor:
        """Return the logits of the first batches, clip by clip in their order."""
        rows = []
        with tqdm(total=sum(map(len, self._batches[:count])), desc=doing, unit="clip", disable=None) as bar:
            for batch in self._batches[:count]:
                clips = [self._clips[clip] for clip in batch]
                inputs = self._extractor(clips, sampling_rate=self._extractor.sampling_rate, return_tensors="pt")
                rows.append(model(inputs))
                bar.update(len(batch))
        return torch.cat(rows)


def _unit_of(config: VocalBurstConfig) -> tuple[float, str]:
    """Return what differences are divided by, and its name: the wider a range, the coarser float32 rounds in it."""
    if config.label_range is None:
        return 1.0, _UNITS[config.problem_type]
    low, high = config.label_range
    return high - low, f"of the label range {low:g} to {high:g}"
