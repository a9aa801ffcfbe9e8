"""Runs that are pushed to the stand-in for the Hub: what each commit holds, and what an upload that is cut off does."""

import errno
import io
import json
import logging
import os
import re
import signal
import zipfile
from threading import Event

import pytest
import torch
from huggingface_hub import ModelCard
from stand_in_hub import Commit, StandInHub
from transformers.trainer_utils import HubStrategy

from avb_hf.baselines.emo18 import Emo18Config
from avb_hf.cli import run
from avb_hf.data import hub_commit
from avb_hf.data.hub_account import LIKE_A_TOKEN
from avb_hf.model import VocalBurstConfig, Wav2Vec2ForVocalBurst
from avb_hf.training import hub as pushing
from avb_hf.training.trainer import VocalBurstTrainer

pytestmark = pytest.mark.slow

STRATEGIES = ("end", "every_save", "checkpoint", "all_checkpoints")
OTHERS = [pytest.param(strategy) for strategy in STRATEGIES if strategy != "checkpoint"]
MODEL = {"README.md", "config.json", "model.safetensors", "preprocessor_config.json"}
CODE = {"configuration_vocal_burst.py", "modeling_vocal_burst.py", "pipeline_vocal_burst.py"}
WHILE_TRAINING = ["Training in progress, epoch 1", "Training in progress, epoch 2"]


def titles(hub):
    return [commit.title for commit in hub.commits("tester/owls")]


def root(files):
    return {name for name in files if "/" not in name}


def folders(files):
    return {name.partition("/")[0] for name in files if "/" in name}


def is_pickle(content):
    """Whether a file is a pickle, bare or in a zip as torch writes it."""
    if zipfile.is_zipfile(io.BytesIO(content)):
        return any(name.endswith(".pkl") for name in zipfile.ZipFile(io.BytesIO(content)).namelist())
    return content[:1] == b"\x80"


def require_no_pickle(commits):
    for commit in commits:
        for name, content in commit.files.items():
            assert not is_pickle(content), f"{commit.title}: {name} is a pickle"


def test_there_is_a_test_of_each_strategy():
    assert {strategy.value for strategy in HubStrategy} == set(STRATEGIES) == set(pushing.CHECKPOINT_FOLDERS)


@pytest.mark.parametrize("strategy", ["checkpoint", *OTHERS])
def test_every_commit_holds_all_that_is_needed(strategy, hub, train_and_push, capfd, caplog):
    caplog.set_level(logging.DEBUG)
    folder = train_and_push("--hub_strategy", strategy)
    _, *commits = hub.commits("tester/owls")
    expected = [] if strategy == "end" else WHILE_TRAINING
    assert [commit.title for commit in commits] == [*expected, "End of training"]
    assert hub.repos["tester/owls"].private
    for step, commit in zip((3, 6, None), commits[-3:] if expected else [None, None, *commits], strict=True):
        if commit is None:
            continue
        assert root(commit.files) >= MODEL | CODE
        source = folder if step is None else folder / f"checkpoint-{step}"
        for name in MODEL | CODE:
            assert commit.files[name] == (source / name).read_bytes(), name
        card = ModelCard(commit.files["README.md"].decode())
        assert card.data.pipeline_tag == "audio-classification"
        assert 'model="tester/owls"' in card.content
    assert root(commits[-1].files) >= {"all_results.json", "eval_results.json", "test_results.json"}
    assert not {name for name in commits[-1].files if "predictions" in name or name.startswith("A-VB")}
    require_no_pickle(commits)
    shown = capfd.readouterr()
    assert "tester/owls (private)" in shown.out
    assert re.search(r"  model\.safetensors  [\d,]+ bytes", shown.out)
    assert commits[-1].oid in shown.out
    for text in (shown.out, shown.err, caplog.text):
        assert not LIKE_A_TOKEN.search(text.encode())
    for path in folder.rglob("*"):
        assert path.is_dir() or not LIKE_A_TOKEN.search(path.read_bytes()), path
    assert not list(folder.glob(".*")), "what was staged is gone"


