"""The way from a corpus to its first batch, and through an epoch, against the corpus's size.

For each size a corpus in the A-VB layout is made of hard links to a few hundred clips, and read twice, each time by a
new process: with no index of headers, and with the one that the first start left. The steps are those of a training
run, in its order, without the model. Everything lies in a temporary folder; the page cache stays warm.
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from time import perf_counter, process_time

import numpy as np
import ours
from clock import peak_memory
from corpus import GAMMA_SHAPE, MEAN, RATE, SHORTEST, padding

SIZES, QUICK_SIZES = (1_000, 10_000, 60_000), (60, 120)
DISTINCT, QUICK_DISTINCT = 300, 20
BATCH_SIZE = 16
POOLS = (1, 5, 10, 20, 50, 100)
STARTS = ("first", "second")


def cost_against_size(options, section, save):
    """Read each corpus twice, and train a small model on the smallest to see how long it waits."""
    sizes, distinct = (QUICK_SIZES, QUICK_DISTINCT) if options.quick else (SIZES, DISTINCT)
    section |= {"distinct": distinct, "batch_size": BATCH_SIZE, "starts": []}
    with tempfile.TemporaryDirectory() as folder:
        clips = make_clips(Path(folder) / "clips", distinct)
        for size in sizes:
            corpus, cache = Path(folder) / str(size), Path(folder) / f"cache-{size}"
            link_corpus(corpus, clips, size)
            for start in STARTS:
                options.say(f"data, {size} clips: {start} start")
                section["starts"].append({"clips": size, "start": start} | measure_in_a_new_process(corpus, cache))
                save()
        section["training"] = train_small(Path(folder) / str(sizes[0]))
        save()


def make_clips(folder, count):
    """Write clips of gamma-distributed length and return their paths."""
    import soundfile

    random = np.random.default_rng(0)
    folder.mkdir()
    paths = [folder / f"{number:03d}.wav" for number in range(count)]
    for path, seconds in zip(paths, random.gamma(GAMMA_SHAPE, MEAN / GAMMA_SHAPE, count), strict=True):
        soundfile.write(path, 0.1 * random.standard_normal(int(max(seconds, SHORTEST) * RATE)), RATE)
    return paths


def link_corpus(folder, clips, size):
    """Make a corpus of links to the clips, half of it for training."""
    from avb_hf.tasks import TASKS

    task = TASKS["high"]
    (folder / "audio" / "wav").mkdir(parents=True)
    (folder / "labels").mkdir()
    random = np.random.default_rng(size)
    rows = [",".join(["File_ID", "Split", *task.labels])]
    for number in range(size):
        os.link(clips[number % len(clips)], folder / "audio" / "wav" / f"{number:05d}.wav")
        numbers = ",".join(f"{value:.4f}" for value in random.uniform(0, 1, len(task.labels)))
        rows.append(f"[{number:05d}],{('Train', 'Train', 'Val', 'Test')[number % 4]},{numbers}")
    (folder / "labels" / task.label_file).write_text("\n".join(rows) + "\n", encoding="utf-8")


def measure_in_a_new_process(folder, cache):
    command = [sys.executable, str(Path(__file__).with_name("run.py")), "--start_of", str(folder)]
    environment = os.environ | {"AVB_HF_CACHE": str(cache)}
    done = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def print_start(options):
    """Be the process of one start."""
    print(json.dumps(measure(options.start_of)))


class Stopwatch(dict):
    """Seconds by step."""

    def __call__(self, step, function, *args, **kwargs):
        """Call the function and add what it took to a step."""
        began = perf_counter()
        result = function(*args, **kwargs)
        self[step] = self.get(step, 0) + perf_counter() - began
        return result


def measure(folder):
    """Go through the data's part of `avb train`, and then through an epoch; return what it took."""
    from avb_hf.data.arguments import DataArguments
    from avb_hf.data.clips import ClipReader, describe_audio, require_samples
    from avb_hf.data.collator import VocalBurstCollator
    from avb_hf.data.fingerprint import fingerprint
    from avb_hf.data.sources import infer_task, load_corpus
    from avb_hf.data.splits import subsample
    from avb_hf.model import VocalBurstFeatureExtractor
    from avb_hf.training.loader import EpochDataLoader

    args = DataArguments(data_dir=folder, task="high")
    seconds, imported, began, cpu = Stopwatch(), resident(), perf_counter(), process_time()
    task = seconds("infer_task", infer_task, args)
    splits = seconds("load_corpus", load_corpus, task, args)
    loaded = resident()
    splits = seconds("subsample", subsample, splits, None, None, 0)
    seconds("fingerprint", fingerprint, splits)
    seconds("describe_audio", describe_audio, splits)
    seconds("require_samples", require_samples, splits, 400)
    splits = splits.with_transform(ClipReader(args))
    durations = seconds("durations", lambda: splits["train"].with_format(None)["duration"][:])
    collator = VocalBurstCollator(VocalBurstFeatureExtractor(), task)
    batches = iter(EpochDataLoader(splits["train"], batch_sampler=order_of(durations), collate_fn=collator))
    seconds("first batch", next, batches)
    found = {"seconds": perf_counter() - began, "cpu_seconds": process_time() - cpu, "steps": seconds}

    began = perf_counter()
    clips = sum(len(batch["labels"]) for batch in batches)
    found |= {"epoch_seconds": perf_counter() - began, "epoch_clips": clips}
    found |= {"rss_imports": imported, "rss_corpus": loaded, "peak": peak_memory()}
    return found | measure_order(np.asarray(durations))


def order_of(durations, pool=50):
    """Return what draws the batches of an epoch."""
    from avb_hf.training.loader import ProcessBatchSampler
    from avb_hf.training.sampler import EpochLengthSampler

    return ProcessBatchSampler(EpochLengthSampler(durations, BATCH_SIZE, 0, pool), BATCH_SIZE, 1, 1, 0)


def measure_order(durations):
    """Time drawing an epoch's batches, and count the padding in them for several sizes of pools."""
    watch = Stopwatch()
    watch("order", list, order_of(durations))
    orders = {pool: [clip for batch in order_of(durations, pool) for clip in batch] for pool in POOLS}
    waste = {pool: padding(durations[order], BATCH_SIZE) for pool, order in orders.items()}
    waste["all sorted"] = padding(np.sort(durations), BATCH_SIZE)
    return {"order_seconds": watch["order"], "waste": waste}


def train_small(folder):
    """Train the quickstart's model, as fast a consumer as there is, and return what share of an epoch it waits."""
    corpus = ["--source", "avb", "--data_dir", folder, "--num_train_epochs", 2, "--eval_strategy", "no"]
    result = ours.train(["quickstart", *corpus])
    epoch = result["epochs"][-1]
    share = epoch["waiting"] / epoch["seconds"]
    return {"clips": result["clips"]["train"], "seconds": epoch["seconds"], "waiting": share}


def resident():
    import psutil

    return psutil.Process().memory_info().rss
