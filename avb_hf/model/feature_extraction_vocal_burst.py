"""From waveforms of any length to a padded, masked batch."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
from transformers import BatchFeature, SequenceFeatureExtractor

from .configuration_vocal_burst import SAMPLING_RATE, VocalBurstConfig

logger = logging.getLogger(__name__)

DEFAULT_MIN_SAMPLES = 400


class VocalBurstFeatureExtractor(SequenceFeatureExtractor):
    """Check, normalise and pad waveforms.

    Args:
        feature_size: Channels of a waveform; always 1.
        sampling_rate: Rate in Hz that waveforms must have.
        padding_value: What clips are padded with on the right.
        do_normalize: Whether each clip is brought to zero mean and unit variance over its true samples.
        min_samples: Shortest clip that gives the model one valid frame.
        **kwargs: Further fields of transformers' feature extractors.
    """

    model_input_names = ["input_values", "attention_mask"]  # noqa: RUF012 - as in transformers' own

    def __init__(
        self,
        feature_size: int = 1,
        sampling_rate: int = SAMPLING_RATE,
        padding_value: float = 0.0,
        do_normalize: bool = True,
        min_samples: int = DEFAULT_MIN_SAMPLES,
        **kwargs: Any,
    ) -> None:
        if kwargs.get("padding_side", "right") != "right":
            raise ValueError(f"padding_side must be 'right', got {kwargs['padding_side']!r}")
        super().__init__(feature_size=feature_size, sampling_rate=sampling_rate, padding_value=padding_value, **kwargs)
        self.do_normalize = do_normalize
        self.min_samples = min_samples
        self.return_attention_mask = True

    @classmethod
    def for_backbone(
        cls, name_or_path: str | None, config: VocalBurstConfig, **hub_arguments: Any
    ) -> VocalBurstFeatureExtractor:
        """Make the extractor that a backbone, or a checkpoint of ours, was trained with.

        Whether clips are normalised is what the backbone's `preprocessor_config.json` says (`do_normalize`). Where it
        is silent, or there is none, Whisper, or a model without a backbone, takes clips as they are and every other
        backbone normalised ones.

        Args:
            name_or_path: Hub id or folder; None for random weights.
            config: Configuration of the model that the extractor is for.
            **hub_arguments: transformers' arguments that say where a file is found (`revision`, `token`, ...).
        """
        stored: dict[str, Any] = {}
        if name_or_path is not None:
            try:
                stored, _ = cls.get_feature_extractor_dict(name_or_path, **hub_arguments)
            except OSError:
                logger.warning("%s has no preprocessor_config.json", name_or_path)
        encoder_config = getattr(config, "encoder_config", None)
        default = encoder_config is not None and encoder_config.model_type != "whisper"
        return cls(do_normalize=stored.get("do_normalize", default), min_samples=config.min_samples)

    def __call__(
        self,
        raw_speech: np.ndarray | list[np.ndarray],
        sampling_rate: int | None = None,
        padding: bool | str = True,
        return_tensors: str | None = None,
        **kwargs: Any,
    ) -> BatchFeature:
        """Turn one waveform or several into a batch.

        A clip shorter than `min_samples` is lengthened by silence to one valid frame, with a warning: so predictions
        never fail on it. Training and evaluation refuse such a clip before it comes here.

        Args:
            raw_speech: One mono waveform of shape `(samples,)` or a list of them, as floats.
            sampling_rate: Rate of the waveforms in Hz; None trusts that it is `self.sampling_rate`.
            padding: Passed on to transformers' `pad`; True pads to the longest clip.
            return_tensors: `pt` or `np`.
            **kwargs: Further arguments of transformers' `pad`.

        Returns:
            `input_values` and `attention_mask` of shape `(batch, samples)`.

        Raises:
            ValueError: If the rate differs, or a clip is empty, not mono or not finite.
        """
        if sampling_rate is not None and sampling_rate != self.sampling_rate:
            raise ValueError(
                f"sampling_rate must be {self.sampling_rate} Hz, got {sampling_rate}: resample first, or give the "
                "recording to VocalBurstPipeline"
            )
        is_batch = isinstance(raw_speech, list | tuple) and len(raw_speech) > 0 and np.ndim(raw_speech[0]) > 0
        clips = [self._prepare(clip, index) for index, clip in enumerate(raw_speech if is_batch else [raw_speech])]
        kwargs.setdefault("return_attention_mask", True)
        return self.pad({"input_values": clips}, padding=padding, return_tensors=return_tensors, **kwargs)

    def _prepare(self, clip: Any, index: int) -> np.ndarray:
        clip = np.asarray(clip, dtype=np.float32)
        if clip.ndim != 1 or clip.size == 0:
            raise ValueError(f"clip {index} must be a mono waveform of shape (samples,), got shape {clip.shape}")
        if not np.isfinite(clip).all():
            raise ValueError(f"clip {index} has samples that are not finite")
        if self.do_normalize:
            clip = (clip - clip.mean()) / np.sqrt(clip.var() + 1e-7)
        if len(clip) < self.min_samples:
            logger.warning("clip %d has %d samples, lengthened by silence to %d", index, len(clip), self.min_samples)
            clip = np.pad(clip, (0, self.min_samples - len(clip)))
        return clip


VocalBurstFeatureExtractor.register_for_auto_class()
