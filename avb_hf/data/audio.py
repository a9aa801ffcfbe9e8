"""From an audio file of any format, rate and number of channels to a float32 mono clip."""

import functools
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile

from avb_hf.data.arguments import Channels, DataArguments
from avb_hf.tasks import check_choice

logger = logging.getLogger(__name__)

SAMPLING_RATE = 16_000
# The receptive field of wav2vec2's convolutions: 25 ms.
MIN_SAMPLES = 400
# -60 dB below the loudest channel: what lossy coding leaves of two opposite channels.
_CANCELLED = 1e-3
# Lossy encoders may announce a few frames more than they hold.
_LENGTH_TOLERANCE = 0.1


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


@dataclass(frozen=True)
class AudioHeader:
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
        AudioFileError: If the file is missing, no audio, or a wav file that was cut off.
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
        raise AudioFileError(file_id, path, _too_long(header.duration, args.max_duration), "too_long")
    if not header.num_frames:
        raise AudioFileError(file_id, path, "is empty: it has a header and 0 samples", "empty_audio")
    _check_length(int(np.ceil(header.duration * SAMPLING_RATE)), path, file_id, SAMPLING_RATE, min_samples)


def decode(path: str | Path, file_id: str, args: DataArguments) -> tuple[AudioHeader, np.ndarray]:
    """Decode a file as it is and check that all of it is there.

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
        frames = file.read(dtype="float32", always_2d=True)  # (samples, channels)
    missing = header.num_frames - len(frames)
    if missing > _LENGTH_TOLERANCE * header.sampling_rate:
        reason = f"is cut off: {len(frames)} of {header.num_frames} samples can be decoded"
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
def _open(path: str | Path, file_id: str) -> Iterator[soundfile.SoundFile]:
    if not Path(path).is_file():
        raise AudioFileError(file_id, path, "the file is missing", "missing_audio")
    if not Path(path).stat().st_size:
        raise AudioFileError(file_id, path, "is empty: 0 bytes", "empty_audio")
    try:
        _check_riff(Path(path), file_id)
        with soundfile.SoundFile(path) as file:
            yield file
    except (soundfile.LibsndfileError, OSError) as error:
        raise AudioFileError(file_id, path, f"cannot be decoded ({error})") from error


def _header_of(file: soundfile.SoundFile) -> AudioHeader:
    return AudioHeader(file.samplerate, file.channels, file.frames, file.format)


def _check_riff(path: Path, file_id: str) -> None:
    """Compare the data chunk's size with the file's: libsndfile reads what is there and says nothing."""
    with path.open("rb") as file:
        head = file.read(12)
        if head[:4] != b"RIFF" or head[8:] != b"WAVE":
            return
        while len(chunk := file.read(8)) == 8:
            size = int.from_bytes(chunk[4:], "little")
            if chunk[:4] == b"data":
                present = path.stat().st_size - file.tell()
                streamed = size >= 0xFFFFFF00
                if size > present and not streamed:
                    reason = f"is cut off: {present} of {size} bytes of audio are there"
                    raise AudioFileError(file_id, path, reason, "truncated_audio")
                return
            file.seek(size + size % 2, 1)


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


def _too_long(duration: float, limit: float) -> str:
    return f"lasts {duration:.2f} s, longer than {limit:g} s; raise --max_duration or choose --long_clips crop"


def _check_length(samples: int, path: str | Path, file_id: str, sampling_rate: int, min_samples: int) -> None:
    if samples < min_samples:
        reason = f"is too short: {samples} samples at {sampling_rate} Hz, the model needs {min_samples}"
        raise AudioFileError(file_id, path, reason, "too_short")


@functools.cache
def _warn_once(message: str) -> None:
    logger.warning(message)
