"""Prove on this machine that cutting a batch or a run apart changes nothing: `python examples/prove_exactness.py`.

Three tables: gradients of one large batch against those of its parts, two processes against one, and the weights of
runs that were killed and resumed against those of runs that were not. Takes some minutes on two cores; exits with 1 if
anything differs that must not, or the other way round.
"""

import hashlib
import itertools
import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path

import pandas as pd

BACKBONE = {
    "model_type": "wav2vec2", "conv_dim": [32, 32, 32], "conv_kernel": [160, 4, 4], "conv_stride": [40, 4, 2],
    "conv_bias": False, "feat_extract_norm": "group", "do_stable_layer_norm": False, "hidden_size": 32,
    "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64, "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 4,
}  # fmt: skip
STEPS_AN_EPOCH = 6  # 90 clips in batches of 16: the last one is short
RUN = [
    "quickstart", "--use_cpu", "--length_pool", "2", "--max_train_samples", "90", "--max_eval_samples", "30",
    "--num_train_epochs", "3", "--save_total_limit", "9", "--load_best_model_at_end", "false", "--disable_tqdm", "true",
    "--logging_steps", "1", "--logging_strategy", "steps",
]  # fmt: skip
TRAIN = [*RUN, "--do_train", "--encoder_config", json.dumps(BACKBONE)]
NO_DROPOUT = {name: 0.0 for name in ("hidden_dropout", "attention_dropout", "activation_dropout", "feat_proj_dropout")}
HALVES = ["--per_device_train_batch_size", "8"]
QUARTERS = ["--per_device_train_batch_size", "4", "--gradient_accumulation_steps", "4"]
STOPS_EARLY = ["--early_stopping_patience", "1", "--learning_rate", "0", "--backbone_learning_rate", "0",
               "--num_train_epochs", "9", "--load_best_model_at_end", "true"]  # fmt: skip
# Name: (flags, processes).
SETTINGS = {
    "plain": ([], 1),
    "accumulation": (QUARTERS, 1),
    "bf16": (["--bf16"], 1),
    "2 processes": (HALVES, 2),
    "2 processes of 2 steps, bf16": ([*QUARTERS[:3], "2", "--bf16"], 2),
    "activation checkpointing": (["--activation_checkpointing"], 1),
    "2 loader workers": (["--dataloader_num_workers", "2"], 1),
    "saving every 4 steps": (["--save_strategy", "steps", "--save_steps", "4"], 1),
    "early stopping": (STOPS_EARLY, 1),
    "another seed": (["--seed", "2"], 1),
}
# These must end with the same weights as "plain"; another seed must not.
SAME_AS_PLAIN = ("activation checkpointing", "2 loader workers", "saving every 4 steps")


def die_in(method, count, how):
    """Patch a method of the trainer so that its call number `count` does `how` first."""
    from avb_hf.training.trainer import VocalBurstTrainer

    original, calls = getattr(VocalBurstTrainer, method), []

    def patched(self, *args, **kwargs):
        calls.append(1)
        if len(calls) == count:
            how()
        return original(self, *args, **kwargs)

    setattr(VocalBurstTrainer, method, patched)


def send(number):
    os.kill(os.getpid(), number)


