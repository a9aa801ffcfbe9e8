import ast
import importlib
import sys
from pathlib import Path

import pytest
import torch
from transformers.dynamic_module_utils import get_imports, get_relative_import_files, get_relative_imports

import avb_hf.model

FOLDER = Path(avb_hf.model.__file__).parent
FILES = sorted(FOLDER.glob("*.py"))
TRAVELLING = [path for path in FILES if path.stem != "__init__"]
CARRIED = {"torch", "numpy", "safetensors", "transformers", "huggingface_hub"}
CARRIED_OR_PYTHONS = CARRIED | set(sys.stdlib_module_names)
OPTIONAL = {"soundfile", "soxr", "librosa"}  # whoever lacks one can still load a checkpoint
IMPORTERS = {"import_module", "__import__", "optional_import"}


def imports_that_do_not_travel(source, siblings):
    """Imports of a file that would fail in the root of a Hub repository."""
    return list(_problems(ast.parse(source), siblings, in_try=False))


def _problems(node, siblings, in_try):
    allowed = CARRIED_OR_PYTHONS | (OPTIONAL if in_try else set())
    names = []
    if isinstance(node, ast.Import):
        names = [alias.name for alias in node.names]
    elif isinstance(node, ast.ImportFrom) and node.level == 0:
        names = [node.module]
    elif isinstance(node, ast.ImportFrom):
        is_sibling = node.level == 1 and node.module in siblings and all(alias.name != "*" for alias in node.names)
        if not is_sibling:
            yield f"{'.' * node.level}{node.module or ''}"
    elif isinstance(node, ast.Call) and ast.unparse(node.func).split(".")[-1] in IMPORTERS:
        is_optional = ast.unparse(node.func) == "optional_import"
        names = [arg.value for arg in node.args[:1] if isinstance(arg, ast.Constant)]
        allowed = OPTIONAL if is_optional else allowed
        if not (is_optional or in_try):
            yield ast.unparse(node)
    yield from (name for name in names if name.split(".")[0] not in allowed)
    for field, child in ast.iter_fields(node):
        for item in child if isinstance(child, list) else [child]:
            if isinstance(item, ast.AST):
                yield from _problems(item, siblings, in_try or (isinstance(node, ast.Try) and field == "body"))


def test_there_are_files_to_travel():
    parts = ("configuration", "modeling", "feature_extraction", "pipeline")
    assert {f"{part}_vocal_burst" for part in parts} <= {path.stem for path in FILES}
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
        ("import soundfile", ["soundfile"]),
        ("try:\n    import soundfile\nexcept ImportError:\n    soundfile = None", []),
        ("try:\n    import pandas\nexcept ImportError:\n    import soxr", ["pandas", "soxr"]),
        ("def f():\n    try:\n        from librosa.effects import split\n    except ImportError:\n        raise", []),
        ("import_module('soxr')", ["import_module('soxr')", "soxr"]),
        ("try:\n    importlib.import_module(name)\nexcept ImportError:\n    raise", []),
        ("optional_import('librosa', 'x')", []),
        ("optional_import('pandas', 'x')", ["pandas"]),
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


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_transformers_finds_no_requirement_but_its_own(path):
    assert set(get_imports(path)) <= CARRIED_OR_PYTHONS


@pytest.mark.parametrize("name", ["modeling", "pipeline", "feature_extraction", "configuration"])
def test_what_a_class_needs_is_found_from_its_file(name):
    """transformers copies the file of a class and what it imports; from the model's, that is all there is."""
    start = FOLDER / f"{name}_vocal_burst.py"
    found = {Path(path).name for path in get_relative_import_files(start)} | {start.name}
    assert found <= {path.name for path in TRAVELLING}
    if name == "modeling":
        assert found == {path.name for path in TRAVELLING}


def test_a_copy_of_the_files_works_elsewhere(tmp_path, monkeypatch, tiny_backbone):
    package = tmp_path / "far_away"
    package.mkdir()
    for path in TRAVELLING:
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
