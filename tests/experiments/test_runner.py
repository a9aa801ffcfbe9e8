import fcntl
import multiprocessing
import os
import signal
import sys
import threading
import time
from pathlib import Path

import pytest

from avb_hf.experiments import runner
from avb_hf.experiments.runner import (
    DONE,
    StoppedError,
    carry_out,
    find_finished,
    in_own_process,
    in_this_process,
)
from avb_hf.training import checkpoints

pytestmark = pytest.mark.slow


def raising(error):
    def deed(argv):
        raise error

    return deed


def test_what_is_missing_is_run_seed_by_seed_and_only_once(some_jobs, fake_avb):
    outcomes = carry_out(some_jobs, fake_avb)
    assert outcomes == dict.fromkeys(some_jobs, DONE)
    assert all(call[-2:] == ["--resume", "auto"] for call in fake_avb.calls)
    assert [call[call.index("--seed") + 1] for call in fake_avb.calls] == ["1", "1", "2", "2"]
    assert not list(some_jobs[0].folder.glob("checkpoint-*"))
    carry_out(some_jobs, fake_avb)
    assert len(fake_avb.calls) == 4


def test_a_kill_between_runs_costs_no_finished_run(some_jobs, fake_avb):
    fake_avb.instead[3] = raising(KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        carry_out(some_jobs, fake_avb)
    assert carry_out(some_jobs, fake_avb) == dict.fromkeys(some_jobs, DONE)
    assert len(fake_avb.calls) == 5
    assert fake_avb.calls[3] == fake_avb.calls[2]


def test_a_run_that_fails_does_not_stop_the_others(some_jobs, fake_avb):
    fake_avb.instead |= {1: raising(ValueError("labels of\nanother kind")), 2: lambda argv: 0}
    outcomes = carry_out(some_jobs, fake_avb)
    assert list(outcomes.values()) == [
        "failed: ValueError: labels of another kind",
        "failed: it left no complete results",
        DONE,
        DONE,
    ]
    assert carry_out(some_jobs, fake_avb) == dict.fromkeys(some_jobs, DONE)
    assert len(fake_avb.calls) == 6


@pytest.mark.parametrize(
    "name", ["predictions.csv", "all_results.json", "A-VB-High_team_1.csv", "avb_complete.json", "model.safetensors"]
)
def test_a_finished_run_whose_results_are_not_as_sealed_is_run_again(name, some_jobs, fake_avb):
    carry_out(some_jobs, fake_avb)
    (some_jobs[2].folder / name).write_text("changed")
    carry_out(some_jobs, fake_avb)
    assert [call[call.index("--output_dir") + 1] for call in fake_avb.calls[4:]] == [str(some_jobs[2].folder)]


def test_weights_are_not_read_to_know_a_finished_run(some_jobs, fake_avb, monkeypatch):
    carry_out(some_jobs, fake_avb)
    read, digest = [], checkpoints._digest
    monkeypatch.setattr(checkpoints, "_digest", lambda path: read.append(path.name) or digest(path))
    assert find_finished(some_jobs) == dict.fromkeys(some_jobs, DONE)
    assert set(read) == {
        "predictions.csv", "all_results.json", "eval_results.json", "test_results.json", "A-VB-High_team_1.csv",
    }  # fmt: skip


def test_checkpoints_that_a_finished_run_left_are_deleted_where_that_is_asked_for(some_jobs, fake_avb):
    carry_out(some_jobs[:1], fake_avb)
    left = [job.folder / "checkpoint-7" for job in some_jobs[:2]]
    for folder in left:
        folder.mkdir(parents=True)
        (folder / "optimizer.pt").touch()
    find_finished(some_jobs)
    assert all(folder.is_dir() for folder in left)
    assert set(find_finished(some_jobs, clear=True).values()) == {DONE, "not run"}
    assert [folder.is_dir() for folder in left] == [False, True]  # the second one is to go on from there
    left[0].mkdir()
    carry_out(some_jobs[:1], fake_avb)
    assert not left[0].exists()


def test_a_run_that_was_told_to_stop_stops_all(some_jobs, fake_avb):
    fake_avb.instead[2] = lambda argv: 143
    with pytest.raises(StoppedError, match="SIGTERM; the same call goes on") as stop:
        carry_out(some_jobs, fake_avb)
    assert stop.value.exit_code == 143
    assert len(fake_avb.calls) == 2


def test_drafts_that_a_kill_left_alone_are_swept_away_but_no_run(some_jobs, fake_avb):
    draft = f".resolved_config.json.{'a' * 32}.tmp"
    for job in some_jobs[:2]:
        job.folder.mkdir(parents=True)
        (job.folder / draft).touch()
    (some_jobs[1].folder / "resolved_config.json").touch()
    seen = []

    def look(argv):
        seen.append(sorted(path.name for path in Path(argv[argv.index("--output_dir") + 1]).iterdir()))
        return 1

    fake_avb.leave = look
    carry_out(some_jobs[:2], fake_avb)
    assert seen == [[], [draft, "resolved_config.json"]]


def test_a_run_that_another_process_is_at_is_waited_for_behind_all_others(some_jobs, fake_avb):
    first, second = some_jobs[:2]
    first.log.parent.mkdir(parents=True)
    with first.log.open("a") as log:
        fcntl.flock(log, fcntl.LOCK_EX)

        def finish():
            while not second.is_finished():
                time.sleep(0.02)
            time.sleep(0.1)
            fake_avb.leave(first.argv)
            log.close()

        other = threading.Thread(target=finish)
        other.start()
        assert carry_out([first, second], fake_avb) == {first: DONE, second: DONE}
        other.join()
    assert [call[call.index("--output_dir") + 1] for call in fake_avb.calls] == [str(second.folder)]


def test_the_run_of_a_grid_that_was_killed_is_waited_for(some_jobs, fake_avb, stand_in, tmp_path):
    stand_in(f"echo > {tmp_path}/ready; while [ ! -e {tmp_path}/go ]; do sleep 0.02; done")
    grid = multiprocessing.get_context("fork").Process(target=carry_out, args=(some_jobs[:1], in_own_process))
    grid.start()
    while not (tmp_path / "ready").exists():
        time.sleep(0.02)
    grid.kill()
    grid.join()
    threading.Timer(0.3, (tmp_path / "go").touch).start()
    seen = []
    fake_avb.instead[1] = lambda argv: seen.append((tmp_path / "go").exists()) or fake_avb.leave(argv)
    assert carry_out(some_jobs[:1], fake_avb) == {some_jobs[0]: DONE}
    assert seen == [True]


def test_what_runs_in_this_process_writes_into_its_log(some_jobs, fake_avb, capfd):
    def shout(argv):
        sys.stdout.write("on the screen\n")
        runner.logger.warning("in the log")
        return 3

    outcomes = carry_out(some_jobs[:1], in_this_process(shout))
    written = some_jobs[0].log.read_text()
    assert "on the screen\n" in written
    assert "WARNING avb_hf.experiments.runner: in the log\n" in written
    assert outcomes[some_jobs[0]] == "failed: WARNING avb_hf.experiments.runner: in the log"
    assert "on the screen" not in "".join(capfd.readouterr())


def test_the_last_words_of_another_process_are_why_it_failed(some_jobs, monkeypatch):
    monkeypatch.setattr(type(some_jobs[0]), "argv", ["tarin"])
    outcome = carry_out(some_jobs[:1], in_own_process)[some_jobs[0]]
    assert outcome.startswith("failed: avb: the command must be one of")
    assert "'tarin'" in outcome


@pytest.fixture
def stand_in(tmp_path, monkeypatch):
    """Give a function that puts a shell script in the place of Python."""

    def put(script):
        path = tmp_path / "python"
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)
        monkeypatch.setattr(runner.sys, "executable", str(path))

    return put


def test_a_process_that_is_killed_is_a_failure(some_jobs, stand_in):
    stand_in("kill -KILL $$")
    assert carry_out(some_jobs[:1], in_own_process)[some_jobs[0]] == "failed: killed by SIGKILL"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1])
def test_signals_are_handed_on_and_the_run_may_end_in_peace(number, some_jobs, stand_in, tmp_path):
    name = signal.Signals(number).name.removeprefix("SIG")
    stand_in(
        f"trap 'echo saved > {tmp_path}/saved; exit {128 + number}' {name}; echo > {tmp_path}/ready; "
        "while :; do sleep 0.02; done"
    )

    def tell():
        while not (tmp_path / "ready").exists():
            pass
        os.kill(os.getpid(), number)

    threading.Thread(target=tell).start()
    before = signal.getsignal(number)
    with pytest.raises(StoppedError) as stop:
        carry_out(some_jobs, in_own_process)
    assert stop.value.exit_code == 128 + number
    assert (tmp_path / "saved").read_text() == "saved\n"
    assert signal.getsignal(number) == before
