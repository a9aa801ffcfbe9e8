"""An ONNX file says what its model says, for every backbone, pooling and head, or it is not written."""

import itertools
import json
import re
from collections import Counter

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

import avb_hf.inference.export as export_module
from avb_hf.baselines.emo18 import Emo18Config, Emo18ForVocalBurst
from avb_hf.inference.export import ParityError, export_onnx
from avb_hf.inference.onnx_file import OnnxModel, require_onnx
from avb_hf.model import POOLINGS

pytestmark = pytest.mark.slow

RATE = 16_000
RNNS = ("lstm", "gru", "none")
HEADS = {
    "range": {"label_range": (1, 9)},
    "classes": {"problem_type": "single_label_classification"},
    "frames of scores": {"label_range": (0, 1), "activation_before_pooling": True},
    "batch norm": {"output_norm": "batch"},
    "padding is pooled": {"pooling_mask": False},
    "states normed": {"states_norm": "layer", "rnn_num_layers": 2},
}


def pooled(pooling, **fields):
    return {"pooling": pooling, "pool_over": "states" if POOLINGS[pooling].widening > 1 else "logits", **fields}


def run(path, inputs):
    """Run a file by ONNX Runtime alone."""
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return session.run(["logits"], {name: array.astype(np.dtype(TYPES[name])) for name, array in inputs.items()})[0]


TYPES = {"input_values": "float32", "attention_mask": "int64"}


def assert_same(path, model, extractor):
    """Compare file and model on shapes that the export did not see."""
    rng = np.random.default_rng(11)
    for lengths in ([7_321], [24_000], [960, 3_001], [20_111, 961, 5_000, 11_200, 16_000]):
        waveforms = [rng.uniform(0.05, 0.5) * rng.standard_normal(samples) for samples in lengths]
        inputs = extractor(waveforms, return_tensors="np")
        with torch.no_grad():
            expected = model(*(torch.from_numpy(inputs[name]) for name in TYPES)).logits.numpy()
        np.testing.assert_allclose(run(path, inputs), expected, rtol=0, atol=1e-4)


def test_every_backbone_says_the_same(family, export):
    assert_same(*export(family, pooling="last"))


@pytest.mark.parametrize(("pooling", "rnn"), list(zip(POOLINGS, itertools.cycle(RNNS), strict=False)))
def test_every_pooling_says_the_same(pooling, rnn, export):
    assert_same(*export(**pooled(pooling, rnn=rnn)))


@pytest.mark.parametrize("pooling", POOLINGS)
def test_every_pooling_says_the_same_on_every_backbone(pooling, family, export):
    assert_same(*export(family, **pooled(pooling)))


@pytest.mark.parametrize("head", HEADS)
def test_every_head_says_the_same(head, export):
    assert_same(*export(**HEADS[head]))


def test_a_group_norm_over_padding_says_the_same(export):
    assert_same(*export("wav2vec2-group", masked_group_norm=False))


def test_a_model_that_is_partly_frozen_says_the_same(make_model, clips, tmp_path):
    model, extractor = make_model()
    model.freeze_blocks(1)
    export_onnx(model, extractor, list(clips.values()), tmp_path / "model.onnx")
    assert_same(tmp_path / "model.onnx", model, extractor)


def test_a_file_tells_all_that_its_user_must_know(export):
    path, model, extractor = export(label_range=(0, 1), id2label={0: "calm", 1: "wild"}, num_labels=2)
    metadata = onnxruntime.InferenceSession(str(path)).get_modelmeta().custom_metadata_map
    told = {name: json.loads(metadata[name]) for name in ("label_names", "label_range", "sampling_rate", "min_samples")}
    assert told == {"label_names": ["calm", "wild"], "label_range": [0, 1], "sampling_rate": RATE, "min_samples": 680}
    assert (metadata["problem_type"], metadata["precision"]) == ("regression", "fp32")
    assert json.loads(metadata["preprocessing"])["do_normalize"] is True
    assert json.loads(metadata["versions"])["onnxruntime"] == onnxruntime.__version__
    assert json.loads(metadata["parity"])["difference"] <= 1e-4
    config, own_extractor = OnnxModel(path).parts()
    assert config.to_diff_dict() == model.config.to_diff_dict()
    assert own_extractor.to_dict() == extractor.to_dict()
    onnx.checker.check_model(path, full_check=True)


