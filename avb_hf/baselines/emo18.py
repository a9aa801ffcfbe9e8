"""End2You's Emo-18: convolutions over frames of 0.1 s, an LSTM over the frames; trained from random weights.

Importing this module registers configuration, model and feature extractor with transformers' Auto classes.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from transformers import (
    AutoConfig,
    AutoFeatureExtractor,
    AutoModelForAudioClassification,
    PreTrainedConfig,
    PreTrainedModel,
)
from transformers.modeling_outputs import SequenceClassifierOutput

from avb_hf.baselines.losses import FITTING_LOSSES
from avb_hf.model import VocalBurstFeatureExtractor
from avb_hf.model.loading_vocal_burst import load_checkpoint
from avb_hf.model.losses_vocal_burst import ConfiguredLoss
from avb_hf.model.masks_vocal_burst import count_samples, frame_mask
from avb_hf.model.pooling_vocal_burst import LastPooling
from avb_hf.model.pushing_vocal_burst import push_saved
from avb_hf.tasks import check_choice

FRAME_SAMPLES = 1_600
CHANNELS = (1, 64, 128, 256)
# Kernel, padding and pool of each convolution.
STAGES = ((8, 3, 10), (6, 2, 8), (6, 2, 8))
FRAME_FEATURES = 512
RNN_HIDDEN_SIZE, RNN_NUM_LAYERS = 256, 2


class Emo18Config(PreTrainedConfig):
    """What an `Emo18ForVocalBurst` predicts and by which loss it learns that; its shape is fixed.

    Attributes:
        label_range: Lowest and highest label of a regression, as a note: scores are not held inside it.
        loss: Key of `LOSSES`; None is `mse` for a regression, `cross_entropy` for classes.
        class_weights: Weight of each class in the cross-entropy.

    Raises:
        ValueError: If the loss does not fit the problem.
    """

    model_type = "emo18"
    ccc_reduction = "mean"  # of the loss `ccc`, which is not the paper's choice for it

    label_range: list[float] | tuple[float, float] | None = None
    loss: str | None = None
    class_weights: list[float] | None = None

    def __post_init__(self, **kwargs: Any) -> None:
        super().__post_init__(**kwargs)
        self.problem_type = self.problem_type or "regression"
        check_choice("problem_type", self.problem_type, tuple(FITTING_LOSSES))
        losses = FITTING_LOSSES[self.problem_type]
        self.loss = self.loss or losses[0]
        check_choice(f"loss of a {self.problem_type}", self.loss, losses)

    @property
    def label_names(self) -> list[str]:
        """Names of the output columns in order."""
        return [self.id2label[index] for index in range(self.num_labels)]

    @property
    def max_samples(self) -> int | None:
        """Longest clip, in samples at 16 kHz: there is no limit."""
        return None

    @property
    def min_samples(self) -> int:
        """Shortest clip, in samples at 16 kHz: one frame."""
        return FRAME_SAMPLES


class Emo18ForVocalBurst(ConfiguredLoss, PreTrainedModel):
    """A convolutional and recurrent network that scores vocal bursts from the waveform.

    Waveform -> frames of 0.1 s -> three times convolution, batch norm, leaky ReLU and max pooling -> LSTM -> linear
    layer on the last frame. Only whole frames count: what is left of a clip behind the last one is not heard, and a
    clip shorter than a frame is refused. Frames of padding are not convolved, so none reaches the batch norm.

    Args:
        config: The model's configuration. The weights are random; see `from_pretrained` for trained ones.

    Reference:
        P. Tzirakis, J. Zhang, B. W. Schuller (2018). End-to-end Speech Emotion Recognition Using Deep Neural Networks.
        ICASSP. In the toolkit: P. Tzirakis, S. Zafeiriou, B. W. Schuller (2018). End2You. arXiv:1802.01115.
    """

    config_class = Emo18Config
    main_input_name = "input_values"
    input_modalities = ("audio",)
    accepts_loss_kwargs = False  # a number of labels to divide by: the whole batch makes one loss
    frozen_blocks: int | None = None  # all is trained, so nothing is computed once

    def __init__(self, config: Emo18Config) -> None:
        super().__init__(config)
        stages = zip(pairwise(CHANNELS), STAGES, strict=True)
        self.convolutions = nn.Sequential(*(_stage(*channels, *shape) for channels, shape in stages))
        self.rnn = nn.LSTM(FRAME_FEATURES, RNN_HIDDEN_SIZE, RNN_NUM_LAYERS, batch_first=True)
        self.pooling = LastPooling(RNN_HIDDEN_SIZE)
        self.classifier = nn.Linear(RNN_HIDDEN_SIZE, config.num_labels)
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        """Start convolutions and linear layer as End2You does; batch norm and LSTM stay as PyTorch starts them."""
        if isinstance(module, nn.Conv1d | nn.Linear):
            nn.init.kaiming_normal_(module.weight)
            nn.init.zeros_(module.bias)

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str, *model_args: Any, **kwargs: Any) -> Any:
        """Load a checkpoint of this class, in float32 unless `dtype` says otherwise.

        Args:
            pretrained_model_name_or_path: A Hub id or folder.
            *model_args: Passed on by transformers; none is expected.
            **kwargs: transformers' loading arguments (`revision`, `dtype`, ...).

        Returns:
            The model in evaluation mode; with `output_loading_info=True` also transformers' report.

        Raises:
            ValueError: If the checkpoint lacks weights of the model, has others, or holds values that are not finite.
        """
        kwargs.setdefault("dtype", torch.float32)
        return load_checkpoint(cls, super().from_pretrained, pretrained_model_name_or_path, {}, kwargs)

    def push_to_hub(self, repo_id: str, *, private: bool | None = True, **kwargs: Any) -> str:
        """Upload what `save_pretrained` leaves, as `Wav2Vec2ForVocalBurst.push_to_hub` does."""
        return push_saved(self.save_pretrained, type(self).__name__, repo_id, private, **kwargs)

    def forward(
        self, input_values: Tensor, attention_mask: Tensor | None = None, labels: Tensor | None = None
    ) -> SequenceClassifierOutput:
        """Score a batch of clips.

        Args:
            input_values: Waveforms at 16 kHz of shape `(batch, samples)`, padded on the right.
            attention_mask: 1 for true samples and 0 for padding, of the same shape; None if no clip is padded.
            labels: Intensities `(batch, num_labels)`, NaN if missing, or class indices `(batch,)`, -100 if missing.

        Returns:
            `logits` of shape `(batch, num_labels)`: a regression's final scores, which no activation bounds, or the raw
            class scores; and `loss` where labels are given.

        Raises:
            ValueError: If a clip is shorter than a frame, or labels have the wrong shape.
        """
        num_frames = count_samples(input_values, attention_mask, FRAME_SAMPLES) // FRAME_SAMPLES
        features = self._convolve(input_values, num_frames)  # (batch, frames, features)
        with torch.autocast(features.device.type, enabled=False):
            states, _ = self.rnn(features)  # (batch, frames, hidden)
            logits = self.classifier(self.pooling(states, num_frames))  # (batch, labels)
            loss = None if labels is None else self.compute_loss(logits, labels)
        return SequenceClassifierOutput(loss=loss, logits=logits)

    def _convolve(self, input_values: Tensor, num_frames: Tensor) -> Tensor:
        frames = input_values.to(self.dtype).unfold(1, FRAME_SAMPLES, FRAME_SAMPLES)  # (batch, frames, samples)
        frames = frames[frame_mask(num_frames, frames.shape[1])]  # (valid_frames, samples)
        features = self.convolutions(frames[:, None]).flatten(1)  # (valid_frames, features)
        return pad_sequence(features.to(self.dtype).split(num_frames.tolist()), batch_first=True)


def _stage(in_channels: int, channels: int, kernel: int, padding: int, pool: int) -> nn.Sequential:
    convolution = nn.Conv1d(in_channels, channels, kernel, padding=padding)
    return nn.Sequential(convolution, nn.BatchNorm1d(channels), nn.LeakyReLU(), nn.MaxPool1d(pool))


AutoConfig.register(Emo18Config.model_type, Emo18Config, exist_ok=True)
AutoModelForAudioClassification.register(Emo18Config, Emo18ForVocalBurst, exist_ok=True)
AutoFeatureExtractor.register(Emo18Config, VocalBurstFeatureExtractor, exist_ok=True)
