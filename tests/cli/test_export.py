"""`avb export`, and `avb predict` by what it wrote."""

import json
import subprocess
import sys
from pathlib import Path

import onnx
import pandas as pd
import pytest

from avb_hf.cli import run
from avb_hf.cli.export import ExportArguments

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def clips(corpus_dir):
    return corpus_dir / "audio"


@pytest.mark.slow
def test_an_exported_file_scores_like_the_checkpoint(checkpoint, clips, tmp_path, capsys):
    file = tmp_path / "model.onnx"
    assert run("export", [str(checkpoint), "--output", str(file), "--clips", str(clips), "--max_clips", "12"]) == 0
    said = capsys.readouterr().out
    assert "compared on 12 clips of 0." in said
    assert "largest difference to PyTorch: " in said
    assert f"{file}: fp32, " in said
    end = [str(clips), "--batch_size", "4", "--output"]
    calls = {"torch": [str(checkpoint)], "flag": ["--onnx", str(file)], "checkpoint": [str(file)]}
    for name, start in calls.items():
        assert run("predict", [*start, *end, str(tmp_path / f"{name}.csv")]) == 0
    tables = {name: pd.read_csv(tmp_path / f"{name}.csv") for name in calls}
    pd.testing.assert_frame_equal(tables["flag"], tables["torch"], rtol=0, atol=1e-4)
    pd.testing.assert_frame_equal(tables["flag"], tables["checkpoint"])
    assert list(tables["flag"].columns) == ["file", "calm", "wild", "error"]
    capsys.readouterr()
    assert run("predict", [str(file), *end, str(tmp_path / "flag.csv")]) == 0
    assert "complete already" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["{model}"], "--output"),
        (["{model}", "--output", "{here}/a.bin", "--clips", "{clips}"], "must be a file .onnx"),
        (["{model}", "--output", "{here}/a.onnx", "--weights_only"], "--weights_only goes with --int8"),
        (["{model}", "--output", "{here}/a.onnx", "--clips", "{here}/gone"], "there is no such file or folder"),
        (["{model}", "--output", "{here}/a.onnx", "--int8", "--clips", "{clips}"], "200 clips or more, got 36"),
        (["{backbone}", "--output", "{here}/a.onnx", "--clips", "{clips}"], "no fine-tuned model of ours"),
        (["{model}", "--output", "{here}/a.onnx", "--max_clips", "0"], "--max_clips must be 1 or more"),
        (["{model}", "--output", "{here}/a.onnx", "--model_revision", "v1"], "is for a model of the Hub"),
    ],
)
def test_mistakes_are_named(words, message, checkpoint, clips, tiny_backbone_dir, tmp_path, capsys):
    places = {"model": checkpoint, "clips": clips, "here": tmp_path, "backbone": tiny_backbone_dir}
    assert run("export", [word.format(**places) for word in words]) == 2
    assert message in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_file_for_predict_must_be_an_onnx_file(checkpoint, clips, tmp_path, capsys):
    assert run("predict", ["--onnx", str(checkpoint), str(clips), "--output", str(tmp_path / "a.csv")]) == 2
    assert "--onnx must be a file .onnx" in capsys.readouterr().err


def test_help_tells_the_flags_and_imports_nothing_heavy():
    check = "import sys; from avb_hf.cli import run; code = run('export', ['--help']); "
    check += "sys.exit(code or ' '.join({'torch', 'onnx', 'onnxruntime', 'soundfile'} & set(sys.modules)) or 0)"
    done = subprocess.run([sys.executable, "-c", check], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert all(f"--{name}" in done.stdout for name in vars(ExportArguments(output="x.onnx")))


@pytest.mark.slow
def test_the_quickstart_passes_in_float32_and_in_int8(tmp_path, capsys):
    quickstart = tmp_path / "quickstart"
    assert run("train", ["quickstart", "--output_dir", str(quickstart)]) == 0
    sizes, parity = {}, {}
    for name, flags in {"fp32": [], "int8": ["--int8"], "weights": ["--int8", "--weights_only"]}.items():
        file = tmp_path / f"{name}.onnx"
        assert run("export", [str(quickstart), "--output", str(file), *flags]) == 0
        sizes[name] = file.stat().st_size
        parity[name] = json.loads({entry.key: entry.value for entry in onnx.load(file).metadata_props}["parity"])
    assert "synthetic ones: --clips takes your own" in capsys.readouterr().out
    assert parity["fp32"]["difference"] <= 1e-4
    for name in ("int8", "weights"):
        assert parity[name]["clips"] == 200
        assert len(parity[name]["ccc"]) == 10
        assert min(parity[name]["ccc"].values()) >= 0.98
        assert sizes[name] < 0.7 * sizes["fp32"]  # a third of so small a model is convolutions