def test_the_scan_finds_what_it_looks_for(tmp_path):
    torch.save({"a": 1}, tmp_path / "zip.pt")
    for content in (b"\x80\x02.", (tmp_path / "zip.pt").read_bytes()):
        with pytest.raises(AssertionError, match="file is a pickle"):
            require_no_pickle([Commit("0", "bad", {"file": content})])
    hub = StandInHub().__enter__()
    hub.create("tester/bad", private=True)
    hub.add_commit(hub.repos["tester/bad"], "try", "bad", {"file": f"x {hub.token}".encode()})
    with pytest.raises(AssertionError, match=r"tester/bad, commit 'bad': a token in \['file'\]"):
        hub.__exit__()


def test_checkpoints_to_go_on_from_lie_beside_the_model(hub, train_and_push):
    train_and_push("--hub_strategy", "all_checkpoints", "--num_train_epochs", "1")
    assert folders(hub.commits("tester/owls")[-1].files) == {"checkpoint-3"}
    train_and_push("--hub_strategy", "checkpoint", folder="again")
    files = hub.commits("tester/owls")[-1].files
    assert folders(files) - {"best-checkpoint"} == {"last-checkpoint"}
    needed = ("optimizer.pt.safetensors", "trainer_state.json", "resolved_config.json")
    assert {f"last-checkpoint/{name}" for name in needed} <= set(files)


def test_a_branch_and_a_public_repository_are_made_for_who_asks(hub, train_and_push):
    train_and_push(
        "--hub_strategy", "end", "--hub_revision", "try", "--hub_private_repo", "false", "--num_train_epochs", "1"
    )
    assert titles(hub) == ["initial commit"]
    assert [commit.title for commit in hub.commits("tester/owls", "try")][-1] == "End of training"
    assert not hub.repos["tester/owls"].private


def test_nothing_is_trained_where_nothing_can_be_pushed(hub, train_and_push, monkeypatch, capsys):
    monkeypatch.delenv("HF_TOKEN")
    folder = train_and_push(code=2)
    assert "nobody is logged in" in capsys.readouterr().err
    assert not folder.exists()
    assert hub.repos == {}


def test_a_dry_run_asks_and_makes_nothing(hub, train_and_push, capsys):
    folder = train_and_push("--dry_run")
    assert "push: to tester/owls (private), strategy every_save" in capsys.readouterr().out
    assert hub.repos == {}
    assert not folder.exists()


def test_what_was_not_trained_is_not_pushed(hub, train_and_push, capsys):
    train_and_push("--do_eval", code=2)
    assert "--push_to_hub pushes what is trained" in capsys.readouterr().err


@pytest.mark.parametrize("uploads", [3, *(pytest.param(count) for count in (0, 1))])
def test_an_upload_that_is_cut_off_once_is_made_again(uploads, hub, train_and_push, caplog):
    hub.fail_after(uploads, times=1)
    folder = train_and_push()
    assert titles(hub)[1:] == [*WHILE_TRAINING, "End of training"]
    assert hub.commits("tester/owls")[-1].files["model.safetensors"] == (folder / "model.safetensors").read_bytes()


def test_training_goes_on_where_pushes_fail_and_the_end_is_told(hub, train_and_push, caplog, capsys):
    hub.fail_after(2)  # the first push comes through
    folder = train_and_push(code=2)
    assert titles(hub) == ["initial commit", WHILE_TRAINING[0]]
    assert "a push failed, and the training went on" in caplog.text
    message = capsys.readouterr().err
    assert re.search(r"holds the whole model, but it was not pushed.*tester/owls.*--resume auto", message)
    assert (folder / "test_results.json").is_file()
    before = (folder / "model.safetensors").stat().st_mtime_ns

    hub.fail_after(10**6)
    train_and_push("--resume", "auto")
    assert titles(hub)[2:] == ["End of training"]
    assert (folder / "model.safetensors").stat().st_mtime_ns == before, "it was trained again"
    assert hub.commits("tester/owls")[-1].files["model.safetensors"] == (folder / "model.safetensors").read_bytes()
    assert "is finished: nothing to do" in capsys.readouterr().out

    train_and_push("--resume", "auto")
    assert len(titles(hub)) == 3, "a commit of nothing new"


