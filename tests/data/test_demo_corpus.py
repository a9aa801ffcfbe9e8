import dataclasses
import hashlib
import os

import librosa
import numpy as np
import pandas as pd
import pytest
import soundfile as sf
from scipy.stats import spearmanr
from sklearn.linear_model import LinearRegression

from avb_hf.data import demo_corpus
from avb_hf.data.arguments import DataArguments
from avb_hf.data.demo_corpus import write_demo_corpus
from avb_hf.data.sources import demo, load_corpus
from avb_hf.data.synthesis import Burst, Voice, synthesise
from avb_hf.tasks import COUNTRIES, TASKS

pytestmark = pytest.mark.slow

A_VB_TASKS = [name for name in TASKS if TASKS[name].label_file]
FEW = 120


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    folder = tmp_path_factory.mktemp("demo") / "deep" / "corpus"
    write_demo_corpus(folder, num_clips=FEW)
    return folder


def read(folder, task):
    return pd.read_csv(folder / "labels" / TASKS[task].label_file, dtype={"File_ID": str})


def digests(folder):
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_same_seed_same_bytes_and_another_seed_another_corpus(tmp_path):
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        write_demo_corpus(tmp_path / name, seed=seed, num_clips=30)
    first, again, other = (digests(tmp_path / name) for name in "abc")
    assert len(first) == 30 + len(A_VB_TASKS)
    assert first == again
    assert first.keys() == other.keys()
    assert not set(first.values()) & set(other.values())


def test_clips_are_ragged_16_khz_pcm_at_minus_3_db(corpus):
    paths = sorted((corpus / "audio" / "wav").iterdir())
    assert [path.name for path in paths] == [f"{index:05d}.wav" for index in range(FEW)]
    infos = [sf.info(path) for path in paths]
    assert {(info.samplerate, info.channels, info.subtype) for info in infos} == {(16000, 1, "PCM_16")}
    durations = np.array([info.duration for info in infos])
    assert durations.min() >= 0.4
    assert durations.max() <= 3.0
    assert len(set(durations)) > FEW // 2
    peaks = [np.abs(sf.read(path)[0]).max() for path in paths]
    np.testing.assert_allclose(20 * np.log10(peaks), -3, atol=0.01)


@pytest.mark.parametrize("task", A_VB_TASKS)
def test_tables_are_strict(corpus, task):
    table = read(corpus, task)
    assert list(table.columns) == ["File_ID", "Split", "Speaker", *TASKS[task].label_columns]
    assert list(table["File_ID"]) == [f"[{index:05d}]" for index in range(FEW)]
    assert set(table["Split"]) == {"Train", "Val", "Test"}
    assert (table.groupby("Speaker")["Split"].nunique() == 1).all()
    assert dict(table.groupby("Split")["Speaker"].nunique()) == {"Train": 21, "Val": 5, "Test": 4}
    assert table["Speaker"].equals(read(corpus, "high")["Speaker"])


@pytest.mark.parametrize("task", [name for name in A_VB_TASKS if not TASKS[name].is_classification])
def test_ratings_lie_in_range_and_vary_in_every_split(corpus, task):
    table, spec = read(corpus, task), TASKS[task]
    ratings = table[list(spec.labels)]
    assert ratings.isna().any(axis=None) == spec.allow_missing
    assert ratings.min(axis=None) >= 0
    assert ratings.max(axis=None) <= 1
    assert (ratings.groupby(table["Split"]).std() > 0.02).all(axis=None)


def test_every_type_occurs(corpus):
    assert set(read(corpus, "type")["Voc_Type"]) == set(TASKS["type"].labels)


def test_a_countrys_raters_hear_their_own_speakers_and_a_few_others(corpus):
    table = read(corpus, "culture")
    emotions = TASKS["high"].labels
    heard = np.stack([table[[f"{c}_{e}" for e in emotions]].notna().to_numpy() for c in COUNTRIES], axis=1)
    assert (heard.all(axis=2) == heard.any(axis=2)).all()  # a rater fills in a whole sheet
    own = pd.DataFrame(heard.all(axis=2)).groupby(table["Speaker"]).all()
    assert own.any(axis=1).all()
    assert 1.2 < heard.all(axis=2).sum(axis=1).mean() < 1.8


