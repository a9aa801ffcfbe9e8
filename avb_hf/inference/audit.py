"""The proof, on one's own model and clips, that what is said of a clip does not depend on what it is run with."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from tqdm.auto import tqdm
from transformers import PreTrainedConfig, PreTrainedModel

from avb_hf.inference.perturbations import PERTURBATIONS, Batch, alone
from avb_hf.inference.quantities import QUANTITIES
from avb_hf.model import VocalBurstFeatureExtractor
from avb_hf.tasks import check_choice

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Effect:
    """What one perturbation did.

    Attributes:
        perturbation: Key of `PERTURBATIONS`.
        difference: Largest absolute difference to the clip alone, over all clips; NaN where either is not finite.
        worst_clip: Name of the clip that shows it.
    """

    perturbation: str
    difference: float
    worst_clip: str


@dataclass(frozen=True)
class AuditReport:
    """What an audit found.

    Attributes:
        quantity: Key of `QUANTITIES`.
        tolerance: Largest difference that is allowed.
        is_relative: Whether the tolerance is a share of `largest_value`.
        largest_value: Largest absolute value of the quantity over all clips, each alone.
        effects: One for each perturbation.
        probable_causes: What in the model's configuration is known to break the independence of clips.
    """

    quantity: str
    tolerance: float
    is_relative: bool
    largest_value: float
    effects: tuple[Effect, ...]
    probable_causes: tuple[str, ...]

    def relative(self, effect: Effect) -> float:
        """Return an effect's difference as a share of the largest value; NaN where all values are zero."""
        return effect.difference / self.largest_value if self.largest_value else math.nan

    def holds(self, effect: Effect) -> bool:
        """Whether an effect's difference is within the tolerance."""
        return (self.relative(effect) if self.is_relative else effect.difference) <= self.tolerance

    @property
    def passed(self) -> bool:
        """Whether every perturbation is within the tolerance."""
        return all(self.holds(effect) for effect in self.effects)

    @property
    def worst(self) -> Effect:
        """The one with the largest difference."""
        return max(self.effects, key=lambda effect: (math.isnan(effect.difference), effect.difference))


def audit(
    model: PreTrainedModel,
    feature_extractor: VocalBurstFeatureExtractor,
    clips: Mapping[str, np.ndarray],
    quantity: str = "scores",
    batch_size: int = 8,
    seed: int = 0,
) -> AuditReport:
    """Compare what a model says of clips alone with what it says of them under every perturbation.

    A pooling without mask that scores do not show, since it picks one frame, is logged.

    Args:
        model: The model; it is brought to float32 and to evaluation mode, and runs where it is.
        feature_extractor: Normalises and pads the clips.
        clips: Waveforms of shape `(samples,)` at 16 kHz by name, as long as the model takes them.
        quantity: Key of `QUANTITIES`.
        batch_size: Clips that are run together.
        seed: Seed of the batches that are drawn.

    Raises:
        ValueError: If there are fewer than two clips, the batch is smaller, or there is no such quantity.
    """
    check_choice("quantity", quantity, tuple(QUANTITIES))
    if len(clips) < 2 or batch_size < 2:
        raise ValueError(
            f"an audit needs two clips and batches of two at least, got {len(clips)} clips in batches of {batch_size}"
        )
    names, waveforms = list(clips), list(clips.values())
    lengths = [len(clip) for clip in waveforms]
    runner = _Runner(model.float().eval(), feature_extractor, waveforms, quantity)
    effects = []
    with tqdm(total=len(clips) * (1 + len(PERTURBATIONS)), desc="auditing", unit="clip", disable=None) as bar:
        reference = [values for _, values in runner.run(alone(lengths, 1, np.random.default_rng(seed)), bar)]
        for name, perturb in PERTURBATIONS.items():
            differences = torch.zeros(len(clips))
            for clip, values in runner.run(perturb(lengths, batch_size, np.random.default_rng(seed)), bar):
                differences[clip] = torch.maximum(differences[clip], _difference(values, reference[clip]))
            worst = int(differences.argmax())
            effects.append(Effect(name, float(differences[worst]), names[worst]))
    measured = QUANTITIES[quantity]
    _tell_of_hidden_padding(model.config)
    return AuditReport(
        quantity=quantity,
        tolerance=measured.tolerance(model.config),
        is_relative=measured.is_relative,
        largest_value=float(torch.stack([values.abs().max() for values in reference]).max()),
        effects=tuple(effects),
        probable_causes=tuple(measured.causes(model.config)),
    )


def _tell_of_hidden_padding(config: PreTrainedConfig) -> None:
    if getattr(config, "pooling_mask", True) or config.pools_padding:
        return
    trained = " (its batch norm, in training, did take padded frames)" if config.output_norm == "batch" else ""
    logger.warning(
        "pooling_mask is false: %s pooling picks one frame, so no score shows it%s; max or mean pooling would read "
        "padded frames",
        config.pooling,
        trained,
    )


class _Runner:
    """Runs batches of clips through a model and yields `(clip, values)` for each clip."""

    def __init__(
        self,
        model: PreTrainedModel,
        feature_extractor: VocalBurstFeatureExtractor,
        waveforms: Sequence[np.ndarray],
        quantity: str,
    ) -> None:
        self.model, self.feature_extractor, self.waveforms = model, feature_extractor, waveforms
        self.measure = QUANTITIES[quantity].measure
        self.limit = model.config.max_samples or math.inf

    def run(self, batches: Sequence[Batch], bar: tqdm) -> Iterator[tuple[int, Tensor]]:
        for batch in batches:
            clips = [self.waveforms[clip] for clip in batch.clips]
            samples = max(*map(len, clips), min(batch.samples, self.limit), 0)
            inputs = self.feature_extractor(
                clips,
                sampling_rate=self.feature_extractor.sampling_rate,
                padding="max_length",
                max_length=samples,
                return_tensors="pt",
            ).to(self.model.device)
            with torch.no_grad(), torch.autocast(self.model.device.type, enabled=False):
                values = self.measure(self.model, inputs)
            yield from zip(batch.clips, (value.cpu() for value in values), strict=True)
            bar.update(len(clips))


def _difference(values: Tensor, reference: Tensor) -> Tensor:
    if values.shape != reference.shape:  # another number of valid frames
        return torch.tensor(math.inf)
    return (values - reference).abs().max()
