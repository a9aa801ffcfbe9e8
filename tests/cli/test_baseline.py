"""`avb baseline`: the paper's systems from end to end."""

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile
import torch

from avb_hf.baselines import run_functionals
from avb_hf.baselines.emo18 import Emo18ForVocalBurst
from avb_hf.cli import run
from avb_hf.cli.baseline import BASELINES, EMO18
from avb_hf.cli.train import parse
from avb_hf.data.sources.demo import corpus_folder
from avb_hf.evaluation.statistics import bootstrap_interval
from avb_hf.inference.load_model import load_fine_tuned
from avb_hf.tasks import TASKS

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
FILES = {
    "config.json", "model.safetensors", "preprocessor_config.json", "all_results.json", "eval_results.json",
    "test_results.json", "train_results.json", "predictions.csv", "resolved_config.json", "training_args.json",
    "trainer_state.json", "avb_complete.json", "README.md",
}  # fmt: skip
OF_A_BACKBONE = ("rnn", "pooling", "feature_layer", "freeze", "freeze_blocks", "cache", "backbone_learning_rate")


@pytest.fixture
def emo18(corpus_dir, tmp_path):
    """Give a function that trains an Emo-18 for two epochs of three steps on the task two, into a folder."""

    def go(folder, *flags):
        base = ["--data_dir", corpus_dir, "--task", "two", "--output_dir", tmp_path / folder, "--precision", "fp32"]
        return run("baseline", ["emo18", *map(str, [*base, "--num_train_epochs", "2", *flags])])

    return go


@pytest.fixture(scope="module", params=["two", "type"])
def finished(request, corpus_dir, tmp_path_factory):
    """Task, flags and output folder of a short run, with all else as it is by default."""
    folder = tmp_path_factory.mktemp(request.param) / "out"
    flags = ["emo18", "--data_dir", corpus_dir, "--task", request.param, "--output_dir", folder]
    flags = [str(word) for word in [*flags, "--num_train_epochs", "1", "--precision", "fp32"]]
    assert run("baseline", flags) == 0
    return TASKS[request.param], flags, folder


def read_predictions(folder):
    return pd.read_csv(folder / "predictions.csv", dtype={"file_id": str}).set_index("file_id")


def test_it_leaves_what_a_training_leaves(finished):
    task, _, folder = finished
    names = {path.name for path in folder.iterdir() if not path.name.startswith("checkpoint-")}
    names = {name for name in names if not name.endswith("_vocal_burst.py")}  # of the feature extractor
    assert names == FILES | {f"A-VB-{task.submission_name}_team_1.csv"}
    results = json.loads((folder / "all_results.json").read_text())
    assert {f"{split}_{task.metric}" for split in ("eval", "test")} <= set(results)
    assert set(read_predictions(folder)["split"]) == {"validation", "test"}


def test_the_folder_loads_and_predicts_the_same(finished, corpus_dir):
    task, _, folder = finished
    model, extractor = load_fine_tuned(str(folder))
    assert type(model) is Emo18ForVocalBurst
    for clip_id, row in read_predictions(folder).iterrows():
        wave, rate = soundfile.read(corpus_dir / "audio" / "any" / f"{clip_id}.wav", dtype="float32")
        with torch.no_grad():
            logits = model(**extractor(wave, sampling_rate=rate, return_tensors="pt")).logits[0]
        scores = logits.softmax(0) if task.is_classification else logits
        np.testing.assert_allclose(scores, row[list(task.labels)].to_numpy(float), atol=1e-5)


def test_a_finished_run_is_recognised(finished, capsys):
    _, flags, folder = finished
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    assert run("baseline", [*flags, "--resume", "auto"]) == 0
    assert "is finished: nothing to do" in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before
    assert run("baseline", flags) == 2
    assert "--resume auto" in capsys.readouterr().err


