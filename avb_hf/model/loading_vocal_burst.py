"""Loading weights, strictly: a checkpoint that does not fit is an error, never a random layer."""

from __future__ import annotations

import inspect
import logging
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from safetensors import SafetensorError
from torch import nn
from transformers import AutoConfig, PreTrainedConfig, PreTrainedModel
from transformers.utils import ADAPTER_CONFIG_NAME, cached_file
from transformers.utils import logging as transformers_logging

from .configuration_vocal_burst import nearest
from .feature_extraction_vocal_burst import VocalBurstFeatureExtractor

logger = logging.getLogger(__name__)

HUB_ARGUMENTS = ("cache_dir", "force_download", "local_files_only", "revision", "subfolder", "token")
# Arguments of transformers' `from_pretrained` that say where and how to load, not what the model is.
LOADING_ARGUMENTS = {
    *HUB_ARGUMENTS, "adapter_kwargs", "adapter_name", "attn_implementation", "code_revision", "config", "device_map",
    "dtype", "gguf_file", "key_mapping", "max_memory", "output_loading_info", "state_dict", "torch_dtype",
    "trust_remote_code", "use_safetensors", "variant", "weights_only",
}  # fmt: skip
LOADING_ARGUMENTS |= set(inspect.signature(PreTrainedModel.from_pretrained).parameters)


def hub_arguments(kwargs: dict[str, Any]) -> dict[str, Any]:
    """Pick the arguments that say where a file of a checkpoint is found."""
    return {name: kwargs[name] for name in HUB_ARGUMENTS if name in kwargs}


def take_fields(config_class: type[PreTrainedConfig], kwargs: dict[str, Any]) -> dict[str, Any]:
    """Take the fields of a configuration out of the arguments of `from_pretrained`.

    Raises:
        TypeError: If an argument is neither a field nor one of transformers' own; the message names the nearest.
    """
    fields = set(config_class.__dataclass_fields__) | {"num_labels"}
    for name in kwargs:
        if name not in LOADING_ARGUMENTS | fields and not name.startswith("_"):
            hint = nearest(name, fields | LOADING_ARGUMENTS)
            raise TypeError(f"from_pretrained() has no argument {name!r}{hint}")
    return {name: kwargs.pop(name) for name in list(kwargs) if name in fields and name not in LOADING_ARGUMENTS}


def read_model_type(name_or_path: str, kwargs: dict[str, Any]) -> str:
    """Read what kind of model a checkpoint is from its `config.json`.

    Raises:
        ValueError: If it has none, or the folder does not exist.
        OSError: If it is no folder, and the Hub has none, is not reached, or does not let it be read.
    """
    if isinstance(kwargs.get("config"), PreTrainedConfig):
        return kwargs["config"].model_type
    if str(name_or_path).startswith(("/", ".", "~")) and not Path(name_or_path).is_dir():
        raise ValueError(f"{name_or_path}: there is no such folder")  # not what a Hub id may hold
    if (Path(name_or_path) / ADAPTER_CONFIG_NAME).is_file():
        raise ValueError(
            f"{name_or_path} holds adapters without their backbone, to go on training from; the model, with them "
            "merged, is what the run leaves in its own folder"
        )
    try:
        content, _ = PreTrainedConfig.get_config_dict(name_or_path, **hub_arguments(kwargs))
    except OSError as error:
        if Path(name_or_path).is_dir():
            raise
        raise OSError(f"{name_or_path} is no folder here, and could not be read from the Hub: {error}") from error
    if "model_type" not in content:
        raise ValueError(f"{name_or_path}: no config.json that names a model_type was found there")
    return content["model_type"]


def read_commit(name_or_path: str, kwargs: dict[str, Any]) -> str | None:
    """Return the commit that a checkpoint of the Hub is at; None for a folder.

    Args:
        name_or_path: Hub id or folder.
        kwargs: Loading arguments, of which `revision` names a branch, tag or commit.
    """
    if Path(name_or_path).is_dir():
        return None
    path = cached_file(str(name_or_path), "config.json", **hub_arguments(kwargs))
    found = re.search(r"/snapshots/([0-9a-f]{40})/", Path(path).as_posix())
    return found[1] if found else None


def load_checkpoint(
    model_class: type[PreTrainedModel],
    load: Callable[..., Any],
    name_or_path: str,
    overrides: dict[str, Any],
    kwargs: dict[str, Any],
) -> Any:
    """Load a checkpoint of our own, its configuration changed by `overrides`.

    Args:
        model_class: The class to load.
        load: transformers' `from_pretrained`, bound to that class.
        name_or_path: Hub id or folder.
        overrides: Fields of the configuration to change.
        kwargs: Loading arguments.

    Raises:
        ValueError: If weights are missing, left over or not finite.
    """
    _pin(name_or_path, kwargs)
    config = kwargs.pop("config", None)
    if not isinstance(config, PreTrainedConfig):
        content, _ = model_class.config_class.get_config_dict(name_or_path, **hub_arguments(kwargs))
        config = model_class.config_class.from_dict({**content, **overrides})
    elif overrides:
        config = model_class.config_class.from_dict({**config.to_dict(), **overrides})
    wants_info = kwargs.pop("output_loading_info", False)
    kwargs["ignore_mismatched_sizes"] = True  # they are reported instead, and refused below by name
    kwargs.setdefault("use_safetensors", True)  # we write nothing else
    with _quiet(), _naming(name_or_path):
        model, info = load(name_or_path, config=config, output_loading_info=True, **kwargs)
    _require_complete(name_or_path, model, info, left_over=info["unexpected_keys"])
    model.feature_extractor = VocalBurstFeatureExtractor.for_backbone(name_or_path, config, **hub_arguments(kwargs))
    _keep_fixed(model)
    return (model, info) if wants_info else model


