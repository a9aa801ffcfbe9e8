"""openSMILE's functionals, and the cache that they are kept in."""

import logging
from importlib.metadata import PackageNotFoundError

import numpy as np
import pytest
import soundfile
from datasets import DatasetDict

from avb_hf.baselines import functionals
from avb_hf.baselines.functionals import FEATURE_SETS, Functionals, extract_functionals
from avb_hf.data.arguments import DataArguments
from avb_hf.data.sources import load_corpus
from avb_hf.tasks import TASKS

pytestmark = pytest.mark.slow

RATE = 16_000
EGEMAPS = FEATURE_SETS["egemaps"]


@pytest.fixture(scope="module")
def opensmile():
    """The package, where it is installed."""
    return pytest.importorskip("opensmile", reason="openSMILE is in the extra `baselines`")


def voiced(seconds=0.5, pitch=220.0, level=0.1):
    """A tone with twenty harmonics, as a voice has them."""
    time = np.arange(int(seconds * RATE)) / RATE
    return (level * sum(np.sin(2 * np.pi * pitch * k * time) / k for k in range(1, 21))).astype(np.float32)


@pytest.mark.parametrize(("name", "dimensions"), [("compare", 6373), ("egemaps", 88)])
def test_dimensions_and_values(opensmile, name, dimensions):
    clip = voiced()
    features = Functionals(FEATURE_SETS[name])(clip)
    assert (features.shape, features.dtype) == ((dimensions,), np.float32)
    feature_set = {"compare": opensmile.FeatureSet.ComParE_2016, "egemaps": opensmile.FeatureSet.eGeMAPSv02}[name]
    expected = opensmile.Smile(feature_set).process_signal(clip, RATE)
    np.testing.assert_array_equal(features, expected.to_numpy()[0])


def test_a_tone_has_the_pitch_that_it_was_made_with(opensmile):
    smile = opensmile.Smile(opensmile.FeatureSet.eGeMAPSv02)
    pitch = Functionals(EGEMAPS)(voiced(pitch=220.0))[smile.feature_names.index("F0semitoneFrom27.5Hz_sma3nz_amean")]
    assert pitch == pytest.approx(36, abs=0.1)  # three octaves above 27.5 Hz


def test_what_is_louder_than_full_scale_does_not_wrap_around(opensmile):
    smile = Functionals(EGEMAPS)
    below, beyond = (smile(voiced(level=level)) for level in (0.5, 0.62))
    assert np.abs(voiced(level=0.5)).max() < 1 < np.abs(voiced(level=0.62)).max()
    saturated = smile(np.clip(voiced(level=0.62), -1, 1 - 1 / 32768))
    np.testing.assert_array_equal(beyond, saturated)
    loudness = opensmile.Smile(opensmile.FeatureSet.eGeMAPSv02).feature_names.index("loudness_sma3_amean")
    assert beyond[loudness] == pytest.approx(below[loudness], rel=0.2)


@pytest.mark.parametrize("name", FEATURE_SETS)
def test_the_shortest_clip_has_functionals_and_a_shorter_one_has_none(opensmile, name):
    smile, shortest = Functionals(FEATURE_SETS[name]), FEATURE_SETS[name].min_samples
    assert np.isfinite(smile(voiced()[:shortest])).all()
    with pytest.warns(UserWarning, match="too short"):
        assert np.isnan(smile(voiced()[: shortest - 1])).all()


def test_silence_has_finite_functionals(opensmile):
    assert all(np.isfinite(Functionals(chosen)(np.zeros(RATE, np.float32))).all() for chosen in FEATURE_SETS.values())


def test_without_opensmile_the_extra_is_named(monkeypatch):
    def absent(package):
        raise PackageNotFoundError(package)

    monkeypatch.setattr("avb_hf.baselines.functionals.version", absent)
    with pytest.raises(ImportError, match=r"pip install 'avb_hf\[baselines\]'"):
        Functionals(EGEMAPS)


@pytest.fixture
def splits(corpus_dir):
    """The corpus of 36 clips."""
    return load_corpus(TASKS["two"], DataArguments(data_dir=str(corpus_dir)))


DATA = DataArguments()


def test_threads_make_no_difference(opensmile, splits, tmp_path, monkeypatch):
    made = []
    for threads in (1, 3):
        monkeypatch.setenv("AVB_HF_CACHE", str(tmp_path / str(threads)))
        made.append(extract_functionals(DatasetDict(test=splits["test"]), EGEMAPS, DATA, threads)["test"])
    assert made[0].shape == (9, 88)
    np.testing.assert_array_equal(*made)


def test_rows_stand_in_the_order_of_the_split(simple_functionals, splits):
    made = extract_functionals(splits, EGEMAPS, DATA, 2)
    for name, split in splits.items():
        waves = [soundfile.read(path, dtype="float32")[0] for path in split["path"]]
        expected = [np.sqrt(np.mean(wave**2)) for wave in waves]
        np.testing.assert_allclose(made[name][:, 1], expected, rtol=1e-5)


