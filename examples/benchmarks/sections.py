"""What is measured: arms by turns, each result written down as soon as it is there."""

import gc
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from time import perf_counter
from typing import NamedTuple

import numpy as np
import ours as our_arm
import peers
from clock import peak_memory
from corpus import LONGEST, SHAPES, TINY_SHAPES, useful_flops, write_corpus
from report.cells import STOCK_A, STOCK_B

CLIPS = {"finetune": 48, "memory": 12, "loss": 16, "prediction": 48, "gpu": 512}
QUICK_CLIPS = dict.fromkeys(CLIPS, 8)
QUICK_LONGEST = 2.5
ACCUMULATION = 4
GPU_BATCH = 16
GPU_WORKERS = 4
FP32, BF16, AUTO = (["--precision", name] for name in ("fp32", "bf16", "auto"))
SCORED = ["--do_eval"]


class Arm(NamedTuple):
    """One way to train.

    Attributes:
        runs: What trains.
        arguments: Options of that.
        once: Whether one round is enough.
        in_bf16: Whether it computes in bf16, which a processor that only emulates it would take hours for.
    """

    runs: Callable
    arguments: dict
    once: bool = False
    in_bf16: bool = False


def ours(*flags, once=False, in_bf16=False, **arguments):
    return Arm(our_arm.fine_tune, {"flags": flags, **arguments}, once, in_bf16)


FINE_TUNING = {
    STOCK_A: Arm(peers.fine_tune, {}),
    "ours, fp32": ours(*FP32, *SCORED),
    STOCK_B: Arm(peers.fine_tune, {"bf16": True}, in_bf16=True),
    "ours, bf16": ours(*BF16, *SCORED, in_bf16=True),
    "ours, auto": ours(*AUTO),
    "stock (c): front end trained, fp32": Arm(peers.fine_tune, {"trains_front_end": True}, once=True),
    "ours, front end trained, fp32": ours(*FP32, "--freeze", "none", once=True),
}
DEPTHS = {
    f"ours, fp32, --freeze_blocks {depth}": ours(*FP32, "--freeze_blocks", depth, once=True) for depth in (4, 8, 12)
}
MEMORY = {
    STOCK_A: Arm(peers.fine_tune, {}),
    "ours, fp32": ours(*FP32, epochs=1),
    "ours, fp32, --activation_checkpointing": ours(*FP32, "--activation_checkpointing", epochs=1),
}
ACCUMULATING = [*FP32, "--gradient_accumulation_steps", ACCUMULATION, "--ccc_scope"]
LOSS = {f"ours, --ccc_scope {scope}": ours(*ACCUMULATING, scope) for scope in ("micro", "batch")}
WORKERS = {"dataloader_num_workers": GPU_WORKERS}
WORKER_FLAGS = ["--dataloader_num_workers", GPU_WORKERS]
GPU = {
    STOCK_A: Arm(peers.fine_tune, WORKERS),
    "ours, fp32": ours(*FP32, *WORKER_FLAGS),
    STOCK_B: Arm(peers.fine_tune, {"bf16": True, **WORKERS}),
    "ours, bf16": ours(*BF16, *WORKER_FLAGS),
    "ours, auto": ours(*AUTO, *WORKER_FLAGS),
    "ours, bf16, --activation_checkpointing": ours(*BF16, *WORKER_FLAGS, "--activation_checkpointing"),
}


def fine_tuning(size, options, section, save):
    """Time an epoch of each arm for LARGE or BASE, and compare states and scores."""
    shape = shapes(options)[size]
    with tempfile.TemporaryDirectory() as folder:
        corpus = make_corpus(options, "finetune", folder)
        section |= {"corpus": corpus.facts(options.batch_size), "arms": {}}
        section["state_errors"] = our_arm.state_errors(corpus, shape)
        section["runs_bf16"] = our_arm.runs_bf16()
        save()
        arms, scores = FINE_TUNING | DEPTHS, {}
        if not (section["runs_bf16"] or options.quick):
            arms = {name: arm for name, arm in arms.items() if not arm.in_bf16}
        for name, result in by_turns(arms, corpus, shape, options):
            scores.setdefault(name, result.pop("scores", None))
            section["arms"].setdefault(name, []).append(result)
            save()
        if "ours, bf16" in scores:
            apart = np.subtract(scores["ours, fp32"], scores["ours, bf16"])
            section["bf16_score_difference"] = float(np.abs(apart).max())
            save()


