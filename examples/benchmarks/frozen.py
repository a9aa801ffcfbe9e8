"""The frozen recipe: 20 epochs of a head on Whisper's states of EmoGator's clips, computed once or again and again."""

import shutil
from pathlib import Path

import ours
import peers

EPOCHS = 20
BATCH_SIZE = 16
NUM_CLASSES = 30
STOCK_CLIPS = 32
# Head: (its flags, whether it has an LSTM, epochs measured of the cached arm).
HEADS = {
    "LSTM 2x512": ([], True, 3),
    "--rnn none --pooling mean": (["--rnn", "none", "--pooling", "mean"], False, EPOCHS),
}


def frozen(options, section, save):
    """Time the recipe with the cache, without it, and with the stock encoder, for two heads, by turns."""
    if not (options.emogator and options.whisper):
        section["note"] = "not measured: --emogator and --whisper name no folders"
        return save()
    section |= {"epochs": EPOCHS, "first_pass": [], "heads": {head: {} for head in HEADS}}
    warm_up(options)
    for turn in range(1, options.rounds + 1):
        shutil.rmtree(options.states, ignore_errors=True)
        for head, arms in section["heads"].items():
            for name, result in run_arms(options, head, section["first_pass"], turn):
                options.say(f"round {turn}: frozen, {head}: {name} was timed")
                arms.setdefault(name, []).append(result)
                save()
    return None


def run_arms(options, head, first_passes, turn):
    """Yield each arm's name and result; its `total` are the seconds of all 20 epochs, each with its validation."""
    flags, with_rnn, measured = HEADS[head]
    measured = 2 if options.quick else EPOCHS if options.in_full else measured
    cached = run_ours(options, [*flags, "--cache", "auto"], measured, options.states)
    # The second head finds the states of the first; what making them took belongs to its run as well.
    if len(first_passes) < turn:
        first_passes.append(cached["cache_runtime"])
    yield "cached", cached | {"total": cached["total"] + first_passes[-1]}
    live = run_ours(options, [*flags, "--cache", "off"], 2)
    yield "live", live
    stock, clips = run_stock(options, with_rnn), live["clips"]
    an_epoch = clips["train"] * stock["training_a_clip"] + clips["validation"] * stock["predicting_a_clip"]
    yield "stock", stock | {"total": EPOCHS * an_epoch}


def warm_up(options):
    """Train on a batch, untimed, as the stock arm does: imports and first calls belong to neither."""
    few = ["--max_train_samples", BATCH_SIZE, "--max_eval_samples", 2, "--num_train_epochs", 1]
    ours.train([*recipe(options), *few, "--eval_strategy", "no"])


def run_ours(options, flags, epochs, cache=None):
    limits = ["--num_train_epochs", epochs, "--eval_strategy", "epoch", *bounds(options)]
    result = ours.train([*recipe(options), *limits, *flags], cache)
    return result | {"measured": epochs, "total": result["train_runtime"] * EPOCHS / epochs}


def recipe(options):
    """Return the flags of the frozen recipe, without epochs and head."""
    return [
        *("--source", "emogator", "--data_dir", options.emogator, "--model_name_or_path", options.whisper),
        *("--freeze", "backbone", "--precision", "fp32", "--learning_rate", "0.001"),
        *("--per_device_train_batch_size", BATCH_SIZE),
    ]


def bounds(options):
    """Return the flags that bound the clips, if the command line does."""
    clips = 8 if options.quick else options.clips
    return ["--max_train_samples", clips, "--max_eval_samples", max(2, clips // 4)] if clips else []


def run_stock(options, with_rnn):
    wanted = 2 if options.quick else STOCK_CLIPS
    paths = sorted(Path(options.emogator).rglob("*-*-*.mp3"), key=lambda path: path.name)
    paths = paths[:: len(paths) // wanted][:wanted]
    labels = [int(path.name.split("-")[1]) - 1 for path in paths]
    files = [str(path) for path in paths]
    return peers.frozen_whisper(options.whisper, files, labels, NUM_CLASSES, with_rnn, min(BATCH_SIZE, wanted))
