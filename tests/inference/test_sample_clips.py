import re

import numpy as np
import pytest
import soundfile

from avb_hf.data.audio import AudioFileError
from avb_hf.inference.sample_clips import find_audio, read_sample, synthesise_sample

RATE = 16_000


def write(path, seconds, rate=RATE):
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, 0.1 * np.random.default_rng(1).standard_normal(int(seconds * rate)), rate)
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Forty clips of 0.1 s to 2.05 s in folders of folders, and files that are none."""
    top = tmp_path_factory.mktemp("clips")
    for number in range(40):
        write(top / f"{number % 3}" / "deep" / f"{(7 * number) % 40:02d}.wav", 0.1 + 0.05 * number)
    write(top / "B.FLAC", 0.3)
    (top / "labels.csv").write_text("File_ID\n")
    (top / "a.wav.part").write_bytes(b"RIFF")
    return top


@pytest.fixture
def config(make_model):
    return make_model()[0].config


def test_folders_are_searched_files_are_taken_and_each_counts_once(folder, tmp_path):
    named = write(tmp_path / "named.wav", 0.2).rename(tmp_path / "named.audio")
    found = find_audio([folder, str(folder / "B.FLAC"), named])
    assert found == sorted([*folder.rglob("*.wav"), folder / "B.FLAC", named])
    assert len(found) == 42


def test_what_is_not_there_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"nope: there is no such file or folder"):
        find_audio([tmp_path / "nope"])
    (tmp_path / "text.txt").write_text("x")
    with pytest.raises(ValueError, match=re.escape(f"{tmp_path}: no audio file is in this folder")):
        find_audio([tmp_path])


def test_a_sample_is_spread_over_the_lengths(folder, config):
    files = find_audio([folder])
    lengths = {str(path): soundfile.info(path).frames for path in files}
    samples = [read_sample(files, config, 8, seed).waveforms for seed in (0, 0, 1)]
    assert list(samples[0]) == list(samples[1]) == sorted(samples[0])
    assert list(samples[0]) != list(samples[2])
    eighths = np.array_split(sorted(lengths.values()), 8)
    for sample in samples:
        drawn = sorted(map(len, sample.values()))
        assert {name: len(clip) for name, clip in sample.items()} == {name: lengths[name] for name in sample}
        assert all(part[0] <= length <= part[-1] for part, length in zip(eighths, drawn, strict=True))
        assert (drawn[0], drawn[-1]) == (min(lengths.values()), max(lengths.values()))


def test_few_clips_are_all_taken(folder, config):
    files = find_audio([folder])
    assert list(read_sample(files, config, 64).waveforms) == [str(path) for path in files]
    assert len(read_sample(files[:1], config, 64).waveforms) == 1


def test_of_a_long_clip_the_middle_is_taken_and_counted(tmp_path, config, make_model):
    files = [write(tmp_path / "long.wav", 30.5), write(tmp_path / "short.wav", 0.5)]
    sample = read_sample(files, config, 64)
    whole, _ = soundfile.read(files[0], dtype="float32")
    assert (sample.num_cropped, sample.max_seconds) == (1, 30)
    np.testing.assert_array_equal(sample.waveforms[str(files[0])], whole[4_000:-4_000])
    whisper = make_model("whisper")[0].config
    whisper.encoder_config.max_source_positions = 20  # 0.4 s
    assert [len(clip) for clip in read_sample(files, whisper, 64).waveforms.values()] == [6_400, 6_400]


def test_clips_are_brought_to_16_khz(tmp_path, config):
    sample = read_sample([write(tmp_path / "a.wav", 0.5, rate=44_100)], config, 64)
    assert [len(clip) for clip in sample.waveforms.values()] == [8_000]


@pytest.mark.parametrize(("content", "reason"), [(b"no audio", "cannot be decoded"), (None, "is too short")])
def test_a_clip_that_cannot_be_used_is_an_error(content, reason, tmp_path, config):
    path = write(tmp_path / "bad.wav", 0.01)
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(AudioFileError, match=rf"bad\.wav.*{reason}"):
        read_sample([path, write(tmp_path / "good.wav", 0.5)], config, 64)


def test_synthetic_clips_reach_from_the_shortest_to_4_s(family, make_model):
    config = make_model(family)[0].config
    waveforms = synthesise_sample(config).waveforms
    lengths = sorted(map(len, waveforms.values()))
    assert len(set(lengths)) == len(waveforms) == 16
    assert (lengths[0], lengths[-1]) == (config.min_samples, 64_000)
    assert {clip.dtype for clip in waveforms.values()} == {np.dtype(np.float32)}
    loudness = [np.abs(clip).max() for clip in waveforms.values()]
    assert max(loudness) < 1.3
    assert max(loudness) > 5 * min(loudness)


def test_synthetic_clips_are_repeatable_and_as_few_as_asked_for(config):
    first, again, other = (synthesise_sample(config, 4, seed).waveforms for seed in (0, 0, 1))
    assert len(first) == 4
    assert all(np.array_equal(first[name], again[name]) for name in first)
    assert not any(np.array_equal(first[name], other[name]) for name in first)
