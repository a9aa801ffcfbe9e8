"""Time avb_hf beside what a user would write without it: `python examples/benchmarks/run.py`.

All arms run in one process by turns, on the same clips, with the same head, number of updates and threads. Results go
to `benchmarks.json` as soon as they are there, and `benchmarks.md` is made of it. A section that is not run keeps what
the file holds of it.
"""

import argparse
import functools
import json
import logging
import os
import sys
import time
import warnings
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")

import report
import sections
from clock import describe_machine
from frozen import frozen

SECTIONS = {
    "finetune": sections.fine_tuning,
    "memory": sections.memory,
    "frozen": frozen,
    "loss": sections.whole_batch_loss,
    "gpu": sections.gpu,
}


def parse(argv):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=SECTIONS, default=list(SECTIONS), help="sections to run")
    parser.add_argument("--rounds", type=int, default=2, help="how often each arm runs")
    parser.add_argument("--batch_size", type=int, default=4, help="clips a batch of fine-tuning on a CPU")
    parser.add_argument(
        "--corpus_clips",
        type=int,
        help="clips of the fine-tuning corpus (24); more pad less in batches sorted by length",
    )
    parser.add_argument("--emogator", help="folder of the EmoGator corpus, for the frozen recipe")
    parser.add_argument("--whisper", help="folder of a Whisper encoder, for the frozen recipe")
    parser.add_argument("--clips", type=int, help="training clips of the frozen recipe (all)")
    parser.add_argument("--in_full", action="store_true", help="measure all 20 epochs of every cached arm")
    parser.add_argument("--quick", action="store_true", help="tiny backbones and few clips: does it run at all")
    parser.add_argument("--report_only", action="store_true", help="make the page anew from the file of results")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent, help="folder of page and results")
    parser.add_argument("--memory_of", choices=sections.MEMORY, help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    if options.quick:
        options.rounds = 1
    options.say = lambda text: print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)
    return options


def save(path, results):
    draft = path.with_suffix(".tmp")
    draft.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    draft.replace(path)
    path.with_suffix(".md").write_text(report.page(results), encoding="utf-8")


def main(argv=None):
    options = parse(argv)
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")
    if options.memory_of:
        sections.print_memory(options)
        return
    options.output.mkdir(parents=True, exist_ok=True)
    path = options.output / "benchmarks.json"
    results = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    for name in () if options.report_only else options.only:
        section = results[name] = {"machine": describe_machine(), "quick": options.quick, "rounds": options.rounds}
        began = time.perf_counter()
        SECTIONS[name](options, section, functools.partial(save, path, results))
        section["took"] = round(time.perf_counter() - began)
        save(path, results)
    save(path, results)


if __name__ == "__main__":
    main()
