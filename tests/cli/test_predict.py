"""`avb predict` as users start it, kill it, and spread it over processes."""

import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile

from avb_hf.cli import run
from avb_hf.inference.predict_arguments import PredictArguments
from avb_hf.inference.scorer import Scorer

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
RATE = 16_000


@pytest.fixture
def clips(corpus_dir):
    return corpus_dir / "audio"


def start(*words):
    command = [sys.executable, "-m", "avb_hf", "predict", *map(str, words)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def lines_done(output):
    journals = output.with_name(f"{output.name}.journal").glob("batches-*.jsonl")
    return sum(path.read_bytes().count(b"\n") for path in journals)


def test_scores_are_written_and_then_recognised(checkpoint, clips, tmp_path, capsys):
    words = [str(checkpoint), str(clips), "--output", str(tmp_path / "scores.csv"), "--batch_size", "4"]
    assert run("predict", words) == 0
    said = capsys.readouterr().out
    assert "scores.csv: 36 clips; " in said
    assert "audio-seconds per second, fp32 in batches of 4" in said
    table = pd.read_csv(tmp_path / "scores.csv")
    assert list(table.columns) == ["file", "calm", "wild", "error"]
    assert list(table["file"]) == [str(path) for path in sorted(clips.rglob("*.wav"))]
    assert table["error"].isna().all()
    assert run("predict", words) == 0
    assert "complete already" in capsys.readouterr().out
    assert run("predict", [*words[:-1], "8"]) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert run("predict", [*words[:-1], "8", "--overwrite"]) == 0


def test_a_bad_clip_has_an_exit_code_of_its_own(checkpoint, clips, tmp_path, capsys):
    (tmp_path / "bad.wav").write_text("no audio")
    words = [str(checkpoint), str(clips), str(tmp_path / "bad.wav"), "--output", str(tmp_path / "scores.jsonl")]
    assert run("predict", [*words, "--on_bad_audio", "error"]) == 2
    assert "bad.wav" in capsys.readouterr().err
    assert run("predict", words) == 3
    said = capsys.readouterr().out
    assert "37 clips, 1 of them without scores" in said
    assert f"\n  {tmp_path / 'bad.wav'}: cannot be decoded" in said
    last = json.loads((tmp_path / "scores.jsonl").read_text().splitlines()[-1])
    assert (last["file"], last["calm"]) == (str(tmp_path / "bad.wav"), None)
    assert "cannot be decoded" in last["error"]


def test_what_is_read_is_not_written_over(checkpoint, clips, tmp_path, capsys):
    table = tmp_path / "clips.csv"
    table.write_text(f"path\n{next(clips.rglob('*.wav'))}\n")
    words = [str(checkpoint), str(table), "--output", str(tmp_path / "." / "clips.csv"), "--overwrite"]
    assert run("predict", words) == 2
    assert "clips.csv is an input: choose another output" in capsys.readouterr().err
    assert table.read_text().startswith("path\n")


def test_a_folder_that_may_not_be_read_is_named(checkpoint, clips, tmp_path, capsys, monkeypatch):
    def scandir(path):
        if str(path).endswith("closed"):
            raise PermissionError(13, "Permission denied", str(path))
        return listed(path)

    listed = os.scandir
    (tmp_path / "in" / "closed").mkdir(parents=True)
    (tmp_path / "in" / "clip.wav").write_bytes(next(clips.rglob("*.wav")).read_bytes())
    monkeypatch.setattr(os, "scandir", scandir)
    assert run("predict", [str(checkpoint), str(tmp_path / "in"), "--output", str(tmp_path / "scores.csv")]) == 2
    assert "in/closed" in capsys.readouterr().err
    assert not (tmp_path / "scores.csv").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["{model}"], "INPUT"),
        (["{model}", "{clips}"], "--output"),
        (["{model}", "{clips}", "--output", "{here}/a.txt"], "must be one of ['.csv', '.jsonl', '.parquet']"),
        (["{model}", "{here}/nope", "--output", "{here}/a.csv"], "there is no such file or folder"),
        (["{backbone}", "{clips}", "--output", "{here}/a.csv"], "no fine-tuned model of ours"),
        (["{here}/nope", "{clips}", "--output", "{here}/a.csv"], "there is no such folder"),
        (["{model}", "{clips}", "--output", "{here}/a.csv", "--batch", "1"], "did you mean --batch_size?"),
    ],
)
def test_mistakes_are_named(words, message, checkpoint, clips, tiny_backbone_dir, tmp_path, capsys):
    places = {"model": checkpoint, "clips": clips, "here": tmp_path, "backbone": tiny_backbone_dir}
    assert run("predict", [word.format(**places) for word in words]) == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.glob("a.*"))


