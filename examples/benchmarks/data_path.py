"""Time the way from a corpus to its first batch against its size: `python examples/benchmarks/data_path.py`.

For each size a corpus in the A-VB layout is made of hard links to 300 clips of gamma-distributed length, and read
twice, each time by a new process: with no header index, and with the one that the first start left. The steps are those
of a training run, in its order, without the model. Everything lies in a temporary folder; the page cache stays warm.
"""

import argparse
import itertools
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from time import perf_counter, process_time

import numpy as np

RATE = 16_000
DISTINCT = 300
SHAPE, MEAN_SECONDS = 4, 2.2
BATCH_SIZE = 16
POOLS = (1, 5, 10, 20, 50, 100)
LOADED_BATCHES = 60


def make_clips(folder):
    import soundfile

    random = np.random.default_rng(0)
    folder.mkdir()
    paths = [folder / f"{number:03d}.wav" for number in range(DISTINCT)]
    for path, seconds in zip(paths, random.gamma(SHAPE, MEAN_SECONDS / SHAPE, DISTINCT), strict=True):
        soundfile.write(path, 0.1 * random.standard_normal(max(int(seconds * RATE), RATE // 10)), RATE)
    return paths


def make_corpus(folder, clips, size):
    from avb_hf.tasks import TASKS

    task = TASKS["high"]
    (folder / "audio" / "wav").mkdir(parents=True)
    (folder / "labels").mkdir()
    random = np.random.default_rng(size)
    rows = [",".join(["File_ID", "Split", *task.labels])]
    for number in range(size):
        os.link(clips[number % DISTINCT], folder / "audio" / "wav" / f"{number:05d}.wav")
        numbers = ",".join(f"{value:.4f}" for value in random.uniform(0, 1, len(task.labels)))
        rows.append(f"[{number:05d}],{('Train', 'Train', 'Val', 'Test')[number % 4]},{numbers}")
    (folder / "labels" / task.label_file).write_text("\n".join(rows) + "\n", encoding="utf-8")


class Stopwatch(dict):
    """Seconds by step."""

    def __call__(self, step, function, *args, **kwargs):
        """Call the function and add what it took to a step."""
        begin = perf_counter()
        result = function(*args, **kwargs)
        self[step] = self.get(step, 0) + perf_counter() - begin
        return result


def rss():
    import psutil

    return psutil.Process().memory_info().rss / 2**20


def padding_waste(batches, lengths):
    padded = sum(len(batch) * lengths[batch].max() for batch in batches)
    return float(1 - sum(lengths[batch].sum() for batch in batches) / padded)


def measure(folder):
    """Go through the data's part of `avb train` and return what it took."""
    import resource

    from avb_hf.data.arguments import DataArguments
    from avb_hf.data.clips import ClipReader, describe_audio, require_samples
    from avb_hf.data.collator import VocalBurstCollator
    from avb_hf.data.fingerprint import fingerprint
    from avb_hf.data.sources import infer_task, load_corpus
    from avb_hf.data.splits import subsample
    from avb_hf.model import VocalBurstFeatureExtractor
    from avb_hf.training.loader import EpochDataLoader, ProcessBatchSampler
    from avb_hf.training.sampler import EpochLengthSampler

    def batches_of(pool):
        return ProcessBatchSampler(EpochLengthSampler(durations, BATCH_SIZE, 0, pool), BATCH_SIZE, 1, 1, 0)

    args = DataArguments(data_dir=folder, task="high")
    seconds, before, start, cpu = Stopwatch(), rss(), perf_counter(), process_time()
    task = seconds("infer_task", infer_task, args)
    splits = seconds("load_corpus", load_corpus, task, args)
    loaded = rss()
    splits = seconds("subsample", subsample, splits, None, None, 0)
    seconds("fingerprint", fingerprint, splits)
    seconds("require_samples", require_samples, splits, 400)
    splits = splits.with_transform(ClipReader(args))
    for _ in ("the plan", "the record"):
        seconds("describe_audio", describe_audio, splits)
    seconds("fingerprint", fingerprint, splits)  # for the record
    durations = seconds("durations", lambda: splits["train"].with_format(None)["duration"][:])
    collator = VocalBurstCollator(VocalBurstFeatureExtractor(), task)
    loader = EpochDataLoader(splits["train"], batch_sampler=batches_of(50), collate_fn=collator)
    iterator = iter(loader)
    seconds("first batch", next, iterator)
    total, cpu = perf_counter() - start, process_time() - cpu
    held = rss()

    begin = perf_counter()
    loaded_clips = sum(len(batch["labels"]) for batch in itertools.islice(iterator, LOADED_BATCHES))
    clips_a_second = loaded_clips / (perf_counter() - begin)
    orders = {pool: list(batches_of(pool)) for pool in POOLS}
    order_seconds = Stopwatch()
    order_seconds("order", list, batches_of(50))
    lengths = np.asarray(durations)
    return {
        "seconds": total,
        "cpu_seconds": cpu,
        "steps": seconds,
        "rss_imports_mib": before,
        "rss_corpus_mib": loaded,
        "rss_mib": held,
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**10 if sys.platform == "linux" else 2**20),
        "order_seconds": order_seconds["order"],
        "waste": {pool: padding_waste(batches, lengths) for pool, batches in orders.items()},
        "loaded_clips_a_second": clips_a_second,
    }


def measure_in_a_new_process(folder, cache):
    command = [sys.executable, __file__, "--measure", folder]
    environment = os.environ | {"AVB_HF_CACHE": str(cache), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def show(results):
    head = [
        "clips",
        "start",
        "first batch, s",
        "of it CPU, s",
        "RSS, MiB",
        "of it the corpus",
        "peak, MiB",
        "order of an epoch, s",
    ]
    head += ["loader, clips/s", *(f"waste, pool {pool}" for pool in POOLS)]
    print("| " + " | ".join(head) + " |\n" + "|---" * len(head) + "|")
    for found in results:
        cells = [
            f"{found['clips']:,}",
            found["start"],
            f"{found['seconds']:.2f}",
            f"{found['cpu_seconds']:.2f}",
            f"{found['rss_mib']:.0f}",
        ]
        cells += [f"{found['rss_corpus_mib'] - found['rss_imports_mib']:.0f}", f"{found['peak_mib']:.0f}"]
        cells += [f"{found['order_seconds']:.3f}", f"{found['loaded_clips_a_second']:.0f}"]
        cells += [f"{share:.1%}" for share in found["waste"].values()]
        print("| " + " | ".join(cells) + " |")
    steps = list(results[0]["steps"])
    print("\n| clips | start | " + " | ".join(steps) + " |\n" + "|---" * (len(steps) + 2) + "|")
    for found in results:
        times = " | ".join(f"{found['steps'][step]:.3f}" for step in steps)
        print(f"| {found['clips']:,} | {found['start']} | {times} |")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=[1_000, 10_000, 60_000])
    parser.add_argument("--json", type=Path, help="file that takes all numbers")
    parser.add_argument("--measure", metavar="FOLDER", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        print(json.dumps(measure(options.measure)))
        return
    results = []
    with tempfile.TemporaryDirectory() as folder:
        clips = make_clips(Path(folder) / "clips")
        for size in options.sizes:
            corpus, cache = Path(folder) / str(size), Path(folder) / f"cache-{size}"
            make_corpus(corpus, clips, size)
            for start in ("first", "second"):
                results.append({"clips": size, "start": start} | measure_in_a_new_process(str(corpus), cache))
    show(results)
    if options.json:
        options.json.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