def test_a_disk_that_is_full_is_named_and_not_tried_again(hub, train_and_push, monkeypatch, capsys):
    tried = []

    def full(*args, **kwargs):
        tried.append(1)
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(hub_commit.HfApi, "create_commit", full)
    train_and_push("--hub_strategy", "end", "--num_train_epochs", "1", code=2)
    message = capsys.readouterr().err
    assert "it was not pushed: [Errno 28] No space left on device" in message
    assert "did not answer" not in message
    assert len(tried) == 1


def test_what_the_hub_refuses_is_told_and_not_tried_again(hub, train_and_push, caplog, capsys):
    hub.refuse("/_lfs/", 413, "your storage is full")
    folder = train_and_push("--num_train_epochs", "1", code=2)
    told = "413 Request Entity Too Large: your storage is full"
    assert re.search(f"a push failed, and the training went on; .*refused: .*{told}", caplog.text)
    assert re.search(f"holds the whole model, but it was not pushed: .*refused: .*{told}", capsys.readouterr().err)
    assert "did not answer" not in caplog.text
    assert "trying again" not in caplog.text
    assert titles(hub) == ["initial commit"]
    assert (folder / "model.safetensors").is_file()


@pytest.fixture
def stop_at(monkeypatch):
    """Give a function that lets this process be told to stop in a step."""

    def stop(number):
        step, done = VocalBurstTrainer.training_step, []

        def told(self, *args, **kwargs):
            done.append(1)
            if len(done) == number:
                os.kill(os.getpid(), signal.SIGTERM)
            return step(self, *args, **kwargs)

        monkeypatch.setattr(VocalBurstTrainer, "training_step", told)

    return stop


@pytest.fixture
def first_push_is_slow(monkeypatch):
    """Let the first push go on until the training has ended."""
    may_end, commit, finish = Event(), pushing.Publisher._commit, pushing.Publisher.finish

    def slowly(self, files, title):
        if title == WHILE_TRAINING[0]:
            assert may_end.wait(60)
        return commit(self, files, title)

    monkeypatch.setattr(pushing.Publisher, "_commit", slowly)
    monkeypatch.setattr(pushing.Publisher, "finish", lambda self: (may_end.set(), finish(self)))


def test_a_run_that_is_told_to_stop_pushes_its_checkpoint_first(hub, train_and_push, stop_at):
    stop_at(2)
    train_and_push("--hub_strategy", "checkpoint", code=143)
    assert titles(hub) == ["initial commit", "Training in progress, epoch 0.6667"]
    state = json.loads(hub.commits("tester/owls")[-1].files["last-checkpoint/trainer_state.json"])
    assert state["global_step"] == 2


def test_a_token_among_what_is_pushed_stops_the_push(hub, train_and_push, monkeypatch, capsys):
    monkeypatch.setattr(
        "sys.argv", ["run_avb.py", "--run_name", "hf_" + "Xy7Qw3Er9Tz5" * 2]
    )  # the card has the command
    train_and_push("--hub_strategy", "end", "--num_train_epochs", "1", code=2)
    assert titles(hub) == ["initial commit"]
    assert "holds a token" in capsys.readouterr().err


def test_a_push_is_left_out_while_another_runs(hub, train_and_push, first_push_is_slow, caplog):
    caplog.set_level(logging.INFO)
    train_and_push("--hub_always_push", "false")
    assert titles(hub)[1:] == [WHILE_TRAINING[0], "End of training"]
    assert "checkpoint-6 is not pushed, since the push before it still runs" in caplog.text


