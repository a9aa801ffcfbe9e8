"""One instrument for all arms: seconds of each epoch of a transformers Trainer, and how many of them it waited."""

import os
import platform
import sys
from contextlib import contextmanager
from datetime import date
from importlib.metadata import version
from pathlib import Path
from time import perf_counter

PACKAGES = ("torch", "transformers", "accelerate", "numpy", "soundfile")


@contextmanager
def watching():
    """Yield a list that takes up `seconds` of each epoch, and `waiting`, those spent fetching batches."""
    from transformers import Trainer
    from transformers.trainer_callback import CallbackHandler

    epochs, began = [], [0.0]
    methods = {
        (CallbackHandler, "on_epoch_begin"): CallbackHandler.on_epoch_begin,
        (CallbackHandler, "on_epoch_end"): CallbackHandler.on_epoch_end,
        (Trainer, "get_batch_samples"): Trainer.get_batch_samples,
    }

    def on_epoch_begin(self, *args, **kwargs):
        epochs.append({"seconds": 0.0, "waiting": 0.0})
        began[0] = _now()
        return methods[CallbackHandler, "on_epoch_begin"](self, *args, **kwargs)

    def on_epoch_end(self, *args, **kwargs):
        epochs[-1]["seconds"] = _now() - began[0]
        return methods[CallbackHandler, "on_epoch_end"](self, *args, **kwargs)

    def get_batch_samples(self, *args, **kwargs):
        start = perf_counter()
        try:
            return methods[Trainer, "get_batch_samples"](self, *args, **kwargs)
        finally:
            epochs[-1]["waiting"] += perf_counter() - start

    for (owner, name), method in zip(methods, (on_epoch_begin, on_epoch_end, get_batch_samples), strict=True):
        setattr(owner, name, method)
    try:
        yield epochs
    finally:
        for (owner, name), method in methods.items():
            setattr(owner, name, method)


def describe_machine():
    """Return processor, threads, GPU and versions, and how busy the machine is with other things."""
    import torch

    return {
        "date": date.today().isoformat(),
        "cpu": _cpu_model(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "threads": torch.get_num_threads(),
        "load_before": round(os.getloadavg()[0], 1),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "versions": {"python": sys.version.split()[0], **{name: version(name) for name in PACKAGES}},
    }


def peak_memory():
    """Return the largest resident memory that this process has had, in bytes.

    Linux hands `ru_maxrss` on to the processes that one starts, so there it would be that of a larger parent.
    """
    status = Path("/proc/self/status")
    if not status.is_file():
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    lines = dict(line.split(":", 1) for line in status.read_text().splitlines())
    return int(lines["VmHWM"].split()[0]) * 1024


def _cpu_model():
    facts = Path("/proc/cpuinfo")
    if not facts.is_file():
        return platform.processor()
    lines = dict(line.split(":", 1) for line in facts.read_text().splitlines() if ":" in line)
    cells = {name.strip(): value.strip() for name, value in lines.items()}
    numbers = [cells.get(name, "?") for name in ("cpu family", "model", "stepping")]
    return f"{cells.get('model name', '?')} (family {numbers[0]}, model {numbers[1]}, stepping {numbers[2]})"


def _now():
    import torch

    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return perf_counter()
