"""What several processes check and decide together; two real processes do it here."""

import json
import signal
import subprocess
import sys
from functools import cached_property
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

from avb_hf.training.finite import FiniteGradients, NonFiniteGradientError
from avb_hf.training.processes import (
    BadBatchError,
    leave,
    on_first,
    raise_everywhere,
    require_same_everywhere,
    require_world_size,
)
from avb_hf.training.signals import StopOnSignal, StoppedBySignalError
from avb_hf.training.training_arguments import VocalBurstTrainingArguments

ALONE = SimpleNamespace(process_index=0, world_size=1, device=torch.device("cpu"))


def test_the_expected_number_of_processes_passes():
    require_world_size(ALONE, None)
    require_world_size(ALONE, 1)


def test_another_number_is_refused_with_the_command_that_starts_them():
    with pytest.raises(ValueError, match=r"_size 2, but the number of processes is 1.*torchrun --nproc_per_node 2"):
        require_world_size(ALONE, 2)


def test_one_process_alone():
    require_same_everywhere({"data": "x"})
    raise_everywhere(None, ALONE.device)
    with pytest.raises(BadBatchError, match="step 3"):
        raise_everywhere("step 3: File_ID 7", ALONE.device)


def test_one_process_is_the_first():
    assert on_first(lambda: 3) == 3
    with pytest.raises(ConnectionError, match="gone"):
        on_first(lambda: (_ for _ in ()).throw(ConnectionError("gone")))


def test_a_machine_with_two_gpus_never_trains_by_dataparallel(monkeypatch, tmp_path, caplog):
    def two_gpus(self):
        self._n_gpu = 2
        return torch.device("cpu")

    devices = cached_property(two_gpus)
    devices.__set_name__(VocalBurstTrainingArguments, "_setup_devices")
    monkeypatch.setattr(VocalBurstTrainingArguments, "_setup_devices", devices)
    args = VocalBurstTrainingArguments(output_dir=str(tmp_path), per_device_train_batch_size=8)
    assert args.n_gpu == 1  # more would make transformers wrap the model
    assert args.train_batch_size == 8
    assert "accelerate launch --multi_gpu --num_processes 2" in caplog.text


def message_of(error, deed):
    try:
        deed()
    except error as raised:
        return str(raised)
    return None


def stopping_steps(rank):
    """Let process 1 alone be told to stop in the second of four steps; return what this process then does when."""
    stop, asked = StopOnSignal(), []
    for step in range(4):
        if rank == 1 and step == 1:
            stop._take_note(signal.SIGTERM, None)
        control = SimpleNamespace(should_save=False)
        stop.on_step_end(ALONE, SimpleNamespace(epoch=(step + 1) / 10), control)
        asked.append(control.should_save)
    told = message_of(
        StoppedBySignalError, lambda: stop.on_save(ALONE, SimpleNamespace(global_step=2), SimpleNamespace())
    )
    return asked, told


def check_gradients(rank):
    guard = FiniteGradients(lambda: [f"clip{rank}"], lambda: float("nan") if rank == 1 else 1.0)
    state = SimpleNamespace(global_step=4)
    return message_of(NonFiniteGradientError, lambda: guard.on_pre_optimizer_step(ALONE, state, None))


def threads_that_listen():
    return sum(name.read_text().startswith(("gloo", "pt_gloo")) for name in Path("/proc/self/task").glob("*/comm"))


def threads_before_and_after_leaving():
    wrapped = DistributedDataParallel(torch.nn.Linear(2, 2))
    trainer = SimpleNamespace(model=wrapped)
    wrapped.trainer = trainer
    wrapped(torch.ones(2, 2)).sum().backward()
    del wrapped, trainer
    before = threads_that_listen()
    leave()
    return before > 0, threads_that_listen()


def be_one_of_two(folder):
    dist.init_process_group("gloo")
    rank = dist.get_rank()
    cpu = torch.device("cpu")
    facts = {
        "same": message_of(ValueError, lambda: require_same_everywhere({"data.train": "abc"})),
        "other": message_of(ValueError, lambda: require_same_everywhere({"data.train": "abc", "x": f"of {rank}"})),
        "good": message_of(ValueError, lambda: raise_everywhere(None, cpu)),
        "bad": message_of(BadBatchError, lambda: raise_everywhere("step 2: clip 7" if rank == 1 else None, cpu)),
        "stop": stopping_steps(rank),
        "gradient": check_gradients(rank),
        "threads": threads_before_and_after_leaving(),
    }
    with open(f"{folder}/{rank}.json", "w") as file:
        json.dump(facts, file)


@pytest.mark.slow
def test_two_processes_agree(tmp_path):
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", __file__]
    done = subprocess.run([*launch, tmp_path], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-3000:]
    first, second = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in (0, 1))
    assert first == second
    assert first["same"] is None
    assert first["other"] == "all processes must hold the same:\n  process 1: x is 'of 1', in process 0 it is 'of 0'"
    assert first["good"] is None
    assert first["bad"] == "step 2: clip 7"
    assert first["stop"] == [[False, True, True, True], "SIGTERM: stopped and saved after step 2"]
    assert first["gradient"].startswith("step 5: a gradient is not finite")
    assert "clip0, clip1" in first["gradient"]
    assert first["threads"] == [True, 0]


if __name__ == "__main__":
    be_one_of_two(sys.argv[1])
