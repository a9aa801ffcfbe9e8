"""Tiny backbones that stand for the paper's extractors, so that the whole grid can be walked in minutes."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import torch
from transformers import Wav2Vec2Config, Wav2Vec2FeatureExtractor, Wav2Vec2Model
from transformers.utils.logging import disable_progress_bar

from avb_hf.data.user_cache import cache_folder

VERSION = 1
"""Number of the design; a change of any shape or seed raises it."""

_COMMON = {
    "conv_kernel": [160, 4, 4], "conv_stride": [40, 4, 2], "num_attention_heads": 4, "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 4,
}  # fmt: skip
_GROUP = {"feat_extract_norm": "group", "do_stable_layer_norm": False, "conv_bias": False}
_LAYER = {"feat_extract_norm": "layer", "do_stable_layer_norm": True, "conv_bias": True}
# What tells the paper's four extractors apart, in small: width, depth and where they normalise.
TINY_BACKBONES = {
    "base": _GROUP | {"conv_dim": [48] * 3, "hidden_size": 48, "num_hidden_layers": 1, "intermediate_size": 96},
    "large": _GROUP | {"conv_dim": [64] * 3, "hidden_size": 64, "num_hidden_layers": 2, "intermediate_size": 128},
    "large-lv60k": _LAYER | {"conv_dim": [64] * 3, "hidden_size": 64, "num_hidden_layers": 1, "intermediate_size": 128},
    "xlsr53": _LAYER | {"conv_dim": [80] * 3, "hidden_size": 64, "num_hidden_layers": 2, "intermediate_size": 96},
}


def tiny_extractors() -> dict[str, str]:
    """Return the folders of the tiny backbones, random weights of stock transformers, by the extractor they stand for.

    They lie in the user's cache, and are written on first use.
    """
    disable_progress_bar()  # of files that are small
    folder = cache_folder() / f"tiny-backbones-v{VERSION}"
    for seed, (name, shape) in enumerate(TINY_BACKBONES.items()):
        if not (folder / name).is_dir():
            _write(folder / name, shape, seed)
    return {name: str(folder / name) for name in TINY_BACKBONES}


def _write(folder: Path, shape: dict, seed: int) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch, torch.random.fork_rng():
        draft = Path(scratch) / folder.name
        torch.manual_seed(seed)
        Wav2Vec2Model(Wav2Vec2Config(**_COMMON, **shape)).save_pretrained(draft)
        masks = shape["feat_extract_norm"] == "layer"  # as the real ones of each kind say
        Wav2Vec2FeatureExtractor(return_attention_mask=masks).save_pretrained(draft)
        try:
            os.replace(draft, folder)
        except OSError:
            if not folder.is_dir():  # another process was first
                raise