def test_a_run_that_is_told_to_stop_while_it_pushes_then_pushes_the_newest_checkpoint(
    hub, train_and_push, first_push_is_slow, stop_at
):
    stop_at(8)
    folder = train_and_push(
        "--hub_strategy", "checkpoint", "--hub_always_push", "false", "--num_train_epochs", "3", code=143
    )
    assert titles(hub)[1:] == [WHILE_TRAINING[0], "Training in progress, epoch 2.667"]  # the second gave way
    state = json.loads(hub.commits("tester/owls")[-1].files["last-checkpoint/trainer_state.json"])
    assert state["global_step"] == 8
    assert not list(folder.glob(".push-*"))


def test_a_model_of_another_kind_is_not_overwritten(hub, train_and_push, capsys):
    hub.create("tester/owls", private=True)
    theirs = {"config.json": b'{"model_type": "bert"}', "model.safetensors": b"weights"}
    hub.add_commit(hub.repos["tester/owls"], "main", "theirs", theirs)
    folder = train_and_push("--num_train_epochs", "1", code=2)
    message = capsys.readouterr().err
    assert "tester/owls holds a model of another kind" in message
    assert "model_type is 'bert'" in message
    assert "choose another --hub_model_id" in message
    assert hub.commits("tester/owls")[-1].files == theirs
    assert not list(folder.glob("checkpoint-*"))
    hub.add_commit(hub.repos["tester/owls"], "main", "ours", {"config.json": b'{"model_type": "emo18"}'})
    train_and_push("--num_train_epochs", "1", "--hub_strategy", "end", folder="again")
    assert titles(hub)[-1] == "End of training"


def test_the_systems_that_are_trained_here_may_replace_each_other():
    assert set(pushing.MODEL_TYPES) == {VocalBurstConfig.model_type, Emo18Config.model_type}


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--resume_from_hub", "tester/eagles"], "the Hub has no model tester/eagles that may be read"),
        (["--resume_from_hub", "tester/empty"], "tester/empty holds no checkpoint"),
        (["--resume_from_hub", "tester/owls", "--overwrite"], "leave out --overwrite"),
        (["--hub_strategy", "sometimes"], "--hub_strategy must be one of"),
        (["--license", "Apache 2.0"], "--license must be an identifier"),
        (["--model_revision", "main"], "--model_revision main is for a model of the Hub"),
    ],
)
def test_flags_that_cannot_be_used_are_refused(more, message, hub, train_and_push, capsys):
    hub.create("tester/empty", private=True)
    train_and_push(*more, code=2)
    assert message in capsys.readouterr().err


def test_adapters_are_pushed_merged_and_gone_on_with_elsewhere(
    hub, push_flags, tiny_backbone_dir, tmp_path, cut_after, digest
):
    pytest.importorskip("peft")
    start = push_flags.index("--encoder_config")
    words = [*push_flags[:start], *push_flags[start + 2 :], "--model_name_or_path", str(tiny_backbone_dir), "--lora"]
    words[words.index("--freeze") + 1] = "feature_encoder"
    words += ["--hub_strategy", "checkpoint"]
    assert run("train", [*words, "--output_dir", str(tmp_path / "whole")]) == 0
    for commit in hub.commits("tester/owls")[1:]:
        assert root(commit.files) >= MODEL | CODE
        assert not {name for name in root(commit.files) if "adapter" in name}
        model = Wav2Vec2ForVocalBurst.from_pretrained("tester/owls", revision=commit.oid)
        assert not [name for name in model.state_dict() if "lora" in name]
    require_no_pickle(hub.commits("tester/owls"))

    hub.repos.clear()
    cut_after(4, lambda: run("train", [*words, "--output_dir", str(tmp_path / "here")]))
    elsewhere = [*words, "--output_dir", str(tmp_path / "elsewhere"), "--resume_from_hub", "tester/owls"]
    assert run("train", elsewhere) == 0
    assert (tmp_path / "elsewhere" / "checkpoint-6").is_dir()
    assert digest(tmp_path / "elsewhere") == digest(tmp_path / "whole")
