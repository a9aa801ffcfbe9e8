"""What the audio files of a corpus hold: their headers, or all of their samples."""

import functools
import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
from tqdm.auto import tqdm

from avb_hf.data.arguments import DataArguments
from avb_hf.data.audio import (
    MIN_SAMPLES,
    SAMPLING_RATE,
    AudioFileError,
    AudioHeader,
    check_header,
    decode,
    mix,
    read_header,
    to_clip,
)
from avb_hf.data.findings import Finding
from avb_hf.data.header_index import HeaderIndex
from avb_hf.data.listing import Clip

# Peak of a clip that counts as silent: -80 dBFS.
SILENCE = 1e-4
# The last step of 16 bits below full scale, and how many such samples in a row no unclipped wave has.
FULL_SCALE = 1 - 2 / 32768
CLIPPED_RUN = 4

# What to do, by kind, where the flags are those of `DataArguments`.
ADVICE = {"too_long": "; raise --max_duration or choose --long_clips crop"}

HeaderReader = Callable[[str, str], AudioHeader]


class ClipAudio(NamedTuple):
    """What one clip's file holds.

    Attributes:
        header: What the file says about itself; None if it cannot be read.
        digest: SHA-256 of the samples of all channels; None if they were not decoded.
        findings: What is wrong.
    """

    header: AudioHeader | None = None
    digest: bytes | None = None
    findings: tuple[Finding, ...] = ()


def inspect_audio(
    clips: Sequence[Clip], args: DataArguments, decoded: bool = False, num_workers: int = 1, use_index: bool = False
) -> list[ClipAudio]:
    """Inspect the audio files of many clips, behind a progress bar.

    Args:
        clips: The clips.
        args: How clips are read in training.
        decoded: Whether to look at all samples rather than at the headers alone.
        num_workers: Threads that decode. Decoders run beside each other and Python does not, so it pays where decoding
            is most of the work, as with MP3, and not with WAV; headers are read by one.
        use_index: Whether headers of files that have not changed since they were read may come from the user's cache.

    Returns:
        What was found, clip by clip.
    """
    index = HeaderIndex(clip.path for clip in clips) if use_index else None
    inspect = functools.partial(
        inspect_clip, args=args, decoded=decoded, read=read_header if index is None else index.read_header
    )
    description = "decoding audio" if decoded else "reading audio headers"
    with ThreadPoolExecutor(num_workers) as pool:
        results = pool.map(inspect, clips) if decoded and num_workers > 1 else map(inspect, clips)
        found = list(tqdm(results, desc=description, unit="clip", total=len(clips), disable=None))
    if index is not None:
        index.save()
    return found


def inspect_clip(clip: Clip, args: DataArguments, decoded: bool, read: HeaderReader = read_header) -> ClipAudio:
    """Inspect the audio file of one clip.

    Args:
        clip: The clip.
        args: How clips are read in training; what would be refused there is an error here.
        decoded: Whether to look at all samples rather than at the header alone.
        read: Gives the header of a path and File_ID.
    """
    header, digest = None, None
    found: list[tuple[str, str]] = []
    try:
        header = read(clip.path, clip.file_id)
        found += _look(header, args)
        check_header(header, clip.path, clip.file_id, args, MIN_SAMPLES)
        if decoded:
            _, frames = decode(clip.path, clip.file_id, args)
            digest = hashlib.sha256(str(frames.shape).encode() + np.ascontiguousarray(frames).tobytes()).digest()
            found += _listen(frames, header, clip, args)
    except AudioFileError as error:
        found.append((error.kind, error.reason + ADVICE.get(error.kind, "")))
    findings = [Finding(kind, message, clip.file_id, clip.path, clip.place) for kind, message in found]
    return ClipAudio(header, digest, tuple(findings))


def find_twins(clips: Sequence[Clip], audio: Sequence[ClipAudio]) -> list[Finding]:
    """Find clips that hold the same samples, bit by bit, at whatever path and in whatever container.

    Of clips with the same samples, the first one in each further split is a duplicate across splits, and any later one
    in a split that had one is a duplicate within that split.

    Args:
        clips: The clips.
        audio: What they hold; those that were not decoded are left out.

    Returns:
        One finding for each clip but the first of the same samples.
    """
    groups: dict[bytes, dict[str, Clip]] = {}
    for clip, held in zip(clips, audio, strict=True):
        if held.digest is not None:  # one file under two names is told apart from two files
            groups.setdefault(held.digest, {}).setdefault(os.path.realpath(clip.path), clip)
    findings = []
    for first, *others in (group.values() for group in groups.values()):
        first_of = {first.split: first}
        for clip in others:
            twin = first_of.get(clip.split, first)
            kind = "duplicated_audio" if twin.split == clip.split else "duplicated_audio_across_splits"
            message = f"holds the samples of File_ID {twin.file_id} ({twin.split}), here in {clip.split}"
            findings.append(Finding(kind, message, clip.file_id, clip.path, clip.place))
            first_of.setdefault(clip.split, clip)
    return findings


def _look(header: AudioHeader, args: DataArguments) -> Iterator[tuple[str, str]]:
    if header.sampling_rate != SAMPLING_RATE:
        yield "other_sampling_rate", f"is at {header.sampling_rate} Hz"
    if header.channels > 1 and args.channels != "error":
        yield "several_channels", f"has {header.channels} channels"


def _listen(frames: np.ndarray, header: AudioHeader, clip: Clip, args: DataArguments) -> Iterator[tuple[str, str]]:
    full = np.abs(frames) >= FULL_SCALE  # (samples, channels)
    windows = [full[start : len(full) - CLIPPED_RUN + 1 + start] for start in range(CLIPPED_RUN)]
    if full.any() and np.logical_and.reduce(windows).any():
        yield "clipped_audio", f"{full.sum()} samples are at full scale or beyond, peak {np.abs(frames).max():.3g}"
    peak = np.abs(mix(frames, clip.path, clip.file_id, args.channels)).max()
    if peak < SILENCE:
        yield "silent_audio", f"the loudest sample is {peak:.2g} of full scale"
    if len(frames) < header.num_frames:  # only then can it be too short although its header is not
        to_clip(frames, header, clip.path, clip.file_id, args)
