"""What the prepared clips are, against soundfile and soxr alone."""

import json
import os

import numpy as np
import pytest
import soundfile
import soxr

from avb_hf.data.arguments import DataArguments
from avb_hf.data.prepare import run as run_module
from avb_hf.data.prepare.arguments import PrepareArguments, Subtype
from avb_hf.data.prepare.run import MAKERS, SUBTYPES, prepare
from avb_hf.data.sources import load_corpus
from avb_hf.tasks import load_task

PEAK = 10 ** (-3 / 20)
LEVEL = 1 / 32_768


def serial(**flags):
    return PrepareArguments(num_workers=1, **flags)


def expected(path, channels="mean"):
    frames, rate = soundfile.read(path, dtype="float32", always_2d=True)
    clip = frames.mean(axis=1) if channels == "mean" else frames[:, 0]
    return clip if rate == 16_000 else soxr.resample(clip, rate, 16_000, "HQ")


def test_clips_are_mono_at_16_khz_with_the_peak_asked_for(raw, tmp_path):
    report = prepare(raw, tmp_path / "out", serial())
    assert (report.prepared, report.skipped, report.other_files, report.bad) == (3, 0, 2, {})
    for source, name in [("one.flac", "one.wav"), ("b/two.WAV", "b/two.wav"), ("b/three.ogg", "b/three.wav")]:
        info = soundfile.info(tmp_path / "out" / name)
        assert (info.samplerate, info.channels, info.subtype) == (16_000, 1, "PCM_16")
        clip, _ = soundfile.read(tmp_path / "out" / name)
        assert abs(np.abs(clip).max() - PEAK) <= LEVEL
        reference = expected(raw / source)
        assert abs(len(clip) / 16_000 - soundfile.info(raw / source).duration) <= 1 / 16_000
        np.testing.assert_allclose(clip, reference * PEAK / np.abs(reference).max(), atol=1.5 * LEVEL)


def test_a_16_khz_mono_wav_whose_level_is_kept_comes_back_bit_for_bit(tmp_path):
    (tmp_path / "raw").mkdir()
    samples = np.random.default_rng(0).integers(-32_768, 32_768, 5_000).astype(np.int16)
    soundfile.write(tmp_path / "raw" / "a.wav", samples, 16_000)
    prepare(tmp_path / "raw", tmp_path / "out", serial(keep_level=True))
    np.testing.assert_array_equal(soundfile.read(tmp_path / "out" / "a.wav", dtype="int16")[0], samples)


def test_flags_choose_channel_level_and_samples(raw, tmp_path):
    prepare(raw, tmp_path / "out", serial(channels="first", peak_db=-6.0, subtype="FLOAT"))
    assert soundfile.info(tmp_path / "out" / "one.wav").subtype == "FLOAT"
    clip, _ = soundfile.read(tmp_path / "out" / "one.wav", dtype="float32")
    reference = expected(raw / "one.flac", "first")
    np.testing.assert_allclose(clip, reference * 10 ** (-6 / 20) / np.abs(reference).max(), atol=1e-6)


def test_the_gain_that_is_recorded_leads_back_to_the_raw_level(raw, tmp_path):
    prepare(raw, tmp_path / "out", serial(subtype="FLOAT"))
    result = json.loads((tmp_path / "out" / "prepare.json").read_text())["files"]["b/two.wav"]["result"]
    clip, _ = soundfile.read(tmp_path / "out" / "b" / "two.wav", dtype="float32")
    np.testing.assert_allclose(clip / 10 ** (result["gain_db"] / 20), expected(raw / "b" / "two.WAV"), rtol=1e-3)
    assert result["duration"] == 0.25


def test_other_files_stay_byte_for_byte_and_hidden_ones_behind(raw, tmp_path):
    (raw / ".git").mkdir()
    (raw / ".git" / "config").write_text("none")
    (raw / "b" / "._two.wav").write_text("none")
    prepare(raw, tmp_path / "out", serial())
    out = tmp_path / "out"
    assert (out / "ids.csv").read_bytes() == (raw / "ids.csv").read_bytes()
    assert sorted(path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()) == [
        "README", "b/three.wav", "b/two.wav", "ids.csv", "one.wav", "prepare.json",
    ]  # fmt: skip


