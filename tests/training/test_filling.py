"""Making frozen states: told and timed, on a full disk, killed, damaged, resumed, and by two processes."""

import json
import logging
import os
import shutil
import subprocess
import sys
import time
from collections import Counter, namedtuple
from pathlib import Path

import pytest
import soundfile

from avb_hf.cli import run
from avb_hf.model import Wav2Vec2ForVocalBurst
from avb_hf.training import frozen
from avb_hf.training.state_cache import StateCache

ROOT = Path(__file__).resolve().parents[2]
CLIPS, SPLITS, SMALL = 27, 2, 4  # those that are trained on and validated
DiskUsage = namedtuple("DiskUsage", "total used free")


@pytest.fixture
def small_files(monkeypatch):
    """Let each file hold a few clips, so that there are several."""
    monkeypatch.setattr(frozen, "SHARD_CLIPS", SMALL)


def flip(content):
    return content[:-3] + bytes([content[-3] ^ 4]) + content[-2:]


DAMAGES = {"bit": flip, "cut": lambda content: content[:-40], "garbage": lambda content: content[::-1]}


@pytest.mark.slow
def test_damaged_files_of_states_are_made_again(train, digest, cached, small_files, computed, caplog):
    first = digest(train())
    damaged = cached.files()[: len(DAMAGES)]
    for path, damage in zip(damaged, DAMAGES.values(), strict=True):
        path.write_bytes(damage(path.read_bytes()))
    computed.clear()
    caplog.clear()
    assert digest(train()) == first
    assert all(str(path) in caplog.text for path in damaged)
    assert len(damaged) < computed["clips"] <= len(damaged) * SMALL + 1
    computed.clear()
    assert digest(train()) == first
    assert computed["clips"] == 0


@pytest.mark.slow
def test_a_filling_that_is_killed_goes_on_where_it_was(train, digest, cached, small_files, computed, monkeypatch):
    whole = train("--cache", "off")
    write, calls = StateCache.write, []

    def until_killed(self, states):
        calls.append(1)
        if len(calls) == 4:
            raise KeyboardInterrupt
        write(self, states)

    with monkeypatch.context() as patch:
        patch.setattr(StateCache, "write", until_killed)
        killed = train(code=130)
    assert cached.clips().total() == 3 * SMALL
    computed.clear()
    assert digest(train("--resume", "auto", folder=killed)) == digest(whole)
    assert computed["clips"] == CLIPS - 3 * SMALL + 1
    assert len(cached.clips()) == cached.clips().total() == CLIPS


@pytest.mark.slow
def test_a_disk_that_is_too_small_is_told_before_anything_is_written(
    train, run_flags, cached, states_dir, monkeypatch, capsys, tmp_path
):
    train()
    needed = sum(cached.sizes())  # of both splits: a disk that one of them fits on is too small
    monkeypatch.setenv("AVB_HF_CACHE", str(tmp_path / "full"))
    for share, code in ((0.95, 2), (1.2, 0)):
        free = DiskUsage(0, 0, share * needed)
        monkeypatch.setattr(frozen.shutil, "disk_usage", lambda path, free=free: free)
        assert run("train", [*run_flags(), "--do_train", "--output_dir", str(tmp_path / f"{share}")]) == code
        assert len(list((tmp_path / "full").rglob("*.safetensors"))) == (SPLITS if code == 0 else 0)
    message = capsys.readouterr().err
    assert all(word in message for word in ("--cache_dtype", "AVB_HF_CACHE", "--cache off", str(tmp_path / "full")))


@pytest.mark.slow
def test_a_clip_that_changes_while_it_is_read_is_told_and_not_cached(
    train, digest, make_corpus, computed, monkeypatch, tmp_path, capsys
):
    data = make_corpus(tmp_path / "corpus")
    clip = data / "audio" / "any" / "00001.wav"
    run_frozen, calls = frozen.run_frozen, []

    def changing(*args):
        calls.append(1)
        if len(calls) == 3:  # the first is the longest clip, which tells how large all are
            samples, rate = soundfile.read(clip)
            soundfile.write(clip, samples[::-1], rate)
        return run_frozen(*args)

    with monkeypatch.context() as patch:
        patch.setattr(frozen, "run_frozen", changing)
        folder = train(data_dir=data, code=2)
    assert f"{clip} has changed while it was read" in capsys.readouterr().err
    assert not folder.exists()
    assert digest(train(data_dir=data)) == digest(train("--cache", "off", data_dir=data))


@pytest.mark.slow
@pytest.mark.parametrize("why", ["no home", "no folder"])
def test_a_cache_that_cannot_be_used_is_told_before_the_folder_is_begun(train, monkeypatch, tmp_path, capsys, why):
    def no_home():
        raise RuntimeError("Could not determine home directory.")

    if why == "no home":
        monkeypatch.delenv("AVB_HF_CACHE")
        monkeypatch.setattr("pathlib.Path.home", no_home)
    else:
        (tmp_path / "file").touch()
        monkeypatch.setenv("AVB_HF_CACHE", str(tmp_path / "file" / "cache"))
    folder = train(code=2)
    message = capsys.readouterr().err
    assert "AVB_HF_CACHE" in message
    assert "--cache off" in message
    assert not folder.exists()
    train("--cache", "off", "--max_steps", "1")