def test_an_error_midway_leaves_nothing_behind(tmp_path, monkeypatch):
    def fail_at_the_fifth(path, *args, **kwargs):
        if path.name == "00005.wav":
            raise KeyboardInterrupt
        return write(path, *args, **kwargs)

    write = sf.write
    monkeypatch.setattr(demo_corpus.sf, "write", fail_at_the_fifth)
    with pytest.raises(KeyboardInterrupt):
        write_demo_corpus(tmp_path / "corpus", num_clips=30)
    assert list(tmp_path.iterdir()) == []


def test_the_folder_appears_whole(tmp_path, monkeypatch):
    seen = []

    def watch(source, target):
        seen.append((target.exists(), len(list((source / "audio" / "wav").iterdir()))))
        return replace(source, target)

    replace = os.replace
    monkeypatch.setattr(demo_corpus.os, "replace", watch)
    write_demo_corpus(tmp_path / "corpus", num_clips=30)
    assert seen == [(False, 30)]
    assert [path.name for path in tmp_path.iterdir()] == ["corpus"]


def test_the_first_of_two_writers_wins(tmp_path):
    write_demo_corpus(tmp_path / "corpus", seed=1, num_clips=30)
    before = digests(tmp_path / "corpus")
    write_demo_corpus(tmp_path / "corpus", seed=2, num_clips=30)
    assert digests(tmp_path / "corpus") == before
    assert [path.name for path in tmp_path.iterdir()] == ["corpus"]


def test_a_folder_of_something_else_is_no_corpus(tmp_path):
    (tmp_path / "corpus").mkdir()
    (tmp_path / "corpus" / "thesis.txt").write_text("mine")
    with pytest.raises(OSError, match="corpus"):
        write_demo_corpus(tmp_path / "corpus", num_clips=30)
    assert [path.name for path in (tmp_path / "corpus").iterdir()] == ["thesis.txt"]


def test_too_few_clips_are_refused(tmp_path):
    with pytest.raises(ValueError, match="num_clips must be at least 30, one a speaker, got 29"):
        write_demo_corpus(tmp_path / "corpus", num_clips=29)


NEUTRAL = Burst(rate=0, breath=0, glide=0.5, open=0.5, front=0.5, move=0.5, rough=0, dark=0.5, attack=0.2, tremor=0)


def sound(duration=1.0, register=0.0, **latents):
    voice = Voice(pitch=150, tract=1.0, floor_db=-50, colour=0.0)
    burst = dataclasses.replace(NEUTRAL, **latents)
    return synthesise(burst, voice, duration, register, np.random.default_rng(0))


@pytest.mark.parametrize(("register", "hertz"), [(0.0, 150), (1.0, 300)])
def test_a_voiced_burst_has_the_voices_pitch(register, hertz):
    pitch = librosa.yin(sound(register=register)[:9000], fmin=70, fmax=600, sr=16000)
    assert np.median(pitch) == pytest.approx(hertz, rel=0.05)


def test_a_glide_rises_and_falls():
    for glide, direction in ((0.9, 1), (0.1, -1)):
        pitch = librosa.yin(sound(glide=glide)[:9000], fmin=50, fmax=600, sr=16000)
        assert spearmanr(pitch, np.arange(pitch.size)).statistic * direction > 0.9


@pytest.mark.parametrize(("rate", "hertz"), [(0.0, 0.25), (0.5, 4.25), (1.0, 7.0)])
def test_repetition_is_as_quick_as_asked_for(rate, hertz):
    loudness = librosa.feature.rms(y=sound(duration=4.0, rate=rate, breath=1.0), frame_length=400, hop_length=160)[0]
    spectrum = np.abs(np.fft.rfft(loudness[:400] - loudness[:400].mean()))  # 100 frames a second: bins of 0.25 Hz
    assert spectrum.argmax() * 0.25 == pytest.approx(hertz, abs=0.25)


