"""Decoding in blocks: a header may announce more than there is, and than memory holds."""

from collections.abc import Iterator

import numpy as np
import soundfile

_BLOCK = 2**22


class AudioFile(soundfile.SoundFile):
    """A file that is sought only where that is exact; soundfile seeks after every read.

    Frames of MP3 borrow bits of those before them, and libmpg123 does not go back far enough.
    """

    def seekable(self) -> bool:
        """Whether seeking leads to the samples that reading on would lead to."""
        return self.format != "MP3" and super().seekable()


def read_frames(file: AudioFile, start: int, length: int) -> np.ndarray:
    """Decode part of a file.

    Args:
        file: The file, where it was opened.
        start: First frame; it is sought where the format allows that, else all before it is decoded and dropped.
        length: Number of frames.

    Returns:
        As many of these frames as there are, of shape `(frames, channels)`, float32.

    Raises:
        soundfile.LibsndfileError: If the file is damaged.
    """
    if not file.seekable():
        for _ in _blocks(file, start):
            pass
    elif start:
        file.seek(start)
    blocks = list(_blocks(file, length))
    return blocks[0] if len(blocks) == 1 else np.concatenate(blocks)


def _blocks(file: AudioFile, length: int) -> Iterator[np.ndarray]:
    while True:
        block = file.read(min(length, _BLOCK), dtype="float32", always_2d=True)
        yield block
        length -= _BLOCK
        if length <= 0 or len(block) < _BLOCK:
            return
