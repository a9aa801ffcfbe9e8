"""Whole runs with `--lora`: what they leave, how they go on, and what they may be combined with."""

import itertools
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

from avb_hf.cli import run
from avb_hf.inference.predict import predict
from avb_hf.model import VocalBurstFeatureExtractor, Wav2Vec2ForVocalBurst
from avb_hf.tasks import TASKS
from avb_hf.training.trainer import VocalBurstTrainer

pytestmark = pytest.mark.slow

peft = pytest.importorskip("peft", reason="peft is in the extra `lora`")

LORA = ("--lora", "--lora_r", "4", "--lora_dropout", "0.2", "--lora_target_modules", "q_proj", "k_proj", "out_proj")
EACH_EPOCH = ("--save_strategy", "epoch", "--load_best_model_at_end", "true", "--num_train_epochs", "4")
EVERYTHING = ("--do_train", "--do_eval", "--do_predict")
CHECKPOINT = {
    "adapter_config.json", "adapter_model.safetensors", "avb_complete.json", "config.json", "optimizer.pt",
    "preprocessor_config.json", "rng_state.pth", "scheduler.pt", "trainer_state.json", "training_args.json",
}  # fmt: skip
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def train_adapted(train):
    """Give a function that does a run with adapters whose front end is frozen."""
    return lambda *flags, freeze="front end", **more: train(*LORA, *flags, freeze=freeze, **more)


def table(folder):
    return pd.read_csv(folder / "predictions.csv", dtype={"file_id": str})


def test_a_run_that_was_cut_off_ends_as_one_that_was_not(train_adapted, cut_after, digest, tmp_path):
    cut = tmp_path / "cut"
    cut_after(7, lambda: train_adapted(*EACH_EPOCH, folder=cut, only=EVERYTHING))
    assert {path.name for path in cut.glob("checkpoint-*")} == {"checkpoint-3", "checkpoint-6"}
    assert {path.name for path in (cut / "checkpoint-6").iterdir()} >= CHECKPOINT
    assert not (cut / "checkpoint-6" / "model.safetensors").exists()
    whole = train_adapted(*EACH_EPOCH, only=EVERYTHING)
    train_adapted(*EACH_EPOCH, "--resume_from_checkpoint", cut / "checkpoint-6", folder=cut, only=EVERYTHING)
    assert digest(cut) == digest(whole)
    pd.testing.assert_frame_equal(table(cut), table(whole), check_exact=True)
    last = [folder / "checkpoint-12" for folder in (cut, whole)]
    torch.testing.assert_close(*(load_file(path / "adapter_model.safetensors") for path in last), rtol=0, atol=0)
    moments = [torch.load(checkpoint / "optimizer.pt", weights_only=True)["state"] for checkpoint in last]
    assert len(moments[0]) > 10
    torch.testing.assert_close(*moments, rtol=0, atol=0)


def test_what_is_left_is_a_plain_model_that_needs_no_peft(train_adapted, corpus_dir, monkeypatch):
    folder = train_adapted(*EACH_EPOCH, only=EVERYTHING)
    assert not list(folder.glob("adapter*"))
    monkeypatch.setitem(sys.modules, "peft", None)
    model = Wav2Vec2ForVocalBurst.from_pretrained(folder)
    extractor = VocalBurstFeatureExtractor.from_pretrained(folder)
    assert not [name for name in model.state_dict() if "lora" in name or "base_layer" in name]
    scored = pd.DataFrame(predict(model, corpus_dir / "audio", feature_extractor=extractor))
    scored["file_id"] = [Path(file).stem for file in scored["file"]]
    ours = table(folder).set_index("file_id").loc[:, list(TASKS["two"].labels)]
    theirs = scored.set_index("file_id").loc[[name.strip("[]") for name in ours.index], list(ours.columns)]
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-5)


def test_the_best_epoch_is_kept_and_merged(train_adapted, tiny_backbone_dir, monkeypatch, read_json):
    metrics, falling = VocalBurstTrainer._compute_metrics, itertools.count()
    monkeypatch.setattr(
        VocalBurstTrainer,
        "_compute_metrics",
        lambda self, prediction: metrics(self, prediction) | {self.task.metric: -float(next(falling))},
    )
    folder = train_adapted(*EACH_EPOCH)
    best = Path(read_json(folder, "trainer_state.json")["best_model_checkpoint"])
    assert best.name == "checkpoint-3"
    config = json.loads((folder / "config.json").read_text())
    fields = {
        name: config[name] for name in ("rnn_hidden_size", "rnn_num_layers", "pooling", "label_range", "id2label")
    }
    plain = Wav2Vec2ForVocalBurst.from_pretrained(tiny_backbone_dir, **fields)
    merged = peft.PeftModel.from_pretrained(plain, best).merge_and_unload().state_dict()
    saved = load_file(folder / "model.safetensors")
    assert saved.keys() == merged.keys()
    for name, value in saved.items():
        torch.testing.assert_close(value, merged[name], rtol=0, atol=1e-7)
    base = load_file(tiny_backbone_dir / "model.safetensors")
    own = {name: saved.get(f"encoder.{name}", value) for name, value in base.items()}
    changed = {name for name, value in base.items() if not torch.equal(value, own[name])}
    assert {name.split(".")[-2] for name in changed} == {"q_proj", "k_proj", "out_proj"}


