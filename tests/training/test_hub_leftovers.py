"""What pushes leave behind: nothing of another run in the repository, and nothing of one that failed on the disk."""

import json
from threading import Event
from types import SimpleNamespace

import pytest
from safetensors import SafetensorError

from avb_hf.data.hub_account import HubRepo
from avb_hf.training.hub import Publisher


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["every_save", "all_checkpoints"])
def test_a_run_leaves_nothing_of_another_one_in_its_repository(strategy, hub, train_and_push, cut_after, caplog):
    train_and_push("--hub_strategy", "all_checkpoints")
    repo, files = hub.repos["tester/owls"], hub.commits("tester/owls")[-1].files
    kept = {"notes.md": b"mine", "human_results.json": b"{}", "checkpoint-9/config.json": b"of another program"}
    hub.add_commit(repo, "main", "mine", files | kept)
    only = ["--seed", "7", "--do_train", "--do_eval", "--hub_strategy", strategy]
    cut_after(4, lambda: train_and_push(*only, folder="other"))
    files = hub.commits("tester/owls")[-1].files
    assert kept.items() <= files.items()
    folders = {name.partition("/")[0] for name in files if "/" in name}
    assert folders - {"checkpoint-9"} == ({"checkpoint-3"} if strategy == "all_checkpoints" else set())
    assert {name for name in files if name.endswith("_results.json")} == {"human_results.json"}
    assert "checkpoint-6 of tester/owls is of another run and goes: flags.seed: 42 is now 7" in caplog.text

    train_and_push(*only, "--resume", "auto", folder="other")
    files = hub.commits("tester/owls")[-1].files
    assert kept.items() <= files.items()
    assert {name for name in files if name.endswith("_results.json")} - kept.keys() == {
        "all_results.json", "eval_results.json", "train_results.json",
    }  # fmt: skip
    assert not [name for name in json.loads(files["all_results.json"]) if name.startswith("test_")]


@pytest.mark.slow
def test_a_run_that_goes_on_with_other_flags_keeps_what_it_pushed_before(hub, train_and_push, cut_after, tmp_path):
    flags = ["--hub_strategy", "all_checkpoints", "--save_total_limit", "1"]
    cut_after(7, lambda: train_and_push(*flags, "--num_train_epochs", "4"))
    before = hub.commits("tester/owls")[-1].files
    more = [*flags, "--num_train_epochs", "3", "--learning_rate", "0.02", "--allow_changed_args"]
    train_and_push(*more, "--resume_from_hub", "tester/owls", folder="elsewhere")
    assert not (tmp_path / "elsewhere" / "checkpoint-3").exists() or not (tmp_path / "run" / "checkpoint-3").exists()
    files = hub.commits("tester/owls")[-1].files
    assert {name.partition("/")[0] for name in files if "/" in name} >= {"checkpoint-3", "checkpoint-6", "checkpoint-9"}
    kept = {name: content for name, content in before.items() if name.startswith("checkpoint-3/")}
    assert kept
    assert kept.items() <= files.items()


def test_a_model_that_finds_no_room_for_its_push_leaves_nothing(tmp_path, caplog):
    args = SimpleNamespace(output_dir=tmp_path / "run", hub_strategy="every_save", hub_always_push=True)
    publisher = Publisher(HubRepo("tester/owls"), args, lambda text: None)

    def fill_the_disk(folder):
        (folder / "config.json").write_text("{}")
        raise SafetensorError("I/O error: No space left on device (os error 28)")

    publisher.push_checkpoint(tmp_path / "run" / "checkpoint-3", None, "step 3", fill_the_disk)
    publisher.finish()
    assert "checkpoint-3 was not pushed, and the training goes on: I/O error: No space left" in caplog.text
    assert list((tmp_path / "run").iterdir()) == []


def test_a_checkpoint_that_is_saved_twice_is_pushed_whole_though_the_first_still_waits(tmp_path, monkeypatch):
    checkpoint = tmp_path / "run" / "checkpoint-3"
    checkpoint.mkdir(parents=True)
    (checkpoint / "trainer_state.json").write_text('{"log_history": []}')
    for name in ("config.json", "resolved_config.json"):
        (checkpoint / name).write_text("{}")
        (checkpoint.parent / name).write_text("{}")
    args = SimpleNamespace(output_dir=checkpoint.parent, hub_strategy="checkpoint", hub_always_push=False)
    publisher, may_end, pushed = Publisher(HubRepo("tester/owls"), args, lambda text: None), Event(), []

    def commit(self, files, title):
        assert may_end.wait(60)
        pushed.append((title, all(path.is_file() for path in files.values()), set(files)))
        return SimpleNamespace(oid="0")

    monkeypatch.setattr(Publisher, "_commit", commit)
    for title in ("first", "second", "third"):
        publisher.push_checkpoint(checkpoint, None, title, None)
    may_end.set()
    publisher.finish()
    assert [(title, is_whole) for title, is_whole, _ in pushed] == [("first", True), ("third", True)]
    assert {"config.json", "last-checkpoint/trainer_state.json"} <= pushed[0][2] == pushed[1][2]
    assert not list(checkpoint.parent.glob(".*"))
