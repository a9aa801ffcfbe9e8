"""Nothing that lies in a file runs as code, and no token gets into a file, onto the screen or into the log."""

import ast
import json
import logging
import pickle
import re
import shutil
from contextlib import suppress
from pathlib import Path

import pytest
import torch
import yaml
from transformers.trainer_pt_utils import safe_globals

import avb_hf
from avb_hf.cli import run
from avb_hf.data.hub_account import LIKE_A_TOKEN
from avb_hf.model import Wav2Vec2ForVocalBurst
from avb_hf.training.checkpoints import seal
from avb_hf.training.run_folder import find_checkpoint
from avb_hf.training.trainer import VocalBurstTrainer

TOKEN = "hf_" + "Xy7Qw3Er9Tz5" * 2 + "UioPasDfGh"  # a token's form: 34 letters and digits behind the first three
MODULES = sorted(Path(avb_hf.__file__).parent.rglob("*.py"))


class Trap:
    """Writes a marker file when it is unpickled."""

    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return exec, (f"open({str(self.marker)!r}, 'w').close()",)


def plain_pickle(trap, path):
    path.write_bytes(pickle.dumps(trap, protocol=2))  # torch's own protocol


def torch_zip(trap, path):
    torch.save({"state": trap}, path)


PLANTS = {"a pickle": plain_pickle, "a zip of torch": torch_zip}
# Files that a resume reads; the weights' pickle is read only where model.safetensors is gone.
STATE_FILES = ("pytorch_model.bin", "optimizer.pt", "scheduler.pt", "rng_state.pth")


@pytest.fixture
def marker(tmp_path):
    """A file that is there once a trap has sprung; the test fails if it is."""
    path = tmp_path / "sprung"
    yield path
    assert not path.exists(), "code from a file was executed"


@pytest.fixture(scope="module")
def flags(corpus_dir, tiny_flags):
    """Flags of a run of three epochs."""
    data = ["--data_dir", str(corpus_dir), "--task", "two", "--disable_tqdm", "true", "--save_total_limit", "9"]
    return [*data, *tiny_flags, "--num_train_epochs", "3"]


