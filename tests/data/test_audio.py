import math
import pickle
import tracemalloc

import librosa
import numpy as np
import pytest
import soundfile

from avb_hf.data import blocks
from avb_hf.data.arguments import DataArguments
from avb_hf.data.audio import AudioFileError, check_header, decode, load_clip, read_header

ARGS = DataArguments()


def tone(seconds=0.5, rate=16_000, frequency=440.0, amplitude=0.5):
    return (amplitude * np.sin(2 * np.pi * frequency * np.arange(int(seconds * rate)) / rate)).astype(np.float32)


def write(path, samples, rate=16_000, **kwargs):
    soundfile.write(path, samples, rate, **kwargs)
    return path


def test_float_wav_at_the_models_rate_comes_back_bit_for_bit(tmp_path):
    samples = np.random.default_rng(0).uniform(-1, 1, 4000).astype(np.float32)
    clip = load_clip(write(tmp_path / "a.wav", samples, subtype="FLOAT"), "a", ARGS)
    assert clip.dtype == np.float32
    np.testing.assert_array_equal(clip, samples)


def test_header_tells_rate_channels_and_duration(tmp_path):
    header = read_header(write(tmp_path / "a.flac", np.stack([tone(0.5, 48_000)] * 2, 1), 48_000), "a")
    assert (header.sampling_rate, header.channels, header.duration, header.format) == (48_000, 2, 0.5, "FLAC")


def test_content_decides_the_format_not_the_suffix(tmp_path):
    path = write(tmp_path / "a.mp3", tone(), format="WAV")
    assert read_header(path, "a").format == "WAV"
    np.testing.assert_allclose(load_clip(path, "a", ARGS), tone(), atol=1 / 32768)


@pytest.mark.parametrize("subtype", ["PCM_U8", "PCM_24", "PCM_32", "FLOAT", "DOUBLE", "ULAW", "ALAW", "MS_ADPCM"])
def test_wav_of_every_encoding_is_read(tmp_path, subtype):
    clip = load_clip(write(tmp_path / "a.wav", tone(), subtype=subtype), "a", ARGS)
    np.testing.assert_allclose(clip[:8_000], tone(), atol=0.05)


@pytest.mark.parametrize("rate", [8_000, 44_100, 48_000])
def test_resampling_equals_librosas(tmp_path, rate):
    path = write(tmp_path / "a.wav", tone(rate=rate), rate)
    expected, _ = librosa.load(path, sr=16_000, res_type="soxr_hq")
    np.testing.assert_allclose(load_clip(path, "a", ARGS), expected, atol=1e-6)


def test_a_resampled_tone_keeps_its_frequency(tmp_path):
    clip = load_clip(write(tmp_path / "a.wav", tone(1.0, 48_000, 1_000), 48_000), "a", ARGS)
    assert len(clip) == 16_000
    assert np.abs(np.fft.rfft(clip)).argmax() == 1_000


def test_channels_are_averaged_or_the_first_is_taken_or_refused(tmp_path):
    left, right = tone(frequency=300), tone(frequency=700)
    path = write(tmp_path / "a.wav", np.stack([left, right], 1), subtype="FLOAT")
    np.testing.assert_allclose(load_clip(path, "a", ARGS), (left + right) / 2, atol=1e-7)
    np.testing.assert_array_equal(load_clip(path, "a", DataArguments(channels="first")), left)
    with pytest.raises(AudioFileError, match="2 channels"):
        load_clip(path, "a", DataArguments(channels="error"))


@pytest.mark.parametrize("kind", ["wav", "mp3", "ogg"])
def test_channels_that_cancel_each_other_are_an_error(tmp_path, kind):
    path = write(tmp_path / f"a.{kind}", np.stack([tone(rate=48_000), -tone(rate=48_000)], 1), 48_000)
    with pytest.raises(AudioFileError, match=r"File_ID a .*cancel each other"):
        load_clip(path, "a", ARGS)
    assert np.abs(load_clip(path, "a", DataArguments(channels="first"))).max() > 0.4


def test_one_silent_channel_is_no_cancellation(tmp_path):
    path = write(tmp_path / "a.wav", np.stack([tone(), 0 * tone()], 1), subtype="FLOAT")
    np.testing.assert_allclose(load_clip(path, "a", ARGS), tone() / 2, atol=1e-7)


def test_a_silent_clip_is_read_and_said(tmp_path, caplog):
    clip = load_clip(write(tmp_path / "quiet.wav", np.zeros(1_000)), "quiet", ARGS)
    assert not clip.any()
    assert "quiet" in caplog.text


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_samples_that_are_not_finite_are_an_error(tmp_path, bad):
    samples = tone()
    samples[100] = bad
    with pytest.raises(AudioFileError, match="NaN or infinite"):
        load_clip(write(tmp_path / "a.wav", samples, subtype="FLOAT"), "a", ARGS)


def cut(path, keep):
    path.write_bytes(path.read_bytes()[:keep])
    return path


