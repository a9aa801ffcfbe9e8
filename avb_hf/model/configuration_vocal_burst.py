"""Configuration of a vocal-burst model: a backbone's configuration and the fields of the head."""

from __future__ import annotations

import copy
import difflib
import math
from collections.abc import Iterable
from typing import Any, ClassVar

from transformers import CONFIG_MAPPING, AutoConfig, PreTrainedConfig

from .losses_vocal_burst import CCC_REDUCTIONS, LOSSES
from .pooling_vocal_burst import POOLINGS

RNNS = ("lstm", "gru", "none")
SAMPLING_RATE = 16_000
DEFAULT_FEATURE_LAYER = 12
WHISPER_HOP, WHISPER_WINDOW = 160, 400

CHOICES: dict[str, tuple[str, ...]] = {
    "rnn": RNNS,
    "pooling": tuple(POOLINGS),
    "pool_over": ("logits", "states"),
    "states_norm": ("none", "layer"),
    "output_norm": ("none", "batch", "batch_for_ccc"),
    "output_activation": ("none", "sigmoid"),
    "problem_type": ("regression", "single_label_classification"),
    "loss": tuple(LOSSES),
    "ccc_reduction": tuple(CCC_REDUCTIONS),
}
# Dropped blocks and masked frames would make block k's output random or absent; an adapter stands behind it.
TURNED_OFF = {
    "layerdrop": 0.0,
    "encoder_layerdrop": 0.0,
    "mask_time_prob": 0.0,
    "mask_feature_prob": 0.0,
    "add_adapter": False,
}

# What transformers itself passes to a configuration, so no misspelling.
LOADING_KEYS = {
    "attn_implementation", "auto_map", "custom_pipelines", "experts_implementation", "model_type", "name_or_path",
    "num_labels", "output_attentions", "torch_dtype", "transformers_version",
}  # fmt: skip


def nearest(name: str, known: Iterable[str]) -> str:
    """Return `; did you mean 'x'?` for the known name most like `name`, or an empty string."""
    near = difflib.get_close_matches(name, list(known), n=1)
    return f"; did you mean {near[0]!r}?" if near else ""


