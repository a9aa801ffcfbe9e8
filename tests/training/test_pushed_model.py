"""A model that was trained and pushed by one process is used by another that has never heard of avb_hf."""

import json
import os
import re
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import soundfile
from audmetric import concordance_cc
from huggingface_hub import ModelCard
from stand_in_hub import StandInHub

from avb_hf.cli import run
from avb_hf.inference.load_model import load_fine_tuned

pytestmark = pytest.mark.slow
TOLERANCE = 1e-6
# Scores clips one by one in float32, from repositories and commits that it is given.
LOADER = """
import json, sys
sys.modules["avb_hf"] = None
import soundfile
from transformers import AutoFeatureExtractor, AutoModelForAudioClassification, pipeline
pushed, paths = json.loads(sys.argv[1])
answers = {}
for repo, commit in pushed:
    at = {"revision": commit, "trust_remote_code": True}
    model = AutoModelForAudioClassification.from_pretrained(repo, **at).eval()
    extractor = AutoFeatureExtractor.from_pretrained(repo, **at)
    rows = []
    for path in paths:
        clip, rate = soundfile.read(path, dtype="float32")
        rows.append(model(**extractor(clip, sampling_rate=rate, return_tensors="pt")).logits[0].tolist())
    listener = pipeline("vocal-burst-emotion", model=repo, **at)
    answers[commit] = {"logits": rows, "pipeline": [list(listener(path).values()) for path in paths]}
print(json.dumps(answers))
"""
# The same from an ONNX file, which says itself what becomes of a clip.
ONNX_LOADER = """
import json, sys
for name in ("avb_hf", "transformers", "torch"):
    sys.modules[name] = None
import numpy, onnxruntime, soundfile
path, paths = json.loads(sys.argv[1])
session = onnxruntime.InferenceSession(path)
about = session.get_modelmeta().custom_metadata_map
rows = []
for path in paths:
    clip, rate = soundfile.read(path, dtype="float32")
    assert rate == int(about["sampling_rate"])
    if json.loads(about["preprocessing"])["do_normalize"]:
        clip = (clip - clip.mean()) / numpy.sqrt(clip.var() + 1e-7)
    mask = numpy.ones((1, len(clip)), dtype=numpy.int64)
    rows.append(session.run(["logits"], {"input_values": clip[None], "attention_mask": mask})[0][0].tolist())
print(json.dumps({"labels": json.loads(about["label_names"]), "scores": rows}))
"""
USAGE = "import sys\nsys.modules['avb_hf'] = None\n"


@pytest.fixture(scope="module")
def pushed(corpus_dir, tiny_flags, tmp_path_factory):
    """The stand-in, environment and folder of a run that trained and pushed in a process of its own."""
    folder = tmp_path_factory.mktemp("pushed")
    with StandInHub() as hub:
        environment = {name: value for name, value in os.environ.items() if "OFFLINE" not in name}
        environment |= hub.environment(folder / "hf") | {"PYTHONPATH": os.pathsep.join(sys.path)}
        flags = ["--data_dir", corpus_dir, "--task", "two", "--output_dir", folder / "run", *tiny_flags]
        flags += ["--push_to_hub", "--hub_always_push", "--hub_model_id", "owls", "--per_device_eval_batch_size", "1"]
        run_in(folder, environment, "-m", "avb_hf", "train", *flags, "--license", "cc-by-nc-4.0")
        yield hub, environment, folder


def run_in(folder, environment, *words):
    """Run Python in a folder, and return what it wrote."""
    command = [sys.executable, *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=folder, env=environment)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
    return done.stdout


def test_both_processes_give_the_same_scores(pushed, corpus_dir):
    hub, environment, folder = pushed
    _, first, _, last = hub.commits("tester/owls")
    table = pd.read_csv(folder / "run" / "predictions.csv", dtype={"file_id": str})
    paths = [str(corpus_dir / "audio" / "any" / f"{file_id}.wav") for file_id in table["file_id"]]
    words = json.dumps([[("tester/owls", first.oid), ("tester/owls", last.oid)], paths])
    answers = json.loads(run_in(folder, environment, "-c", LOADER, words).splitlines()[-1])
    of_training = table[["Valence", "Arousal"]].to_numpy()
    assert len(of_training) == 18

    model, extractor = load_fine_tuned(str(folder / "run" / "checkpoint-3"))
    clips = [soundfile.read(path, dtype="float32")[0] for path in paths]
    of_checkpoint = [model.eval()(**extractor(clip, return_tensors="pt")).logits[0].detach().numpy() for clip in clips]
    assert np.abs(of_training - of_checkpoint).max() > 100 * TOLERANCE, "the training changed nothing"
    for commit, expected in ((first, of_checkpoint), (last, of_training)):
        for kind in ("logits", "pipeline"):
            assert np.abs(np.subtract(answers[commit.oid][kind], expected)).max() < TOLERANCE, (commit.title, kind)