@pytest.mark.parametrize(("latent", "sign"), [("open", 1), ("front", 1), ("dark", -1)])
def test_a_brighter_setting_sounds_brighter(latent, sign):
    low, high = (
        librosa.feature.spectral_centroid(y=sound(breath=1.0, **{latent: value})[:9000], sr=16000).mean()
        for value in (0.1, 0.9)
    )
    assert sign * (high - low) > 50


def simple_features(path):
    samples, rate = sf.read(path)
    power = np.abs(np.fft.rfft(samples, 2 * samples.size)) ** 2
    shortest, longest = rate // 800, rate // 60
    pitch = rate / (shortest + np.fft.irfft(power)[shortest:longest].argmax())  # of the highest autocorrelation
    crossings = (np.diff(np.signbit(samples).astype(int)) != 0).mean()
    return [samples.size / rate, np.sqrt((samples**2).mean()), pitch, crossings]


def population_ccc(preds, target):
    covariance = ((preds - preds.mean(0)) * (target - target.mean(0))).mean(0)
    return 2 * covariance / (preds.var(0) + target.var(0) + (preds.mean(0) - target.mean(0)) ** 2)


def test_duration_loudness_pitch_and_zero_crossings_do_not_tell_the_emotions(tmp_path):
    write_demo_corpus(tmp_path / "corpus", seed=demo.SEED)
    table = read(tmp_path / "corpus", "high")
    paths = [tmp_path / "corpus" / "audio" / "wav" / f"{file_id[1:-1]}.wav" for file_id in table["File_ID"]]
    features = np.array([simple_features(path) for path in paths])
    ratings = table[list(TASKS["high"].labels)].to_numpy()
    train, test = (table["Split"] == "Train").to_numpy(), (table["Split"] == "Test").to_numpy()
    preds = LinearRegression().fit(features[train], ratings[train]).predict(features[test])
    assert population_ccc(preds, ratings[test]).mean() < 0.30


class TestSource:
    @pytest.fixture(autouse=True)
    def cache(self, tmp_path, monkeypatch):
        monkeypatch.setenv("AVB_HF_CACHE", str(tmp_path / "cache"))
        return tmp_path / "cache"

    def test_the_task_is_high_unless_named(self):
        assert demo.infer_task(DataArguments(source="demo")) is TASKS["high"]
        assert demo.infer_task(DataArguments(source="demo", task="type")) is TASKS["type"]

    def test_a_data_folder_is_refused(self, tmp_path):
        with pytest.raises(ValueError, match="demo source takes no data_dir, got"):
            load_corpus(TASKS["high"], DataArguments(source="demo", data_dir=str(tmp_path)))

    def test_the_corpus_is_written_once_into_the_cache(self, cache, monkeypatch):
        calls = []

        def write(folder, seed):
            calls.append(folder)
            write_demo_corpus(folder, seed, num_clips=60)

        monkeypatch.setattr(demo, "write_demo_corpus", write)
        for _ in range(2):
            splits = load_corpus(TASKS["high"], DataArguments(source="demo"))
        assert calls == [cache / f"demo-corpus-v{demo_corpus.VERSION}-seed7"]
        assert {name: rows.num_rows for name, rows in splits.items()} == {"train": 42, "validation": 10, "test": 8}
        assert set(splits["test"].unique("speaker")) == {f"speaker_{index}" for index in range(26, 30)}

    def test_without_the_variable_the_cache_is_in_the_home_folder(self, tmp_path, monkeypatch):
        monkeypatch.delenv("AVB_HF_CACHE")
        monkeypatch.setenv("HOME", str(tmp_path))
        assert demo.corpus_folder().parent == tmp_path / ".cache" / "avb_hf"