def memory(options, section, save):
    """Measure the largest resident memory of an epoch of LARGE, each arm in a process of its own."""
    script = Path(__file__).with_name("run.py")
    flags = ["--batch_size", str(options.batch_size), *(["--quick"] if options.quick else [])]
    section["arms"] = {}
    for arm in MEMORY:
        command = [sys.executable, str(script), "--memory_of", arm, *flags]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        section["arms"][arm] = [{"peak": int(done.stdout.splitlines()[-1])}]
        save()


def print_memory(options):
    """Be the process of one arm of `memory`."""
    arm = MEMORY[options.memory_of]
    with tempfile.TemporaryDirectory() as folder:
        corpus = make_corpus(options, "memory", folder)
        arm.runs(corpus, shapes(options)["LARGE"], options.batch_size, **arm.arguments)
    print(peak_memory())


def whole_batch_loss(options, section, save):
    """Time an accumulated update with one loss of the whole effective batch against one loss a part."""
    import torch

    size = section["size"] = "LARGE" if torch.cuda.is_available() else "BASE"
    section["arms"] = {}
    with tempfile.TemporaryDirectory() as folder:
        corpus = make_corpus(options, "loss", folder)
        section["corpus"] = corpus.facts(options.batch_size)
        for name, result in by_turns(LOSS, corpus, shapes(options)[size], options):
            result.pop("scores")
            section["arms"].setdefault(name, []).append(result)
            save()


def gpu(options, section, save):
    """Time LARGE on a CUDA device, at a batch of 16 and at the largest that fits."""
    import torch

    if not torch.cuda.is_available():
        section["note"] = "not measured on a GPU: this machine has none"
        return save()
    shape = shapes(options)["LARGE"]
    section["ceiling"] = matmul_ceiling()
    section["arms"], section["largest"] = {}, {}
    with tempfile.TemporaryDirectory() as folder:
        corpus = make_corpus(options, "gpu", folder)
        section["corpus"] = corpus.facts(GPU_BATCH) | {"useful_flops": useful_flops(shape, corpus.seconds)}
        for name, result in by_turns(GPU, corpus, shape, options, GPU_BATCH):
            result.pop("scores", None)
            section["arms"].setdefault(name, []).append(result)
            save()
        for name in GPU:
            section["largest"][name] = largest_that_fits(name, corpus, shape)
            save()
    return None


def largest_that_fits(name, corpus, shape):
    """Double the batch until memory is full or an epoch is a single batch, and return the last result."""
    import torch

    batch_size, best = 2 * GPU_BATCH, None
    while batch_size <= len(corpus.paths):
        try:
            result = measure(GPU[name], corpus, shape, batch_size)
        except torch.OutOfMemoryError:
            break
        result.pop("scores", None)
        best, batch_size = result, 2 * batch_size
    return best


def matmul_ceiling(size=8192, rounds=20):
    """Return the best rate of a bf16 matrix product on the GPU, in operations a second."""
    import torch

    a, b = (torch.randn(size, size, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    seconds = []
    for _ in range(rounds):
        torch.cuda.synchronize()
        began = perf_counter()
        a @ b
        torch.cuda.synchronize()
        seconds.append(perf_counter() - began)
    return 2 * size**3 / min(seconds)


def by_turns(arms, corpus, shape, options, batch_size=None):
    """Run the arms one after the other, as often as there are rounds: A B A B; yield name and result."""
    for round_number in range(options.rounds):
        for name, arm in arms.items():
            if round_number == 0 or not arm.once:
                options.say(f"round {round_number + 1}: {name}")
                yield name, measure(arm, corpus, shape, batch_size or options.batch_size)


def measure(arm, corpus, shape, batch_size):
    """Run one arm, and on a GPU take down its largest memory."""
    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    result = arm.runs(corpus, shape, batch_size, **arm.arguments) | {"batch_size": batch_size}
    if torch.cuda.is_available():
        result["peak"] = torch.cuda.max_memory_allocated()
    return result


def shapes(options):
    return TINY_SHAPES if options.quick else SHAPES


def make_corpus(options, section, folder):
    clips = QUICK_CLIPS[section] if options.quick else CLIPS[section]
    if section == "finetune" and options.corpus_clips:
        clips = options.corpus_clips
    return write_corpus(Path(folder) / "corpus", clips, QUICK_LONGEST if options.quick else LONGEST)
