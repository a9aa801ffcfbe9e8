"""A checkpoint is resumed from only if every byte of it is as it was written."""

import hashlib
import json
import shutil

import pytest
from safetensors.torch import load_file

from avb_hf.cli import run
from avb_hf.training.checkpoints import SEAL, find_damage, newest_whole, seal, set_aside
from avb_hf.training.run_folder import find_checkpoint


@pytest.fixture(scope="module")
def finished(corpus_dir, tiny_flags, tmp_path_factory):
    """A run of three epochs with all its checkpoints."""
    folder = tmp_path_factory.mktemp("finished") / "run"
    flags = [*tiny_flags, "--num_train_epochs", "3", "--save_total_limit", "9", "--do_train"]
    assert run("train", [*flags, "--data_dir", str(corpus_dir), "--task", "two", "--output_dir", str(folder)]) == 0
    return folder


@pytest.fixture
def folder(finished, tmp_path):
    """A copy of it, to be damaged."""
    return shutil.copytree(finished, tmp_path / "run")


def newest(folder):
    return max(folder.glob("checkpoint-*"), key=lambda path: int(path.name.split("-")[1]))


def names(checkpoint):
    return sorted(path.name for path in checkpoint.iterdir())


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def halve(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


DAMAGES = {"deleted": lambda path: path.unlink(), "a bit flipped": flip, "cut off": halve}


@pytest.mark.slow
def test_every_checkpoint_of_a_run_is_sealed(finished):
    checkpoints = list(finished.glob("checkpoint-*"))
    assert len(checkpoints) == 3
    for checkpoint in checkpoints:
        assert find_damage(checkpoint) is None
        sealed = json.loads((checkpoint / SEAL).read_text())
        assert sorted([*sealed, SEAL]) == names(checkpoint)
        assert {"model.safetensors", "optimizer.pt", "scheduler.pt", "trainer_state.json", "rng_state.pth"} <= set(
            sealed
        )
        weights = (checkpoint / "model.safetensors").read_bytes()
        assert sealed["model.safetensors"] == {"size": len(weights), "sha256": hashlib.sha256(weights).hexdigest()}


@pytest.mark.slow
@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_to_any_file_is_found_named_and_passed_over(folder, damage, caplog):
    older = sorted(folder.glob("checkpoint-*"), key=lambda path: int(path.name.split("-")[1]))[-2]
    for name in names(newest(folder)):
        spare = shutil.copytree(newest(folder), folder.parent / "spare")
        DAMAGES[damage](newest(folder) / name)
        assert SEAL in find_damage(newest(folder)) if name == SEAL else name in find_damage(newest(folder))
        caplog.clear()
        assert newest_whole(folder) == str(older)
        assert str(newest(folder)) in caplog.text
        with pytest.raises(ValueError, match="resume auto"):
            find_checkpoint(folder, str(newest(folder)))
        checkpoint = newest(folder)
        shutil.rmtree(checkpoint)
        spare.rename(checkpoint)
        assert newest_whole(folder) == str(checkpoint)


def test_a_resume_past_a_damaged_checkpoint_ends_as_the_run_did(folder, finished, corpus_dir, tiny_flags):
    halve(newest(folder) / "optimizer.pt")
    flags = [*tiny_flags, "--num_train_epochs", "3", "--save_total_limit", "9", "--do_train", "--resume", "auto"]
    assert run("train", [*flags, "--data_dir", str(corpus_dir), "--task", "two", "--output_dir", str(folder)]) == 0
    again, before = load_file(folder / "model.safetensors"), load_file(finished / "model.safetensors")
    assert all(again[name].equal(before[name]) for name in before)


def test_no_whole_checkpoint_is_a_new_start(tmp_path):
    (tmp_path / "checkpoint-99").mkdir()
    (tmp_path / "checkpoint-best").mkdir()
    assert newest_whole(tmp_path) is None
    assert newest_whole(tmp_path / "absent") is None


def test_sealing_again_takes_in_what_changed(tmp_path):
    (tmp_path / "a").write_text("1")
    seal(tmp_path)
    (tmp_path / "a").write_text("2")
    assert "a" in find_damage(tmp_path)
    seal(tmp_path)
    assert find_damage(tmp_path) is None


@pytest.mark.parametrize("content", ["{}x", "[]", '{"config.json": 3}', '{"config.json": {"size": 1, "shb256": "x"}}'])
def test_a_seal_that_says_something_else_is_damage(folder, content):
    (newest(folder) / SEAL).write_text(content)
    assert find_damage(newest(folder)) == f"{SEAL} is damaged"
    assert newest_whole(folder) == str(folder / "checkpoint-6")


def test_what_is_not_whole_is_out_of_the_way_of_a_resumed_run(folder):
    numbers = sorted(int(path.name.split("-")[1]) for path in folder.glob("checkpoint-*"))
    first, second, third = (folder / f"checkpoint-{number}" for number in numbers)
    flip(third / "model.safetensors")
    (second / SEAL).unlink()
    set_aside(folder)
    assert [path.name for path in folder.glob("checkpoint-*")] == [first.name]
    (damaged,) = folder.glob(f"damaged-{third.name}-*")
    assert (damaged / "model.safetensors").is_file()


def test_what_is_later_than_the_place_where_a_run_goes_on_is_set_aside(folder):
    set_aside(folder, str(folder / "checkpoint-9"))
    assert newest_whole(folder) == str(folder / "checkpoint-9")
    set_aside(folder, str(folder / "checkpoint-6"))
    assert newest_whole(folder) == str(folder / "checkpoint-6")
    assert [find_damage(path) for path in folder.glob("superseded-checkpoint-9-*")] == [None]
