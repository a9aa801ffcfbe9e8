"""A tiny corpus, tiny backbones, and the real data where it is present. No test touches the network."""

import json
import os
import socket
import sys
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"  # tests run in parallel processes, which threads of each would slow down
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["DISABLE_SAFETENSORS_CONVERSION"] = "1"
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"

import numpy as np
import pandas as pd
import pytest
import soundfile
import torch

sys.path.append(str(Path(__file__).parent))  # for helpers that tests share
SHARED = Path(__file__).resolve().parents[2] / "shared"
RATE = 16_000
TINY_BACKBONE = {
    "model_type": "wav2vec2",
    "conv_dim": [16, 16, 16],
    "conv_kernel": [80, 4, 4],
    "conv_stride": [40, 4, 2],
    "conv_bias": True,
    "feat_extract_norm": "layer",
    "do_stable_layer_norm": True,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "num_conv_pos_embeddings": 8,
    "num_conv_pos_embedding_groups": 2,
}


def pytest_collection_modifyitems(items):
    """Make all cases of a `wide` test slow but the first and the last."""
    cases = {}
    for item in items:
        if item.get_closest_marker("wide"):
            cases.setdefault(item.nodeid.partition("[")[0], []).append(item)
    for item in (item for of_one in cases.values() for item in of_one[1:-1]):
        item.add_marker(pytest.mark.slow)


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    """Fail loudly where anything but loopback is contacted."""
    connect = socket.socket.connect

    def guarded(self, address):
        if self.family in (socket.AF_INET, socket.AF_INET6) and address[0] not in ("127.0.0.1", "::1", "localhost"):
            raise AssertionError(f"a test tried to reach {address}")
        return connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", guarded)


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """A stand-in for the Hub that this process is logged in to; `hub.environment(home)` is for subprocesses."""
    from stand_in_hub import StandInHub

    with StandInHub() as hub:
        hub.enter(monkeypatch, tmp_path / "hf")
        yield hub


@pytest.fixture(scope="session", autouse=True)
def no_token_on_disk(tmp_path_factory):
    """Fail at the end if what the tests left in their folders holds a token, but where one was planted on purpose."""
    from token_scan import PLANTED, files_with_tokens

    yield
    assert files_with_tokens(tmp_path_factory.getbasetemp(), PLANTED) == []


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory):
    """Keep what runs leave in the user's cache, those of subprocesses too, in a folder of the session."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AVB_HF_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(autouse=True)
def seeded():
    """Make every test's random numbers its own and repeatable."""
    torch.manual_seed(0)
    np.random.seed(0)


@pytest.fixture(scope="session")
def tiny_backbone() -> dict:
    """Configuration of a two-block wav2vec 2.0 of width 16; 1 frame is 20 ms."""
    return dict(TINY_BACKBONE)


@pytest.fixture(scope="session")
def tiny_backbone_dir(tmp_path_factory) -> Path:
    """The same with random weights, as a backbone folder of stock transformers."""
    from transformers import Wav2Vec2Config, Wav2Vec2FeatureExtractor, Wav2Vec2Model

    folder = tmp_path_factory.mktemp("backbone")
    torch.manual_seed(1)
    fields = {key: value for key, value in TINY_BACKBONE.items() if key != "model_type"}
    Wav2Vec2Model(Wav2Vec2Config(**fields)).save_pretrained(folder)
    Wav2Vec2FeatureExtractor(return_attention_mask=True).save_pretrained(folder)
    return folder


class Cut(Exception):
    """A machine that goes away."""


@pytest.fixture
def cut_after(monkeypatch):
    """Give a function that runs a training, as `run()`, until so many of its batches are done, and then cuts it off."""

    def cut(batches, run):
        from avb_hf.training.trainer import VocalBurstTrainer

        step, done = VocalBurstTrainer.training_step, []

        def until_cut(self, *args, **kwargs):
            if len(done) == batches:
                raise Cut
            done.append(1)
            return step(self, *args, **kwargs)

        with monkeypatch.context() as patch:
            patch.setattr(VocalBurstTrainer, "training_step", until_cut)
            with pytest.raises(Cut):
                run()

    return cut


def write_corpus(folder: Path, suffix: str = ".wav", rate: int = RATE, channels: int = 1, clips: int = 36) -> Path:
    """Write a corpus in the official layout with labels of all four tasks; half train, a quarter each val and test."""
    from avb_hf.tasks import TASKS

    rng = np.random.default_rng(7)
    ids = [f"{number:05d}" for number in range(1, clips + 1)]
    splits = [("Train", "Train", "Val", "Test")[number % 4] for number in range(clips)]
    (folder / "audio" / "any").mkdir(parents=True)
    (folder / "labels").mkdir()
    pitch = rng.uniform(0, 1, clips)
    for clip_id, height in zip(ids, pitch, strict=True):
        time = np.arange(int(rng.uniform(0.2, 0.6) * rate)) / rate
        wave = 0.3 * np.sin(2 * np.pi * (200 + 800 * height) * time) + 0.01 * rng.standard_normal(len(time))
        frames = np.stack([wave] * channels, axis=1)
        soundfile.write(folder / "audio" / "any" / f"{clip_id}{suffix}", frames, rate)
    for task in (TASKS[name] for name in ("high", "two", "culture", "type")):
        table = pd.DataFrame({"File_ID": [f"[{clip_id}]" for clip_id in ids], "Split": splits})
        if task.is_classification:
            table[task.class_column] = [task.labels[number % len(task.labels)] for number in range(clips)]
        else:
            noise = rng.normal(0, 0.05, (clips, len(task.labels)))
            values = np.clip(pitch[:, None] + noise, 0, 1)
            table[list(task.labels)] = np.round(values, 4)
        if task.allow_missing:
            table.loc[table.index % 5 == 0, task.labels[0]] = np.nan
        table.to_csv(folder / "labels" / task.label_file, index=False)
    return folder


@pytest.fixture(scope="session")
def corpus_dir(tmp_path_factory) -> Path:
    """A corpus of 36 short clips in the official layout: 18 train, 9 val, 9 test, all labelled."""
    return write_corpus(tmp_path_factory.mktemp("corpus"))


@pytest.fixture(scope="session")
def make_corpus():
    """Give the function that writes such a corpus with other files."""
    return write_corpus


@pytest.fixture(scope="session")
def tiny_flags(tiny_backbone) -> list[str]:
    """Flags of a run that takes about a second."""
    return [
        "--encoder_config", json.dumps(tiny_backbone), "--rnn_hidden_size", "8", "--rnn_num_layers", "1",
        "--pooling", "mean", "--freeze", "none", "--num_train_epochs", "2", "--per_device_train_batch_size", "8",
        "--learning_rate", "0.01", "--backbone_learning_rate", "0.01", "--precision", "fp32",
    ]  # fmt: skip


@pytest.fixture(scope="session")
def emogator_dir() -> Path:
    """The EmoGator clips."""
    return _shared("emogator")


@pytest.fixture(scope="session")
def whisper_dir() -> Path:
    """Pretrained weights of the Whisper base encoder."""
    return _shared("backbones/whisper-base-encoder")


def _shared(name: str) -> Path:
    folder = SHARED / name
    if not folder.is_dir():
        pytest.skip(f"{folder} is not here")
    return folder
