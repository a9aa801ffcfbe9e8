"""Checkpoints of a model with adapters: these and the head, in peft's own format, and which backbone they belong to."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor
from transformers import PreTrainedModel
from transformers.utils import ADAPTER_CONFIG_NAME, ADAPTER_SAFE_WEIGHTS_NAME, CONFIG_NAME

from avb_hf.training.lora import ADAPTER, is_trained_with_adapters, plain_name
from avb_hf.whole_files import read_json

# What peft puts before the names of a model's weights.
_PREFIX = "base_model.model."
_BACKBONE_DIGEST = "backbone_sha256"


def save_adapters(model: PreTrainedModel, folder: str | Path) -> None:
    """Write what is trained of a model with adapters: a fraction of the whole, which `peft.PeftModel` reads too.

    Args:
        model: The model, of `add_adapters`.
        folder: Where `adapter_config.json` goes, which names backbone and commit, `adapter_model.safetensors`, and the
            model's `config.json`.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    model.config.to_json_file(folder / CONFIG_NAME)
    model.peft_config[ADAPTER].save_pretrained(folder)
    weights = {name: value.detach().cpu().contiguous() for name, value in _trained(model).items()}
    metadata = {"format": "pt", _BACKBONE_DIGEST: _digest_backbone(model)}
    save_file(weights, folder / ADAPTER_SAFE_WEIGHTS_NAME, metadata=metadata)
    shutil.copymode(folder / CONFIG_NAME, folder / ADAPTER_SAFE_WEIGHTS_NAME)  # safetensors lets nobody else read it


def load_adapters(model: PreTrainedModel, folder: str | Path) -> None:
    """Take adapters and head that `save_adapters` wrote, onto the backbone that they were trained on.

    Args:
        model: A model with adapters of the same shape.
        folder: The folder.

    Raises:
        ValueError: If there are none, they are of another shape, or the backbone's weights are others.
    """
    path = Path(folder) / ADAPTER_SAFE_WEIGHTS_NAME
    if not path.is_file():
        raise ValueError(f"{folder} holds no adapters: it was not written by a run with --lora")
    with safe_open(path, framework="pt") as file:
        stored = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it is no mapping
        digest = (file.metadata() or {}).get(_BACKBONE_DIGEST)
    own = _trained(model)
    wrong = [name for name in sorted({*stored, *own}) if _shape(stored, name) != _shape(own, name)]
    if wrong:
        raise ValueError(
            f"{path} does not fit the model: {wrong[0]} has shape {_shape(stored, wrong[0])} there, in the model "
            f"{_shape(own, wrong[0])}, and {len(wrong) - 1} more differ"
        )
    if digest != _digest_backbone(model):
        config = read_json(Path(folder) / ADAPTER_CONFIG_NAME)
        commit = f" (--model_revision {config['revision']})" if config["revision"] else ""
        raise ValueError(
            f"{folder} holds adapters of {config['base_model_name_or_path']}{commit}, and the backbone's weights are "
            "not those that they were trained on"
        )
    with torch.no_grad():
        for name, value in own.items():
            value.copy_(stored[name])


def _trained(model: PreTrainedModel) -> dict[str, Tensor]:
    """Return adapters and head as they lie in the model, by their names in a file of peft's."""
    weights = {name: value for name, value in model.state_dict().items() if is_trained_with_adapters(name)}
    return {_PREFIX + name.replace(f".{ADAPTER}.", "."): value for name, value in weights.items()}


def _shape(weights: dict[str, Tensor], name: str) -> tuple[int, ...] | None:
    return tuple(weights[name].shape) if name in weights else None


def _digest_backbone(model: PreTrainedModel) -> str:
    digest = hashlib.sha256()
    for name, value in sorted(model.state_dict().items()):
        if not is_trained_with_adapters(name):
            digest.update(f"{plain_name(name)} {value.dtype} {tuple(value.shape)}".encode())
            digest.update(value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy())
    return digest.hexdigest()
