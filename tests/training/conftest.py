"""Short runs on a pretrained tiny backbone with a cache of their own, and what they leave."""

import hashlib
import json
import shutil
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import pytest
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from avb_hf.cli import run
from avb_hf.model import Wav2Vec2ForVocalBurst

FROZEN = {
    "front end": ["--freeze", "feature_encoder"],
    "one block": ["--freeze", "feature_encoder", "--freeze_blocks", "1"],
    "backbone": ["--freeze", "backbone"],
    "nothing": ["--freeze", "none"],
}
NO_CHECKPOINTS = ["--load_best_model_at_end", "false", "--save_strategy", "no"]


@pytest.fixture
def states_dir(tmp_path, monkeypatch):
    """Where this test's runs keep frozen states; it does not exist yet."""
    monkeypatch.setenv("AVB_HF_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "states"


@pytest.fixture
def run_flags(corpus_dir, tiny_flags, tiny_backbone_dir):
    """Give a function from what is frozen to the flags of two epochs of the task two that end in the last weights."""

    def make(freeze="one block", data_dir=corpus_dir, backbone=None):
        model = backbone or ["--model_name_or_path", tiny_backbone_dir]
        flags = ["--data_dir", data_dir, "--task", "two", *model, *tiny_flags[2:], *NO_CHECKPOINTS, *FROZEN[freeze]]
        return [str(word) for word in flags]

    return make


@pytest.fixture
def train(run_flags, states_dir, tmp_path):
    """Give a function that does such a run, without predictions, into a new folder and returns that."""
    folders = []

    def go(*flags, code=0, folder=None, only=("--do_train",), **choices):
        folders.append(folder or tmp_path / f"run{len(folders)}")
        words = [*run_flags(**choices), "--output_dir", folders[-1], *only, *flags]
        assert run("train", [str(word) for word in words]) == code
        return folders[-1]

    return go


@pytest.fixture
def change_backbone(tiny_backbone_dir, tmp_path):
    """Give a function that copies a pretrained model with other fields of its configuration, or a weight halved."""

    def change(fields=None, weight=None, source=tiny_backbone_dir):
        folder = Path(shutil.copytree(source, tmp_path / f"changed{len(list(tmp_path.iterdir()))}"))
        config = json.loads((folder / "config.json").read_text()) | (fields or {})
        (folder / "config.json").write_text(json.dumps(config))
        if weight is not None:
            weights = load_file(folder / "model.safetensors")
            weights[weight] *= 0.5
            save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
        return ["--model_name_or_path", folder]

    return change


@pytest.fixture
def computed(monkeypatch):
    """Counts, as `clips`, those that went through what is frozen."""
    original, count = Wav2Vec2ForVocalBurst.run_frozen, Counter()

    def counted(self, input_values, attention_mask=None):
        count["clips"] += len(input_values)
        return original(self, input_values, attention_mask)

    monkeypatch.setattr(Wav2Vec2ForVocalBurst, "run_frozen", counted)
    return count


@pytest.fixture
def forbid(monkeypatch):
    """Give a function from which on nothing may go through what is frozen."""

    def refuse(self, *args, **kwargs):
        raise AssertionError("frozen states were computed")

    return lambda: monkeypatch.setattr(Wav2Vec2ForVocalBurst, "run_frozen", refuse)


@pytest.fixture
def cached(states_dir):
    """What is in the cache: its `files()`, and `clips()`, how often the states of each are there."""

    def files():
        return sorted(states_dir.glob("*/*.safetensors"))

    def clips():
        return Counter(name for path in files() for name in _tensors(path))

    return SimpleNamespace(files=files, clips=clips, sizes=lambda: [_num_bytes(path) for path in files()])


def _tensors(path):
    with safe_open(path, framework="pt") as file:
        return list(file.keys())


def _num_bytes(path):
    return sum(tensor.nbytes for tensor in load_file(path).values())


@pytest.fixture(scope="session")
def digest():
    """Give a function that digests the weights in a folder."""
    return lambda folder: hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()


@pytest.fixture(scope="session")
def read_json():
    """Give a function that reads a JSON file of a run."""
    return lambda folder, name: json.loads((folder / name).read_text())


@pytest.fixture
def push_flags(corpus_dir, tiny_flags):
    """Flags of a run of two epochs of three steps, of which every push is made."""
    data = ["--data_dir", str(corpus_dir), "--task", "two", "--save_total_limit", "9", "--disable_tqdm", "true"]
    return [*data, *tiny_flags, "--push_to_hub", "--hub_always_push", "--hub_model_id", "tester/owls"]


@pytest.fixture
def train_and_push(push_flags, tmp_path, monkeypatch):
    """Give a function that does such a run, and returns its folder; what is cut off is tried again at once."""
    from avb_hf.data import hub_commit

    monkeypatch.setattr(hub_commit, "PAUSES", (0.0, 0.0))

    def go(*more, folder="run", code=0):
        output = tmp_path / folder
        assert run("train", [*push_flags, "--output_dir", str(output), *map(str, more)]) == code
        return output

    return go