def fill_the_disk():
    """Let no file grow beyond 20 kB, which fails a write as a full disk does."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, resource.RLIM_INFINITY))


def die_before_the_seal():
    from avb_hf.training import durable_trainer

    seal, calls = durable_trainer.seal, []

    def patched(folder, *args):
        calls.append(1)
        if len(calls) == 2:
            send(signal.SIGKILL)
        seal(folder, *args)

    durable_trainer.seal = patched


KILL = partial(send, signal.SIGKILL)
MID_EPOCH = STEPS_AN_EPOCH + 3
# Name: (what plants the fault, exit code of the run that meets it).
FAULTS = {
    "kill -9 in a step": (partial(die_in, "training_step", MID_EPOCH, KILL), -9),
    "kill -9 in a save, no model yet": (partial(die_in, "_save", 2, KILL), -9),
    "kill -9 in a save, no optimizer yet": (partial(die_in, "_save_optimizer_and_scheduler", 2, KILL), -9),
    "kill -9 in a save, no random state yet": (partial(die_in, "_save_rng_state", 2, KILL), -9),
    "kill -9 in a save, no seal yet": (die_before_the_seal, -9),
    "kill -9 behind the training": (partial(die_in, "save_state", 1, KILL), -9),
    "full disk in a save": (partial(die_in, "_save_checkpoint", 2, fill_the_disk), 2),
    "SIGTERM": (partial(die_in, "training_step", MID_EPOCH, partial(send, signal.SIGTERM)), 143),
    "Ctrl-C": (partial(die_in, "training_step", MID_EPOCH, partial(send, signal.SIGINT)), 130),
}
# Setting: the faults that it is put through.
CUTS = {
    "plain": list(FAULTS),
    "accumulation": ["SIGTERM"],
    "bf16": ["kill -9 in a step"],
    "2 processes": ["kill -9 in a step", "SIGTERM"],
    "2 processes of 2 steps, bf16": ["kill -9 in a step"],
    "early stopping": ["kill -9 in a step", "kill -9 behind the training"],
}


def launch(processes, *words):
    """Run this file as worker in one or two processes; return exit code and their words, without those of torchrun."""
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(processes)]
    command = [sys.executable, *(torchrun if processes > 1 else []), __file__, *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
    written, _, _ = done.stderr.partition('Traceback (most recent call last):\n  File "<frozen runpy>"')
    return done.returncode, done.stdout + written


def train(folder, setting, fault="none", *more):
    flags, processes = SETTINGS[setting]
    count = ["--expect_world_size", processes]
    code, text = launch(processes, "train", fault, *TRAIN, *flags, *count, "--output_dir", folder, *more)
    expected = 0 if fault == "none" else FAULTS[fault][1] if processes == 1 else 1
    if code != expected:
        raise SystemExit(f"{setting}, {fault}: exit code {code} instead of {expected}\n{text[-3000:]}")
    return text


def digest(folder):
    """SHA-256 over all parameters of the model that a run left."""
    return hashlib.sha256((Path(folder) / "model.safetensors").read_bytes()).hexdigest()[:16]


def compare_resumes(work):
    print("\nweights at the end of a run (sha256), cut off and resumed against never cut off")
    failures = 0
    whole = {}
    for setting in SETTINGS:
        train(work / setting, setting)
        whole[setting] = digest(work / setting)
        control = ""
        if setting in SAME_AS_PLAIN or setting == "another seed":
            equal = whole[setting] == whole["plain"]
            failures += equal != (setting in SAME_AS_PLAIN)
            control = "same as plain" if equal else "other than plain"
        print(f"  {setting:30} {'never cut off':40} {whole[setting]}  {control}", flush=True)
        for fault in CUTS.get(setting, ()):
            folder = work / f"{setting}, {fault}"
            train(folder, setting, fault)
            train(folder, setting, "none", "--resume", "auto")
            equal = digest(folder) == whole[setting]
            failures += not equal
            print(f"  {setting:30} {fault:40} {digest(folder)}  {'same' if equal else 'DIFFERENT'}", flush=True)
    return failures


LOSSES = {
    "ccc": {"loss": "ccc"},
    "mse": {"loss": "mse"},
    "cross_entropy": {"loss": "cross_entropy", "problem_type": "single_label_classification"},
    "weighted cross_entropy": {
        "loss": "cross_entropy", "problem_type": "single_label_classification", "class_weights": [0.5, 1.0, 2.0]
    },
}  # fmt: skip
# Sizes of the batches of each process, 15 clips in all.
LAYOUTS = {
    "4 accumulated batches": [[4, 4, 4, 3]],
    "2 processes": [[8], [7]],
    "2 processes of 2 batches": [[4, 4], [4, 3]],
}


def gradients_of(model, batches):
    """Return the gradients that this process has after one optimizer step's backward passes."""
    from avb_hf.training.exact import EffectiveBatch

    model.zero_grad()
    whole = EffectiveBatch(batches, model, lambda batch: model(batch["input_values"], batch["attention_mask"]).logits)
    for batch in batches:
        whole.part_of_loss(batch).backward()
    return [parameter.grad for parameter in model.parameters()]


def make_case(loss, dtype):
    """Make a model without dropout and 15 ragged clips; the first half alone has labels."""
    import torch

    from avb_hf import VocalBurstConfig, Wav2Vec2ForVocalBurst

    torch.manual_seed(3)
    config = VocalBurstConfig(encoder_config=BACKBONE | NO_DROPOUT, num_labels=3, rnn_hidden_size=32, **LOSSES[loss])
    lengths = torch.randint(2_000, 16_000, (15,))
    mask = (torch.arange(16_000) < lengths[:, None]).long()
    labels = torch.rand(15, 3, dtype=dtype) if config.problem_type == "regression" else torch.randint(0, 3, (15,))
    labels[8:] = torch.nan if config.problem_type == "regression" else -100
    values = torch.randn(15, 16_000, dtype=dtype) * mask
    batch = {"input_values": values, "attention_mask": mask, "labels": labels}
    return Wav2Vec2ForVocalBurst(config).to(dtype).train(), batch


