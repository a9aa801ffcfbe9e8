"""The flags of `avb baseline emo18`: those of `avb train` without what Emo-18 has not, with its defaults. No torch."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from avb_hf.tasks import LossName
from avb_hf.training.arguments import CacheDtype, CommonArguments, Freeze, RunArguments


def settled(value: Any) -> Any:
    """Make a dataclass field that is no flag: it holds `value`."""
    return field(default_factory=lambda: value, init=False)


def with_default(owner: type[CommonArguments], name: str, default: Any) -> Any:
    """Make a flag like that of another dataclass, with another default."""
    return field(default=default, metadata=owner.__dataclass_fields__[name].metadata)


@dataclass
class Emo18Arguments:
    """What Emo-18 is trained by; its shape is fixed."""

    _argument_group_name: ClassVar[str] = "model"

    loss: LossName | None = field(
        default=None, metadata={"help": "training loss (default: mse, for classes cross_entropy)"}
    )
    class_weights: Literal["none", "balanced"] = field(
        default="none",
        metadata={"help": "balanced weighs each class by the inverse of its share of the training clips"},
    )


@dataclass
class Emo18RunArguments(RunArguments):
    """How a run goes. There is no backbone: nothing has a learning rate of its own, is frozen or is cached."""

    backbone_learning_rate: float | None = settled(None)
    freeze: Freeze = settled("none")
    freeze_blocks: int = settled(0)
    frozen_dropout: bool = settled(False)
    cache: Literal["auto", "off"] = settled("off")
    cache_dtype: CacheDtype = settled("float32")
    length_pool: int = field(
        default=1,
        metadata={"help": "batches cut from one pool of clips sorted by length; 1, as End2You, makes them at random"},
    )


@dataclass
class Emo18CommonArguments(CommonArguments):
    """transformers' training flags that everyone needs, with End2You's defaults."""

    learning_rate: float = field(default=1e-4, metadata={"help": "learning rate"})
    num_train_epochs: float = with_default(CommonArguments, "num_train_epochs", 30.0)
    per_device_train_batch_size: int = with_default(CommonArguments, "per_device_train_batch_size", 8)
    gradient_accumulation_steps: int = field(
        default=1, metadata={"help": "must be 1: the batch norm needs the whole batch"}
    )