@pytest.mark.parametrize("kind", ["wav", "mp3", "flac"])
def test_a_file_that_was_cut_off_is_an_error(tmp_path, kind):
    path = write(tmp_path / f"a.{kind}", tone(2.0, 48_000), 48_000)
    with pytest.raises(AudioFileError, match=r"cut off|cannot be decoded"):
        load_clip(cut(path, path.stat().st_size // 2), "a", ARGS)


def test_a_wav_that_was_cut_off_is_seen_in_the_header_scan(tmp_path):
    with pytest.raises(AudioFileError, match="is cut off: 7956 of 16000 bytes"):
        read_header(cut(write(tmp_path / "a.wav", tone()), 8_000), "a")


@pytest.mark.parametrize("kind", ["aiff", "au", "w64", "rf64", "caf", "ogg"])
def test_any_file_whose_end_is_missing_is_truncated_before_it_is_decoded(tmp_path, kind):
    path = write(tmp_path / f"a.{kind}", tone())
    for read in (read_header, lambda path, file_id: load_clip(path, file_id, ARGS)):
        with pytest.raises(AudioFileError, match="is cut off") as caught:
            read(cut(path, path.stat().st_size // 2), "a")
        assert caught.value.kind == "truncated_audio"


def test_a_path_that_no_file_can_have_is_an_error(tmp_path):
    for name in ("a\0.wav", "x" * 300):
        with pytest.raises(AudioFileError, match=r"embedded null byte|File name too long") as caught:
            read_header(tmp_path / name, "a")
        assert caught.value.kind == "unreadable_audio"


def test_a_streamed_wav_without_a_size_is_read(tmp_path):
    path = write(tmp_path / "a.wav", tone(), subtype="PCM_16")
    content = bytearray(path.read_bytes())
    at = content.index(b"data") + 4
    content[at : at + 4] = b"\xff\xff\xff\xff"
    path.write_bytes(content)
    assert len(load_clip(path, "a", ARGS)) == 8_000


@pytest.mark.parametrize("content", [b"<html></html>", bytes(range(256)) * 20, b"RIFF\x24\x00\x00\x00WAVE"])
def test_what_is_no_audio_is_an_error(tmp_path, content):
    path = tmp_path / "a.wav"
    path.write_bytes(content)
    for read in (lambda: read_header(path, "x7"), lambda: load_clip(path, "x7", ARGS)):
        with pytest.raises(AudioFileError, match=r"File_ID x7 .*cannot be decoded"):
            read()


@pytest.mark.parametrize("make", [lambda path: None, lambda path: path.mkdir(), lambda path: path.symlink_to("gone")])
def test_a_missing_file_is_an_error_with_its_parts(tmp_path, make):
    path = tmp_path / "a.wav"
    make(path)
    with pytest.raises(AudioFileError) as caught:
        read_header(path, "a")
    assert (caught.value.file_id, caught.value.path, caught.value.reason) == ("a", path, "the file is missing")


def test_the_error_survives_a_worker_process():
    error = pickle.loads(pickle.dumps(AudioFileError("a", "a.wav", "is odd")))
    assert isinstance(error, ValueError)
    assert str(error) == "File_ID a (a.wav): is odd"


@pytest.mark.parametrize(("samples", "rate"), [(1, 16_000), (399, 16_000), (1_196, 48_000)])
def test_clips_shorter_than_the_receptive_field_are_refused(tmp_path, samples, rate):
    path = write(tmp_path / "a.wav", tone(1.0, rate)[:samples], rate)
    with pytest.raises(AudioFileError, match="too short"):
        load_clip(path, "a", ARGS)
    with pytest.raises(AudioFileError, match="too short"):
        check_header(read_header(path, "a"), path, "a", ARGS, 400)


@pytest.mark.parametrize("write_empty", [lambda path: path.write_bytes(b""), lambda path: write(path, tone()[:0])])
def test_an_empty_file_is_an_error(tmp_path, write_empty):
    path = tmp_path / "a.wav"
    write_empty(path)
    with pytest.raises(AudioFileError, match=r"File_ID a .*is empty: ") as caught:
        load_clip(path, "a", ARGS)
    assert caught.value.kind == "empty_audio"


def test_the_shortest_allowed_clip_is_read(tmp_path):
    assert len(load_clip(write(tmp_path / "a.wav", tone()[:400]), "a", ARGS)) == 400
    assert len(load_clip(write(tmp_path / "a.wav", tone()[:10]), "a", ARGS, min_samples=10)) == 10


def test_a_long_clip_is_an_error_that_names_it_or_is_cropped_to_its_centre(tmp_path):
    samples = np.linspace(-1, 1, 32_000, dtype=np.float32)
    path = write(tmp_path / "a.wav", samples, subtype="FLOAT")
    with pytest.raises(AudioFileError, match=r"File_ID a .*lasts 2.00 s, longer than 1 s"):
        load_clip(path, "a", DataArguments(max_duration=1.0))
    cropped = load_clip(path, "a", DataArguments(max_duration=1.0, long_clips="crop"))
    np.testing.assert_array_equal(cropped, samples[8_000:24_000])


@pytest.mark.parametrize("rate", [16_000, 48_000])
@pytest.mark.parametrize("kind", ["wav", "flac", "ogg", "mp3"])
def test_a_crop_is_the_middle_of_the_whole_clip_at_16_khz(tmp_path, rate, kind):
    time = np.arange(3 * rate + 7) / rate
    path = write(tmp_path / f"a.{kind}", 0.5 * np.sin(2 * np.pi * (100 * time + 300 * time**2)), rate)
    whole = load_clip(path, "a", ARGS)
    start = (len(whole) - 16_000) // 2
    cropped = load_clip(path, "a", DataArguments(max_duration=1.0, long_clips="crop"))
    np.testing.assert_allclose(cropped, whole[start : start + 16_000], atol=1e-6)


def test_a_crop_is_the_middle_of_what_the_trimming_leaves(tmp_path):
    samples = np.concatenate([np.zeros(48_000), np.linspace(0.5, 1, 32_000)]).astype(np.float32)
    path = write(tmp_path / "a.wav", samples, subtype="FLOAT")
    trimmed = load_clip(path, "a", DataArguments(trim_db=30.0))
    cropped = load_clip(path, "a", DataArguments(trim_db=30.0, max_duration=1.0, long_clips="crop"))
    start = (len(trimmed) - 16_000) // 2
    np.testing.assert_array_equal(cropped, trimmed[start : start + 16_000])


def test_a_crop_reads_no_more_than_it_needs(tmp_path):
    path = write(tmp_path / "a.wav", tone(), subtype="PCM_16")
    size = 2**29
    header = bytearray(path.read_bytes()[:44])
    header[40:44] = size.to_bytes(4, "little")
    with path.open("wb") as file:  # all but the header is a hole of zeros
        file.write(header)
        file.truncate(44 + size)
    tracemalloc.start()
    clip = load_clip(path, "a", DataArguments(max_duration=2.0, long_clips="crop"))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(clip) == 32_000
    assert peak < 2**20


@pytest.fixture
def boasting(tmp_path):
    """A FLAC file whose header announces 2^36 - 1 samples, 50 days."""
    path = write(tmp_path / "a.flac", tone())
    content = bytearray(path.read_bytes())
    content[21] |= 0x0F
    content[22:26] = b"\xff" * 4
    path.write_bytes(content)
    assert read_header(path, "a").num_frames == 2**36 - 1
    return path


@pytest.mark.parametrize(
    "flags", [{"long_clips": "crop"}, {"long_clips": "crop", "trim_db": 30.0}, {"max_duration": 1e9}], ids=str
)
def test_a_header_that_announces_more_than_memory_holds_is_an_error(boasting, flags):
    with pytest.raises(AudioFileError, match=r"cannot be decoded|cut off"):
        load_clip(boasting, "a", DataArguments(**flags))


def test_what_memory_does_not_hold_is_an_error_of_the_file(tmp_path, monkeypatch):
    def fail(*args, **kwargs):
        raise MemoryError("Unable to allocate 256 GiB")

    monkeypatch.setattr(soundfile.SoundFile, "read", fail)
    with pytest.raises(AudioFileError, match="Unable to allocate 256 GiB"):
        load_clip(write(tmp_path / "a.wav", tone()), "a", ARGS)


@pytest.mark.parametrize("kind", ["wav", "flac", "ogg", "mp3"])
def test_long_files_are_decoded_in_blocks_to_the_same_samples(tmp_path, monkeypatch, kind):
    path = write(tmp_path / f"a.{kind}", np.stack([tone(1.0), tone(1.0, frequency=600)], 1))
    whole, _ = soundfile.read(path, dtype="float32")
    monkeypatch.setattr(blocks, "_BLOCK", 1_000)
    np.testing.assert_allclose(decode(path, "a", ARGS)[1], whole, atol=1e-6)


def test_of_a_format_that_cannot_be_sought_all_before_the_crop_is_dropped(tmp_path, monkeypatch):
    samples = np.linspace(-1, 1, 48_000, dtype=np.float32)
    path = write(tmp_path / "a.wav", samples, subtype="FLOAT")
    monkeypatch.setattr(soundfile.SoundFile, "seekable", lambda file: False)
    monkeypatch.setattr(soundfile.SoundFile, "seek", None)
    monkeypatch.setattr(blocks, "_BLOCK", 1_000)
    cropped = load_clip(path, "a", DataArguments(max_duration=1.0, long_clips="crop"))
    np.testing.assert_array_equal(cropped, samples[16_000:32_000])


def test_silence_is_trimmed_on_request_only(tmp_path):
    samples = np.concatenate([np.zeros(8_000), tone(1.0), np.zeros(8_000)]).astype(np.float32)
    path = write(tmp_path / "a.wav", samples, subtype="FLOAT")
    assert len(load_clip(path, "a", ARGS)) == 32_000
    trimmed = load_clip(path, "a", DataArguments(trim_db=30.0))
    assert 16_000 <= len(trimmed) < 18_500  # librosa trims by whole frames of 2048 samples
