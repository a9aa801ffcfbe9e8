"""From an audio file of any format, rate and number of channels to a float32 mono clip."""

import functools
import io
import logging
import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
import soundfile

from avb_hf.data.arguments import Channels, DataArguments
from avb_hf.data.blocks import AudioFile, read_frames
from avb_hf.data.containers import find_cut
from avb_hf.data.contents import open_content
from avb_hf.tasks import check_choice

logger = logging.getLogger(__name__)

SAMPLING_RATE = 16_000
# The receptive field of wav2vec2's convolutions: 25 ms.
MIN_SAMPLES = 400
# -60 dB below the loudest channel: what lossy coding leaves of two opposite channels.
_CANCELLED = 1e-3
# Lossy encoders may announce a few frames more than they hold.
_LENGTH_TOLERANCE = 0.1
# Seconds on each side of a crop for the resampling filter to come in.
_MARGIN = 0.1


class AudioFileError(ValueError):
    """An audio file that cannot be used.

    Args:
        file_id: The clip's File_ID.
        path: The audio file.
        reason: What is wrong with it.
        kind: Key of `avb_hf.data.findings.KINDS`.
    """

    def __init__(self, file_id: str, path: str | Path, reason: str, kind: str = "unreadable_audio") -> None:
        super().__init__(file_id, path, reason, kind)
        self.file_id, self.path, self.reason, self.kind = file_id, path, reason, kind

    def __str__(self) -> str:
        return f"File_ID {self.file_id} ({self.path}): {self.reason}"


class AudioHeader(NamedTuple):
    """What an audio file says about itself.

    Attributes:
        sampling_rate: Samples a second of each channel, in Hz.
        channels: Number of channels.
        num_frames: Number of samples of each channel.
        format: Container, in libsndfile's words (`WAV`, `MP3`, ...).
    """

    sampling_rate: int
    channels: int
    num_frames: int
    format: str

    @property
    def duration(self) -> float:
        """Length in seconds."""
        return self.num_frames / self.sampling_rate


def read_header(path: str | Path, file_id: str) -> AudioHeader:
    """Read a file's header; its content decides the format, not its suffix.

    Raises:
        AudioFileError: If the file is missing, no audio, or cut off so that its header or its end shows it.
    """
    with _open(path, file_id) as file:
        return _header_of(file)


def check_header(header: AudioHeader, path: str | Path, file_id: str, args: DataArguments, min_samples: int) -> None:
    """Check what the header alone tells about a clip's fitness.

    Args:
        header: The file's header.
        path: The audio file, for the message.
        file_id: The clip's File_ID, for the message.
        args: `channels`, `max_duration` and `long_clips` are looked at.
        min_samples: Shortest clip in samples at 16 kHz.

    Raises:
        AudioFileError: If the clip is too short, too long, or has more channels than wanted.
    """
    if args.channels == "error" and header.channels > 1:
        reason = f"has {header.channels} channels; choose --channels mean or first"
        raise AudioFileError(file_id, path, reason, "unwanted_channels")
    if header.duration > args.max_duration and args.long_clips == "error":
        reason = f"lasts {header.duration:.2f} s, longer than {args.max_duration:g} s"
        raise AudioFileError(file_id, path, reason, "too_long")
    if not header.num_frames:
        raise AudioFileError(file_id, path, "is empty: it has a header and 0 samples", "empty_audio")
    _check_length(math.ceil(header.duration * SAMPLING_RATE), path, file_id, SAMPLING_RATE, min_samples)


def decode(path: str | Path, file_id: str, args: DataArguments) -> tuple[AudioHeader, np.ndarray]:
    """Decode a file as it is and check that all of it is there; of a clip that is to be cropped, the middle.

    What `trim_db` takes off decides where the middle is, so with it the whole file is decoded.

    Args:
        path: The audio file.
        file_id: The clip's File_ID, for messages.
        args: `channels`, `max_duration` and `long_clips` are looked at.

    Returns:
        The header, and the samples of shape `(samples, channels)`, float32, full scale at 1.

    Raises:
        AudioFileError: If the file is missing, damaged, empty or no audio, holds NaN or infinity, is too long, or has
            more channels than wanted.
    """
    with _open(path, file_id) as file:
        header = _header_of(file)
        check_header(header, path, file_id, args, min_samples=1)
        start, length = _needed(header, args)
        frames = read_frames(file, start, length)  # (samples, channels)
    if length - len(frames) > _LENGTH_TOLERANCE * header.sampling_rate:
        reason = f"is cut off: {start + len(frames)} of {header.num_frames} samples can be decoded"
        raise AudioFileError(file_id, path, reason, "truncated_audio")
    if not np.isfinite(frames).all():
        raise AudioFileError(file_id, path, "holds NaN or infinite samples", "nan_audio")
    return header, frames