def test_what_is_pushed_while_training_scores_as_the_training_did(
    hub, push_flags, corpus_dir, tiny_backbone_dir, tmp_path
):
    pytest.importorskip("peft")
    start = push_flags.index("--encoder_config")
    adapters = [*push_flags[:start], *push_flags[start + 2 :], "--model_name_or_path", str(tiny_backbone_dir), "--lora"]
    adapters[adapters.index("--freeze") + 1] = "feature_encoder"
    words = ["--hub_strategy", "checkpoint", "--per_device_eval_batch_size", "1"]
    pushed, logged = [], []
    for name, flags in (("larks", push_flags), ("jays", adapters)):
        folder, repo = tmp_path / name, f"tester/{name}"
        assert run("train", [*flags, *words, "--hub_model_id", repo, "--output_dir", str(folder)]) == 0
        pushed.append((repo, hub.commits(repo)[1].oid))
        history = json.loads((folder / "trainer_state.json").read_text())["log_history"]
        logged.append(next(entry for entry in history if entry["step"] == 3 and "eval_ccc" in entry))
    table = pd.read_csv(folder / "predictions.csv", dtype={"file_id": str}).query("split == 'validation'")
    paths = [str(corpus_dir / "audio" / "any" / f"{file_id}.wav") for file_id in table["file_id"]]
    environment = {name: value for name, value in os.environ.items() if "OFFLINE" not in name}
    environment |= hub.environment(tmp_path / "stranger") | {"PYTHONPATH": os.pathsep.join(sys.path)}
    answers = json.loads(run_in(tmp_path, environment, "-c", LOADER, json.dumps([pushed, paths])).splitlines()[-1])

    labels = pd.read_csv(next((corpus_dir / "labels").glob("*two*"))).set_index("File_ID")
    labels = labels.loc[[f"[{file_id}]" for file_id in table["file_id"]]]
    assert len(labels) == 9
    for (repo, commit), scored in zip(pushed, logged, strict=True):
        for kind in ("logits", "pipeline"):
            for label, scores in zip(("Valence", "Arousal"), np.transpose(answers[commit][kind]), strict=True):
                expected = scored[f"eval_ccc_{label}"]
                assert concordance_cc(labels[label], scores) == pytest.approx(expected, abs=TOLERANCE), (repo, label)


def test_an_onnx_file_of_a_commit_gives_the_same_scores_without_torch(pushed, corpus_dir):
    pytest.importorskip("onnxruntime")
    hub, environment, folder = pushed
    commit, clips, output = hub.commits("tester/owls")[-1].oid, corpus_dir / "audio" / "any", folder / "owls.onnx"
    words = ["--model_revision", commit, "--output", output, "--clips", clips, "--max_clips", "4"]
    run_in(folder, environment, "-m", "avb_hf", "export", "tester/owls", *words)
    table = pd.read_csv(folder / "run" / "predictions.csv", dtype={"file_id": str})
    paths = [str(clips / f"{file_id}.wav") for file_id in table["file_id"]]
    words = json.dumps([str(output), paths])
    answer = json.loads(run_in(folder, environment, "-c", ONNX_LOADER, words).splitlines()[-1])
    assert len(paths) == 18
    assert np.abs(np.array(answer["scores"]) - table[answer["labels"]].to_numpy()).max() < 1e-4


def test_the_five_lines_of_the_card_run(pushed, corpus_dir):
    hub, environment, folder = pushed
    card = ModelCard(hub.commits("tester/owls")[-1].files["README.md"].decode())
    (code,) = re.findall(r"```python\n(.*?)```", card.content, re.DOTALL)
    assert len([line for line in code.splitlines() if line.strip()]) == 5
    (folder / "clip.wav").write_bytes((corpus_dir / "audio" / "any" / "00004.wav").read_bytes())
    shown = run_in(folder, environment, "-c", USAGE + code)
    row = pd.read_csv(folder / "run" / "predictions.csv", dtype={"file_id": str}).set_index("file_id").loc["00004"]
    assert shown.splitlines()[-2:] == [f"Valence: {row['Valence']:.3f}", f"Arousal: {row['Arousal']:.3f}"]


def test_the_card_says_how_the_model_was_made(pushed):
    hub, _, folder = pushed
    card = ModelCard(hub.commits("tester/owls")[-1].files["README.md"].decode())
    results = json.loads((folder / "run" / "all_results.json").read_text())
    found = {(result.dataset_split, result.metric_name): result.metric_value for result in card.data.eval_results}
    for split, prefix in (("validation", "eval"), ("test", "test")):
        assert found[split, "CCC, mean"] == pytest.approx(results[f"{prefix}_ccc"], abs=5e-5)
        assert found[split, "CCC of Valence"] == pytest.approx(results[f"{prefix}_ccc_Valence"], abs=5e-5)
    assert card.data.license == "cc-by-nc-4.0"
    assert "python -m avb_hf train --data_dir" in card.content
    assert "transformers" in card.data.library_name


def test_two_processes_push_once_and_are_refused_together(pushed, corpus_dir, tiny_flags):
    hub, environment, folder = pushed
    torchrun = [
        "-m",
        "torch.distributed.run",
        "--nproc_per_node",
        "2",
        "--master_port",
        "29741",
        "-m",
        "avb_hf",
        "train",
    ]
    flags = ["--data_dir", corpus_dir, "--task", "two", *tiny_flags, "--use_cpu", "--push_to_hub", "--hub_always_push"]
    flags += ["--num_train_epochs", "1", "--per_device_train_batch_size", "4", "--expect_world_size", "2"]
    run_in(folder, environment, *torchrun, *flags, "--output_dir", folder / "both")
    titles = [commit.title for commit in hub.commits("tester/both")]
    assert titles == ["initial commit", "Training in progress, epoch 1", "End of training"]
    card = hub.commits("tester/both")[-1].files["README.md"].decode()
    assert "\ntorchrun --nproc_per_node 2 -m avb_hf train --data_dir" in card

    command = [sys.executable, *map(str, [*torchrun, *flags, "--output_dir", folder / "none"])]
    stranger = environment | {"HF_TOKEN": "hf_" + "stranger" * 3}
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=folder, env=stranger)
    assert done.returncode != 0
    assert done.stderr.count("who is logged in and refused") == 2
    assert "strangerstranger" not in done.stdout + done.stderr