def test_states_that_another_process_put_where_this_one_does_not_look_are_told(train, states_dir, monkeypatch, capsys):
    monkeypatch.setattr(StateCache, "write", lambda self, states: None)
    train(code=2)
    message = capsys.readouterr().err
    assert f"lacks the states of {CLIPS} clips" in message
    assert "AVB_HF_CACHE" in message


@pytest.mark.slow
def test_the_size_is_told_before_it_is_written(train, states_dir, monkeypatch, caplog):
    write, told = StateCache.write, []

    def noted(self, states):
        told.append([message for message in caplog.messages if "to be written" in message])
        write(self, states)

    monkeypatch.setattr(StateCache, "write", noted)
    with caplog.at_level(logging.INFO):
        train("--max_steps", "1")
    assert [len(messages) for messages in told] == [1, 1]  # once, for both splits
    assert all(str(states_dir) in messages[-1] and "are free" in messages[-1] for messages in told)


@pytest.mark.slow
def test_states_that_half_precision_cannot_hold_are_refused(train, cached, monkeypatch, capsys):
    run_frozen = Wav2Vec2ForVocalBurst.run_frozen

    def loud(self, *args):
        states, num_frames = run_frozen(self, *args)
        return 1e6 * states, num_frames

    monkeypatch.setattr(Wav2Vec2ForVocalBurst, "run_frozen", loud)
    train("--cache_dtype", "float16", code=2)
    assert "--cache_dtype float16" in capsys.readouterr().err
    assert cached.files() == []


@pytest.mark.slow
def test_filling_is_timed_beside_the_training_loop(train, read_json, monkeypatch):
    write = StateCache.write

    def slow(self, states):
        time.sleep(0.7)
        write(self, states)

    monkeypatch.setattr(StateCache, "write", slow)
    timed = read_json(train("--max_steps", "1", freeze="backbone"), "all_results.json")
    assert timed["cache_runtime"] > SPLITS * 0.7 > timed["train_runtime"] > 0


FOUR_EPOCHS = ["--num_train_epochs", "4", "--save_strategy", "epoch"]


@pytest.mark.slow
def test_a_run_is_resumed_exactly_from_states_or_without(
    train, digest, computed, cut_after, states_dir, tmp_path, capsys
):
    whole = digest(train(*FOUR_EPOCHS))
    cut_after(7, lambda: train(*FOUR_EPOCHS, folder=tmp_path / "cut"))
    other = Path(shutil.copytree(tmp_path / "cut", tmp_path / "other"))
    resume = [*FOUR_EPOCHS, "--resume", "auto"]
    train(*resume, "--cache_dtype", "float16", code=2, folder=other)
    assert "flags.cache_dtype: 'float32' is now 'float16'" in capsys.readouterr().err
    computed.clear()
    assert digest(train(*resume, folder=tmp_path / "cut")) == whole
    assert computed["clips"] == 0
    assert digest(train(*resume, "--cache", "off", "--allow_changed_args", folder=other)) == whole
    assert computed["clips"] > 18


@pytest.mark.slow
def test_two_processes_share_the_filling(run_flags, states_dir, cached, digest, tmp_path):
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", __file__]
    flags = [*run_flags(), "--per_device_train_batch_size", "4"]
    for name, cache in (("kept", "auto"), ("live", "off")):
        words = [*launch, str(tmp_path / name), *flags, "--cache", cache]
        done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr[-3000:]
    assert len(cached.clips()) == cached.clips().total() == CLIPS
    shares = [json.loads((tmp_path / f"kept-{rank}.json").read_text())["clips"] for rank in range(2)]
    assert sum(shares) == CLIPS + 1  # the longest, whose states tell the first process how large all will be
    assert max(shares) - min(shares) <= SPLITS * SMALL
    assert digest(tmp_path / "kept") == digest(tmp_path / "live")


def process(folder, flags):
    """Do a run in one of two processes, and count the clips that went through what is frozen."""
    frozen.SHARD_CLIPS = SMALL
    run_frozen, count = Wav2Vec2ForVocalBurst.run_frozen, Counter()

    def counted(self, input_values, attention_mask=None):
        count["clips"] += len(input_values)
        return run_frozen(self, input_values, attention_mask)

    Wav2Vec2ForVocalBurst.run_frozen = counted
    code = run("train", [*flags, "--do_train", "--output_dir", folder])
    Path(f"{folder}-{os.environ['RANK']}.json").write_text(json.dumps(count))
    sys.exit(code)


if __name__ == "__main__":
    process(sys.argv[1], sys.argv[2:])