@pytest.fixture(scope="module")
def stopped(flags, tmp_path_factory):
    """A run that was cut off behind its second checkpoint."""
    folder = tmp_path_factory.mktemp("stopped") / "run"
    train_step, done = VocalBurstTrainer.training_step, []

    def until_cut(self, *args, **kwargs):
        done.append(1)
        if len(done) > 7:
            raise ZeroDivisionError
        return train_step(self, *args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(VocalBurstTrainer, "training_step", until_cut)
        with pytest.raises(ZeroDivisionError):
            run("train", [*flags, "--output_dir", str(folder)])
    return folder


@pytest.fixture
def folders(stopped, tiny_backbone_dir, tmp_path):
    """Copies of the run, of its newest checkpoint and of a backbone, to be tampered with."""
    sources = {"run": stopped, "checkpoint": stopped / "checkpoint-6", "backbone": tiny_backbone_dir}
    return {name: shutil.copytree(source, tmp_path / name) for name, source in sources.items()}


def plant(folder, name, marker, form="a pickle"):
    if name == "pytorch_model.bin":
        (folder / "model.safetensors").unlink()
    PLANTS[form](Trap(marker), folder / name)


def resume(flags, folder, word):
    return run("train", [*flags, "--output_dir", str(folder), "--resume", str(word)])


@pytest.mark.parametrize("form", PLANTS)
def test_the_traps_spring_where_pickles_are_trusted(form, tmp_path):
    PLANTS[form](Trap(tmp_path / "sprung"), tmp_path / "file")
    with suppress(RuntimeError):  # a pickle is not what torch wrote, but it learns that too late
        torch.load(tmp_path / "file", weights_only=False)
    assert (tmp_path / "sprung").exists()


@pytest.mark.slow
@pytest.mark.parametrize("name", STATE_FILES)
@pytest.mark.parametrize("form", PLANTS)
def test_a_trap_in_a_sealed_checkpoint_is_refused_by_name(flags, folders, marker, capsys, name, form):
    checkpoint = folders["run"] / "checkpoint-6"
    plant(checkpoint, name, marker, form)
    seal(checkpoint)  # as one can who may write the whole folder
    for word in ("auto", checkpoint):
        assert resume(flags, folders["run"], word) == 2
        assert re.search(rf"checkpoint-6.*({name}|model\.safetensors)", capsys.readouterr().err)


@pytest.mark.wide
@pytest.mark.parametrize("name", STATE_FILES)
def test_a_trap_that_was_slipped_in_is_found_by_the_seal(folders, marker, caplog, name):
    checkpoint = folders["run"] / "checkpoint-6"
    plant(checkpoint, name, marker)
    with pytest.raises(ValueError, match=rf"checkpoint-6.*({name}|model\.safetensors)"):
        find_checkpoint(folders["run"], str(checkpoint))
    assert find_checkpoint(folders["run"], "auto") == str(folders["run"] / "checkpoint-3")
    assert re.search(rf"skipping .*checkpoint-6.*({name}|model\.safetensors)", caplog.text)


@pytest.mark.parametrize("sealed", [True, False])
def test_traps_beside_what_is_read_are_left_alone_or_refused(flags, folders, marker, capsys, sealed):
    names = ("training_args.bin", "optimizer.bin", "pytorch_model.bin")
    checkpoint = folders["run"] / "checkpoint-6"
    for name in names:
        plain_pickle(Trap(marker), checkpoint / name)
        plain_pickle(Trap(marker), folders["run"] / name)
    if sealed:
        seal(checkpoint)
    code, message = resume(flags, folders["run"], checkpoint), capsys.readouterr().err
    assert code == 0 or (code == 2 and any(name in message for name in names))
    assert Wav2Vec2ForVocalBurst.from_pretrained(checkpoint).config.pooling == "mean"


def train_from(flags, folder, output, *more):
    """Train one epoch from a model in a folder."""
    start = flags.index("--encoder_config")
    data = [*flags[:start], "--num_train_epochs", "1", "--freeze", "none"]
    return run("train", [*data, "--model_name_or_path", str(folder), "--output_dir", str(output), *more])


@pytest.mark.parametrize("form", PLANTS)
@pytest.mark.parametrize("source", ["checkpoint", "backbone"])
def test_pickled_weights_that_are_a_trap_are_refused(flags, folders, marker, tmp_path, capsys, source, form):
    plant(folders[source], "pytorch_model.bin", marker, form)
    with pytest.raises((ValueError, OSError), match=re.escape(str(folders[source]))):
        Wav2Vec2ForVocalBurst.from_pretrained(folders[source])
    assert train_from(flags, folders[source], tmp_path / "out") == 2
    message = capsys.readouterr().err
    assert str(folders[source]) in message
    assert "weights_only" not in message, "the message advises to execute the file"


@pytest.mark.parametrize("source", ["checkpoint", "backbone"])
def test_a_trap_that_is_called_safetensors_is_refused(flags, folders, marker, tmp_path, capsys, source):
    plain_pickle(Trap(marker), folders[source] / "model.safetensors")
    assert train_from(flags, folders[source], tmp_path / "out") == 2
    assert str(folders[source]) in capsys.readouterr().err


@pytest.mark.parametrize("what", ["recipe", "task"])
def test_yaml_that_asks_for_code_is_refused(flags, marker, tmp_path, capsys, what):
    path = tmp_path / "evil.yaml"
    path.write_text(f"name: !!python/object/apply:os.system ['touch {marker}']\n")
    words = [*flags, "--output_dir", str(tmp_path / "out")]
    assert run("train", [str(path), *words] if what == "recipe" else [*words, "--task", str(path)]) == 2
    message = capsys.readouterr().err
    assert str(path) in message
    assert "python/object" in message


def test_that_yaml_springs_where_yaml_is_trusted(tmp_path):
    yaml.unsafe_load(f"!!python/object/apply:os.system ['touch {tmp_path / 'sprung'}']")
    assert (tmp_path / "sprung").exists()


def change(path, **fields):
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


@pytest.fixture
def asked(monkeypatch):
    """Questions to the user, all answered with yes."""
    questions = []

    monkeypatch.setattr("builtins.input", lambda prompt="": questions.append(prompt) or "y")
    return questions


@pytest.mark.wide
@pytest.mark.parametrize("disguise", ["none", "extractor", "model"])
@pytest.mark.parametrize("source", ["checkpoint", "backbone"])
def test_code_beside_a_model_is_not_run(flags, folders, marker, asked, tmp_path, capsys, source, disguise):
    folder = folders[source]
    (folder / "evil.py").write_text(f"open({str(marker)!r}, 'w').close()\nclass Evil: ...\n")
    names = ("AutoConfig", "AutoModel", "AutoModelForAudioClassification", "AutoFeatureExtractor", "AutoProcessor")
    for file in ("config.json", "preprocessor_config.json"):
        change(folder / file, auto_map=dict.fromkeys(names, "evil.Evil"))
    if disguise == "extractor":
        change(folder / "preprocessor_config.json", feature_extractor_type="Evil", processor_class="Evil")
    if disguise == "model":
        change(folder / "config.json", model_type="evil", architectures=["Evil"])
        with pytest.raises(ValueError, match="'evil'"):
            Wav2Vec2ForVocalBurst.from_pretrained(folder)
    else:
        Wav2Vec2ForVocalBurst.from_pretrained(folder)
    code = train_from(flags, folder, tmp_path / "out", "--do_eval")
    assert code == (2 if disguise == "model" else 0), capsys.readouterr().err
    assert asked == []


PICKLERS = {"pickle", "_pickle", "cPickle", "dill", "cloudpickle", "joblib", "marshal", "shelve", "runpy"}
YAML_LOADERS = {"yaml.load", "yaml.load_all", "yaml.unsafe_load", "yaml.unsafe_load_all", "yaml.full_load"}
CALLS = YAML_LOADERS | {"eval", "exec", "compile", "os.system", "os.popen", "pd.read_pickle", "pandas.read_pickle"}
KEYWORDS = {"trust_remote_code": False, "weights_only": True, "allow_pickle": False, "shell": False}


def dangers(source):
    """Places of a module that could run what lies in a file."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.split(".")[0] in PICKLERS)
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in PICKLERS:
            yield from (alias.name for alias in node.names if alias.name != "UnpicklingError")
        elif isinstance(node, ast.Call):
            if ast.unparse(node.func) in CALLS:
                yield ast.unparse(node.func)
            for keyword in node.keywords:
                if keyword.arg in KEYWORDS and ast.unparse(keyword.value) != str(KEYWORDS[keyword.arg]):
                    yield keyword.arg
        elif isinstance(node, ast.Constant) and node.value == "training_args.bin":
            yield node.value


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.name)
def test_the_package_has_no_way_to_run_what_lies_in_a_file(path):
    assert list(dangers(path.read_text(encoding="utf-8"))) == []


@pytest.mark.parametrize(
    "source",
    [
        "import pickle", "from pickle import loads", "import torch\ntorch.load(p, weights_only=False)", "yaml.load(t)",
        "AutoConfig.from_pretrained(n, trust_remote_code=flag)", "np.load(p, allow_pickle=True)", "eval(text)",
    ],
)  # fmt: skip
def test_such_a_way_would_be_found(source):
    assert len(list(dangers(source))) == 1
    assert list(dangers("model.eval()\nfrom pickle import UnpicklingError\ntorch.load(p, weights_only=True)")) == []


def files_of(folder):
    return [path for path in folder.rglob("*") if path.is_file()]


@pytest.mark.slow
def test_no_token_and_no_pickle_in_what_a_run_leaves(flags, tmp_path, monkeypatch, capfd, caplog):
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        monkeypatch.setenv(name, TOKEN)
    caplog.set_level(logging.DEBUG)
    words = [*flags, "--do_train", "--do_eval", "--do_predict", "--report_to", "none", "--team_name", "owls"]
    assert run("train", [*words, "--output_dir", str(tmp_path / "run")]) == 0
    assert train_from(flags, tmp_path / "run", tmp_path / "again", "--overwrite", "--log_level", "debug") == 0
    files = files_of(tmp_path)
    assert len(files) > 30
    assert {path.suffix for path in files} == {".json", ".safetensors", ".csv", ".pt", ".pth", ".py", ".md"}
    for path in files:
        content = path.read_bytes()
        assert TOKEN.encode() not in content
        assert not LIKE_A_TOKEN.search(content), path
        if path.suffix in (".pt", ".pth"):
            with safe_globals():
                torch.load(path, weights_only=True)
        else:
            assert not content.startswith((b"\x80", b"PK")), path
    shown = capfd.readouterr()
    assert len(shown.out) > 100
    for text in (shown.out, shown.err, caplog.text):
        assert not LIKE_A_TOKEN.search(text.encode())


@pytest.mark.parametrize("spelling", [["--hub_token", TOKEN], [f"--hub_token={TOKEN}"], [f"--hub_tokn={TOKEN}"]])
def test_a_token_among_the_flags_is_refused_and_not_repeated(flags, tmp_path, capfd, caplog, spelling):
    assert run("train", [*flags, "--output_dir", str(tmp_path / "run"), *spelling]) == 2
    shown = capfd.readouterr()
    assert "--hub_token" in shown.err
    assert TOKEN not in shown.err + shown.out + caplog.text
    assert files_of(tmp_path) == []