def test_silence_stays_silence_and_what_leaves_full_scale_is_told(tmp_path):
    (tmp_path / "raw").mkdir()
    loud = np.array([0.5, 1.0, 1.5, -2.0] * 200, dtype=np.float32)
    soundfile.write(tmp_path / "raw" / "loud.wav", loud, 16_000, subtype="FLOAT")
    soundfile.write(tmp_path / "raw" / "silent.wav", np.zeros(800), 16_000)
    report = prepare(tmp_path / "raw", tmp_path / "out", serial(keep_level=True))
    assert report.warnings == {
        "loud.wav": "is clipped: 400 samples were above full scale",
        "silent.wav": "is silent",
    }
    clip, _ = soundfile.read(tmp_path / "out" / "loud.wav")
    np.testing.assert_allclose(clip, loud.clip(-1, 1), atol=LEVEL)
    assert not soundfile.read(tmp_path / "out" / "silent.wav")[0].any()


def test_long_recordings_are_not_cut(tmp_path):
    (tmp_path / "raw").mkdir()
    soundfile.write(tmp_path / "raw" / "a.flac", np.random.default_rng(0).uniform(-0.1, 0.1, 45 * 16_000), 16_000)
    report = prepare(tmp_path / "raw", tmp_path / "out", serial())
    assert soundfile.info(tmp_path / "out" / "a.wav").duration == 45
    assert report.hours == pytest.approx(45 / 3600)


@pytest.mark.slow
def test_ids_and_labels_of_a_corpus_are_those_of_the_raw_one(make_corpus, tmp_path):
    corpus = make_corpus(tmp_path / "raw", suffix=".flac", rate=48_000, channels=2, clips=12)
    prepare(corpus, tmp_path / "out", serial())
    for name in ("high", "type"):
        before, after = (
            load_corpus(load_task(name), DataArguments(data_dir=str(folder), task=name))
            for folder in (corpus, tmp_path / "out")
        )
        for split in ("train", "validation", "test"):
            assert after[split]["file_id"][:] == before[split]["file_id"][:]
            np.testing.assert_array_equal(after[split]["labels"][:], before[split]["labels"][:])
            np.testing.assert_allclose(after[split]["duration"][:], before[split]["duration"][:], atol=1 / 16_000)
            assert set(after[split]["sampling_rate"][:]) == {16_000}
            assert set(after[split]["num_channels"][:]) == {1}


def plant_bad(raw):
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, 8_000)
    soundfile.write(raw / "cancels.wav", np.stack([noise, -noise], 1), 16_000)
    soundfile.write(raw / "cut.wav", noise, 16_000)
    (raw / "cut.wav").write_bytes((raw / "cut.wav").read_bytes()[:-1_000])
    soundfile.write(raw / "nan.wav", np.where(noise > 0.4, np.nan, noise), 16_000, subtype="FLOAT")
    (raw / "page.mp3").write_text("<html>no audio</html>")
    (raw / "phone.m4a").write_bytes(b"\x00\x00\x00\x18ftypM4A " + bytes(100))
    return {"cancels.wav", "cut.wav", "nan.wav", "page.mp3", "phone.m4a"}


def test_bad_recordings_are_listed_and_leave_no_file(raw, tmp_path, digests):
    prepare(raw, tmp_path / "good", serial())
    bad = plant_bad(raw)
    report = prepare(raw, tmp_path / "out", serial())
    assert set(report.bad) == bad
    assert "cancel each other" in report.bad["cancels.wav"]
    assert "cut off" in report.bad["cut.wav"]
    assert "NaN" in report.bad["nan.wav"]
    assert report.prepared == 3
    assert "5 of 8 clips are missing" in report.describe()
    assert all(f"bad: {name}: " in report.describe() for name in bad)
    made, good = digests(tmp_path / "out"), digests(tmp_path / "good")
    assert made | {"prepare.json": ""} == good | {"prepare.json": ""}
    files = json.loads((tmp_path / "out" / "prepare.json").read_text())["files"]
    assert {entry["source"] for entry in files.values() if "error" in entry["result"]} == bad


def test_a_bad_recording_whose_name_is_no_text_is_listed(raw, tmp_path):
    (raw / os.fsdecode(b"\xe9.mp3")).write_text("no audio")
    assert r"bad: \udce9.mp3: cannot be decoded" in prepare(raw, tmp_path / "out", serial()).describe()


