"""`avb predict` as users start it, kill it, and spread it over processes."""

import json
import os
import random
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
from avb_hf.model import VocalBurstConfig, VocalBurstFeatureExtractor, Wav2Vec2ForVocalBurst

ROOT = Path(__file__).resolve().parents[2]
RATE = 16_000


@pytest.fixture(scope="session")
def checkpoint(tiny_backbone, tmp_path_factory):
    """A small checkpoint of ours with two labels."""
    folder = tmp_path_factory.mktemp("checkpoint")
    labels = {"id2label": {0: "calm", 1: "wild"}, "label2id": {"calm": 0, "wild": 1}}
    config = VocalBurstConfig(encoder_config=dict(tiny_backbone), rnn_hidden_size=8, label_range=(0, 1), **labels)
    Wav2Vec2ForVocalBurst(config).save_pretrained(folder)
    VocalBurstFeatureExtractor.for_backbone(None, config).save_pretrained(folder)
    return folder


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
    assert "37 clips, 1 of them without scores" in capsys.readouterr().out
    last = json.loads((tmp_path / "scores.jsonl").read_text().splitlines()[-1])
    assert (last["file"], last["calm"]) == (str(tmp_path / "bad.wav"), None)
    assert "cannot be decoded" in last["error"]


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


@pytest.mark.slow
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


@pytest.mark.slow
def test_two_processes_go_on_where_one_was_cut_off_and_score_alike(checkpoint, clips, tmp_path, monkeypatch):
    words = ["predict", str(checkpoint), str(clips), "--batch_size", "2", "--use_cpu", "--output"]
    assert run("predict", [*words[1:], str(tmp_path / "one.csv")]) == 0
    with monkeypatch.context() as patched:
        score = Scorer.score

        def cut_off(self, batch):
            if batch.number == 3:
                raise KeyboardInterrupt
            return score(self, batch)

        patched.setattr(Scorer, "score", cut_off)
        assert run("predict", [*words[1:], str(tmp_path / "two.csv")]) == 130
    assert lines_done(tmp_path / "two.csv") == 3
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", "-m", "avb_hf"]
    for said in ("audio-seconds per second", "complete already"):
        done = subprocess.run(
            [*torchrun, *words, str(tmp_path / "two.csv")], cwd=ROOT, capture_output=True, text=True, timeout=300,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
        )  # fmt: skip
        assert done.returncode == 0, done.stderr[-3000:]
        assert done.stdout.count("two.csv: 36 clips") == done.stdout.count(said) == 1
    one, two = (pd.read_csv(tmp_path / name) for name in ("one.csv", "two.csv"))
    assert list(two["file"]) == list(one["file"])
    np.testing.assert_allclose(two[["calm", "wild"]], one[["calm", "wild"]], rtol=0, atol=1e-5)


@pytest.mark.slow
@pytest.mark.real_data
def test_emogator_has_one_row_a_clip_after_three_kills(checkpoint, emogator_dir, tmp_path):
    words = [checkpoint, emogator_dir, "--batch_size", "4"]
    whole, output = tmp_path / "whole.parquet", tmp_path / "scores.parquet"
    assert run("predict", [str(word) for word in [*words, "--output", whole]]) == 0
    kill_thrice([*words, "--output", output], output, 810, seed=2)
    assert output.read_bytes() == whole.read_bytes()
    table = pd.read_parquet(output)
    assert list(table["file"]) == [str(path) for path in sorted(emogator_dir.rglob("*.mp3"))]
    assert len(table) == 3_240
