"""The flags of `--lora`, by which a backbone learns with few weights. Imports no torch."""

from __future__ import annotations

from dataclasses import MISSING, Field, dataclass, field, fields
from importlib.util import find_spec
from typing import Any

from avb_hf.training.arguments import ModelArguments

# The projections that LoRA's paper adapts; every backbone has layers of these names.
TARGET_MODULES = ("q_proj", "v_proj")


@dataclass
class LoraArguments(ModelArguments):
    """What the model is made of, and whether its backbone learns itself or by adapters.

    Raises:
        ImportError: If there are to be adapters and peft is not installed.
        ValueError: If a value is not allowed, or is given without `--lora`.

    Reference:
        E. J. Hu et al. (2021). LoRA: Low-Rank Adaptation of Large Language Models. arXiv:2106.09685.
    """

    lora: bool = field(
        default=False,
        metadata={"help": "train low-rank adapters in the backbone's blocks instead of its own weights (needs peft)"},
    )
    lora_r: int = field(default=8, metadata={"help": "rank of each adapter"})
    lora_alpha: int = field(default=16, metadata={"help": "what an adapter adds is scaled by this over its rank"})
    lora_dropout: float = field(default=0.0, metadata={"help": "dropout of what an adapter reads, in training"})
    lora_target_modules: list[str] = field(
        default_factory=lambda: list(TARGET_MODULES),
        metadata={"help": "linear layers that get an adapter, by the last part of their names"},
    )

    def __post_init__(self) -> None:
        if not self.lora:
            for own in fields(self):
                if own.name.startswith("lora_") and getattr(self, own.name) != _default(own):
                    raise ValueError(f"--{own.name} goes with --lora, which is not given")
            return
        if find_spec("peft") is None:
            raise ImportError("--lora needs peft: pip install 'avb_hf[lora]'")
        if self.encoder_config is not None:
            raise ValueError(
                "--lora adapts pretrained weights, and --encoder_config makes random ones: give --model_name_or_path"
            )
        for flag in ("lora_r", "lora_alpha"):
            if getattr(self, flag) < 1:
                raise ValueError(f"--{flag} must be at least 1, got {getattr(self, flag)}")
        if not 0 <= self.lora_dropout < 1:
            raise ValueError(f"--lora_dropout must be in [0, 1), got {self.lora_dropout}")


def _default(flag: Field) -> Any:
    return flag.default if flag.default_factory is MISSING else flag.default_factory()
