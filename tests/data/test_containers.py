"""Cut files, against the number of frames that libsndfile finds in what is left."""

import numpy as np
import pytest
import soundfile

from avb_hf.data.containers import CHECKS, find_cut

# Magic: how such a file is written.
FORMATS = {
    b"RIFF": {"format": "WAV"},
    b"RIFX": {"format": "WAV", "endian": "BIG"},
    b"RF64": {"format": "RF64"},
    b"riff": {"format": "W64"},
    b"FORM": {"format": "AIFF"},
    b"caff": {"format": "CAF"},
    b".snd": {"format": "AU"},
    b"dns.": {"format": "AU", "endian": "LITTLE"},
    b"OggS": {"format": "OGG"},
}
MORE = [
    {"format": "WAVEX", "subtype": "PCM_24"},
    {"format": "WAV", "subtype": "MS_ADPCM"},
    {"format": "AIFF", "subtype": "ULAW"},  # AIFF-C
    {"format": "OGG", "subtype": "OPUS"},
    {"format": "CAF", "subtype": "ALAC_16"},
    {"format": "AU", "subtype": "FLOAT"},
]
ALL = [*FORMATS.values(), *MORE]


def write(path, frames=16_001, **kwargs):
    soundfile.write(path, np.random.default_rng(0).uniform(-0.5, 0.5, (frames, 1)), 16_000, **kwargs)
    return path.read_bytes()


def check(path, content):
    path.write_bytes(content)
    with path.open("rb") as file:
        return find_cut(file, len(content))


def test_every_format_is_tried():
    assert FORMATS.keys() == CHECKS.keys()


@pytest.mark.parametrize("magic", FORMATS)
def test_formats_are_known_by_their_first_bytes(tmp_path, magic):
    assert write(tmp_path / "a", **FORMATS[magic])[:4] == magic


@pytest.mark.wide
@pytest.mark.parametrize("kwargs", ALL, ids=str)
@pytest.mark.parametrize("frames", [1, 999, 16_001, 150_000])
def test_a_whole_file_is_not_cut(tmp_path, kwargs, frames):
    content = write(tmp_path / "a", frames, **kwargs)
    assert check(tmp_path / "a", content) is None
    assert check(tmp_path / "a", content + b"TAG of another program") is None


@pytest.mark.wide
@pytest.mark.parametrize("kwargs", ALL, ids=str)
@pytest.mark.parametrize("share", [0.5, 0.9, 0.999])
def test_a_file_without_its_end_is_cut(tmp_path, kwargs, share):
    content = write(tmp_path / "a", 100_000, **kwargs)
    reason = check(tmp_path / "a", content[: int(share * len(content))])
    assert reason.startswith("is cut off: ")
    try:
        assert soundfile.info(tmp_path / "a").frames < 100_000
    except soundfile.LibsndfileError:
        assert kwargs["format"] == "CAF"  # of which it looks at the size itself


def test_bytes_are_counted(tmp_path):
    content = write(tmp_path / "a", 1_000, format="AU")
    assert check(tmp_path / "a", content[:-300]) == "is cut off: 1700 of 2000 bytes of audio are there"


@pytest.mark.parametrize("size", [2, 3])
def test_chunks_before_the_audio_are_stepped_over_with_their_padding(tmp_path, size):
    content = write(tmp_path / "a", 1_000, format="WAV")
    chunk = b"LIST" + size.to_bytes(4, "little") + b"data"[:size] + bytes(size % 2)
    content = content[:12] + chunk + content[12:]
    assert check(tmp_path / "a", content) is None
    assert "1999 of 2000" in check(tmp_path / "a", content[:-1])


@pytest.mark.parametrize(
    ("magic", "size_at", "size_bytes"), [(b"RIFF", 40, 4), (b".snd", 8, 4), (b"riff", 96, 8), (b"caff", -1, 8)]
)
def test_a_stream_whose_length_was_not_known_is_not_cut(tmp_path, magic, size_at, size_bytes):
    content = bytearray(write(tmp_path / "a", 1_000, **FORMATS[magic]))
    size_at = content.index(b"data") + 4 if size_at < 0 else size_at
    content[size_at : size_at + size_bytes] = b"\xff" * size_bytes
    assert check(tmp_path / "a", content) is None


@pytest.mark.parametrize("magic", CHECKS)
def test_nonsense_is_left_to_the_decoder(tmp_path, magic):
    rng = np.random.default_rng(0)
    for length in (0, 1, 50, 5_000):
        for filling in (bytes(length), b"\xff" * length, rng.bytes(length)):
            assert check(tmp_path / "a", magic + filling) is None or magic in (b"OggS", b"RF64", b".snd", b"dns.")


def test_what_is_no_such_container_is_not_cut(tmp_path):
    for content in (b"", b"R", b"fLaC", b"ID3" + bytes(50)):
        assert check(tmp_path / "a", content) is None
