"""What holds for the package as a whole: floors, public names, and where names of labels stand."""

import ast
import subprocess
import sys
from itertools import chain
from pathlib import Path

import pytest

import avb_hf
from avb_hf.tasks import COUNTRIES, EMOTIONS, TASKS

PACKAGE = Path(avb_hf.__file__).parent
MODULES = sorted(PACKAGE.rglob("*.py"))
FLOORS = {
    "tasks": 0, "whole_files": 0, "folder_lock": 0, "card_marker": 0, "bf16_speed": 0, "model": 1, "data": 2,
    "evaluation": 3, "training": 4, "inference": 4, "baselines": 5, "experiments": 6, "cli": 7, "__main__": 8,
}  # fmt: skip
FORBIDDEN = {("evaluation", "data")}  # scores are given arrays, not clips
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)


def module_id(path):
    return str(path.relative_to(PACKAGE))


def imported_modules(tree, package):
    """Absolute names of all that a module imports, anywhere in it; `package` is the one that the module stands in."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            start = package[: len(package) - node.level + 1] if node.level else []
            base = [*start, *(node.module or "").split(".")] if node.module else start
            yield from (".".join([*base, alias.name]) for alias in node.names)
        elif isinstance(node, ast.Call) and ast.unparse(node.func).split(".")[-1] in ("import_module", "__import__"):
            yield from (arg.value for arg in node.args[:1] if isinstance(arg, ast.Constant))


def wrong_imports(folder):
    """Imports below the package `folder` that go upwards or sideways, as `file -> module`."""
    problems = []
    for path in sorted(folder.rglob("*.py")):
        place = path.relative_to(folder).with_suffix("").parts
        package = ["avb_hf", *place[:-1]]
        for name in imported_modules(ast.parse(path.read_text(encoding="utf-8")), package):
            root, _, rest = name.partition(".")
            if root == "avb_hf" and rest != "__version__" and not may_import(place[0], rest.split(".")[0]):
                problems.append(f"{'/'.join(place)} -> {name}")
    return problems


def may_import(own, other):
    if own == other:
        return True
    is_below = own in FLOORS and other in FLOORS and FLOORS[other] < FLOORS[own]
    return is_below and (own, other) not in FORBIDDEN


def test_every_part_of_the_package_has_a_floor():
    parts = {path.relative_to(PACKAGE).with_suffix("").parts[0] for path in MODULES} - {"__init__"}
    assert parts <= FLOORS.keys()
    assert {"tasks", "model", "data", "evaluation", "training", "cli"} <= parts


def test_no_import_goes_upwards_or_sideways():
    assert wrong_imports(PACKAGE) == []


ALLOWED = {
    "training/x.py": "from avb_hf.data.clips import Clip\nfrom avb_hf import __version__\nfrom . import arguments",
    "data/sources/x.py": "from ..tables import Table\nfrom ...tasks import TASKS\nimport avb_hf.model",
    "evaluation/uar/x.py": "from avb_hf.model.losses import y\nfrom .. import metrics",
    "cli/x.py": "def f():\n    from avb_hf.training import outcome, run_folder\n    import torch",
}
PLANTED = {
    "a higher floor": ("model/x.py", "import avb_hf.data.audio", "avb_hf.data.audio"),
    "a module of no folder": ("tasks.py", "from avb_hf.model import LOSSES", "avb_hf.model.LOSSES"),
    "inside a function": ("data/x.py", "def f():\n    from avb_hf.training.x import T", "avb_hf.training.x.T"),
    "inside a method": ("data/x.py", "class A:\n    def f(self):\n        import avb_hf.cli", "avb_hf.cli"),
    "for types alone": ("data/x.py", "if TYPE_CHECKING:\n    from avb_hf.cli import main", "avb_hf.cli.main"),
    "relative": ("data/x.py", "from ..training import trainer", "avb_hf.training.trainer"),
    "relative, of the package itself": ("data/x.py", "from .. import cli", "avb_hf.cli"),
    "relative, two folders deep": ("data/sources/x.py", "from ...evaluation.x import M", "avb_hf.evaluation.x.M"),
    "by a call": ("model/x.py", "importlib.import_module('avb_hf.tasks.x')\nimport_module('avb_hf.cli')", "avb_hf.cli"),
    "its own floor": ("training/x.py", "from avb_hf.inference import audit", "avb_hf.inference.audit"),
    "its own floor back": ("inference/x.py", "from avb_hf.training import audit", "avb_hf.training.audit"),
    "scores of data": ("evaluation/ccc/x.py", "from avb_hf.data.labels import Labels", "avb_hf.data.labels.Labels"),
    "public names by the root": ("training/x.py", "from avb_hf import POOLINGS", "avb_hf.POOLINGS"),
    "the root as a whole": ("training/x.py", "import avb_hf", "avb_hf"),
}  # fmt: skip


def plant(folder, files):
    for name, source in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(source)


def test_allowed_imports_are_no_problem(tmp_path):
    plant(tmp_path, ALLOWED)
    assert wrong_imports(tmp_path) == []


@pytest.mark.parametrize("case", PLANTED)
def test_a_planted_import_is_caught(tmp_path, case):
    file, source, found = PLANTED[case]
    plant(tmp_path, ALLOWED | {file: source})
    assert wrong_imports(tmp_path) == [f"{file.removesuffix('.py')} -> {found}"]


def public_definitions(body, prefix=""):
    """Functions and classes of a module, and methods of its public classes, that do not start with `_`."""
    for node in body:
        if isinstance(node, (*FUNCTIONS, ast.ClassDef)) and not node.name.startswith("_"):
            yield f"{prefix}{node.name}", node
            if isinstance(node, ast.ClassDef):
                yield from public_definitions(node.body, f"{prefix}{node.name}.")


def unannotated(function):
    """Arguments of a function that have no annotation, and `return` if its result has none."""
    spec = function.args
    named = chain(spec.posonlyargs, spec.args, spec.kwonlyargs, filter(None, (spec.vararg, spec.kwarg)))
    missing = [arg.arg for arg in named if arg.annotation is None and arg.arg not in ("self", "cls")]
    return missing + ["return"] * (function.returns is None)


@pytest.mark.parametrize("path", MODULES, ids=module_id)
def test_every_public_name_is_documented_and_every_function_annotated(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    definitions = [("the module", tree), *public_definitions(tree.body)]
    assert [name for name, node in definitions if not ast.get_docstring(node)] == []
    functions = [node for node in ast.walk(tree) if isinstance(node, FUNCTIONS)]
    assert {node.name: unannotated(node) for node in functions if unannotated(node)} == {}


def test_importing_the_package_imports_nothing_heavy():
    heavy = "{'torch', 'transformers', 'datasets', 'pandas', 'numpy', 'librosa'}"
    code = f"import sys, avb_hf; dir(avb_hf); print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=PACKAGE.parent)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("name", avb_hf.__all__)
def test_public_names_are_there_and_say_what_they_are(name):
    assert name in dir(avb_hf)
    value = getattr(avb_hf, name)
    assert value is not None
    assert not callable(value) or value.__doc__


def test_a_name_that_is_not_there_is_an_attribute_error():
    with pytest.raises(AttributeError, match="'avb_hf' has no attribute 'Poolings'"):
        _ = avb_hf.Poolings


def strings_of(source):
    """Values of all strings of a module, its docstrings left out."""
    tree = ast.parse(source)
    texts = {
        id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in texts:
            yield node.value


@pytest.mark.parametrize("path", [path for path in MODULES if path.name != "tasks.py"], ids=module_id)
def test_names_of_labels_stand_in_tasks_alone(path):
    labels = {*EMOTIONS, *COUNTRIES, *chain.from_iterable(task.labels for task in TASKS.values())}
    assert labels & set(strings_of(path.read_text(encoding="utf-8"))) == set()


def test_a_planted_label_is_found():
    assert list(strings_of('"""Awe."""\nx = {"Awe": f"{y} Fear"}')) == ["Awe", " Fear"]