def compare_gradients():
    """Be one of two processes that compare the gradients of one large batch with those of its parts."""
    import torch
    import torch.distributed as dist

    rank, failures = int(os.environ["RANK"]), 0
    for name, layout in LAYOUTS.items():
        if len(layout) > 1 and not dist.is_initialized():
            dist.init_process_group("gloo")
        own = layout[rank % len(layout)]
        start = sum(map(sum, layout[:rank])) if len(layout) > 1 else 0
        for loss, dtype in itertools.product(LOSSES, (torch.float64, torch.float32)):
            model, batch = make_case(loss, dtype)
            model(**batch).loss.backward()
            truth = [parameter.grad for parameter in model.parameters()]
            cuts = [start + sum(own[:index]) for index in range(len(own) + 1)]
            parts = [{key: value[i:j] for key, value in batch.items()} for i, j in itertools.pairwise(cuts)]
            found = gradients_of(model, parts)
            if len(layout) > 1:
                for gradient in found:
                    dist.all_reduce(gradient)
                    gradient /= 2
            error = max((a - b).abs().max() for a, b in zip(found, truth, strict=True)) / max(
                g.abs().max() for g in truth
            )
            failures += bool(error > {torch.float64: 1e-12, torch.float32: 1e-5}[dtype])
            if rank == 0:
                print(f"  {loss:24}{str(dtype)[6:]:9}{name:26}{error:.1e}")
    dist.destroy_process_group()
    return int(failures > 0)


def compare_processes(work):
    print("\ntwo processes against one: 12 training steps without dropout, and the scores of one model")
    plain = json.dumps(BACKBONE | NO_DROPOUT)
    curves = []
    for setting in ("plain", "2 processes"):
        train(work / f"curve {setting}", setting, "none", "--encoder_config", plain, "--num_train_epochs", "2")
        log = json.loads((work / f"curve {setting}" / "trainer_state.json").read_text())["log_history"]
        curves.append(pd.DataFrame([line for line in log if "loss" in line])[["loss", "grad_norm"]])
    worst = (curves[0] - curves[1]).abs().max()
    results = []
    for setting in ("plain", "2 processes"):
        flags, processes = SETTINGS[setting]
        folder = work / f"scores {setting}"
        scored = ["--model_name_or_path", work / "curve plain", "--do_eval", "--do_predict", "--output_dir", folder]
        code, text = launch(processes, "train", "none", *RUN, *scored, *flags, "--expect_world_size", processes)
        if code:
            raise SystemExit(text[-3000:])
        results.append((pd.read_csv(folder / "predictions.csv"), json.loads((folder / "all_results.json").read_text())))
    (one, one_scores), (two, two_scores) = results
    difference = (one.iloc[:, 2:] - two.iloc[:, 2:]).abs().to_numpy().max()
    in_order = one["file_id"].equals(two["file_id"])
    scores = [(one_scores[key], two_scores[key]) for key in one_scores if "ccc" in key]
    printed = all(f"{first:.4f}" == f"{second:.4f}" for first, second in scores)
    print(
        f"  largest difference of {len(curves[0])} losses {worst['loss']:.1e}, gradient norms {worst['grad_norm']:.1e}"
    )
    print(f"  largest difference of {one.iloc[:, 2:].size} scores {difference:.1e}, rows in the same order: {in_order}")
    print(f"  {len(scores)} CCCs equal in every printed digit: {printed}")
    return (worst.max() > 1e-4) + (difference > 1e-6) + (not in_order) + (not printed)


def work_on(mode, *words):
    """Be a worker: a training that meets a fault, or one of two processes that make gradients."""
    if mode == "gradients":
        return compare_gradients()
    from avb_hf.cli import run

    if words[0] != "none":
        FAULTS[words[0]][0]()
    return run("train", list(words[1:]))


def main():
    with tempfile.TemporaryDirectory() as folder:
        print("largest difference of gradients to those of one large batch of 15, as a share of the largest gradient")
        code, text = launch(2, "gradients")
        print(text if code else "\n".join(line for line in text.splitlines() if line.startswith("  ")))
        failures = (code != 0) + compare_processes(Path(folder)) + compare_resumes(Path(folder))
    print(f"\n{'all is exact' if not failures else f'{failures} FAILURES'}")
    return int(failures > 0)


if __name__ == "__main__":
    sys.exit(work_on(*sys.argv[1:]) if len(sys.argv) > 1 else main())
