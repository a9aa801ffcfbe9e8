"""Runs that go on elsewhere from what was pushed, and models of the Hub that are taken at a commit."""

import json
import logging
import re
import shutil

import pytest
import torch
from huggingface_hub import ModelCard
from safetensors.torch import load, save

from avb_hf.cli import run
from avb_hf.model import Wav2Vec2ForVocalBurst
from avb_hf.training.checkpoints import find_damage
from avb_hf.training.trainer import VocalBurstTrainer

pytestmark = pytest.mark.slow


@pytest.fixture
def best_first(monkeypatch):
    """Let each evaluation score less than the one before, so that the first epoch stays the best."""
    score = VocalBurstTrainer._compute_metrics
    monkeypatch.setattr(
        VocalBurstTrainer,
        "_compute_metrics",
        lambda self, prediction: score(self, prediction) | {"ccc": 1 / (1 + self.state.global_step)},
    )


@pytest.mark.parametrize("strategy", ["checkpoint", "all_checkpoints"])
def test_a_run_goes_on_elsewhere_and_ends_the_same(
    strategy, best_first, hub, train_and_push, cut_after, digest, corpus_dir, tmp_path, caplog
):
    caplog.set_level(logging.INFO)
    whole = train_and_push("--num_train_epochs", "4", "--hub_strategy", "end", folder="whole")
    more = ["--num_train_epochs", "4", "--hub_strategy", strategy, "--save_total_limit", "1"]
    cut_after(7, lambda: train_and_push(*more, folder="here"))
    copy = shutil.copytree(corpus_dir, tmp_path / "corpus")
    more += ["--resume_from_hub", "tester/owls", "--data_dir", copy]
    elsewhere = train_and_push(*more, folder="elsewhere")
    assert digest(elsewhere) == digest(whole) == digest(whole / "checkpoint-3")
    assert re.search(r"fetched the checkpoint of step 6, commit [0-9a-f]{40}", caplog.text)
    assert find_damage(elsewhere / "checkpoint-3") is None
    assert not list(elsewhere.glob(".*"))

    train_and_push(*more, folder="elsewhere")
    assert "is as new as what tester/owls holds" in caplog.text


def test_a_best_checkpoint_that_is_damaged_is_replaced(best_first, hub, train_and_push, cut_after, digest):
    whole = train_and_push("--num_train_epochs", "3", "--push_to_hub", "false", folder="whole")
    more = ["--num_train_epochs", "3", "--hub_strategy", "checkpoint"]
    cut_after(7, lambda: train_and_push(*more, folder="here"))
    folder = whole.with_name("here")
    shutil.rmtree(folder / "checkpoint-6")
    weights = folder / "checkpoint-3" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    train_and_push(*more, "--resume_from_hub", "tester/owls", folder="here")
    assert find_damage(folder / "checkpoint-3") is None
    assert digest(folder) == digest(whole)


def test_a_run_that_pushes_to_where_it_resumes_from_may_begin_there(hub, train_and_push):
    train_and_push("--resume_from_hub", "tester/owls", "--num_train_epochs", "1")
    assert hub.commits("tester/owls")[-1].title == "End of training"


def test_a_tampered_checkpoint_is_not_resumed(hub, train_and_push, cut_after, tmp_path, capsys):
    cut_after(4, lambda: train_and_push("--hub_strategy", "checkpoint"))
    pushed = hub.commits("tester/owls")[-1].files
    state = json.loads(pushed["last-checkpoint/trainer_state.json"])
    escaping = json.dumps(state | {"best_global_step": "3/../../outside"}).encode()
    for name, content, message in (
        ("config.json", b"{} ", "last-checkpoint is not as it was pushed: config.json"),
        ("trainer_state.json", escaping, "must name steps by whole numbers"),
    ):
        files = pushed | {f"last-checkpoint/{name}": content}
        hub.add_commit(hub.repos["tester/owls"], "main", f"tampered {name}", files)
        train_and_push("--hub_strategy", "checkpoint", "--resume_from_hub", "tester/owls", folder="elsewhere", code=2)
        assert message in capsys.readouterr().err
        assert not list((tmp_path / "elsewhere").glob("*"))


