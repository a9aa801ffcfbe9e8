"""The flags of a run that are ours, and our defaults of those that everyone needs. Imports no torch."""

import re
from dataclasses import dataclass
from typing import ClassVar, Literal

from transformers.hf_argparser import HfArg

from avb_hf.tasks import LossName

# A flag without a value means true. HfArg writes into the mapping it gets, so each flag needs a copy.
BARE = {"nargs": "?", "const": True}

CccScope = Literal["batch", "micro"]
CacheDtype = Literal["float32", "float16", "bfloat16"]
Precision = Literal["fp32", "bf16", "auto"]
Freeze = Literal["none", "feature_encoder", "backbone"]


@dataclass
class ModelArguments:
    """What the model is made of."""

    _argument_group_name: ClassVar[str] = "model"

    model_name_or_path: str | None = HfArg(
        default=None, help="Hub id or folder of a pretrained backbone, or of a checkpoint of ours"
    )
    model_revision: str | None = HfArg(
        default=None, help="branch, tag or commit of a Hub id; the commit it was is kept with the model"
    )
    encoder_config: str | None = HfArg(
        default=None, help="build a random backbone instead: a configuration as a JSON file or inline JSON"
    )
    feature_layer: int | None = HfArg(
        default=None, help="transformer block whose raw output the head reads (default: 12, or the last)"
    )
    states_norm: Literal["none", "layer"] | None = HfArg(
        default=None, help="LayerNorm between backbone and head (default: layer for Whisper, else none)"
    )
    rnn: Literal["lstm", "gru", "none"] | None = HfArg(
        default=None, help="recurrent layers over the frames (default: lstm)"
    )
    rnn_hidden_size: int | None = HfArg(default=None, help="width of each recurrent layer (default: 512)")
    rnn_num_layers: int | None = HfArg(default=None, help="number of recurrent layers (default: 2)")
    pooling: Literal["first", "last", "max", "mean", "mean_std", "attentive"] | None = HfArg(
        default=None, help="how frames become one score (default: last); the last two go with --pool_over states"
    )
    pool_over: Literal["logits", "states"] | None = HfArg(
        default=None, help="pool behind the linear layer or before it (default: logits, behind, as the paper)"
    )
    pooling_mask: bool | None = HfArg(
        default=None,
        help="leave padded frames out of the pooling, and of a batch norm over frames (default: true)",
        metadata=dict(BARE),
    )
    output_norm: Literal["none", "batch", "batch_for_ccc"] | None = HfArg(
        default=None, help="batch norm over the outputs, always or with the CCC loss (default: none)"
    )
    output_activation: Literal["none", "sigmoid"] | None = HfArg(
        default=None, help="sigmoid maps scores into the label range (default: sigmoid where there is a range)"
    )
    activation_before_pooling: bool | None = HfArg(
        default=None, help="activate frames rather than the pooled score (default: false)", metadata=dict(BARE)
    )
    masked_group_norm: bool | None = HfArg(
        default=None,
        help="group-norm statistics over valid frames only (default: true; false is stock transformers)",
        metadata=dict(BARE),
    )
    do_normalize: bool | None = HfArg(
        default=None,
        help="bring each clip to zero mean and unit variance (default: as the backbone's preprocessor config says)",
        metadata=dict(BARE),
    )
    loss: LossName | None = HfArg(default=None, help="training loss (default: the task's, or the checkpoint's)")
    ccc_reduction: Literal["mean", "sum"] | None = HfArg(
        default=None, help="how the CCC loss puts the outputs together (default: mean)"
    )
    class_weights: Literal["none", "balanced"] = HfArg(
        default="none", help="balanced weighs each class by the inverse of its share of the training clips"
    )