def test_the_licence_is_named_by_every_run(simple_functionals, splits, caplog):
    for _ in range(2):
        caplog.clear()
        with caplog.at_level(logging.INFO):
            extract_functionals(splits, EGEMAPS, DATA, 1)
        assert "openSMILE 1.2.3 is under audEERING's research licence" in caplog.text


def test_what_was_made_is_not_made_again(simple_functionals, splits):
    first = extract_functionals(splits, EGEMAPS, DATA, 1)
    assert len(simple_functionals) == 36
    again = extract_functionals(splits, EGEMAPS, DATA, 1)
    assert len(simple_functionals) == 36
    for name in splits:
        np.testing.assert_array_equal(first[name], again[name])


@pytest.mark.parametrize("change", ["feature set", "reading", "version"])
def test_other_functionals_are_made_anew(simple_functionals, splits, monkeypatch, change):
    extract_functionals(splits, EGEMAPS, DATA, 1)
    chosen = FEATURE_SETS["compare"] if change == "feature set" else EGEMAPS
    data = DataArguments(channels="first") if change == "reading" else DATA
    if change == "version":
        monkeypatch.setattr("avb_hf.baselines.functionals.version", lambda package: "1.2.4")
    extract_functionals(splits, chosen, data, 1)
    assert len(simple_functionals) == 72


def test_clips_that_changed_or_whose_functionals_are_damaged_are_made_again(
    simple_functionals, make_corpus, cache_dir, tmp_path, monkeypatch
):
    monkeypatch.setattr(functionals, "SHARD_CLIPS", 12)
    folder = make_corpus(tmp_path / "corpus")
    splits = load_corpus(TASKS["two"], DataArguments(data_dir=str(folder)))
    extract_functionals(splits, EGEMAPS, DATA, 1)
    shards = sorted(cache_dir.glob("states/*/*.safetensors"))
    assert len(shards) == 3
    content = bytearray(shards[0].read_bytes())
    content[-1] ^= 255
    shards[0].write_bytes(content)
    changed = splits["test"]["path"][0]
    wave, rate = soundfile.read(changed)
    soundfile.write(changed, wave / 2, rate)
    made = extract_functionals(splits, EGEMAPS, DATA, 1)
    assert len(simple_functionals) in (37, 38)  # the changed one may be the damaged one
    assert made["test"][0, 1] == pytest.approx(np.sqrt(np.mean((wave / 2) ** 2)), rel=1e-3)


def test_what_was_killed_goes_on(simple_functionals, splits, monkeypatch):
    monkeypatch.setattr(functionals, "SHARD_CLIPS", 5)
    simple = functionals.Functionals
    whole = simple.__call__

    def cut(self, clip):
        if len(simple_functionals) == 17:
            raise KeyboardInterrupt
        return whole(self, clip)

    monkeypatch.setattr(simple, "__call__", cut)
    with pytest.raises(KeyboardInterrupt):
        extract_functionals(splits, EGEMAPS, DATA, 1)
    monkeypatch.setattr(simple, "__call__", whole)
    simple_functionals.clear()
    assert extract_functionals(splits, EGEMAPS, DATA, 1)["train"].shape == (18, 88)
    assert len(simple_functionals) == 36 - 15


def test_functionals_that_are_not_finite_name_the_clip(simple_functionals, splits, monkeypatch):
    monkeypatch.setattr(functionals.Functionals, "__call__", lambda self, clip: np.full(88, np.nan, np.float32))
    with pytest.raises(ValueError, match=r"File_ID 00001 .*NaN or infinity of it in 88 functionals"):
        extract_functionals(splits, EGEMAPS, DATA, 1)


def test_clips_that_are_too_short_are_named(simple_functionals, splits):
    shortest = splits["test"]["duration"].index(min(splits["test"]["duration"]))
    longer = functionals.FeatureSet("eGeMAPSv02", 88, int(splits["test"]["duration"][shortest] * RATE) + 10)
    with pytest.raises(ValueError, match=splits["test"]["file_id"][shortest]):
        extract_functionals(splits, longer, DATA, 1)


@pytest.mark.real_data
def test_functionals_of_real_bursts_are_finite_and_differ(opensmile, emogator_dir, cache_dir):
    splits = load_corpus(TASKS["emogator"], DataArguments(source="emogator", data_dir=str(emogator_dir)))
    some = DatasetDict(test=splits["test"].select(range(0, 540, 60)))
    for feature_set in FEATURE_SETS.values():
        made = extract_functionals(some, feature_set, DATA)["test"]
        assert made.shape == (9, feature_set.num_features)
        assert (made.std(axis=0) > 0).mean() > 0.8