def test_what_is_no_run_of_ours_is_left_alone(hub, train_and_push, cut_after, tmp_path, capsys):
    cut_after(4, lambda: train_and_push("--hub_strategy", "checkpoint"))
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    for name in ("README.md", "config.json"):
        (foreign / name).write_text("mine")
    (foreign / ".fetched.tmp").mkdir()  # as a fetch that was killed leaves it
    train_and_push("--hub_strategy", "checkpoint", "--resume_from_hub", "tester/owls", folder="foreign", code=2)
    assert "holds files, but no run of ours" in capsys.readouterr().err
    assert {path.name: path.read_text() for path in foreign.iterdir()} == {"README.md": "mine", "config.json": "mine"}


def test_a_checkpoint_of_another_run_is_refused(hub, train_and_push, cut_after, tmp_path, capsys):
    cut_after(4, lambda: train_and_push("--hub_strategy", "checkpoint"))
    other = ["--seed", "7", "--hub_strategy", "checkpoint"]
    cut_after(1, lambda: train_and_push(*other, "--hub_model_id", "tester/eagles", folder="other"))
    train_and_push(*other, "--resume_from_hub", "tester/owls", folder="other", code=2)
    assert re.search(r"is not the one in tester/owls .*\n  flags.seed: 42 is now 7", capsys.readouterr().err)
    assert not list((tmp_path / "other").glob("checkpoint-*"))


def test_a_run_goes_on_from_its_own_checkpoint_where_an_older_run_came_further(
    hub, train_and_push, cut_after, digest, capsys, tmp_path
):
    train_and_push("--hub_strategy", "all_checkpoints", folder="older")
    left = {name: content for name, content in hub.commits("tester/owls")[-1].files.items() if "checkpoint-6/" in name}
    other = ["--seed", "7", "--hub_strategy", "all_checkpoints"]
    cut_after(4, lambda: train_and_push(*other, folder="here"))
    hub.create("tester/both", private=True)
    hub.add_commit(hub.repos["tester/both"], "main", "both", hub.commits("tester/owls")[-1].files | left)

    elsewhere = train_and_push(*other, "--resume_from_hub", "tester/owls", folder="elsewhere")
    whole = train_and_push("--seed", "7", "--push_to_hub", "false", folder="whole")
    assert digest(elsewhere) == digest(whole) != digest(tmp_path / "older")

    train_and_push(*other, "--resume_from_hub", "tester/both", folder="mistaken", code=2)
    assert "flags.seed: 42 is now 7" in capsys.readouterr().err


def test_the_newest_checkpoint_is_the_one_of_the_most_steps(hub, train_and_push, cut_after, caplog):
    caplog.set_level(logging.INFO)
    cut_after(4, lambda: train_and_push("--num_train_epochs", "3", "--hub_strategy", "checkpoint", folder="here"))
    more = ["--num_train_epochs", "3", "--hub_strategy", "all_checkpoints"]
    cut_after(4, lambda: train_and_push(*more, "--resume", "auto", folder="here"))
    files = hub.commits("tester/owls")[-1].files
    assert {"last-checkpoint/trainer_state.json", "checkpoint-6/trainer_state.json"} <= set(files)
    elsewhere = train_and_push(*more, "--resume_from_hub", "tester/owls", folder="elsewhere")
    assert "fetched the checkpoint of step 6, commit" in caplog.text
    assert find_damage(elsewhere / "checkpoint-6") is None
    assert not (elsewhere / "checkpoint-6" / "resolved_config.json").exists()
    assert (elsewhere / "resolved_config.json").is_file()


@pytest.fixture
def backbone(hub, tiny_backbone_dir):
    """A backbone on the Hub that was changed after its first commit; gives both commits."""
    hub.create("tester/backbone", private=True)
    repo = hub.repos["tester/backbone"]
    files = {path.name: path.read_bytes() for path in tiny_backbone_dir.iterdir()}
    first = hub.add_commit(repo, "main", "first", files)
    weights = {name: 0.5 * tensor for name, tensor in load(files["model.safetensors"]).items()}
    files = files | {"model.safetensors": save(weights, {"format": "pt"})}
    return first.oid, hub.add_commit(repo, "main", "second", files).oid


