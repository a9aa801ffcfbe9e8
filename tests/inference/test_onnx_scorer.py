"""A corpus scored by an ONNX file has the scores of the model, by the same rules."""

import json

import numpy as np
import onnx
import onnxruntime
import pandas as pd
import pytest
import soundfile

from avb_hf.inference.export import export_onnx
from avb_hf.inference.predict import predict, predict_to_file
from avb_hf.inference.predict_arguments import PredictArguments

RATE = 16_000
HEADS = {
    "range": {"label_range": (1, 9)},
    "classes": {"problem_type": "single_label_classification"},
    "padding is pooled": {"pooling_mask": False},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Nine clips of 0.1 s to 0.5 s, and a file that is none."""
    top, rng = tmp_path_factory.mktemp("clips"), np.random.default_rng(0)
    for number in range(9):
        soundfile.write(top / f"{number}.wav", 0.1 * rng.standard_normal(int(rng.uniform(0.1, 0.5) * RATE)), RATE)
    (top / "bad.wav").write_text("no audio")
    return top


@pytest.mark.slow
@pytest.mark.parametrize("head", HEADS)
def test_a_file_scores_a_corpus_like_its_model(head, export, folder):
    path, model, extractor = export(**HEADS[head])
    args = PredictArguments(batch_size=4)
    by_torch = pd.DataFrame(predict(model, folder, args, extractor))
    by_onnx = pd.DataFrame(predict(path, folder, args))
    pd.testing.assert_frame_equal(by_onnx, by_torch, rtol=0, atol=1e-4)
    assert by_onnx["error"].notna().sum() == 1


def test_a_file_is_all_that_other_programs_need(export, folder):
    path, model, extractor = export(label_range=(0, 1))
    session = onnxruntime.InferenceSession(str(path))
    metadata = session.get_modelmeta().custom_metadata_map
    clip, rate = soundfile.read(folder / "3.wav", dtype="float32")
    assert (rate, json.loads(metadata["preprocessing"])["do_normalize"]) == (int(metadata["sampling_rate"]), True)
    values = ((clip - clip.mean()) / np.sqrt(clip.var() + 1e-7))[None]
    (scores,) = session.run(["logits"], {"input_values": values, "attention_mask": np.ones(values.shape, dtype=int)})
    found = dict(zip(json.loads(metadata["label_names"]), scores[0], strict=True))
    (row,) = predict(model, folder / "3.wav", PredictArguments(batch_size=1), extractor)
    assert found == pytest.approx({label: row[label] for label in found}, abs=1e-4)


@pytest.mark.slow
def test_scores_of_a_file_do_not_depend_on_batches(loud_model, many_clips, folder, tmp_path):
    path = export_onnx(*loud_model, many_clips, tmp_path / "model.onnx", "int8").output
    one, four = (list(predict(path, folder, PredictArguments(batch_size=size))) for size in (1, 4))
    assert one == four


@pytest.mark.slow
def test_a_job_is_bound_to_the_file_it_scores_by(export, folder, tmp_path):
    path, model, extractor = export()
    args, output = PredictArguments(batch_size=4), tmp_path / "scores.csv"
    report = predict_to_file(path, folder, output, args)
    assert (report.clips, report.failed, report.choice.precision) == (10, 1, "fp32")
    assert "onnxruntime" in json.loads((tmp_path / "scores.csv.json").read_text())["made_with"]
    assert predict_to_file(path, folder, output, args).was_complete
    with pytest.raises(ValueError, match=r"checkpoint\.sha256"):
        predict_to_file(model, folder, output, args, extractor)


def test_a_file_of_something_else_is_refused(export, folder, tmp_path):
    path, _, _ = export()
    with pytest.raises(ValueError, match=r"--precision bf16 is for checkpoints"):
        predict(path, folder, PredictArguments(precision="bf16"))
    other = onnx.load(path)
    del other.metadata_props[:]
    onnx.save(other, tmp_path / "other.onnx")
    with pytest.raises(ValueError, match=r"other\.onnx was not written by `avb export`"):
        predict(tmp_path / "other.onnx", folder)
    (tmp_path / "text.onnx").write_text("no model")
    with pytest.raises(ValueError, match=r"text\.onnx cannot be loaded by ONNX Runtime"):
        predict(tmp_path / "text.onnx", folder)
    with pytest.raises(ValueError, match=r"gone\.onnx: there is no such file"):
        predict(tmp_path / "gone.onnx", folder)
