"""Pretrained Whisper as an ONNX file: what is written says what the model says, recomputed without our code."""

import json
import re

import audmetric
import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from avb_hf.inference.export import ParityError, export_onnx
from avb_hf.inference.sample_clips import find_audio, read_sample
from avb_hf.model import Wav2Vec2ForVocalBurst

pytestmark = [pytest.mark.slow, pytest.mark.real_data]

RATE = 16_000


@pytest.fixture
def build(whisper_dir):
    """Give a function that puts a random head, always the same, onto the pretrained encoder."""

    def go(**head):
        torch.manual_seed(0)
        fields = {"num_labels": 10, "label_range": (0, 1), "pooling": "mean"} | head
        return Wav2Vec2ForVocalBurst.from_pretrained(str(whisper_dir), **fields)

    return go


@pytest.fixture(scope="module")
def clips(whisper_dir, emogator_dir):
    """From the middle of 200 real clips 0.2 s to 0.8 s."""
    config = Wav2Vec2ForVocalBurst.from_pretrained(str(whisper_dir)).config
    rng, middles = np.random.default_rng(0), []
    for clip in read_sample(find_audio([emogator_dir]), config, 200).waveforms.values():
        samples = rng.integers(RATE // 5, RATE * 4 // 5)
        middles.append(clip[max(0, (len(clip) - samples) // 2) :][:samples])
    return middles


def score(model, path, clips):
    """Score each clip alone, by the model and by ONNX Runtime: `(clips, labels)` of both."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    expected, found = [], []
    for clip in clips:
        values = clip[None].astype(np.float32)  # Whisper takes the waveform as it is
        with torch.no_grad():
            expected.append(model(torch.from_numpy(values)).logits[0].numpy())
        (logits,) = session.run(["logits"], {"input_values": values, "attention_mask": np.ones(values.shape, np.int64)})
        found.append(logits[0])
    return np.stack(expected), np.stack(found)


def lowest_ccc(model, path, clips):
    columns = zip(*(scores.T for scores in score(model, path, clips)), strict=True)
    return min(audmetric.concordance_cc(expected, found) for expected, found in columns)


def layers_in_float32(path):
    """Find the nodes of a file that take float32 weights."""
    graph = onnx.load(path).graph
    weights = {tensor.name for tensor in graph.initializer if tensor.data_type == onnx.TensorProto.FLOAT}
    nodes = (node for node in graph.node if node.op_type in ("MatMul", "Gemm", "Conv", "LSTM", "GRU"))
    return {node.name for node in nodes if weights & set(node.input[1:2])}


def test_float32_says_the_same_in_every_range(build, clips, tmp_path):
    model = build(label_range=(0, 100))
    report = export_onnx(model, model.feature_extractor, clips[:64], tmp_path / "model.onnx")
    assert (report.agreement.clips, report.agreement.unit) == (64, "of the label range 0 to 100")
    expected, found = score(model, report.output, clips[64:])
    assert np.abs(found - expected).max() / 100 <= 1e-4


def test_int8_with_its_weakest_layers_in_float32_says_the_same(build, clips, tmp_path):
    model = build(rnn="none")
    report = export_onnx(model, model.feature_extractor, clips, tmp_path / "model.onnx", "int8")
    assert report.agreement.clips == 200
    assert min(report.agreement.ccc.values()) >= 0.98
    assert lowest_ccc(model, report.output, clips) >= 0.98
    listed = json.loads({entry.key: entry.value for entry in onnx.load(report.output).metadata_props}["float32_layers"])
    assert layers_in_float32(report.output) == set(listed) == set(report.float32_layers)
    assert any("layers" in name for name in listed), "all of Whisper's blocks in int8 were too much before"
    assert report.output.stat().st_size < 0.7 * 4 * sum(parameter.numel() for parameter in model.parameters())


def test_int8_that_loses_too_much_is_refused_and_its_weights_alone_pass(build, clips, tmp_path):
    model = build(states_norm="none", rnn_hidden_size=64, rnn_num_layers=1)
    with pytest.raises(ParityError, match=r"int8_weights \(--weights_only\) passes$") as refusal:
        export_onnx(model, model.feature_extractor, clips, tmp_path / "model.onnx", "int8")
    assert list(tmp_path.iterdir()) == []
    figures = re.findall(r"(-?\d\.\d+) \(LABEL_\d, on (\d+) clips\)", str(refusal.value))
    whole, mixed, weights_only = (float(ccc) for ccc, _ in figures)
    assert whole < mixed < 0.98 <= weights_only
    assert [number for _, number in figures] == ["200", "36", "200"]
    report = export_onnx(model, model.feature_extractor, clips, tmp_path / "model.onnx", "int8_weights")
    assert lowest_ccc(model, report.output, clips) == pytest.approx(weights_only, abs=1e-3)
    assert layers_in_float32(report.output) == set(report.float32_layers)
    assert all("conv" in name for name in report.float32_layers)
