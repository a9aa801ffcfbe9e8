"""Whether an audio file ends where it says that it does: libsndfile reads what is there and says nothing."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import BinaryIO, Literal, NamedTuple

Order = Literal["little", "big"]

_W64_DATA = b"data" + bytes.fromhex("f3acd3118cd100c04f8edb8a")
# In an RF64 file, within the chunk `ds64`, which comes first.
_RF64_DATA_SIZE = 28
_OGG_PAGE = b"OggS\0"
_OGG_HEAD = 27
_OGG_MAX_PAGE = _OGG_HEAD + 255 + 255 * 255
_OGG_LAST = 4


class _Chunks(NamedTuple):
    """How a container of chunks is laid out: each is a name, a size, and as many bytes.

    Attributes:
        start: Bytes before the first chunk.
        data: Name of the chunk with the audio.
        size_bytes: Bytes that a size takes.
        order: Order of these bytes.
        alignment: Chunks start at multiples of so many bytes.
        whole: Whether a size counts name and size, too.
    """

    start: int
    data: bytes
    size_bytes: int
    order: Order
    alignment: int
    whole: bool = False


_RIFF = _Chunks(12, b"data", 4, "little", 2)


def find_cut(file: BinaryIO, file_size: int) -> str | None:
    """Return how a file shows that its end is missing; None if it does not, or is of a format that cannot.

    Args:
        file: The file, of any format, at its start.
        file_size: Its size in bytes.

    Raises:
        OSError: If it cannot be read.
    """
    check = CHECKS.get(file.read(4))
    return check(file, file_size) if check else None


def _check_chunks(file: BinaryIO, file_size: int, layout: _Chunks) -> str | None:
    start, size = _find_audio(file, file_size, layout)
    return _compare(size, file_size - start, layout.size_bytes)


def _check_rf64(file: BinaryIO, file_size: int) -> str | None:
    start, _ = _find_audio(file, file_size, _RIFF)
    file.seek(_RF64_DATA_SIZE)
    return _compare(_number(file, 8, "little"), file_size - start, 8)


def _find_audio(file: BinaryIO, file_size: int, layout: _Chunks) -> tuple[int, int]:
    """Return where the audio starts and how long it says it is; the file's end and 0 if there is none."""
    place, head = layout.start, len(layout.data) + layout.size_bytes
    while place < file_size:
        file.seek(place)
        name, size = file.read(len(layout.data)), _number(file, layout.size_bytes, layout.order)
        size -= head * layout.whole
        place += head
        if name == layout.data:
            return place, size
        place += max(size, 0)
        place += -place % layout.alignment
    return file_size, 0


def _check_au(file: BinaryIO, file_size: int, order: Order) -> str | None:
    start, size = _number(file, 4, order), _number(file, 4, order)
    return _compare(size, file_size - start, 4)


def _check_ogg(file: BinaryIO, file_size: int) -> str | None:
    file.seek(max(0, file_size - _OGG_MAX_PAGE))
    tail = file.read()
    page = tail[tail.rfind(_OGG_PAGE) :]
    has_head = len(page) >= _OGG_HEAD
    body = page[_OGG_HEAD:]
    is_whole = has_head and len(body) >= page[26] + sum(body[: page[26]])
    return None if is_whole and page[5] & _OGG_LAST else "is cut off: the last page of its stream is missing"


def _number(file: BinaryIO, size: int, order: Order) -> int:
    return int.from_bytes(file.read(size), order)


def _compare(announced: int, present: int, size_bytes: int) -> str | None:
    is_unknown = announced >= 256**size_bytes - 256  # as of a stream, whose end was not known when it began
    if is_unknown or announced <= present:
        return None
    return f"is cut off: {present} of {announced} bytes of audio are there"


# By the first four bytes of a file.
CHECKS: dict[bytes, Callable[[BinaryIO, int], str | None]] = {
    b"RIFF": partial(_check_chunks, layout=_RIFF),
    b"RIFX": partial(_check_chunks, layout=_RIFF._replace(order="big")),
    b"RF64": _check_rf64,
    b"riff": partial(_check_chunks, layout=_Chunks(40, _W64_DATA, 8, "little", 8, whole=True)),
    b"FORM": partial(_check_chunks, layout=_Chunks(12, b"SSND", 4, "big", 2)),
    b"caff": partial(_check_chunks, layout=_Chunks(8, b"data", 8, "big", 1)),
    b".snd": partial(_check_au, order="big"),
    b"dns.": partial(_check_au, order="little"),
    b"OggS": _check_ogg,
}