class VocalBurstConfig(PreTrainedConfig):
    """Everything that defines a `Wav2Vec2ForVocalBurst`, as it stands in `config.json`.

    Fields left at None are resolved when the configuration is made, and the resolved value is stored.

    Attributes:
        encoder_config: Configuration of the backbone (wav2vec2, hubert, wavlm or whisper), as object or mapping. It is
            cut to `feature_layer` blocks, and its layerdrop and SpecAugment are turned off.
        feature_layer: The transformer block, counted from 1, whose raw output the head reads; None is block 12, or the
            last where there are fewer.
        states_norm: `layer` puts a LayerNorm between backbone and head; None is `layer` for Whisper, else `none`.
        rnn: Recurrent layers over the frames: `lstm`, `gru` or `none`; unidirectional.
        rnn_hidden_size: Width of each recurrent layer.
        rnn_num_layers: Number of recurrent layers.
        pooling: Key of `POOLINGS`.
        pool_over: `logits` pools the linear layer's output per frame (the paper), `states` pools what it reads, which
            poolings that make wider rows need.
        pooling_mask: Whether pooling, and a batch norm over frames, leave padded frames out. False reproduces code that
            did not.
        output_norm: `batch` puts a batch norm over the outputs; `batch_for_ccc` is `batch` where `loss` is `ccc`, else
            `none`.
        output_activation: `sigmoid` maps scores into `label_range`; None is `sigmoid` where there is a range.
        label_range: Lowest and highest label of a regression; None if labels are unbounded or classes.
        activation_before_pooling: Whether the activation is applied to frames rather than to the pooled score.
        loss: Key of `LOSSES`; None is `ccc` for a regression, `cross_entropy` for classes.
        ccc_reduction: Key of `CCC_REDUCTIONS`: how the loss `ccc` puts the outputs together; others do not ask.
        class_weights: Weight of each class in the cross-entropy.
        masked_group_norm: Whether a group-norm front end takes its statistics over valid frames only.
        base_model: Hub id of what the training began from; None for a folder or random weights.
        base_model_revision: Commit of `base_model`.

    Raises:
        TypeError: If an argument does not exist; the message names the nearest.
        ValueError: If a value is not allowed, or values contradict each other.
    """

    model_type = "vocal_burst"
    sub_configs: ClassVar[dict[str, type]] = {"encoder_config": AutoConfig}

    encoder_config: Any = None
    feature_layer: int | None = None
    states_norm: str | None = None
    rnn: str = "lstm"
    rnn_hidden_size: int = 512
    rnn_num_layers: int = 2
    pooling: str = "last"
    pool_over: str = "logits"
    pooling_mask: bool = True
    output_norm: str = "none"
    output_activation: str | None = None
    label_range: list[float] | tuple[float, float] | None = None
    activation_before_pooling: bool = False
    loss: str | None = None
    ccc_reduction: str = "mean"
    class_weights: list[float] | None = None
    masked_group_norm: bool = True
    base_model: str | None = None
    base_model_revision: str | None = None

    def __post_init__(self, **kwargs: Any) -> None:
        is_saved = self.transformers_version is not None
        if not is_saved:
            _refuse_unknown(kwargs, vars(self))
        self.encoder_config = _as_config(self.encoder_config, is_saved)
        self._resolve()
        super().__post_init__(**kwargs)
        self.problem_type = self.problem_type or "regression"
        self.loss = self.loss or ("cross_entropy" if self.problem_type == "single_label_classification" else "ccc")
        if self.output_norm == "batch_for_ccc":
            self.output_norm = "batch" if self.loss == "ccc" else "none"
        self._check()

    def _resolve(self) -> None:
        encoder = self.encoder_config
        for field, off in TURNED_OFF.items():
            if hasattr(encoder, field):
                setattr(encoder, field, off)
        encoder.dtype = None  # a half-precision backbone would make our checkpoint reload in half precision
        blocks = encoder.num_hidden_layers
        if self.feature_layer is None:
            self.feature_layer = min(DEFAULT_FEATURE_LAYER, blocks)
        if not 1 <= self.feature_layer <= blocks:
            raise ValueError(f"feature_layer must be a block from 1 to {blocks}, got {self.feature_layer}")
        encoder.num_hidden_layers = self.feature_layer
        if self.states_norm is None:
            self.states_norm = "layer" if encoder.model_type == "whisper" else "none"
        if self.output_activation is None:
            self.output_activation = "none" if self.label_range is None else "sigmoid"
        if self.label_range is not None:
            self.label_range = [float(bound) for bound in self.label_range]

    def _check(self) -> None:
        for field, allowed in CHOICES.items():
            value = getattr(self, field)
            if value not in allowed:
                raise ValueError(f"{field} must be one of {list(allowed)}, got {value!r}{nearest(str(value), allowed)}")
        if self.output_activation == "sigmoid" and self.label_range is None:
            raise ValueError("output_activation='sigmoid' needs label_range, the lowest and highest label")
        if self.label_range is not None and self.problem_type != "regression":
            raise ValueError(f"label_range belongs to a regression, got problem_type {self.problem_type!r}")
        if self.label_range is not None and not (
            len(self.label_range) == 2 and self.label_range[0] < self.label_range[1]
        ):
            raise ValueError(f"label_range must be (low, high) with low < high, got {self.label_range}")
        if self.activation_before_pooling and self.pool_over == "states":
            raise ValueError("activation_before_pooling needs pool_over='logits': no frame has a score")
        num_pooled = POOLINGS[self.pooling].widening * self.num_labels
        if self.pool_over == "logits" and num_pooled != self.num_labels:
            raise ValueError(
                f"pooling {self.pooling!r} needs pool_over='states', got 'logits': it would make {num_pooled} scores "
                f"of {self.num_labels}"
            )
        if (self.loss == "cross_entropy") != (self.problem_type == "single_label_classification"):
            raise ValueError(f"loss {self.loss!r} does not fit problem_type {self.problem_type!r}")
        if self.class_weights is not None and self.loss != "cross_entropy":
            raise ValueError(f"class_weights go with loss 'cross_entropy', got loss {self.loss!r}")
        if self.class_weights is not None and len(self.class_weights) != self.num_labels:
            raise ValueError(f"class_weights must have {self.num_labels} values, got {len(self.class_weights)}")

    @property
    def label_names(self) -> list[str]:
        """Names of the output columns in order."""
        return [self.id2label[index] for index in range(self.num_labels)]

    @property
    def pools_padding(self) -> bool:
        """Whether pooling reads padded frames too, so that a clip's scores depend on how far its batch is padded."""
        return not (self.pooling_mask or POOLINGS[self.pooling].picks_one_frame)

    @property
    def causes_of_padded_states(self) -> list[str]:
        """Why raw states depend on how far a clip's batch is padded; empty if they do not."""
        has_group_norm = getattr(self.encoder_config, "feat_extract_norm", None) == "group"
        if self.masked_group_norm or not has_group_norm:
            return []
        return ["masked_group_norm is false: the front end's group norm takes padding into its statistics"]

    @property
    def causes_of_padded_scores(self) -> list[str]:
        """Why scores do; empty if they do not."""
        pooling = [f"pooling_mask is false: {self.pooling} pooling reads padded frames"] * self.pools_padding
        return [*pooling, *self.causes_of_padded_states]

    @property
    def max_samples(self) -> int | None:
        """Longest clip, in samples at 16 kHz; None if there is no limit."""
        if self.encoder_config.model_type != "whisper":
            return None
        return 2 * self.encoder_config.max_source_positions * WHISPER_HOP

    @property
    def min_samples(self) -> int:
        """Shortest clip, in samples at 16 kHz, that gives one valid frame."""
        if self.encoder_config.model_type == "whisper":
            return WHISPER_WINDOW // 2 + 1  # the reflection at the clip's end needs half a window
        samples = 1
        layers = list(zip(self.encoder_config.conv_kernel, self.encoder_config.conv_stride, strict=True))
        for kernel, stride in reversed(layers):
            samples = (samples - 1) * stride + kernel
        return samples

    @property
    def frame_hop(self) -> int:
        """Samples, at 16 kHz, from one frame to the next."""
        if self.encoder_config.model_type == "whisper":
            return 2 * WHISPER_HOP
        return math.prod(self.encoder_config.conv_stride)

    @property
    def first_frame_centre(self) -> float:
        """Middle, in samples at 16 kHz, of what the convolutions of the first frame see."""
        return 0.0 if self.encoder_config.model_type == "whisper" else (self.min_samples - 1) / 2


def _as_config(encoder_config: dict | PreTrainedConfig | None, is_saved: bool) -> PreTrainedConfig:
    """Turn a mapping with a `model_type` into that type's configuration; None is wav2vec2's default."""
    if isinstance(encoder_config, PreTrainedConfig):
        return copy.deepcopy(encoder_config)  # it is cut below; the caller's stays whole
    fields = dict(encoder_config or {})
    model_type = fields.pop("model_type", "wav2vec2")
    if model_type not in CONFIG_MAPPING:
        raise ValueError(
            f"encoder_config: transformers knows no model_type {model_type!r}{nearest(model_type, CONFIG_MAPPING)}"
        )
    config_class = CONFIG_MAPPING[model_type]
    if not is_saved:
        _refuse_unknown(fields, {*vars(config_class()), *config_class.attribute_map}, "encoder_config: ")
    return config_class(**fields)


def _refuse_unknown(given: Iterable[str], known: Iterable[str], where: str = "") -> None:
    for name in given:
        if name not in LOADING_KEYS and name not in known:
            raise TypeError(f"{where}no configuration argument is named {name!r}{nearest(name, known)}")


VocalBurstConfig.register_for_auto_class()