def load_backbone(
    model_class: type[PreTrainedModel],
    encoders: dict[str, type[nn.Module]],
    model_type: str,
    name_or_path: str,
    overrides: dict[str, Any],
    kwargs: dict[str, Any],
) -> Any:
    """Put a new head onto a pretrained backbone.

    Args:
        model_class: The class to build.
        encoders: Our encoder class of each supported model type.
        model_type: The backbone's model type.
        name_or_path: Hub id or folder of the backbone.
        overrides: Fields of our configuration.
        kwargs: Loading arguments.

    Raises:
        ValueError: If the model type is not supported, or weights are missing or not finite.
    """
    if model_type not in encoders:
        raise ValueError(f"{name_or_path}: a backbone must be one of {list(encoders)}, got {model_type!r}")
    origin = _pin(name_or_path, kwargs)
    wants_info = kwargs.pop("output_loading_info", False)
    kwargs["ignore_mismatched_sizes"] = True  # as above
    attention = {name: kwargs[name] for name in ("attn_implementation",) if name in kwargs}
    backbone_config = kwargs.pop("config", None) or AutoConfig.from_pretrained(name_or_path, **hub_arguments(kwargs))
    config = model_class.config_class(encoder_config=backbone_config, **origin | overrides | attention)
    model = model_class(config)
    encoder_class = encoders[model_type]
    with _quiet(), _naming(name_or_path):
        encoder, info = encoder_class.from_pretrained(
            name_or_path,
            config=config.encoder_config,
            output_loading_info=True,
            key_mapping=getattr(encoder_class, "key_mapping", None),
            **kwargs,
        )
    _require_complete(name_or_path, encoder, info)
    logger.info("%s: %d of its tensors are not used", name_or_path, len(info["unexpected_keys"]))
    logger.debug("%s: not used: %s", name_or_path, sorted(info["unexpected_keys"]))
    model.encoder.load_state_dict(encoder.state_dict(), strict=True)
    model.to(encoder.dtype)
    config.encoder_config.dtype = None
    config._name_or_path = str(name_or_path)
    model.feature_extractor = VocalBurstFeatureExtractor.for_backbone(name_or_path, config, **hub_arguments(kwargs))
    _keep_fixed(model)
    model.eval()
    return (model, info) if wants_info else model


def _pin(name_or_path: str, kwargs: dict[str, Any]) -> dict[str, str]:
    """Let all files be taken from one commit, and return the fields that say which; none for a folder."""
    commit = read_commit(name_or_path, kwargs)
    if commit is None:
        return {}
    kwargs["revision"] = commit
    return {"base_model": str(name_or_path), "base_model_revision": commit}


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence transformers' table of missing and left-over weights, which we check ourselves."""
    verbosity = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(verbosity)


@contextmanager
def _naming(name_or_path: str) -> Iterator[None]:
    """Name the checkpoint whose weights cannot be read, and not torch's advice to execute what lies in them."""
    try:
        yield
    except UnpicklingError:
        raise ValueError(f"{name_or_path}: its pickled weights hold more than tensors, so they were not read") from None
    except SafetensorError as error:
        raise ValueError(f"{name_or_path}: model.safetensors cannot be read: {error}") from error


def _require_complete(name: str, model: nn.Module, info: dict[str, Any], left_over: Any = ()) -> None:
    for what, keys in (("lacks", info["missing_keys"]), ("has the wrong shape for", info["mismatched_keys"])):
        if keys:
            raise ValueError(f"{name} does not fit the model: it {what} {_first(keys)}")
    if left_over:
        raise ValueError(f"{name} does not fit the model: it has weights that the model does not: {_first(left_over)}")
    broken = [key for key, value in model.state_dict().items() if not torch.isfinite(value).all()]
    if broken:
        raise ValueError(f"{name} holds weights that are not finite: {_first(broken)}")


def _first(keys: Any, count: int = 5) -> str:
    names = sorted(map(str, keys))
    more = f" and {len(names) - count} more" if len(names) > count else ""
    return ", ".join(names[:count]) + more


def _keep_fixed(model: nn.Module) -> None:
    """Keep Whisper's sinusoidal positions out of training, as its own class does before weights are loaded."""
    for name, parameter in model.named_parameters():
        if name.endswith("embed_positions.weight"):
            parameter.requires_grad_(False)
