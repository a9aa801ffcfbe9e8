"""`--lora`: adapters by peft beside frozen linear layers of the backbone; the head is trained in full.

They are put into the model in place, so that its class, the names outside the adapted layers and all that runs it stay
what they are. In the end they are merged into the weights, and the model is a plain one again.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel, TrainingArguments

from avb_hf.model import VocalBurstConfig, VocalBurstFeatureExtractor, Wav2Vec2ForVocalBurst
from avb_hf.tasks import TaskSpec, check_choice
from avb_hf.training.arguments import RunArguments
from avb_hf.training.build import build_for_run
from avb_hf.training.lora_arguments import LoraArguments
from avb_hf.training.optimizer import BACKBONE_PREFIX
from avb_hf.training.wavlm_attention import call_projections, restore_attention

logger = logging.getLogger(__name__)

ADAPTER = "default"


def build_adapted(
    task: TaskSpec, args: LoraArguments, run_args: RunArguments, train_labels: Sequence[Any] | None = None
) -> tuple[Wav2Vec2ForVocalBurst, VocalBurstFeatureExtractor]:
    """Build the proposed model as `build_for_run` does, with adapters if `--lora` asks for them.

    Raises:
        ValueError: If the flags cannot be used, or leave nothing to adapt.
    """
    if args.lora and run_args.freeze != "feature_encoder":
        raise ValueError(
            "--lora never trains the backbone's own weights, and adapts its blocks: it goes with --freeze "
            f"feature_encoder, and --freeze_blocks for blocks without adapters, got --freeze {run_args.freeze}"
        )
    model, extractor = build_for_run(task, args, run_args, train_labels)
    if args.lora:
        add_adapters(model, args, run_args.freeze_blocks)
    return model, extractor


def add_adapters(model: Wav2Vec2ForVocalBurst, args: LoraArguments, frozen_blocks: int = 0) -> None:
    """Put adapters that change nothing yet beside linear layers, and freeze all of the backbone but them.

    Args:
        model: The model; what is frozen must be frozen already.
        args: Rank, scale and dropout of the adapters, and which layers get one.
        frozen_blocks: Blocks from the first on that get none.

    Raises:
        ValueError: If no block is left, or there is no such layer in them.
    """
    import peft

    config = peft.LoraConfig(
        r=args.lora_r,
        lora_alpha=args.lora_alpha,
        lora_dropout=args.lora_dropout,
        target_modules=_find_layers(model, args.lora_target_modules, frozen_blocks),
        base_model_name_or_path=model.config._name_or_path,
        revision=_commit_of(model.config),
    )
    peft.inject_adapter_in_model(config, model, ADAPTER)
    head = [name for name, part in model.named_children() if part is not model.encoder and part.state_dict()]
    for name in head:
        model.get_submodule(name).requires_grad_(True)
    recorded = model.peft_config[ADAPTER]
    recorded.target_modules = sorted(recorded.target_modules)
    recorded.modules_to_save = head  # only now: peft would train copies of them
    call_projections(model)
    logger.info("%d layers have adapters of rank %d", len(_adapted_layers(model)), args.lora_r)


def is_adapted(model: nn.Module | None) -> bool:
    """Whether a model has adapters that are not merged."""
    return hasattr(model, "peft_config")


def check_training(model: nn.Module, args: TrainingArguments, is_sharded: bool) -> None:
    """Refuse what a model with adapters, if it is one, cannot be trained under.

    Args:
        model: The model.
        args: Training arguments.
        is_sharded: Whether the model will be cut into shards.

    Raises:
        ValueError: If the model is to be cut, or activations are to be computed again in a way that loses gradients.
    """
    if not is_adapted(model):
        return
    if is_sharded:
        raise ValueError("--lora does not go with FSDP or DeepSpeed: leave one of them out")
    if args.activation_checkpointing and (args.activation_checkpointing_kwargs or {}).get("use_reentrant"):
        raise ValueError(
            '--activation_checkpointing_kwargs with "use_reentrant" loses the gradients of adapters behind frozen '
            "layers: leave it out"
        )


def is_trained_with_adapters(name: str) -> bool:
    """Whether a weight, by its name in a model with adapters, is one of an adapter or of the head."""
    return not name.startswith(BACKBONE_PREFIX) or ".lora_" in name


@torch.no_grad()
def merged_weights(model: PreTrainedModel) -> dict[str, Tensor]:
    """Return the weights of the plain model that a model with adapters amounts to, and leave it as it is.

    `model.save_pretrained(folder, state_dict=merged_weights(model))` writes that model. A model without adapters has
    its own weights.
    """
    weights = {plain_name(name): value for name, value in model.state_dict().items() if ".lora_" not in name}
    for name, layer in _adapted_layers(model).items():
        weights[f"{name}.weight"] = layer.get_base_layer().weight + layer.get_delta_weight(ADAPTER)
    return weights


def merge_adapters(model: PreTrainedModel) -> None:
    """Make a model with adapters the plain one that it amounts to, by `merged_weights`; others stay as they are.

    Raises:
        ValueError: If an adapter holds values that are not finite.
    """
    if not is_adapted(model):
        return
    for name, layer in _adapted_layers(model).items():
        layer.merge(safe_merge=True)
        model.set_submodule(name, layer.get_base_layer())
    restore_attention(model)
    del model.peft_config


def plain_name(name: str) -> str:
    """Return the name in the plain model of a weight that lies in an adapted layer, or anywhere else."""
    return name.replace(".base_layer.", ".")


def _find_layers(model: Wav2Vec2ForVocalBurst, targets: list[str], frozen_blocks: int) -> list[str]:
    """Name the linear layers, in blocks that are not frozen, that get an adapter by the last part of their names."""
    depth = model.config.feature_layer
    if frozen_blocks == depth:
        raise ValueError(f"--lora needs a block that is not frozen, and --freeze_blocks {frozen_blocks} freezes all")
    blocks = model.encoder.modules_up_to(depth)[frozen_blocks - depth :]
    inside = {id(module) for block in blocks for module in block.modules() if isinstance(module, nn.Linear)}
    names = [name for name, module in model.named_modules() if id(module) in inside]
    for target in targets:
        check_choice("--lora_target_modules", target, tuple(sorted({_last_part(name) for name in names})))
    return [name for name in names if _last_part(name) in targets]


def _adapted_layers(model: nn.Module) -> dict[str, Any]:
    """Return peft's layers by name; none is found in a model without adapters, and peft is not asked for."""
    if not is_adapted(model):
        return {}
    from peft.tuners.tuners_utils import BaseTunerLayer

    return {name: module for name, module in model.named_modules() if isinstance(module, BaseTunerLayer)}


def _last_part(name: str) -> str:
    return name.rpartition(".")[2]


def _commit_of(config: VocalBurstConfig) -> str | None:
    """Return the commit of what a model was loaded from; None for a folder, whatever that was made from."""
    return config.base_model_revision if config.base_model == config._name_or_path else None