def to_clip(
    frames: np.ndarray,
    header: AudioHeader,
    path: str | Path,
    file_id: str,
    args: DataArguments,
    sampling_rate: int = SAMPLING_RATE,
    min_samples: int = MIN_SAMPLES,
) -> np.ndarray:
    """Make a mono clip at one sampling rate of a decoded file; the arguments are those of `decode` and `load_clip`.

    Raises:
        AudioFileError: If the clip is too short, or has channels that cancel each other.
    """
    clip = mix(frames, path, file_id, args.channels)
    clip = _resample(clip, header.sampling_rate, sampling_rate)
    if args.trim_db is not None:
        clip = _trim(clip, args.trim_db)
    clip = _centre(clip, int(args.max_duration * sampling_rate))
    _check_length(len(clip), path, file_id, sampling_rate, min_samples)
    return clip


def load_clip(
    path: str | Path,
    file_id: str,
    args: DataArguments,
    sampling_rate: int = SAMPLING_RATE,
    min_samples: int = MIN_SAMPLES,
) -> np.ndarray:
    """Decode a clip to mono at one sampling rate.

    Args:
        path: The audio file.
        file_id: The clip's File_ID, for messages.
        args: How to mix channels, what to trim and what to do with long clips.
        sampling_rate: Sampling rate of the result, in Hz.
        min_samples: Shortest clip that is accepted, in samples of the result.

    Returns:
        Waveform of shape `(samples,)`, float32, full scale at 1.

    Raises:
        AudioFileError: If the file cannot be used, as `decode` and `to_clip` say.
    """
    header, frames = decode(path, file_id, args)
    clip = to_clip(frames, header, path, file_id, args, sampling_rate, min_samples)
    if not clip.any():
        _warn_once(f"File_ID {file_id} ({path}) is silent")
    return clip


@contextmanager
def _open(path: str | Path, file_id: str) -> Iterator[AudioFile]:
    try:
        with open_content(path) as content:
            size = content.seek(0, os.SEEK_END)
            if not size:
                raise AudioFileError(file_id, path, "is empty: 0 bytes", "empty_audio")
            content.seek(0)
            cut = find_cut(content, size)
            if cut is not None:
                raise AudioFileError(file_id, path, cut, "truncated_audio")
            content.seek(0)
            # libsndfile reads a file itself in less time than by calls of Python.
            with AudioFile(content if isinstance(content, io.BytesIO) else path) as file:
                yield file
    except FileNotFoundError as error:
        raise AudioFileError(file_id, path, str(error), "missing_audio") from error
    except (soundfile.LibsndfileError, OSError, MemoryError, UnicodeError) as error:
        raise AudioFileError(file_id, path, f"cannot be decoded ({error})") from error


def _header_of(file: AudioFile) -> AudioHeader:
    return AudioHeader(file.samplerate, file.channels, file.frames, file.format)


def _needed(header: AudioHeader, args: DataArguments) -> tuple[int, int]:
    """Return the first of the frames that a clip is made of, and their number."""
    length = int(args.max_duration * header.sampling_rate) + 2 * int(_MARGIN * header.sampling_rate)
    if args.trim_db is not None or length >= header.num_frames:
        return 0, header.num_frames
    return (header.num_frames - length) // 2, length


def _mix_mean(frames: np.ndarray) -> np.ndarray:
    return frames.mean(axis=1)


def _mix_first(frames: np.ndarray) -> np.ndarray:
    return frames[:, 0]


MIXES = {"mean": _mix_mean, "first": _mix_first, "error": _mix_first}


def mix(frames: np.ndarray, path: str | Path, file_id: str, channels: Channels) -> np.ndarray:
    """Make one channel, of shape `(samples,)`, of those of a file, `(samples, channels)`.

    Raises:
        AudioFileError: If the average of the channels is 60 dB or more below the loudest of them.
    """
    check_choice("channels", channels, tuple(MIXES))
    if frames.shape[1] == 1:
        return frames[:, 0]
    clip = np.ascontiguousarray(MIXES[channels](frames))
    loudest = _rms(frames).max()
    if channels == "mean" and loudest > 0 and _rms(clip) < _CANCELLED * loudest:
        reason = "its channels cancel each other when averaged; choose --channels first"
        raise AudioFileError(file_id, path, reason, "cancelling_channels")
    return clip


def _rms(frames: np.ndarray) -> np.ndarray:
    return np.sqrt(np.square(frames, dtype=np.float64).mean(axis=0)) if len(frames) else np.zeros(frames.shape[1:])


def _resample(clip: np.ndarray, source: int, target: int) -> np.ndarray:
    if source == target or not len(clip):
        return clip
    import librosa  # its import takes seconds, which 16 kHz corpora need not pay

    return librosa.resample(clip, orig_sr=source, target_sr=target, res_type="soxr_hq")


def _trim(clip: np.ndarray, trim_db: float) -> np.ndarray:
    import librosa

    return librosa.effects.trim(clip, top_db=trim_db)[0] if len(clip) else clip


def _centre(clip: np.ndarray, max_samples: int) -> np.ndarray:
    start = max(0, len(clip) - max_samples) // 2
    return clip[start : start + max_samples]


def _check_length(samples: int, path: str | Path, file_id: str, sampling_rate: int, min_samples: int) -> None:
    if samples < min_samples:
        reason = f"is too short: {samples} samples at {sampling_rate} Hz, the model needs {min_samples}"
        raise AudioFileError(file_id, path, reason, "too_short")


@functools.cache
def _warn_once(message: str) -> None:
    logger.warning(message)
