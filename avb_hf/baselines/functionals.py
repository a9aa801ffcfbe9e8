"""openSMILE functionals: one vector of acoustic statistics a clip, made once and kept in the user's cache."""

from __future__ import annotations

import logging
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version

import numpy as np
import soxr
import torch
from datasets import DatasetDict
from torch import Tensor
from tqdm.auto import tqdm

from avb_hf.data.arguments import DataArguments
from avb_hf.data.audio import SAMPLING_RATE, AudioFileError, load_clip
from avb_hf.data.clips import require_samples
from avb_hf.training.frozen import READING, SHARD_CLIPS
from avb_hf.training.state_cache import ClipStamp, StateCache

logger = logging.getLogger(__name__)

# The loudest sample that 16 bits hold.
FULL_SCALE = 1 - 1 / 32768
LICENCE = (
    "openSMILE %s is under audEERING's research licence, which does not allow products, not even by features or models "
    "made with it: https://github.com/audeering/opensmile-python/blob/main/LICENSE"
)


@dataclass(frozen=True)
class FeatureSet:
    """One of openSMILE's sets of functionals.

    ComParE 2016 is defined in doi:10.21437/Interspeech.2016-129, eGeMAPS in doi:10.1109/TAFFC.2015.2457417.

    Attributes:
        name: Its name in openSMILE.
        num_features: Number of functionals.
        min_samples: Shortest clip at 16 kHz that openSMILE makes them of, in samples.
    """

    name: str
    num_features: int
    min_samples: int


FEATURE_SETS: dict[str, FeatureSet] = {
    "compare": FeatureSet("ComParE_2016", num_features=6373, min_samples=960),
    "egemaps": FeatureSet("eGeMAPSv02", num_features=88, min_samples=960),
}


def opensmile_version() -> str:
    """Return the version of openSMILE's Python package.

    Raises:
        ImportError: If it is not installed.
    """
    try:
        return version("opensmile")
    except PackageNotFoundError as error:
        raise ImportError("the feature baselines need openSMILE: pip install 'avb_hf[baselines]'") from error


class Functionals:
    """Computes the functionals of clips, in several threads if need be.

    Args:
        feature_set: Which ones.

    Raises:
        ImportError: If openSMILE is not installed.
    """

    def __init__(self, feature_set: FeatureSet) -> None:
        opensmile_version()
        import opensmile

        self.feature_set = feature_set
        self._smile = opensmile.Smile(opensmile.FeatureSet[feature_set.name], opensmile.FeatureLevel.Functionals)

    def __call__(self, clip: np.ndarray) -> np.ndarray:
        """Compute the functionals of a clip.

        openSMILE reads 16 bits: what is louder than full scale is set to that, where it would wrap around.

        Args:
            clip: Waveform at 16 kHz of shape `(samples,)`, full scale at 1.

        Returns:
            Float32 of shape `(num_features,)`; NaN if the clip is too short.
        """
        features = self._smile(np.clip(clip, -1, FULL_SCALE), SAMPLING_RATE)  # (1, num_features, 1)
        return features.reshape(self.feature_set.num_features).astype(np.float32)


def extract_functionals(
    splits: DatasetDict, feature_set: FeatureSet, data: DataArguments, num_workers: int | None = None
) -> dict[str, np.ndarray]:
    """Compute the functionals of all clips, except those that are cached already.

    The cache is keyed by feature set, openSMILE's version, the way clips are read and the content of each file. It is
    filled in parts, so a run that was killed goes on where it was.

    Args:
        splits: The corpus.
        feature_set: Which functionals.
        data: How clips are read.
        num_workers: Threads; None is one a core.

    Returns:
        Float32 of shape `(num_clips, num_features)` for each split, in its order.

    Raises:
        ImportError: If openSMILE is not installed.
        ValueError: If a clip cannot be used, is too short, or has functionals that are not finite.
    """
    logger.info(LICENCE, opensmile_version())
    require_samples(splits, feature_set.min_samples)
    columns = [split.with_format(None) for split in splits.values()]
    file_ids = {path: file_id for part in columns for path, file_id in zip(part["path"], part["file_id"], strict=True)}
    cache = StateCache(_facts(feature_set, data))
    entries = cache.find(list(file_ids))
    missing = [(path, file_id) for path, file_id in file_ids.items() if path not in entries]
    if missing:
        _fill(cache, missing, feature_set, data, num_workers or os.cpu_count() or 1)
        entries |= cache.find([path for path, _ in missing])
    logger.info("%s functionals of %d clips are in %s", feature_set.name, len(entries), cache.folder)
    return {
        name: torch.cat([cache.load(entries[path]) for path in split.with_format(None)["path"]]).numpy()
        for name, split in splits.items()
    }


def _fill(
    cache: StateCache,
    clips: list[tuple[str, str]],
    feature_set: FeatureSet,
    data: DataArguments,
    num_workers: int,
) -> None:
    """Make the functionals of clips, of which path and File_ID are given; decoder and openSMILE release the GIL."""
    functionals = Functionals(feature_set)

    def make(clip: tuple[str, str]) -> tuple[ClipStamp, Tensor]:
        path, file_id = clip
        stamp = ClipStamp.of(path).with_digest()
        features = functionals(load_clip(path, file_id, data, min_samples=feature_set.min_samples))
        if not np.isfinite(features).all():
            reason = f"openSMILE makes NaN or infinity of it in {np.count_nonzero(~np.isfinite(features))} functionals"
            raise AudioFileError(file_id, path, reason)
        return stamp, torch.from_numpy(features)[None]  # (1, num_features)

    bar = tqdm(total=len(clips), desc=f"making {feature_set.name} functionals", unit="clip", disable=None)
    with bar, ThreadPoolExecutor(num_workers) as pool:
        for start in range(0, len(clips), SHARD_CLIPS):
            made = []
            for item in pool.map(make, clips[start : start + SHARD_CLIPS]):
                made.append(item)
                bar.update()
            cache.write(made)


def _facts(feature_set: FeatureSet, data: DataArguments) -> dict[str, object]:
    """Collect all that functionals depend on besides the audio, in the words of the cache of frozen states."""
    return {
        "format": 1,
        "encoder": {"model_type": f"openSMILE {feature_set.name}"},
        "block": 0,
        "reading": {name: getattr(data, name) for name in READING},
        "precision": "fp32",
        "dtype": "float32",
        "versions": {"opensmile": opensmile_version(), "soxr": soxr.__version__},
    }
