"""The model: a backbone's raw block output, a recurrent head, masked pooling and a loss."""

from __future__ import annotations

import os
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedModel
from transformers.modeling_outputs import SequenceClassifierOutput

from .configuration_vocal_burst import VocalBurstConfig
from .encoders_vocal_burst import ENCODERS, settle_attention
from .feature_extraction_vocal_burst import VocalBurstFeatureExtractor
from .loading_vocal_burst import load_backbone, load_checkpoint, read_model_type, take_fields
from .losses_vocal_burst import ConfiguredLoss, at_least_float32
from .masks_vocal_burst import count_samples
from .pooling_vocal_burst import POOLINGS
from .pushing_vocal_burst import push_saved
from .saving_vocal_burst import save_complete

RNN_CLASSES: dict[str, type[nn.RNNBase]] = {"lstm": nn.LSTM, "gru": nn.GRU}


class Wav2Vec2ForVocalBurst(ConfiguredLoss, PreTrainedModel):
    """A speech encoder with a recurrent head that scores the emotion in vocal bursts.

    Waveform -> raw output of the backbone's block `feature_layer` -> LSTM -> linear layer per frame -> pooling over the
    valid frames -> score of the clip (D.-K. Nguyen et al., 2022, Fine-tuning Wav2vec for Vocal-burst Emotion
    Recognition). The backbone may be wav2vec 2.0, HuBERT, WavLM or the Whisper encoder.

    Args:
        config: The model's configuration. The weights are random; see `from_pretrained` for trained ones.

    Attributes:
        feature_extractor: What brings waveforms into the form that the model was trained on; it is saved beside it.

    Raises:
        ValueError: If the backbone's model type is not supported, or it has no such attention.
    """

    config_class = VocalBurstConfig
    base_model_prefix = "encoder"
    main_input_name = "input_values"
    input_modalities = ("audio",)
    supports_gradient_checkpointing = True
    accepts_loss_kwargs = False  # a number of labels to divide by: the whole effective batch makes one loss
    _supports_sdpa = True

    def __init__(self, config: VocalBurstConfig) -> None:
        encoder_config = config.encoder_config
        if encoder_config.model_type not in ENCODERS:
            raise ValueError(f"a backbone must be one of {list(ENCODERS)}, got {encoder_config.model_type!r}")
        settle_attention(config)
        super().__init__(config)
        self.encoder = ENCODERS[encoder_config.model_type](encoder_config, config.masked_group_norm)
        width = encoder_config.hidden_size
        self.states_norm = nn.LayerNorm(width) if config.states_norm == "layer" else None
        self.rnn = None
        if config.rnn != "none":
            self.rnn = RNN_CLASSES[config.rnn](width, config.rnn_hidden_size, config.rnn_num_layers, batch_first=True)
            width = config.rnn_hidden_size
        pools_states = config.pool_over == "states"
        self.pooling = POOLINGS[config.pooling](width if pools_states else config.num_labels)
        self.classifier = nn.Linear(self.pooling.out_features if pools_states else width, config.num_labels)
        self.output_norm = nn.BatchNorm1d(config.num_labels) if config.output_norm == "batch" else None
        self.feature_extractor = VocalBurstFeatureExtractor.for_backbone(None, config)
        self.frozen_blocks: int | None = None
        self._frozen: list[nn.Module] = []
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        """Start the head as PyTorch does; the backbone's own class starts the backbone."""
        if isinstance(module, nn.RNNBase | nn.Linear | nn.LayerNorm | nn.BatchNorm1d):
            module.reset_parameters()

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str, *model_args: Any, **kwargs: Any) -> Any:
        """Load one of our checkpoints, or put a new head onto a pretrained backbone.

        Weights are float32 unless `dtype` says otherwise.

        Args:
            pretrained_model_name_or_path: A Hub id or folder, of a backbone or of a checkpoint of this class.
            *model_args: Passed on by transformers; none is expected.
            **kwargs: Fields of `VocalBurstConfig`, and transformers' loading arguments (`revision`, `dtype`, ...).

        Returns:
            The model in evaluation mode; with `output_loading_info=True` also transformers' report.

        Raises:
            TypeError: If an argument does not exist; the message names the nearest.
            ValueError: If the checkpoint lacks weights of the model, has others, or holds values that are not finite.
        """
        overrides = take_fields(cls.config_class, kwargs)
        kwargs.setdefault("dtype", kwargs.pop("torch_dtype", torch.float32))
        model_type = read_model_type(pretrained_model_name_or_path, kwargs)
        if model_type == cls.config_class.model_type:
            return load_checkpoint(cls, super().from_pretrained, pretrained_model_name_or_path, overrides, kwargs)
        return load_backbone(cls, ENCODERS, model_type, pretrained_model_name_or_path, overrides, kwargs)

    def save_pretrained(self, save_directory: str | os.PathLike, is_main_process: bool = True, **kwargs: Any) -> None:
        """Save all that is needed to use the model where this package is not installed.

        That is weights, configuration, `preprocessor_config.json`, the code of these and of the pipeline, and a short
        card where there is none, or one of ours that names other labels.

        Args:
            save_directory: The folder, which is made.
            is_main_process: Whether this process writes.
            **kwargs: Further arguments of transformers' `save_pretrained`, those of its `push_to_hub` included.
        """
        save_complete(self, super().save_pretrained, save_directory, is_main_process, **kwargs)

    def push_to_hub(self, repo_id: str, *, private: bool | None = True, **kwargs: Any) -> str:
        """Upload what `save_pretrained` leaves.

        Args:
            repo_id: Name of the repository.
            private: Whether it must be private; None leaves it as it is, and is the owner's default for a new one.
            **kwargs: Further arguments of transformers' `push_to_hub`.

        Returns:
            URL of the commit.

        Raises:
            ValueError: If it is to be private, and a public repository of that name exists.
        """
        return push_saved(self.save_pretrained, type(self).__name__, repo_id, private, **kwargs)

    def freeze_feature_encoder(self, keep_dropout: bool = False) -> None:
        """Freeze the convolutional front end, as `freeze_blocks(0)` does."""
        self.freeze_blocks(0, keep_dropout)

    def freeze_blocks(self, num_blocks: int, keep_dropout: bool = False) -> None:
        """Freeze all that makes the output of a block: no gradient, always in evaluation mode.

        Args:
            num_blocks: The block, counted from 1; 0 is the convolutional front end.
            keep_dropout: Whether its mode stays that of the model, so that it is run with the rest, in every step.

        Raises:
            ValueError: If there is no such block.
        """
        if not 0 <= num_blocks <= self.config.feature_layer:
            raise ValueError(f"freeze_blocks must be from 0 to {self.config.feature_layer}, got {num_blocks}")
        self._freeze(self.encoder.modules_up_to(num_blocks), num_blocks, keep_dropout)

    def freeze_base_model(self, keep_dropout: bool = False) -> None:
        """Freeze the whole backbone, as `freeze_blocks` of the last block does."""
        self._freeze([self.encoder], self.config.feature_layer, keep_dropout)

    def _freeze(self, modules: list[nn.Module], num_blocks: int, keep_dropout: bool) -> None:
        for module in modules:
            module.requires_grad_(False)
        if not keep_dropout:  # what is drawn anew in every step cannot be run beforehand
            self.frozen_blocks = max(num_blocks, self.frozen_blocks or 0)
            self._frozen = [*self._frozen, *modules]
            self.train(self.training)

    def train(self, mode: bool = True) -> Wav2Vec2ForVocalBurst:
        """Set training mode, except for what is frozen."""
        super().train(mode)
        for module in self._frozen:
            module.eval()
        return self

    def forward(
        self,
        input_values: Tensor | None = None,
        attention_mask: Tensor | None = None,
        labels: Tensor | None = None,
        frozen_states: Tensor | None = None,
        num_frames: Tensor | None = None,
    ) -> SequenceClassifierOutput:
        """Score a batch of clips.

        Args:
            input_values: Waveforms at 16 kHz of shape `(batch, samples)`, padded on the right.
            attention_mask: 1 for true samples and 0 for padding, of the same shape; None if no clip is padded.
            labels: Intensities `(batch, num_labels)`, NaN if missing, or class indices `(batch,)`, -100 if missing.
            frozen_states: What `run_frozen` made of the waveforms, instead of them.
            num_frames: Valid frames of each clip, `(batch,)`, beside `frozen_states`.

        Returns:
            `logits` of shape `(batch, num_labels)`: a regression's final scores, output activation applied, or the raw
            class scores; and `loss` where labels are given.

        Raises:
            ValueError: If a clip is shorter than `config.min_samples`, or labels have the wrong shape.
        """
        if frozen_states is None:
            frozen_states, num_frames = self.run_frozen(input_values, attention_mask)
        states = self.encoder.blocks(frozen_states, num_frames, self.frozen_blocks or 0)  # (batch, frames, hidden)
        with torch.autocast(states.device.type, enabled=False):
            logits = self.score_states(states, num_frames)  # (batch, labels)
            loss = None if labels is None else self.compute_loss(logits, labels)
        return SequenceClassifierOutput(loss=loss, logits=logits)

    def run_frozen(self, input_values: Tensor, attention_mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Run waveforms through what is frozen, without gradient; where nothing is, through the front end with it.

        On a CPU each clip is run alone, so that its states do not depend, to the last bit, on its batch mates. Frozen
        states are at least float32, whatever they were computed in.

        Args:
            input_values: As in `forward`.
            attention_mask: As in `forward`.

        Returns:
            Features of the front end `(batch, frames, channels)` or output of block `frozen_blocks`
            `(batch, frames, hidden)`, and the valid frames of each clip, `(batch,)`.
        """
        num_samples = count_samples(input_values, attention_mask, self.config.min_samples)
        if self.frozen_blocks is None:
            return self.encoder.front_end(input_values, num_samples)
        with torch.no_grad():
            if input_values.device.type != "cpu":
                return self._frozen_part(input_values, num_samples)
            clips = zip(input_values, num_samples, strict=True)
            parts = [self._frozen_part(clip[None, :length], length[None]) for clip, length in clips]
        states = pad_sequence([states[0] for states, _ in parts], batch_first=True)
        return states, torch.cat([num_frames for _, num_frames in parts])

    def _frozen_part(self, input_values: Tensor, num_samples: Tensor) -> tuple[Tensor, Tensor]:
        features, num_frames = self.encoder.front_end(input_values, num_samples)
        if self.frozen_blocks:
            features = self.encoder.blocks(features, num_frames, stop=self.frozen_blocks)
        return at_least_float32(features), num_frames

    def score_states(self, states: Tensor, num_frames: Tensor) -> Tensor:
        """Run the head over backbone states.

        Args:
            states: Raw block output of shape `(batch, frames, hidden)`.
            num_frames: Valid frames of each clip, of shape `(batch,)`.

        Returns:
            Scores of shape `(batch, num_labels)`.
        """
        config = self.config
        pooled_frames = torch.full_like(num_frames, states.shape[1]) if config.pools_padding else num_frames
        if config.pool_over == "states":
            pooled = self.pooling(self._recur(states), pooled_frames)  # (batch, features)
            return self._activate(self._normalise(self.classifier(pooled)))  # (batch, labels)
        scores = self.pooling(self.score_frames(states, num_frames), pooled_frames)  # (batch, labels)
        return scores if config.activation_before_pooling else self._activate(scores)

    def score_frames(self, states: Tensor, num_frames: Tensor) -> Tensor:
        """Run the head up to the pooling of scores.

        Args:
            states: As in `score_states`.
            num_frames: As in `score_states`.

        Returns:
            What is pooled to a clip's scores, `(batch, frames, num_labels)`: through the output activation only where
            `activation_before_pooling` says so.

        Raises:
            ValueError: If the model pools states, so that no frame has a score.
        """
        if self.config.pool_over == "states":
            raise ValueError("no frame has a score: pool_over must be 'logits' for that, got 'states'")
        frames = self.classifier(self._recur(states))  # (batch, frames, labels)
        frames = self._normalise(frames, num_frames if self.config.pooling_mask else None)
        return self._activate(frames) if self.config.activation_before_pooling else frames

    def _recur(self, states: Tensor) -> Tensor:
        states = states.to(self.classifier.weight.dtype)
        if self.states_norm is not None:
            states = self.states_norm(states)
        return states if self.rnn is None else self.rnn(states)[0]

    def _normalise(self, scores: Tensor, num_frames: Tensor | None = None) -> Tensor:
        """Batch-normalise scores over clips, and over their frames where they have such, of each the first or all."""
        if self.output_norm is None:
            return scores
        if num_frames is None:
            return self.output_norm(scores.flatten(0, -2)).view_as(scores)
        pooled = torch.arange(scores.shape[1], device=scores.device) < num_frames[:, None]
        return scores.masked_scatter(pooled[:, :, None], self.output_norm(scores[pooled]))

    def _activate(self, scores: Tensor) -> Tensor:
        if self.config.output_activation == "none":
            return scores
        low, high = self.config.label_range
        return low + (high - low) * torch.sigmoid(at_least_float32(scores))


Wav2Vec2ForVocalBurst.register_for_auto_class("AutoModelForAudioClassification")