def test_a_recording_that_was_mended_is_prepared_by_the_next_call(raw, tmp_path):
    plant_bad(raw)
    prepare(raw, tmp_path / "out", serial())
    soundfile.write(raw / "cut.wav", np.random.default_rng(0).uniform(-0.5, 0.5, 8_000), 16_000)
    report = prepare(raw, tmp_path / "out", serial())
    assert (report.prepared, report.skipped, len(report.bad)) == (1, 3, 4)
    assert (tmp_path / "out" / "cut.wav").is_file()


def test_a_source_that_changes_while_it_is_read_does_not_count(raw, tmp_path, monkeypatch):
    def change_and_copy(source, target, step, args):
        source.write_text(source.read_text() + " no longer")
        target.write_text(source.read_text())
        return {}

    monkeypatch.setitem(MAKERS, "copy", change_and_copy)
    (raw / "ids.csv").unlink()
    report = prepare(raw, tmp_path / "out", serial())
    assert report.bad == {"README": "was changed while it was read"}
    assert not (tmp_path / "out" / "README").exists()


def test_a_full_disk_stops_the_work_and_the_next_call_goes_on(raw, tmp_path, monkeypatch, digests):
    prepare(raw, tmp_path / "reference", serial())
    write = run_module.wavfile.write

    def write_twice_then_fail(path, rate, samples, calls=[]):  # noqa: B006
        calls.append(path)
        if len(calls) == 3:
            path.write_bytes(b"RIFF")
            raise OSError(28, "No space left on device")
        write(path, rate, samples)

    with monkeypatch.context() as patch:
        patch.setattr(run_module.wavfile, "write", write_twice_then_fail)
        stopped = (
            f"{tmp_path / 'out'}/.*.wav cannot be made: .*No space left.*; what is done in OUT {tmp_path / 'out'} is"
        )
        with pytest.raises(OSError, match=f"{stopped} kept, and the same call goes on"):
            prepare(raw, tmp_path / "out", serial())
    assert set(digests(tmp_path / "out").items()) - set(digests(tmp_path / "reference").items()) == {
        ("prepare.json", digests(tmp_path / "out")["prepare.json"])
    }
    report = prepare(raw, tmp_path / "out", serial())
    assert (report.prepared, report.skipped) == (1, 2)
    assert digests(tmp_path / "out") == digests(tmp_path / "reference")


def test_a_disk_too_full_for_the_record_is_named_too(raw, tmp_path, monkeypatch):
    def fail(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(run_module, "save", fail)
    with pytest.raises(OSError, match=r"prepare.json cannot be made: .*No space left.* the same call goes on"):
        prepare(raw, tmp_path / "out", serial())


def test_what_is_done_is_recorded_while_the_work_goes_on(raw, tmp_path, monkeypatch):
    write, done = run_module.wavfile.write, []

    def count_and_write(path, rate, samples):
        files = json.loads((tmp_path / "out" / "prepare.json").read_text())["files"]
        done.append([name for name, entry in files.items() if entry["result"] is not None])
        write(path, rate, samples)

    monkeypatch.setattr(run_module, "_SAVE_EVERY", 0)
    monkeypatch.setattr(run_module.wavfile, "write", count_and_write)
    prepare(raw, tmp_path / "out", serial())
    assert [sorted(names) for names in done] == [
        ["README"],
        ["README", "b/three.wav"],
        ["README", "b/three.wav", "b/two.wav", "ids.csv"],
    ]


@pytest.mark.slow
def test_several_processes_make_the_same_bytes(raw, tmp_path, digests):
    plant_bad(raw)
    prepare(raw, tmp_path / "one", serial())
    report = prepare(raw, tmp_path / "two", PrepareArguments(num_workers=2))
    assert len(report.bad) == 5
    assert digests(tmp_path / "one") == digests(tmp_path / "two")


def test_subtypes_are_those_of_the_flag():
    assert tuple(SUBTYPES) == Subtype.__args__


@pytest.mark.parametrize("flags", [{"peak_db": 1.0}, {"peak_db": float("nan")}, {"num_workers": 0}])
def test_flags_out_of_range_are_refused(flags):
    with pytest.raises(ValueError, match=f"--{next(iter(flags))} must be"):
        PrepareArguments(**flags)


def test_an_unknown_subtype_is_refused_before_anything_is_written(raw, tmp_path):
    with pytest.raises(ValueError, match="subtype must be one of"):
        prepare(raw, tmp_path / "out", PrepareArguments(subtype="PCM16"))
    assert not (tmp_path / "out").exists()
