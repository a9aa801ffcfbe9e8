"""Time avb_hf beside what a user would write without it: `python examples/benchmarks/run.py`.

Timed arms run in one process by turns, on the same clips, with the same head, number of updates and threads. Results go
to `benchmarks.json` as soon as they are there, and `benchmarks.md` is made of it. A section that is not run, or cannot
be run here, keeps what the file holds of it; one that fails leaves what it has, and the command fails when all others
are done.
"""

import argparse
import functools
import json
import logging
import os
import sys
import tempfile
import time
import traceback
import warnings
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")

import data_path
import prediction
import report
import scores
import sections
from clock import describe_machine
from frozen import frozen

SECTIONS = {
    # First, as users start in a new process: memory that fine-tuning leaves helps large padded batches alone.
    "prediction": prediction.prediction,
    "frozen": frozen,
    "large": functools.partial(sections.fine_tuning, "LARGE"),
    "base": functools.partial(sections.fine_tuning, "BASE"),
    "memory": sections.memory,
    "loss": sections.whole_batch_loss,
    "data": data_path.cost_against_size,
    "scores": scores.scores,
    "gpu": sections.gpu,
}
RECORDED = Path(__file__).parent
# Option that turns the command into one arm's own process: what that does.
PROCESSES = {"memory_of": sections.print_memory, "start_of": data_path.print_start}


def parse(argv):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=SECTIONS, default=list(SECTIONS), help="sections to run")
    parser.add_argument("--rounds", type=int, default=2, help="how often each arm runs")
    parser.add_argument("--batch_size", type=int, default=4, help="clips a batch of fine-tuning on a CPU")
    parser.add_argument(
        "--corpus_clips",
        type=int,
        help="clips of the fine-tuning corpus (48); more pad less in batches sorted by length",
    )
    parser.add_argument("--checkpoint", help="folder of a fine-tuned model to predict with (random weights of BASE)")
    parser.add_argument("--emogator", help="folder of the EmoGator corpus, for the frozen recipe and its scores")
    parser.add_argument("--whisper", help="folder of a Whisper encoder, for the frozen recipe and its scores")
    parser.add_argument("--clips", type=int, help="training clips of EmoGator (all, or some for the scores)")
    parser.add_argument("--in_full", action="store_true", help="measure all 20 epochs of every cached arm")
    parser.add_argument("--quick", action="store_true", help="tiny backbones and few clips: does it run at all")
    parser.add_argument("--report_only", action="store_true", help="make the page anew from the file of results")
    parser.add_argument("--output", type=Path, default=RECORDED, help="folder of page and results")
    parser.add_argument("--memory_of", choices=sections.MEMORY, help=argparse.SUPPRESS)
    parser.add_argument("--start_of", help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    if options.quick:
        if options.output == RECORDED and not any(getattr(options, name) for name in PROCESSES):
            parser.error("--quick would replace the recorded results: name another folder by --output")
        options.rounds = 1
    options.say = lambda text: print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)
    return options


def save(path, results):
    draft = path.with_suffix(".tmp")
    draft.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    draft.replace(path)
    path.with_suffix(".md").write_text(report.page(results), encoding="utf-8")


def run_sections(options, path, results):
    """Run the sections that are wanted.

    Raises:
        RuntimeError: At the end, if some failed; names them.
    """
    failed = {}
    for name in (name for name in SECTIONS if name in options.only):
        recorded = results.get(name)
        section = results[name] = {"machine": describe_machine(), "quick": options.quick, "rounds": options.rounds}
        began = time.perf_counter()
        try:
            SECTIONS[name](options, section, functools.partial(save, path, results))
        except Exception as error:
            traceback.print_exc()
            section["error"] = f"{type(error).__name__}: {error}"
            failed[name] = error
        section["took"] = round(time.perf_counter() - began)
        if "note" in section and recorded is not None:
            results[name] = recorded
        save(path, results)
    if failed:
        raise RuntimeError(f"these sections failed: {', '.join(failed)}") from next(iter(failed.values()))


def main(argv=None):
    options = parse(argv)
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")
    for name, process in PROCESSES.items():
        if getattr(options, name):
            process(options)
            return
    options.output.mkdir(parents=True, exist_ok=True)
    path = options.output / "benchmarks.json"
    results = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    if options.report_only:
        save(path, results)
        return
    with tempfile.TemporaryDirectory() as scratch:
        options.states = Path(scratch) / "states"  # of Whisper, which one section leaves to another
        run_sections(options, path, results)


if __name__ == "__main__":
    main()