@dataclass
class RunArguments:
    """How a run goes, beyond transformers' own flags."""

    _argument_group_name: ClassVar[str] = "run"

    backbone_learning_rate: float | None = HfArg(
        default=None, help="learning rate of the backbone (default: a tenth of the head's, with --lora the same)"
    )
    freeze: Freeze = HfArg(
        default="feature_encoder", help="what is not trained: nothing, the convolutions, or the whole backbone"
    )
    freeze_blocks: int = HfArg(
        default=0, help="with --freeze feature_encoder: freeze this many transformer blocks as well"
    )
    frozen_dropout: bool = HfArg(
        default=False, help="leave dropout on inside what is frozen, as the published code does; needs --cache off"
    )
    cache: Literal["auto", "off"] = HfArg(
        default="auto", help="compute what is frozen once, and keep it on disk; off computes it in every step"
    )
    cache_dtype: CacheDtype = HfArg(
        default="float32", help="how cached states are stored; half precision takes half the room and is not exact"
    )
    precision: Precision = HfArg(
        default="auto", help="what steps are computed in; auto times both on this machine and takes the faster"
    )
    decay_all: bool = HfArg(default=False, help="weight decay for biases and norms too")
    ccc_scope: CccScope = HfArg(
        default="batch",
        help="the CCC loss is of the whole effective batch, over processes and accumulation, or of each part of it",
    )
    length_pool: int = HfArg(
        default=50, help="batches cut from one pool of clips sorted by length: less padding; 1 makes batches at random"
    )
    early_stopping_patience: int | None = HfArg(
        default=None, help="stop after this many evaluations without a better headline score (off)"
    )
    resume: str | None = HfArg(default=None, help="auto or a checkpoint folder: go on where a run of ours stopped")
    resume_from_hub: str | None = HfArg(
        default=None,
        help="Hub id: like --resume auto, with the newest checkpoint that was pushed there if it is newer",
    )
    allow_changed_args: bool = HfArg(
        default=False, help="resume although flags, task, model, data or number of processes have changed"
    )
    expect_world_size: int | None = HfArg(
        default=None, help="stop at once unless this many processes train together (default: any number)"
    )
    overwrite: bool = HfArg(default=False, help="delete an earlier run in --output_dir first")
    dry_run: bool = HfArg(default=False, help="check data, one batch and memory, print the plan, write nothing")
    estimate: bool = HfArg(
        default=False, help="run a few steps, tell hours and memory of the whole run, and write nothing"
    )
    license: str | None = HfArg(
        default=None,
        help="licence of the model in its card, such as apache-2.0 (none: the data's terms may bind the weights)",
    )
    team_name: str = HfArg(default="team", help="team in the name of a contest file: A-VB-High_<team>_<n>.csv")
    submission: int = HfArg(default=1, help="number in the name of a contest file")

    def __post_init__(self) -> None:
        for flag in ("length_pool", "early_stopping_patience", "expect_world_size"):
            value = getattr(self, flag)
            if value is not None and value < 1:
                raise ValueError(f"--{flag} must be at least 1, got {value}")
        if self.freeze_blocks < 0 or (self.freeze_blocks and self.freeze != "feature_encoder"):
            raise ValueError(
                f"--freeze_blocks must be 0 or more, and goes with --freeze feature_encoder, got {self.freeze_blocks} "
                f"and --freeze {self.freeze}"
            )
        if self.frozen_dropout and (self.freeze == "none" or self.cache != "off"):
            raise ValueError(
                "--frozen_dropout goes with something frozen, and needs --cache off: what differs from step to step "
                f"cannot be computed once; got --freeze {self.freeze} and --cache {self.cache}"
            )
        if self.license is not None and not re.fullmatch(r"[a-z0-9][a-z0-9.-]*", self.license):
            raise ValueError(f"--license must be an identifier of the Hub, such as apache-2.0, got {self.license!r}")
        rate = self.backbone_learning_rate
        if rate is not None and not 0 <= rate < float("inf"):
            raise ValueError(f"--backbone_learning_rate must be 0 or more, got {rate}")


@dataclass
class CommonArguments:
    """transformers' training flags that everyone needs, with our defaults."""

    _argument_group_name: ClassVar[str] = "training (transformers; --help_all lists the rest)"

    output_dir: str | None = HfArg(default=None, help="folder for the model, scores and predictions (required)")
    do_train: bool | None = HfArg(
        default=None, help="train (with no --do_* flag given, all three are done)", metadata={**BARE}
    )
    do_eval: bool | None = HfArg(default=None, help="score the validation split", metadata={**BARE})
    do_predict: bool | None = HfArg(
        default=None, help="predict the test split, and score it if it is labelled", metadata={**BARE}
    )
    learning_rate: float = HfArg(default=1e-4, help="initial learning rate of the head")
    num_train_epochs: float = HfArg(default=20.0, help="epochs")
    max_steps: int = HfArg(default=-1, help="optimizer steps, instead of epochs, if positive")
    per_device_train_batch_size: int = HfArg(default=16, help="training clips a device and step")
    per_device_eval_batch_size: int = HfArg(default=16, help="evaluation clips a device and step")
    gradient_accumulation_steps: int = HfArg(default=1, help="batches whose gradients make one optimizer step")
    seed: int = HfArg(default=42, help="seed of weights, order and dropout")
    bf16: bool = HfArg(default=False, help="the same as --precision bf16")
    push_to_hub: bool = HfArg(default=False, help="push the model to the Hub: code, card and scores, no pickle")
    hub_model_id: str | None = HfArg(default=None, help="its name there (default: that of the output folder)")
    hub_strategy: str = HfArg(
        default="every_save",
        help="when: at the end, at every_save, or with what --resume_from_hub needs: checkpoint or all_checkpoints",
    )
    hub_private_repo: bool | None = HfArg(
        default=None, help="false makes the repository public; else only its owner sees it", metadata={**BARE}
    )
    report_to: str = HfArg(default="none", help="where to log: none, all, tensorboard, wandb, trackio, ...")