def test_a_trained_run_goes_on_to_its_predictions(train_adapted, forbid):
    whole = train_adapted(*EACH_EPOCH, only=EVERYTHING)
    folder = train_adapted(*EACH_EPOCH)
    train_adapted(*EACH_EPOCH, "--resume", "auto", folder=folder, only=EVERYTHING)
    pd.testing.assert_frame_equal(table(folder), table(whole), check_exact=True)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("freeze", ["front end", "one block"])
def test_frozen_states_that_are_read_change_nothing(train_adapted, computed, digest, freeze, precision):
    live = train_adapted("--precision", precision, "--cache", "off", freeze=freeze)
    assert computed.pop("clips") > 36
    read = train_adapted("--precision", precision, freeze=freeze)
    assert computed["clips"] == 27 + 1  # of both splits that are read each clip once, and the longest to tell the size
    assert digest(read) == digest(live)


def test_states_are_shared_with_runs_without_adapters(train, train_adapted, forbid):
    train(freeze="one block")
    forbid()
    train_adapted(freeze="one block")


def test_activation_checkpointing_changes_nothing(train_adapted, digest):
    assert digest(train_adapted("--activation_checkpointing")) == digest(train_adapted())


def test_frozen_blocks_may_keep_their_dropout(train_adapted, digest):
    kept = train_adapted("--frozen_dropout", "--cache", "off", freeze="one block")
    weights, others = (load_file(folder / "model.safetensors") for folder in (kept, train_adapted(freeze="one block")))
    differing = {name for name, value in weights.items() if not torch.equal(value, others[name])}
    assert {name.split(".")[0] for name in differing} == {"encoder", "rnn", "classifier"}
    assert all(".layers.1.attention." in name for name in differing if name.startswith("encoder"))


@pytest.mark.parametrize("rate", [[], ["--backbone_learning_rate", "0.5"]])
def test_adapters_learn_at_the_rate_of_the_head(train, run_flags, tmp_path, read_json, rate):
    words = run_flags("front end")
    place = words.index("--backbone_learning_rate")
    words = [*words[:place], *words[place + 2 :], *rate, "--lora", "--output_dir", str(tmp_path / "run"), "--do_train"]
    assert run("train", words) == 0
    recorded = read_json(tmp_path / "run", "resolved_config.json")["flags"]
    assert recorded["backbone_learning_rate"] == (0.5 if rate else recorded["learning_rate"])


def test_another_backbone_under_the_same_name_is_refused(train_adapted, change_backbone, cut_after, tmp_path, capsys):
    backbone, cut = change_backbone(), tmp_path / "cut"
    cut_after(7, lambda: train_adapted(*EACH_EPOCH, folder=cut, backbone=backbone))
    other = change_backbone(weight="encoder.layers.0.attention.q_proj.weight")[1]
    (other / "model.safetensors").replace(backbone[1] / "model.safetensors")
    train_adapted(*EACH_EPOCH, "--resume", "auto", folder=cut, backbone=backbone, code=2)
    message = capsys.readouterr().err
    assert str(backbone[1]) in message
    assert "not those that they were trained on" in message


def test_two_processes_learn_as_one(train_adapted, run_flags, change_backbone, tmp_path):
    still = dict.fromkeys(("hidden_dropout", "attention_dropout", "activation_dropout", "feat_proj_dropout"), 0.0)
    backbone = change_backbone(still)
    one = train_adapted("--lora_dropout", "0", "--max_grad_norm", "1000", backbone=backbone)
    flags = [*run_flags("front end", backbone=backbone), *LORA, "--lora_dropout", "0", "--max_grad_norm", "1000"]
    flags += ["--per_device_train_batch_size", "4", "--use_cpu", "--output_dir", str(tmp_path / "two"), "--do_train"]
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", "run_avb.py"]
    done = subprocess.run(
        [*torchrun, *flags],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    first, second = (load_file(folder / "model.safetensors") for folder in (one, tmp_path / "two"))
    assert first.keys() == second.keys()
    for name, value in first.items():
        torch.testing.assert_close(value, second[name], rtol=0, atol=1e-5)