# Heads that say the same of every clip, and how much of what is added to an output reaches a score at most.
FLAT = {
    "in a score": ({}, 1),
    "of the label range 0 to 100": ({"label_range": (0, 100)}, 0.25),
    "in a probability": ({"problem_type": "single_label_classification", "num_labels": 2}, 0.25),
}


@pytest.mark.parametrize("unit", FLAT)
def test_a_file_that_says_something_else_is_not_written(unit, make_model, clips, tmp_path, monkeypatch):
    fields, slope = FLAT[unit]
    model, extractor = make_model(**fields)
    torch.nn.init.zeros_(model.classifier.weight)
    torch.nn.init.zeros_(model.classifier.bias)
    trace = export_module.trace_to_onnx

    def export_with(error):
        def spoil(model, path):
            model.classifier.bias.data[0] = error
            trace(model, path)
            model.classifier.bias.data[0] = 0

        monkeypatch.setattr(export_module, "trace_to_onnx", spoil)
        return export_onnx(model, extractor, list(clips.values()), tmp_path / "model.onnx")

    with pytest.raises(ParityError, match=rf"differs from the model by 1\.1e-04 {unit}, at most 0\.0001 is allowed"):
        export_with(1.1e-4 / slope)
    assert list(tmp_path.iterdir()) == []
    agreement = export_with(0.9e-4 / slope).agreement
    assert (agreement.unit, agreement.difference) == (unit, pytest.approx(0.9e-4, rel=0.01))


def test_another_file_is_replaced_only_if_asked(export, make_model, clips, tmp_path):
    path, model, extractor = export()
    before, waveforms = path.read_bytes(), list(clips.values())
    export_onnx(model, extractor, waveforms, path)
    other, _ = make_model()
    with pytest.raises(ValueError, match="is of another checkpoint; choose another output, or --overwrite it"):
        export_onnx(other, extractor, waveforms, path)
    assert path.read_bytes() == before
    export_onnx(other, extractor, waveforms, path, overwrite=True)
    assert_same(path, other, extractor)
    path.write_text("notes")
    with pytest.raises(ValueError, match="exists"):
        export_onnx(other, extractor, waveforms, path)
    assert path.read_text() == "notes"


def kinds(path):
    return Counter(node.op_type for node in onnx.load(path).graph.node)


def test_int8_multiplies_in_int8(loud_model, many_clips, tmp_path):
    model, extractor = loud_model
    report = export_onnx(model, extractor, many_clips, tmp_path / "model.onnx", "int8")
    found = kinds(report.output)
    assert found["MatMulInteger"] >= 12
    assert found["DynamicQuantizeLSTM"] == 1
    assert "LSTM" not in found
    assert report.agreement.clips == 200
    assert all(value >= 0.98 for value in report.agreement.ccc.values())
    listed = json.loads(OnnxModel(report.output).metadata["float32_layers"])
    assert listed == list(report.float32_layers)
    assert all("conv" in name for name in listed)


def spoil_by_an_outlier(model):
    """Let a feature inside the first block be huge and count for nothing, and the others beside it for much."""
    feed_forward = model.encoder.encoder.layers[0].feed_forward
    with torch.no_grad():
        feed_forward.intermediate_dense.weight[0] = 0
        feed_forward.intermediate_dense.bias[0] = 1e4
        feed_forward.output_dense.weight.mul_(30)
        feed_forward.output_dense.weight[:, 0] = 0


def test_a_layer_that_cannot_take_int8_stays_in_float32_and_is_named(loud_model, many_clips, tmp_path):
    model, extractor = loud_model
    spoil_by_an_outlier(model)
    report = export_onnx(model, extractor, many_clips, tmp_path / "model.onnx", "int8")
    assert all(value >= 0.98 for value in report.agreement.ccc.values())
    matrices = [name for name in report.float32_layers if "conv" not in name]
    assert any("output_dense" in name for name in matrices)
    assert kinds(report.output)["MatMulInteger"] >= 8
    assert json.loads(OnnxModel(report.output).metadata["float32_layers"]) == list(report.float32_layers)


