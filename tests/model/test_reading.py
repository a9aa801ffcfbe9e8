"""Recordings in every form that the pipeline takes, and those that it refuses."""

import http.server
import threading
from functools import partial

import librosa
import numpy as np
import pytest
import soundfile
import torch
from datasets import Audio, Dataset, Features, IterableDataset, Value

from avb_hf.data.arguments import DataArguments
from avb_hf.data.audio import AudioFileError, load_clip
from avb_hf.model import reading_vocal_burst as reading
from avb_hf.model.reading_vocal_burst import find_dataset, read_clip, read_rows

RATE = 16_000


@pytest.fixture(scope="module")
def wave():
    """A quarter of a second of noise that 16-bit files hold without rounding."""
    return np.random.default_rng(3).integers(-20_000, 20_000, RATE // 4).astype(np.int16)


@pytest.fixture
def file(tmp_path, wave):
    soundfile.write(tmp_path / "burst.wav", wave, RATE)
    return tmp_path / "burst.wav"


@pytest.fixture
def served(file):
    """The folder of the file, as a site on the loopback."""
    handler = partial(http.server.SimpleHTTPRequestHandler, directory=file.parent)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


FORMS = {
    "path": lambda file, wave: file,
    "text": lambda file, wave: str(file),
    "bytes": lambda file, wave: file.read_bytes(),
    "array": lambda file, wave: {"array": wave / 32_768, "sampling_rate": RATE},
    "raw": lambda file, wave: {"raw": wave / 32_768, "sampling_rate": RATE},
    "16-bit integers": lambda file, wave: {"array": wave, "sampling_rate": RATE},
    "tensor": lambda file, wave: {"array": torch.from_numpy(wave / 32_768), "sampling_rate": torch.tensor(RATE).item()},
    "list": lambda file, wave: {"array": (wave / 32_768).tolist(), "sampling_rate": float(RATE)},
    "row of bytes": lambda file, wave: {"bytes": file.read_bytes(), "path": "elsewhere.wav"},
    "row of a path": lambda file, wave: {"bytes": None, "path": str(file)},
    "decoded row": lambda file, wave: {"array": wave / 32_768, "sampling_rate": RATE, "path": "elsewhere.wav"},
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_holds_the_same_clip(form, file, wave):
    clip, _ = read_clip(FORMS[form](file, wave), RATE)
    assert clip.dtype == np.float32
    np.testing.assert_array_equal(clip, (wave / 32_768).astype(np.float32))


def test_a_url_is_read_from_the_network_and_named_where_it_fails(served, wave):
    clip, name = read_clip(f"{served}/burst.wav", RATE)
    np.testing.assert_array_equal(clip, (wave / 32_768).astype(np.float32))
    assert name == f"{served}/burst.wav"
    with pytest.raises(ValueError, match=rf"{served}/other.wav cannot be downloaded .*404"):
        read_clip(f"{served}/other.wav", RATE)


@pytest.mark.parametrize("rate", [8_000, 22_050, 44_100, 48_000])
@pytest.mark.parametrize("suffix", [".wav", ".flac", ".ogg"])
def test_any_rate_and_channels_become_what_librosa_makes_of_them(tmp_path, rate, suffix):
    rng = np.random.default_rng(1)
    path = tmp_path / f"stereo{suffix}"
    soundfile.write(path, 0.1 * rng.standard_normal((rate // 3 + 1, 2)), rate)
    frames, _ = soundfile.read(path, dtype="float32")
    expected = librosa.resample(frames.mean(axis=1), orig_sr=rate, target_sr=RATE, res_type="soxr_hq")
    clip, _ = read_clip(path, RATE)
    assert clip.shape == expected.shape
    np.testing.assert_allclose(clip, expected, atol=1e-6)


@pytest.mark.parametrize("channels", [1, 2, 3])
def test_the_shorter_axis_of_an_array_is_its_channels(channels):
    frames = np.random.default_rng(2).standard_normal((500, channels))
    for array in (frames, frames.T):
        clip, _ = read_clip({"array": array, "sampling_rate": RATE}, RATE)
        np.testing.assert_allclose(clip, frames.mean(axis=1), atol=1e-6)


def _write(content):
    def write(folder):
        (folder / "bad.wav").write_bytes(content)
        return folder / "bad.wav"

    return write


def _write_empty(folder):
    soundfile.write(folder / "bad.wav", np.zeros(0), RATE)
    return folder / "bad.wav"


def _write_cancelling(folder):
    left = 0.5 * np.sin(np.arange(4_000))
    soundfile.write(folder / "bad.wav", np.stack([left, -left], axis=1), RATE, subtype="FLOAT")
    return folder / "bad.wav"


def _write_nan(folder):
    soundfile.write(folder / "bad.wav", np.full(4_000, np.nan), RATE, subtype="FLOAT")
    return folder / "bad.wav"


def _write_half(folder, suffix):
    path = folder / f"bad.{suffix}"
    soundfile.write(path, np.random.default_rng(1).uniform(-0.5, 0.5, RATE), RATE)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    return path


def _write_boasting(folder):
    """Write a FLAC file whose header tells of 2**36 - 1 samples."""
    soundfile.write(folder / "bad.flac", np.zeros(RATE), RATE)
    content = bytearray((folder / "bad.flac").read_bytes())
    content[21] |= 0x0F
    content[22:26] = b"\xff" * 4
    (folder / "bad.flac").write_bytes(content)
    return folder / "bad.flac"


BAD = {
    "absent": (lambda folder: folder / "bad.wav", r"bad\.wav: there is no such file; a recording must be the path"),
    "a folder": (lambda folder: folder, "this is a folder"),
    "a list of integers": (
        lambda folder: {"array": [20_000, -9], "sampling_rate": RATE},
        "16-bit integers .* got int64",
    ),
    "wide integers": (lambda folder: {"array": np.zeros(9, np.int32), "sampling_rate": RATE}, "got int32"),
    "floats of another scale": (
        lambda folder: {"array": np.full(9, -20_000.0), "sampling_rate": RATE},
        r"within \[-1, 1\], got 20000",
    ),
    "an empty array": (lambda folder: {"array": np.zeros(0), "sampling_rate": RATE}, "is empty: it has 0 samples"),
    "half a WAV file": (
        lambda folder: _write_half(folder, "wav"),
        r"bad\.wav is cut off: 15978 of 32000 bytes of audio",
    ),
    "half an MP3 file": (lambda folder: _write_half(folder, "mp3"), r"bad\.mp3 is cut off: \d+ of \d+ frames"),
    "a header of more than memory holds": (_write_boasting, r"bad\.flac (cannot be decoded \(Unable|is cut off)"),
    "no audio": (_write(b"no audio"), r"bad\.wav cannot be decoded .*MP3"),
    "0 bytes": (_write(b""), r"bad\.wav cannot be decoded"),
    "bytes of no audio": (lambda folder: b"no audio", "the recording cannot be decoded"),
    "no samples": (_write_empty, r"bad\.wav is empty"),
    "NaN": (_write_nan, r"bad\.wav holds NaN"),
    "channels that cancel": (_write_cancelling, r"bad\.wav: its channels cancel"),
    "an array without a rate": (lambda folder: np.zeros(400), r"got ndarray"),
    "a mapping without a rate": (
        lambda folder: {"array": np.zeros(400)},
        r"\{'array'.* got a mapping with \['array'\]",
    ),
    "an empty mapping": (lambda folder: {"bytes": None, "path": None}, r"got a mapping with \[\]"),
    "no rate": (lambda folder: {"array": np.zeros(400), "sampling_rate": 0}, "positive whole number of Hz, got 0"),
    "half a rate": (lambda folder: {"array": np.zeros(400), "sampling_rate": 0.5}, "positive whole number"),
    "endless rate": (lambda folder: {"array": np.zeros(400), "sampling_rate": np.inf}, "positive whole number"),
    "rate in words": (lambda folder: {"array": np.zeros(400), "sampling_rate": "16k"}, "got '16k'"),
    "unsigned": (lambda folder: {"array": np.zeros(400, np.uint8), "sampling_rate": RATE}, "got uint8"),
    "three axes": (lambda folder: {"array": np.zeros((2, 2, 9)), "sampling_rate": RATE}, r"shape \(2, 2, 9\)"),
    "a number": (lambda folder: 7, "a recording must be the path, URL or bytes .* got int"),
    "nothing": (lambda folder: None, "got NoneType"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_cannot_be_used_is_named_with_what_is_allowed(case, tmp_path):
    make, message = BAD[case]
    with pytest.raises(ValueError, match=message):
        read_clip(make(tmp_path), RATE)


def write_mp3(path, more):
    """Write a second of noise as MP3 whose header tells of so many more frames, of 36 ms each, than there are."""
    soundfile.write(path, np.random.default_rng(1).uniform(-0.5, 0.5, RATE), RATE)
    content = bytearray(path.read_bytes())
    place = content.index(b"Xing") + 8
    content[place : place + 4] = (int.from_bytes(content[place : place + 4], "big") + more).to_bytes(4, "big")
    path.write_bytes(content)
    return path


def write_wav(path, cut=0, more=0):
    """Write a second of noise as WAV with a note behind it; cut bytes off, or let the whole file announce more."""
    soundfile.write(path, np.random.default_rng(1).uniform(-0.5, 0.5, RATE), RATE)
    content = bytearray(path.read_bytes()) + b"LIST" + (8).to_bytes(4, "little") + b"INFOnote"
    content[4:8] = (len(content) - 8 + more).to_bytes(4, "little")
    path.write_bytes(content[: len(content) - cut])
    return path


ODD = {
    "two frames short": (lambda folder: write_mp3(folder / "a.mp3", 2), True),
    "five frames short": (lambda folder: write_mp3(folder / "a.mp3", 5), False),
    "a note that is cut off": (lambda folder: write_wav(folder / "a.wav", cut=5), True),
    "audio that is cut off": (lambda folder: write_wav(folder / "a.wav", cut=19), False),
    "a file that boasts, its audio does not": (lambda folder: write_wav(folder / "a.wav", more=99), True),
}


@pytest.mark.parametrize("case", ODD)
def test_a_file_is_used_where_the_training_uses_it(case, tmp_path):
    make, is_used = ODD[case]
    path = make(tmp_path)
    if is_used:
        np.testing.assert_array_equal(read_clip(path, RATE)[0], load_clip(path, "a", DataArguments()))
    else:
        with pytest.raises(ValueError, match=r"a\.(mp3|wav).* is cut off"):
            read_clip(path, RATE)
        with pytest.raises(AudioFileError, match="is cut off"):
            load_clip(path, "a", DataArguments())


def test_the_package_that_is_missing_is_named(file, monkeypatch):
    def absent(name):
        raise ImportError(name)

    monkeypatch.setattr(reading, "import_module", absent)
    with pytest.raises(ImportError, match="reading audio files needs soundfile: pip install soundfile"):
        read_clip(file, RATE)
    with pytest.raises(ImportError, match="from 8000 to 16000 Hz needs soxr: pip install soxr"):
        read_clip({"array": np.ones(99), "sampling_rate": 8_000}, RATE)


def test_a_dataset_yields_its_undecoded_audio(file):
    paths = [str(file)] * 3
    plain = Dataset.from_dict({"audio": paths, "age": [1, 2, 3]})
    typed = Dataset.from_dict({"voice": paths}).cast_column("voice", Audio())
    assert list(read_rows(plain)) == paths
    assert list(read_rows(plain.to_iterable_dataset())) == paths
    for dataset in (typed, typed.to_iterable_dataset()):
        assert list(read_rows(dataset)) == [{"bytes": None, "path": path} for path in paths]


def test_a_column_of_a_dataset_is_read_undecoded(file):
    rows = {"voice": [str(file)] * 2, "meta": [{"voice": str(file), "age": 1}] * 2, "file": [str(file)] * 2}
    inner = {"voice": Audio(), "age": Value("int64")}
    features = Features({"voice": Audio(), "meta": inner, "file": Value("string")})
    dataset = Dataset.from_dict(rows).cast(features)
    undecoded = [{"bytes": None, "path": str(file)}] * 2
    for source in (dataset, dataset.to_iterable_dataset()):
        assert list(read_rows(find_dataset(source["voice"]))) == undecoded
        assert list(read_rows(find_dataset(source["meta"]["voice"]))) == undecoded
        assert list(read_rows(find_dataset(source["file"]))) == [str(file)] * 2
        (age, _) = read_rows(find_dataset(source["meta"]["age"]))
        with pytest.raises(ValueError, match=r"a recording must be the path, URL or bytes .* got int"):
            read_clip(age, RATE)
    assert find_dataset([str(file)]) is None


def test_a_column_of_a_stream_whose_features_nobody_knows(file):
    stream = IterableDataset.from_generator(lambda: ({"voice": str(file), "age": age} for age in range(2)))
    assert list(read_rows(find_dataset(stream["voice"]))) == [str(file)] * 2
    with pytest.raises(ValueError, match=r"got the columns \[\]; or give a column of it"):
        list(read_rows(find_dataset(stream)))


def test_a_dataset_without_one_audio_column_is_refused(file):
    two = Dataset.from_dict({"a": [str(file)], "b": [str(file)]})
    for dataset in (two, two.cast_column("a", Audio()).cast_column("b", Audio())):
        with pytest.raises(ValueError, match=r"one column of type Audio.* got the columns \['a', 'b'\]"):
            list(read_rows(dataset))
