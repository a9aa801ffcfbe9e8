"""`avb prepare` as users start and stop it."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile

from avb_hf.cli import run
from avb_hf.data.prepare.arguments import PrepareArguments
from avb_hf.data.prepare.run import prepare

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
CLIPS = 800


@pytest.fixture
def raw(tmp_path):
    """Many recordings at 16 kHz, which need no resampling: the workers are up sooner."""
    folder = tmp_path / "raw"
    folder.mkdir()
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, (CLIPS, 8_000)).astype(np.float32)
    for number, samples in enumerate(noise):
        soundfile.write(folder / f"{number:03d}.wav", samples, 16_000)
    return folder


def content(folder):
    return {path.name: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def start(raw, out):
    command = [sys.executable, "-m", "avb_hf", "prepare", str(raw), str(out), "--num_workers", "2"]
    return subprocess.Popen(
        command, cwd=ROOT, stderr=subprocess.PIPE, text=True, start_new_session=True, preexec_fn=heed_interrupts
    )


def heed_interrupts():
    """Tests that a script runs in the background are deaf to interrupts, and their children would be."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def wait_for_clips(out, process, number):
    while process.poll() is None and len(list(out.glob("*.wav"))) < number:
        time.sleep(0.002)


def group_is_gone(group):
    for _ in range(500):
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.02)
    return False


@pytest.mark.parametrize("stop", [signal.SIGKILL, signal.SIGINT])
def test_a_call_that_was_stopped_left_only_whole_files_and_goes_on(raw, tmp_path, stop):
    out = tmp_path / "out"
    prepare(raw, tmp_path / "reference", PrepareArguments(num_workers=1))
    whole = content(tmp_path / "reference")
    process = start(raw, out)
    wait_for_clips(out, process, 5)
    if stop == signal.SIGINT:
        os.killpg(process.pid, stop)  # as a terminal does
        errors = process.communicate(timeout=60)[1]
        assert process.returncode == 130
        assert "interrupted" in errors
        assert "Traceback" not in errors
    else:
        process.kill()
        process.communicate(timeout=60)
    assert group_is_gone(process.pid)
    left = {name: data for name, data in content(out).items() if name.endswith(".wav")}
    assert 5 <= len(left) < CLIPS
    assert all(whole[name] == data for name, data in left.items())
    report = prepare(raw, out, PrepareArguments(num_workers=1))
    assert report.prepared + report.skipped == CLIPS
    assert content(out) == whole


def test_exit_codes_tell_whole_incomplete_and_refused(raw, tmp_path, capsys):
    for path in sorted(raw.iterdir())[3:]:
        path.unlink()
    words = [str(raw), str(tmp_path / "out"), "--num_workers", "1"]
    assert run("prepare", words) == 0
    assert capsys.readouterr().out.startswith("3 clips prepared, 0 already there, 0 bad, 0.00 h, ")
    (raw / "bad.mp3").write_text("no audio")
    assert run("prepare", words) == 1
    said = capsys.readouterr().out
    assert "bad: bad.mp3: cannot be decoded" in said
    assert "1 of 4 clips are missing" in said
    assert run("prepare", [*words, "--peak_db", "-6"]) == 2
    assert "peak_db: -3.0 is now -6.0" in capsys.readouterr().err


def test_no_advice_is_given_that_cannot_be_followed(raw, tmp_path, capsys):
    for path in sorted(raw.iterdir())[1:]:
        path.unlink()
    soundfile.write(raw / "boasts.flac", np.zeros(16_000), 16_000)
    content = bytearray((raw / "boasts.flac").read_bytes())
    content[21:26] = bytes([content[21] | 0x0F]) + b"\xff" * 4  # 2^36 - 1 samples
    (raw / "boasts.flac").write_bytes(content)
    assert run("prepare", [str(raw), str(tmp_path / "out"), "--num_workers", "1"]) == 1
    said = capsys.readouterr().out
    assert "bad: boasts.flac: lasts 4294967.30 s, longer than " in said
    advised = {word.strip(";,.)") for word in said.split() if word.startswith("--")}
    assert advised <= {f"--{flag}" for flag in vars(PrepareArguments())}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "RAW, OUT"),
        (["raw", "out", "--peak", "-3"], "there is no flag --peak; did you mean --peak_db?"),
        (["raw", "out", "--peak_db", "3"], "--peak_db must be above -96 and at most 0 dB"),
        (["nowhere", "out"], "is not a folder"),
    ],
)
def test_mistakes_are_named(words, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run("prepare", words) == 2
    assert message in capsys.readouterr().err


def test_help_tells_the_flags_and_imports_nothing_heavy():
    check = "import sys; from avb_hf.cli import run; code = run('prepare', ['--help']); "
    check += (
        "sys.exit(code or ' '.join({'torch', 'datasets', 'librosa', 'scipy', 'soundfile'} & set(sys.modules)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", check], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert all(f"--{name}" in done.stdout for name in vars(PrepareArguments()))
    assert "other than hidden ones" in done.stdout


@pytest.mark.real_data
def test_emogator_is_prepared_whole(emogator_dir, tmp_path):
    out = tmp_path / "out"
    assert run("prepare", [str(emogator_dir), str(out)]) == 0
    recordings, clips = sorted(emogator_dir.rglob("*.mp3")), sorted(out.rglob("*.wav"))
    assert [path.stem for path in clips] == [path.stem for path in recordings]
    assert (out / "split.csv").read_bytes() == (emogator_dir / "split.csv").read_bytes()
    for clip, recording in list(zip(clips, recordings, strict=True))[::100]:
        assert abs(soundfile.info(clip).duration - soundfile.info(recording).duration) < 0.01


def test_a_manifest_that_does_not_exist_is_named(tmp_path, capsys):
    (tmp_path / "raw").mkdir()
    soundfile.write(tmp_path / "raw" / "a.flac", np.full(800, 0.1), 16_000)
    (tmp_path / "raw" / "clips.csv").write_text("path\na.flac\n")  # it would be asked for, if it were looked at first
    words = ["prepare", str(tmp_path / "raw"), str(tmp_path / "out"), "--manifest", str(tmp_path / "nope.csv")]
    assert run(words[0], words[1:]) == 2
    assert f"--manifest: these tables do not exist: 1 problem\n  {tmp_path / 'nope.csv'}" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