def test_int8_that_loses_too_much_is_refused_and_what_does_is_named(loud_model, many_clips, tmp_path, monkeypatch):
    model, extractor = loud_model
    monkeypatch.setattr(export_module, "quantise_dynamically", lambda source, target, kept=(): zeros(source, target))
    with pytest.raises(ParityError, match=r"asked for a CCC of 0\.98") as refusal:
        export_onnx(model, extractor, many_clips, tmp_path / "model.onnx", "int8")
    words = r"in int8 the lowest is X on 200 clips\); with .* in float32 X on 36 clips\); with only .* in int8 X on 200"
    assert re.search(words.replace("X", r"-?\d\.\d{3} \(LABEL_\d,"), str(refusal.value))
    assert str(refusal.value).endswith("int8_weights (--weights_only) passes")
    assert list(tmp_path.iterdir()) == []
    monkeypatch.setattr(export_module, "quantise_weights", zeros)
    for precision in ("int8", "int8_weights"):
        with pytest.raises(ParityError, match=r"on 200 clips\): export in fp32"):
            export_onnx(model, extractor, many_clips, tmp_path / "model.onnx", precision)


def zeros(source, target):
    """Write a file that answers with next to nothing."""
    model = onnx.load(source)
    for tensor in model.graph.initializer:
        if tensor.data_type == onnx.TensorProto.FLOAT and len(tensor.dims) == 2:
            tensor.raw_data = (1e-3 * onnx.numpy_helper.to_array(tensor)).tobytes()
    onnx.save(model, target)


def test_weights_alone_in_int8_stand_for_the_same(loud_model, many_clips, tmp_path):
    model, extractor = loud_model
    report = export_onnx(model, extractor, many_clips, tmp_path / "model.onnx", "int8_weights")
    graph = onnx.load(report.output).graph
    stored = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer}
    weights = [name.removesuffix("_int8") for name in stored if name.endswith("_int8")]
    assert len(weights) >= 14
    assert {stored[f"{name}_int8"].dtype for name in weights} == {np.dtype(np.int8)}
    assert min(report.agreement.ccc.values()) > 0.99
    assert sum(stored[f"{name}_int8"].size for name in weights) > 0.4 * sum(p.numel() for p in model.parameters())


def test_int8_wants_enough_clips(make_model, clips, tmp_path):
    with pytest.raises(ValueError, match="int8 is compared with the model on 200 clips or more, got 7"):
        export_onnx(*make_model(), list(clips.values()), tmp_path / "model.onnx", "int8")


def test_what_cannot_be_exported_is_named(make_model, clips, tmp_path, monkeypatch):
    model, extractor = make_model()
    waveforms = list(clips.values())
    with pytest.raises(ValueError, match=r"output must be a file \.onnx, got .*model\.pt"):
        export_onnx(model, extractor, waveforms, tmp_path / "model.pt")
    with pytest.raises(ValueError, match="precision must be one of"):
        export_onnx(model, extractor, waveforms, tmp_path / "model.onnx", "int4")
    with pytest.raises(ValueError, match="only a Wav2Vec2ForVocalBurst can be exported, got a Emo18ForVocalBurst"):
        export_onnx(Emo18ForVocalBurst(Emo18Config(num_labels=2)), extractor, waveforms, tmp_path / "model.onnx")
    monkeypatch.setattr("avb_hf.inference.onnx_graph.MAX_BYTES", 1_000)
    with pytest.raises(ValueError, match="an ONNX file holds at most"):
        export_onnx(model, extractor, waveforms, tmp_path / "model.onnx")


def test_a_package_that_is_missing_is_named():
    require_onnx("onnx", "onnxruntime")
    with pytest.raises(ImportError, match=r"need no_such_package: pip install 'avb_hf\[onnx\]'"):
        require_onnx("onnx", "no_such_package")