def test_help_tells_the_flags_and_imports_nothing_heavy():
    check = "import sys; from avb_hf.cli import run; code = run('predict', ['--help']); "
    check += "sys.exit(code or ' '.join({'torch', 'datasets', 'librosa', 'soundfile'} & set(sys.modules)) or 0)"
    done = subprocess.run([sys.executable, "-c", check], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert all(f"--{name}" in done.stdout for name in [*vars(PredictArguments()), "output", "overwrite"])


def launch(words):
    """Run the command in two processes of torchrun."""
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", "-m", "avb_hf"]
    return subprocess.run(
        [*torchrun, "predict", *map(str, words)], cwd=ROOT, capture_output=True, text=True, timeout=600,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip


def share(words):
    """Run the command in two processes of torchrun and return what they wrote."""
    done = launch(words)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def kill_thrice(words, output, total, seed):
    """Kill the command at three random points, and let it end the fourth time; return its last exit code."""
    rng, done = random.Random(seed), 0
    for part in range(3):
        stop = rng.randrange(done + 1, max(done + 2, (part + 1) * total // 4))
        process = start(*words)
        deadline = time.monotonic() + 120
        while process.poll() is None and lines_done(output) < stop and time.monotonic() < deadline:
            time.sleep(0.001)
        assert process.poll() is None, process.communicate()[1][-3000:]
        process.send_signal(signal.SIGKILL)
        process.communicate()
        assert not output.exists()
        done = lines_done(output)
        assert done >= stop
    process = start(*words)
    errors = process.communicate(timeout=300)[1]
    assert process.returncode == 0, errors[-3000:]


def test_a_call_that_was_killed_thrice_ends_with_the_same_bytes(checkpoint, tmp_path):
    rng = np.random.default_rng(3)
    for number in range(600):
        samples = 0.1 * rng.standard_normal(int(rng.uniform(0.2, 1.5) * RATE))
        soundfile.write(tmp_path / f"{number:03d}.wav", samples, RATE)
    words = [checkpoint, tmp_path, "--batch_size", "1"]
    whole, output = tmp_path / "whole.csv", tmp_path / "scores.csv"
    assert run("predict", [str(word) for word in [*words, "--output", whole]]) == 0
    kill_thrice([*words, "--output", output], output, 600, seed=1)
    assert output.read_bytes() == whole.read_bytes()


def test_two_processes_go_on_where_one_was_cut_off_and_score_alike(checkpoint, clips, tmp_path, monkeypatch):
    words = [str(checkpoint), str(clips), "--batch_size", "2", "--output"]
    assert run("predict", [*words, str(tmp_path / "one.csv")]) == 0
    with monkeypatch.context() as patched:
        score = Scorer.score

        def cut_off(self, batch):
            if batch.number == 3:
                raise KeyboardInterrupt
            return score(self, batch)

        patched.setattr(Scorer, "score", cut_off)
        assert run("predict", [*words, str(tmp_path / "two.csv")]) == 130
    assert lines_done(tmp_path / "two.csv") == 3
    for said in ("audio-seconds per second", "complete already"):
        output = share([*words, tmp_path / "two.csv"])
        assert output.count("two.csv: 36 clips") == output.count(said) == 1
    one, two = (pd.read_csv(tmp_path / name) for name in ("one.csv", "two.csv"))
    assert list(two["file"]) == list(one["file"])
    np.testing.assert_allclose(two[["calm", "wild"]], one[["calm", "wild"]], rtol=0, atol=1e-5)


def test_of_two_processes_the_main_one_alone_tells_of_a_bad_clip_and_says_so_last(checkpoint, clips, tmp_path):
    (tmp_path / "bad.wav").write_text("no audio")
    output = tmp_path / "scores.csv"
    done = launch([checkpoint, clips, tmp_path / "bad.wav", "--batch_size", "8", "--output", output])
    assert len(pd.read_csv(output)) == 37
    first, bad, last = done.stdout.splitlines()[-3:]
    assert "37 clips, 1 of them without scores" in first
    assert bad.startswith(f"  {tmp_path / 'bad.wav'}: cannot be decoded")
    assert "the file is complete; the exit code 3" in last
    assert done.returncode == 1
    codes = dict(re.findall(r"rank +: (\d+).*\n +exitcode +: (-?\d+)", done.stderr))
    assert codes.pop("0") == "3", done.stderr[-3000:]
    stopped_by_the_launcher = {"1": "-15"}
    assert codes in ({}, stopped_by_the_launcher), done.stderr[-3000:]


@pytest.fixture(scope="module")
def emogator(checkpoint, emogator_dir, tmp_path_factory):
    """Words that score the EmoGator clips, and the file that one process makes of them when nothing disturbs it."""
    words = [checkpoint, emogator_dir, "--batch_size", "4", "--use_cpu"]
    whole = tmp_path_factory.mktemp("emogator") / "whole.parquet"
    assert run("predict", [str(word) for word in [*words, "--output", whole]]) == 0
    table = pd.read_parquet(whole)
    assert list(table["file"]) == [str(path) for path in sorted(emogator_dir.rglob("*.mp3"))]
    assert len(table) == table["file"].nunique() == 3_240
    assert table["error"].isna().all()
    return words, whole


@pytest.mark.real_data
def test_emogator_has_one_row_a_clip_after_three_kills(emogator, tmp_path):
    words, whole = emogator
    output = tmp_path / "scores.parquet"
    kill_thrice([*words, "--output", output], output, 810, seed=2)
    assert output.read_bytes() == whole.read_bytes()


@pytest.mark.real_data
def test_two_processes_score_emogator_as_one_does(emogator, tmp_path):
    words, whole = emogator
    assert "3240 clips" in share([*words, "--output", tmp_path / "scores.parquet"])
    one, two = pd.read_parquet(whole), pd.read_parquet(tmp_path / "scores.parquet")
    assert list(two["file"]) == list(one["file"])
    assert two["error"].isna().all()
    np.testing.assert_allclose(two[["calm", "wild"]], one[["calm", "wild"]], rtol=0, atol=1e-5)