def test_a_backbone_is_taken_at_the_commit_that_is_named_and_that_is_kept(
    hub, backbone, corpus_dir, tiny_flags, tmp_path
):
    data = ["--data_dir", str(corpus_dir), "--task", "two", *tiny_flags[2:], "--max_steps", "1", "--do_train"]
    data += ["--eval_strategy", "no", "--save_strategy", "no", "--load_best_model_at_end", "false"]
    frozen = [*data, "--freeze", "backbone", "--model_name_or_path", "tester/backbone"]
    found = {}
    for commit, more in zip(backbone, (["--model_revision", backbone[0]], []), strict=True):
        folder = tmp_path / commit
        assert run("train", [*frozen, *more, "--output_dir", str(folder)]) == 0
        model = Wav2Vec2ForVocalBurst.from_pretrained(folder)
        assert (model.config.base_model, model.config.base_model_revision) == ("tester/backbone", commit)
        card = ModelCard.load(folder / "README.md")
        assert card.data.base_model == "tester/backbone"
        assert commit in card.content
        found[commit] = model.state_dict()["encoder.feature_projection.projection.weight"]
    torch.testing.assert_close(found[backbone[1]], 0.5 * found[backbone[0]], rtol=0, atol=0)


def test_a_resumed_run_keeps_the_commit_that_it_began_with(hub, backbone, corpus_dir, tiny_flags, tmp_path, cut_after):
    data = ["--data_dir", str(corpus_dir), "--task", "two", *tiny_flags[2:], "--model_name_or_path", "tester/backbone"]
    words = [*data, "--output_dir", str(tmp_path / "run")]
    cut_after(4, lambda: run("train", words))
    repo = hub.repos["tester/backbone"]
    hub.add_commit(repo, "main", "third", hub.commits("tester/backbone")[1].files)
    assert run("train", [*words, "--resume", "auto"]) == 0
    assert Wav2Vec2ForVocalBurst.from_pretrained(tmp_path / "run").config.base_model_revision == backbone[1]


def test_a_pushed_checkpoint_is_fine_tuned_on_by_its_commit(hub, train_and_push, push_flags, tmp_path):
    train_and_push()
    commit = hub.commits("tester/owls")[1]
    start = [*push_flags[: push_flags.index("--encoder_config")], "--num_train_epochs", "1", "--freeze", "none"]
    words = [*start, "--model_name_or_path", "tester/owls", "--model_revision", commit.oid]
    assert run("train", [*words, "--output_dir", str(tmp_path / "on")]) == 0
    config = Wav2Vec2ForVocalBurst.from_pretrained(tmp_path / "on").config
    assert (config.base_model, config.base_model_revision) == ("tester/owls", commit.oid)


def test_what_was_pushed_is_audited_and_predicts_at_its_commit(hub, train_and_push, corpus_dir, tmp_path, capsys):
    train_and_push("--learning_rate", "0.1")
    _, first, _, last = hub.commits("tester/owls")
    clips = str(corpus_dir / "audio" / "any")
    tables = {}
    for commit in (first, last):
        at = ["--model_revision", commit.oid, "--output", str(tmp_path / f"{commit.oid}.csv"), "--batch_size", "8"]
        assert run("predict", ["tester/owls", clips, *at]) == 0
        tables[commit.title] = (tmp_path / f"{commit.oid}.csv").read_text()
    assert tables[first.title] != tables[last.title]
    assert run("predict", ["tester/owls", clips, "--output", str(tmp_path / "main.csv"), "--batch_size", "8"]) == 0
    assert (tmp_path / "main.csv").read_text() == tables[last.title]
    assert run("audit", ["tester/owls", "--model_revision", first.oid, "--max_clips", "4"]) == 0
    capsys.readouterr()
    for command in (["predict", str(tmp_path), clips, "--output", "x.csv"], ["audit", str(tmp_path)]):
        assert run(command[0], [*command[1:], "--model_revision", "main"]) == 2
        assert "is for a model of the Hub" in capsys.readouterr().err
