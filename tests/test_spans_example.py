"""The example that finds, scores and draws the bursts of a recording."""

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from avb_hf.model import VocalBurstConfig, Wav2Vec2ForVocalBurst

pytestmark = pytest.mark.slow

EXAMPLE = Path(__file__).resolve().parents[1] / "examples" / "spans.py"


@pytest.fixture(scope="module")
def spans():
    pytest.importorskip("matplotlib")
    spec = importlib.util.spec_from_file_location("spans", EXAMPLE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def checkpoint(tmp_path, tiny_backbone):
    config = VocalBurstConfig(encoder_config=tiny_backbone, num_labels=3, rnn_hidden_size=8, label_range=(0, 1))
    Wav2Vec2ForVocalBurst(config).save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def test_a_minute_in_stereo_becomes_spans_and_a_picture(spans, corpus_dir, checkpoint, tmp_path, monkeypatch, capsys):
    recording, picture = tmp_path / "recording.wav", tmp_path / "spans.png"
    placed = spans.compose(corpus_dir / "audio", recording)
    header = soundfile.info(recording)
    assert (header.samplerate, header.channels, header.duration) == (44_100, 2, 60)
    assert len(placed) > 20
    monkeypatch.setattr(sys, "argv", ["spans.py", str(checkpoint), str(recording), str(picture)])
    spans.main()
    lines = capsys.readouterr().out.splitlines()
    found = [[float(part) for part in line.split(" s ")[0].split(" - ")] for line in lines]
    np.testing.assert_allclose(found, [(start, end) for start, end, _ in placed], atol=0.05)
    assert {line.split()[-1] for line in lines} <= {"LABEL_0", "LABEL_1", "LABEL_2"}
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert picture.stat().st_size > 20_000


def test_a_recording_without_bursts_has_an_empty_picture(spans, checkpoint, tmp_path, monkeypatch, capsys):
    recording, picture = tmp_path / "recording.wav", tmp_path / "spans.png"
    soundfile.write(recording, 0.01 * torch.randn(44_100, 2).numpy(), 44_100)
    monkeypatch.setattr(sys, "argv", ["spans.py", str(checkpoint), str(recording), str(picture)])
    spans.main()
    assert capsys.readouterr().out == ""
    assert picture.is_file()


def test_the_picture_lies_beside_the_script():
    assert (EXAMPLE.parent / "spans.png").read_bytes().startswith(b"\x89PNG")
