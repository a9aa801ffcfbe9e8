"""From whatever holds a recording to a mono waveform at one sampling rate, without ffmpeg."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterator, Mapping
from http.client import HTTPException
from importlib import import_module
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import numpy as np
import torch

# -60 dB below the loudest channel: what lossy coding leaves of two opposite channels.
CANCELLED = 1e-3
# Full scale is 1, which resampled and lossily coded recordings exceed a little; samples of other scales by far.
LARGEST_FLOAT = 16.0
# Seconds: lossy encoders may announce a few frames more than they hold. The training reads files by the same rules.
LENGTH_TOLERANCE = 0.1
DOWNLOAD_TIMEOUT = 60
RECORDINGS = (
    "the path, URL or bytes of an audio file, {'array': ..., 'sampling_rate': ...} ('raw' for 'array' will do), or "
    "{'bytes': ..., 'path': ...}"
)


def optional_import(name: str, purpose: str) -> Any:
    """Import a package that not every use of a checkpoint needs.

    Args:
        name: The package, on PyPI too.
        purpose: What it is needed for, for the message.

    Raises:
        ImportError: If it is not installed.
    """
    try:
        return import_module(name)
    except ImportError as error:
        raise ImportError(f"{purpose} needs {name}: pip install {name}") from error


def read_clip(source: Any, sampling_rate: int) -> tuple[np.ndarray, str]:
    """Read a recording of any format, rate and number of channels.

    Args:
        source: Path or URL (`http://`, `https://`) of an audio file; its bytes; transformers' mapping of `array` or
            `raw` and `sampling_rate` in Hz, or a row of a dataset's undecoded audio column, `bytes` and `path`. An
            array is floats with full scale at 1, or 16-bit integers; of two axes the shorter one is the channels.
        sampling_rate: Rate of the result in Hz.

    Returns:
        Waveform of shape `(samples,)`, float32, the mean of the channels; and the recording's name for messages.

    Raises:
        ValueError: If the recording is missing, cannot be decoded or used, or is none of these.
        ImportError: If what decodes or resamples is not installed.
    """
    name = _name_of(source)
    frames, rate = _decode(source, name)  # (samples, channels)
    if not len(frames):
        raise ValueError(f"{name} is empty: it has 0 samples")
    if not np.isfinite(frames).all():
        raise ValueError(f"{name} holds NaN or infinite samples")
    return _resample(_mix(frames, name), rate, sampling_rate), name


def find_dataset(inputs: Any) -> Any:
    """Return what is a dataset of the package datasets, or a column of one, streamed or not; None for all else."""
    is_dataset = hasattr(inputs, "cast_column") and hasattr(inputs, "features")
    return inputs if is_dataset or _is_column(inputs) else None


def read_rows(dataset: Any) -> Iterator[Any]:
    """Yield what the audio column of a dataset holds, undecoded, so that no torchcodec is asked for.

    Args:
        dataset: A `datasets.Dataset` or `IterableDataset` with one column of type `Audio`, or one named `audio`; or a
            column of one, at any depth, with recordings of any form.

    Raises:
        ValueError: If there is no such column.
    """
    path: list[str] = []
    while _is_column(dataset):
        path.insert(0, dataset.column_name)
        dataset = dataset.source
    features = dataset.features or {}  # of some streams they are not known
    path = path or [_find_audio(features)]
    feature = features.get(path[0])
    if feature is not None and _undecoded(feature) != feature:
        dataset = dataset.cast_column(path[0], _undecoded(feature))
    for row in dataset.select_columns(path[:1]):
        for name in path:
            row = row[name]
        yield row


def _is_column(inputs: Any) -> bool:
    return type(inputs).__name__ in ("Column", "IterableColumn") and hasattr(inputs, "source")


def _find_audio(features: Mapping[str, Any]) -> str:
    typed = [name for name, feature in features.items() if type(feature).__name__ == "Audio"]
    if len(typed) == 1:
        return typed[0]
    if "audio" in features:
        return "audio"
    raise ValueError(
        f"a dataset must have one column of type Audio, or one named 'audio', got the columns {list(features)}; or "
        "give a column of it"
    )


def _undecoded(feature: Any) -> Any:
    """Return a feature in which nothing of type Audio is decoded."""
    if isinstance(feature, Mapping):
        return {name: _undecoded(part) for name, part in feature.items()}
    return type(feature)(decode=False) if type(feature).__name__ == "Audio" else feature


def _name_of(source: Any) -> str:
    if isinstance(source, Mapping):
        path = source.get("path")
        return os.fspath(path) if path else "the recording"
    return os.fspath(source) if isinstance(source, str | os.PathLike) else "the recording"


def _decode(source: Any, name: str) -> tuple[np.ndarray, int]:
    for kinds, read in READERS.items():
        if isinstance(source, kinds):
            return read(source, name)
    raise ValueError(f"a recording must be {RECORDINGS}, got {type(source).__name__}")


def _decode_place(source: str | os.PathLike, name: str) -> tuple[np.ndarray, int]:
    if name.startswith(("http://", "https://")):
        return _decode_bytes(_download(name), name)
    if not Path(source).is_file():
        what = "this is a folder" if Path(source).is_dir() else "there is no such file"
        raise ValueError(f"{name}: {what}; a recording must be {RECORDINGS}")
    with Path(source).open("rb") as file:
        return _decode_file(file, name)


def _decode_bytes(content: bytes, name: str) -> tuple[np.ndarray, int]:
    return _decode_file(io.BytesIO(content), name)


def _decode_mapping(source: Mapping[str, Any], name: str) -> tuple[np.ndarray, int]:
    held = {key: value for key, value in source.items() if value is not None}
    array = next((held[key] for key in ("array", "raw") if key in held), None)
    if array is not None and "sampling_rate" in held:
        return _as_frames(array, name), _as_rate(held["sampling_rate"], name)
    if "bytes" in held:
        return _decode_bytes(held["bytes"], name)
    if "path" in held and array is None:
        return _decode_place(held["path"], name)
    raise ValueError(f"a recording must be {RECORDINGS}, got a mapping with {sorted(map(str, held))}")


READERS: dict[tuple[type, ...], Callable[[Any, str], tuple[np.ndarray, int]]] = {
    (str, os.PathLike): _decode_place,
    (bytes, bytearray): _decode_bytes,
    (Mapping,): _decode_mapping,
}


def _download(url: str) -> bytes:
    try:
        with urlopen(url, timeout=DOWNLOAD_TIMEOUT) as answer:
            return answer.read()
    except (OSError, ValueError, HTTPException) as error:
        raise ValueError(f"{url} cannot be downloaded ({error})") from error


def _decode_file(file: Any, name: str) -> tuple[np.ndarray, int]:
    soundfile = optional_import("soundfile", "reading audio files")
    _require_whole_riff(file, name)
    try:
        with soundfile.SoundFile(file) as audio:
            frames = audio.read(dtype="float32", always_2d=True)
            expected, rate = audio.frames, audio.samplerate
    except (soundfile.LibsndfileError, OSError, MemoryError, ValueError) as error:  # a header may announce anything
        raise ValueError(
            f"{name} cannot be decoded ({error}); WAV, FLAC, OGG, MP3 and whatever else libsndfile reads is allowed"
        ) from error
    if expected - len(frames) > LENGTH_TOLERANCE * rate:
        raise ValueError(f"{name} is cut off: {len(frames)} of {expected} frames are there")
    return frames, rate


def _require_whole_riff(file: Any, name: str) -> None:
    """Refuse a WAV file whose audio ends before its header says; libsndfile would read what is left of it."""
    end = file.seek(0, os.SEEK_END)
    file.seek(0)
    chunk, size, place = file.read(4), 0, 12
    if chunk == b"RIFF":
        while chunk != b"data" and place < end:
            file.seek(place)
            chunk, size = file.read(4), int.from_bytes(file.read(4), "little")
            place += 8 + (0 if chunk == b"data" else size + size % 2)
    file.seek(0)
    is_told = chunk == b"data" and size < 2**32 - 256  # more is what streams say that know no length
    if is_told and end < place + size:
        raise ValueError(f"{name} is cut off: {end - place} of {size} bytes of audio are there")


def _as_frames(array: Any, name: str) -> np.ndarray:
    array = np.asarray(array.detach().cpu() if isinstance(array, torch.Tensor) else array)
    if array.ndim not in (1, 2) or not (array.dtype.kind == "f" or array.dtype == np.int16):
        raise ValueError(
            f"{name} must be an array of floats, or of 16-bit integers (np.int16), of shape (samples,) or with "
            f"channels, got {array.dtype} of shape {array.shape}"
        )
    if array.ndim == 2 and array.shape[0] < array.shape[1]:
        array = array.T
    if array.dtype == np.int16:
        array = array / 32_768
    elif np.abs(array).max(initial=0) > LARGEST_FLOAT:
        raise ValueError(f"{name} must have floats within [-1, 1], got {np.abs(array).max():g}: divide by full scale")
    return array.astype(np.float32).reshape(len(array), array.shape[1] if array.ndim == 2 else 1)


def _as_rate(rate: Any, name: str) -> int:
    if not (isinstance(rate, int | float | np.integer) and rate >= 1 and rate % 1 == 0):
        raise ValueError(f"{name}: sampling_rate must be a positive whole number of Hz, got {rate!r}")
    return int(rate)


def _mix(frames: np.ndarray, name: str) -> np.ndarray:
    if frames.shape[1] == 1:
        return frames[:, 0]
    clip = frames.mean(axis=1)
    loudest = np.square(frames, dtype=np.float64).mean(axis=0).max()
    if np.square(clip, dtype=np.float64).mean() < CANCELLED**2 * loudest:
        raise ValueError(f"{name}: its channels cancel each other when averaged; give one of them")
    return clip


def _resample(clip: np.ndarray, source: int, target: int) -> np.ndarray:
    if source == target:
        return clip
    soxr = optional_import("soxr", f"resampling from {source} to {target} Hz")
    length = -(-len(clip) * target // source)  # what librosa makes of it
    resampled = soxr.resample(clip, source, target)[:length]
    return np.pad(resampled, (0, length - len(resampled)))
