import ast
import importlib
import sys
from pathlib import Path

import pytest
import torch
from transformers.dynamic_module_utils import get_relative_imports

import avb_hf.model

FOLDER = Path(avb_hf.model.__file__).parent
FILES = sorted(FOLDER.glob("*.py"))
# soundfile, soxr and librosa may be imported too, but only inside `try`.
CARRIED = {"torch", "numpy", "safetensors", "transformers", "huggingface_hub"} | set(sys.stdlib_module_names)


def imports_that_do_not_travel(source, siblings):
    """Imports of a file that would fail in the root of a Hub repository."""
    problems = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            problems += [alias.name for alias in node.names if alias.name.split(".")[0] not in CARRIED]
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            problems += [node.module] * (node.module.split(".")[0] not in CARRIED)
        elif isinstance(node, ast.ImportFrom):
            is_sibling = node.level == 1 and node.module in siblings and all(alias.name != "*" for alias in node.names)
            problems += [] if is_sibling else [f"{'.' * node.level}{node.module or ''}"]
    return problems


def test_there_are_files_to_travel():
    assert {"configuration_vocal_burst", "modeling_vocal_burst", "feature_extraction_vocal_burst"} <= {
        path.stem for path in FILES
    }
    assert [path for path in FOLDER.iterdir() if path.is_dir() and path.name != "__pycache__"] == []


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_files_import_only_what_travels(path):
    assert imports_that_do_not_travel(path.read_text(), {sibling.stem for sibling in FILES}) == []


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("import avb_hf", ["avb_hf"]),
        ("def f():\n    from avb_hf.tasks import TASKS", ["avb_hf.tasks"]),
        ("from ..tasks import TASKS", ["..tasks"]),
        ("from . import losses", ["."]),
        ("from .absent import x", [".absent"]),
        ("import torch, pandas.io", ["pandas.io"]),
        ("from .losses import x", []),
    ],
)
def test_the_check_finds_what_does_not_travel(line, found):
    assert imports_that_do_not_travel(line, {"losses"}) == found


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_no_text_looks_like_a_relative_import(path):
    """transformers finds a remote model's files by an expression that takes a docstring's words for an import too."""
    imported = {
        node.module for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.ImportFrom) and node.level
    }
    assert set(get_relative_imports(path)) == imported


def test_a_copy_of_the_files_works_elsewhere(tmp_path, monkeypatch, tiny_backbone):
    package = tmp_path / "far_away"
    package.mkdir()
    for path in FILES:
        if path.stem != "__init__":
            (package / path.name).write_text(path.read_text())
    monkeypatch.syspath_prepend(tmp_path)
    modeling = importlib.import_module("far_away.modeling_vocal_burst")
    extraction = importlib.import_module("far_away.feature_extraction_vocal_burst")
    model = modeling.Wav2Vec2ForVocalBurst(modeling.VocalBurstConfig(encoder_config=tiny_backbone)).eval()
    batch = extraction.VocalBurstFeatureExtractor(min_samples=680)(torch.randn(4_000), return_tensors="pt")
    assert model(**batch).logits.isfinite().all()
    assert {type(module).__module__.split(".")[0] for module in model.modules()} == {
        "far_away",
        "torch",
        "transformers",
    }