def test_it_passes_the_audit(finished, corpus_dir, capsys):
    _, _, folder = finished
    assert run("audit", [str(folder), str(corpus_dir), "--batch_size", "4"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert re.fullmatch(rf"{folder}: scores, float32; largest value [\d.]+", lines[0])
    assert lines[-1] == "pass"


def test_it_scores_a_corpus(finished, corpus_dir, tmp_path):
    task, _, folder = finished
    assert run("predict", [str(folder), str(corpus_dir), "--output", str(tmp_path / "scores.csv")]) == 0
    table = pd.read_csv(tmp_path / "scores.csv")
    table.index = [Path(path).stem for path in table["file"]]
    predictions = read_predictions(folder)
    labels = list(task.labels)
    np.testing.assert_allclose(table.loc[predictions.index, labels], predictions[labels], atol=1e-5)


def test_a_run_that_was_cut_off_ends_alike(emo18, cut_after, digest, tmp_path):
    assert emo18("whole") == 0
    cut_after(4, lambda: emo18("cut"))
    assert [path.name for path in (tmp_path / "cut").glob("checkpoint-*")] == ["checkpoint-3"]
    assert emo18("cut", "--resume", "auto") == 0
    assert digest(tmp_path / "cut") == digest(tmp_path / "whole")


def test_its_batches_are_not_cut(emo18, tmp_path, capsys):
    assert emo18("run", "--gradient_accumulation_steps", "2") == 2
    assert "is a batch norm" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_it_has_no_blocks_to_compile(emo18, tmp_path, capsys):
    assert emo18("run", "--torch_compile") == 2
    assert "Emo18ForVocalBurst has none" in capsys.readouterr().err


def test_it_is_not_trained_in_two_processes(corpus_dir, tmp_path):
    words = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", "-m", "avb_hf"]
    flags = [
        "baseline",
        "emo18",
        "--data_dir",
        corpus_dir,
        "--task",
        "two",
        "--use_cpu",
        "--output_dir",
        tmp_path / "o",
    ]
    done = subprocess.run([*words, *map(str, flags)], cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 1
    assert "is a batch norm" in done.stderr
    assert not (tmp_path / "o").exists()


@pytest.mark.parametrize(("flag", "told"), [("--estimate", "peak memory"), ("--dry_run", "one batch of 8 clips: loss")])
def test_what_would_be_done(emo18, flag, told, tmp_path, capsys):
    assert emo18("run", flag) == 0
    shown = capsys.readouterr().out
    assert told in shown
    assert "model: 1,562,946 parameters, 1,562,946 of them trained" in shown
    assert not (tmp_path / "run").exists()


def test_defaults_are_those_of_the_paper(tmp_path):
    _, model, run_args, args = parse(["--output_dir", str(tmp_path)], EMO18)
    assert (args.per_device_train_batch_size, args.learning_rate, args.num_train_epochs) == (8, 1e-4, 30)
    assert (args.optim, args.weight_decay, args.lr_scheduler_type, args.warmup_steps) == ("adam", 0, "constant", 0)
    assert (model.loss, model.class_weights) == (None, "none")
    assert (run_args.freeze, run_args.cache, run_args.length_pool) == ("none", "off", 1)


@pytest.mark.parametrize("flag", ["--help", "--help_all"])
def test_help_has_its_flags_and_no_others(flag, capsys):
    assert run("baseline", ["emo18", flag]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith("usage: avb baseline emo18")
    flags = set(re.findall(r"^  --(\w+)", shown, re.MULTILINE))
    assert {"source", "loss", "class_weights", "length_pool", "num_train_epochs"} <= flags
    assert not flags & set(OF_A_BACKBONE)
    told = " ".join(shown.split())
    for text in ("epochs (default: 30.0)", "a device and step (default: 8)", "learning rate (default: 0.0001)"):
        assert text in told


@pytest.mark.parametrize("flag", OF_A_BACKBONE)
def test_a_flag_of_a_backbone_is_unknown(emo18, flag, capsys):
    assert emo18("run", f"--{flag}", "1") == 2
    assert f"there is no flag --{flag}" in capsys.readouterr().err


def test_systems_are_listed_and_a_misspelt_one_is_named(capsys):
    assert run("baseline", []) == run("baseline", ["--help"]) == 0
    shown = capsys.readouterr().out
    assert [name for name in BASELINES if f"  {name} " not in shown] == []
    assert run("baseline", ["emo81"]) == 2
    assert (
        "must be one of ['emo18', 'compare', 'egemaps'], got 'emo81'; did you mean 'emo18'?" in capsys.readouterr().err
    )


def test_help_imports_no_torch():
    check = "import sys; from avb_hf.cli import run; codes = [run('baseline', [name, '--help']) for name in {names}]; "
    check += "sys.exit(' '.join({{'torch', 'datasets', 'librosa', 'opensmile'}} & set(sys.modules)) or max(codes))"
    words = [sys.executable, "-c", check.format(names=list(BASELINES))]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", ["compare", "egemaps"])
def test_functionals_get_their_flags(name, monkeypatch, tmp_path):
    calls = []
    monkeypatch.setattr(run_functionals, "run_functionals", lambda *args: calls.append(args))
    assert run("baseline", [name, "--source", "demo", "--seeds", "3", "4", "--output_dir", str(tmp_path / "o")]) == 0
    ((system, data, args),) = calls
    assert (system, data.source, args.seeds, args.output_dir) == (name, "demo", [3, 4], str(tmp_path / "o"))


@pytest.mark.parametrize(("name", "chance"), [("high", 0), ("type", 1 / 8)])
def test_it_learns_the_demo_corpus(name, chance, tmp_path):
    task = TASKS[name]
    data = ["--source", "demo", "--task", name, "--output_dir", str(tmp_path)]
    assert run("baseline", ["emo18", *data, "--num_train_epochs", "2", "--precision", "fp32"]) == 0
    predictions = read_predictions(tmp_path)
    scores = predictions.loc[predictions["split"] == "test", list(task.labels)]
    table = pd.read_csv(corpus_folder() / "labels" / task.label_file, dtype={"File_ID": str})
    table = table.set_index(table["File_ID"].str.strip("[]")).loc[scores.index]
    labels = table[list(task.label_columns)].to_numpy()
    if task.is_classification:
        labels = np.array([task.labels.index(word) for word in labels[:, 0]])
    interval = bootstrap_interval(task, scores.to_numpy(), labels, groups=table["Speaker"].tolist())
    assert chance < interval.low < interval.high <= 1
