"""The README's code blocks run as they stand, in a copy of the repository."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import librosa
import numpy as np
import pandas as pd
import pytest
import soundfile

ROOT = Path(__file__).resolve().parents[1]
BLOCK = re.compile(r"(?:<!-- needs: ([\w, ]+) -->\n)?```(bash|python)\n(.*?)```", re.DOTALL)
SET_UP = re.compile(r"^test -d \.venv .* -e (?:\.|'\.\[test\]') && ")
SPAN = re.compile(r"[\d.]+ to [\d.]+ s: \w+")
TIMEOUT = 420
# What stands in for machines that are not here.
ELSEWHERE = {
    "gpu": {"--bf16": "--use_cpu"},
    "machines": {
        "--nnodes 2": "--nnodes 1",
        "--nproc_per_node 8": "--nproc_per_node 2",
        "--num_machines 2": "--num_machines 1",
        "--num_processes 16": "--num_processes 2",
        "node0": "127.0.0.1",
    },
}


def blocks():
    return [
        (set((needs or "").split(", ")) - {""}, *rest)
        for needs, *rest in BLOCK.findall((ROOT / "README.md").read_text())
    ]


@pytest.fixture(scope="module")
def copy(tmp_path_factory, corpus_dir):
    """A copy of the repository with a virtual environment, a table of clips, and stand-ins for Hub and A-VB data."""
    folder = tmp_path_factory.mktemp("readme") / "repo"
    shutil.copytree(ROOT, folder, ignore=shutil.ignore_patterns(".*", "runs", "build", "*.egg-info", "__pycache__"))
    (folder / ".venv").symlink_to(sys.prefix)
    clips = sorted((corpus_dir / "audio" / "any").glob("*.wav"))
    shutil.copy(clips[0], folder / "clip.wav")
    write_recording(clips[:3], folder / "recording.wav")
    table = pd.DataFrame({"path": clips, "speaker": [f"s{i % 6}" for i in range(len(clips))]})
    table["emotion"] = [("amusement", "sadness")[i % 2] for i in range(len(clips))]
    table.to_csv(folder / "clips.csv", index=False)
    return folder


def write_recording(clips, path):
    """Write a minute in stereo at 44.1 kHz, with a clip every 15 s over faint noise."""
    samples = 1e-3 * np.random.default_rng(0).standard_normal(60 * 44_100)
    for index, clip in enumerate(clips):
        burst, start = librosa.load(clip, sr=44_100)[0], (5 + 15 * index) * 44_100
        samples[start : start + len(burst)] += burst
    soundfile.write(path, np.stack([samples, samples], axis=1), 44_100)


def run(command, folder):
    environment = os.environ | {"PATH": f"{sys.prefix}/bin:{os.environ['PATH']}", "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=TIMEOUT)
    assert done.returncode == 0, f"{command}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
    return done.stdout


@pytest.fixture(scope="module")
def stand_ins(tmp_path_factory, corpus_dir, tiny_backbone_dir):
    """What stands in for the data folders and Hub names of the README."""
    from transformers import WhisperConfig, WhisperModel

    folder = tmp_path_factory.mktemp("stand_ins")
    sizes = {"d_model": 16, "encoder_layers": 6, "decoder_layers": 1, "vocab_size": 4, "pad_token_id": 0}
    heads = {"encoder_attention_heads": 2, "decoder_attention_heads": 2, "encoder_ffn_dim": 16, "decoder_ffn_dim": 16}
    WhisperModel(WhisperConfig(**sizes, **heads)).save_pretrained(folder / "whisper")
    return {
        "/data/A-VB": corpus_dir,
        "/data/EmoGator": write_emogator(folder / "emogator", corpus_dir),
        "facebook/wav2vec2-base": tiny_backbone_dir,
        "facebook/wav2vec2-large-lv60": tiny_backbone_dir,
        "openai/whisper-base": folder / "whisper",
    }


def local(text, needs, stand_ins):
    """Put what is here where a block names a data folder or the Hub."""
    words = dict(stand_ins)
    for need in sorted(needs & ELSEWHERE.keys()):
        words |= ELSEWHERE[need]
    for name, word in words.items():
        text = text.replace(name, str(word))
    return text


def write_emogator(folder, corpus_dir):
    """Write the tiny clips under names of EmoGator's pattern, by eighteen contributors."""
    folder.mkdir()
    for index, path in enumerate(sorted((corpus_dir / "audio" / "any").glob("*.wav"))):
        shutil.copy(path, folder / f"{index % 18:06d}-{index % 30 + 1:02d}-{index // 18 + 1}.mp3")
    return folder


@pytest.mark.slow
def test_every_block_runs(copy, stand_ins):
    found = blocks()
    assert [language for _, language, _ in found[:2]] == ["bash", "bash"]
    for index, (needs, language, text) in enumerate(found):
        text = local(text, needs, stand_ins)
        if index < 2:
            assert SET_UP.match(text), f"block {index} sets up .venv in one line"
            text = SET_UP.sub("", text)
        if index == 1:
            assert text.strip() == '.venv/bin/pytest -q -n 2 -m "not slow"'
            continue
        if language == "python":
            said = run([sys.executable, "-c", text], copy)
            if "recording.wav" in text:
                starts = {float(line.split()[0]) // 15 for line in said.splitlines() if SPAN.fullmatch(line)}
                assert starts == {0, 1, 2}
            continue
        run(["bash", "-c", text.strip() + (" --dry_run" if needs else "")], copy)
    assert (copy / "runs" / "quickstart" / "all_results.json").is_file()
    again = subprocess.run(
        [sys.executable, "run_avb.py", "quickstart"], cwd=copy, capture_output=True, text=True, timeout=TIMEOUT
    )
    assert again.returncode == 2
    assert "--overwrite" in again.stderr
    run([sys.executable, "examples/score_clips.py", "runs/quickstart", "clip.wav"], copy)
