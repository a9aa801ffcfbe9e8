"""The README's table of systems on EmoGator's split: `python examples/emogator/table.py --data_dir EMOGATOR ...`.

A system is one run or several, each with a folder below `--output_dir`. A run that left its predictions is read, not
repeated; one that was cut off starts over. Cached states lie there as well, and the run that makes them pays for them.
`table.md` and `table.json` are made of the runs that are there.
"""

import argparse
import csv
import os
import subprocess
import sys
from pathlib import Path

import logistic
import numpy as np
import report

FOLDS = 6
CORPUS = ("--source", "emogator", "--data_dir", "{data_dir}")
BACKBONE = ("--model_name_or_path", "{model_name_or_path}")
FROZEN = (
    *("train", *CORPUS, *BACKBONE, "--freeze", "backbone", "--rnn", "none", "--pool_over", "states"),
    *("--learning_rate", "1e-3", "--num_train_epochs", "20", "--precision", "fp32", "--seed", "0"),
)
HEADS = {
    f"{pooling}_{block}": ("--pooling", pooling, "--feature_layer", block)
    for pooling in ("mean_std", "attentive")
    for block in "56"
}


def avb(*flags):
    """Return a run that is a command line of `avb`; its flags may hold names of ours in braces."""

    def run(options, folder):
        command = [flag.format_map(vars(options)) for flag in flags]
        subprocess.run(
            [sys.executable, "-m", "avb_hf", *command, "--output_dir", str(folder), "--overwrite"], check=True
        )

    return run


def cross_validated(fold):
    """Return a run of the best frozen head that is tested on a sixth of the contributors and validated on the next."""

    def run(options, folder):
        if not all(report.is_finished(options.output_dir, head) for head in RUNS["frozen"]):
            raise SystemExit("cross_validation takes the best head of frozen: make that first")
        head = HEADS[report.measure(options.output_dir, RUNS["frozen"])["choice"]]
        contributors = sorted({path.name[:6] for path in Path(options.data_dir).rglob("*-*-*.mp3")})
        order = np.random.default_rng(0).permutation(contributors).tolist()
        splits = dict.fromkeys(order, "train") | dict.fromkeys(order[(fold + 1) % FOLDS :: FOLDS], "val")
        splits |= dict.fromkeys(order[fold::FOLDS], "test")
        folder.parent.mkdir(parents=True, exist_ok=True)
        table = folder.with_suffix(".csv")
        with table.open("w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows([("contributor", "split"), *sorted(splits.items())])
        avb(*FROZEN, *head, "--split_file", str(table))(options, folder)

    return run


# System: its runs, by the folder of each below the output folder.
RUNS = {
    "chance": {"chance": logistic.chance},
    "duration": {"duration": logistic.duration},
    "egemaps": {"egemaps": avb("baseline", "egemaps", *CORPUS)},
    "compare": {"compare": avb("baseline", "compare", *CORPUS)},
    "emo18": {"emo18": avb("baseline", "emo18", *CORPUS, "--precision", "fp32", "--seed", "0")},
    "whisper": {"whisper": logistic.whisper},
    "frozen": {f"frozen/{head}": avb(*FROZEN, *flags) for head, flags in HEADS.items()},
    "fine_tuned": {"fine_tuned": avb("train", "emogator", "--data_dir", "{data_dir}", *BACKBONE)},
    "cross_validation": {f"cross_validation/{fold}": cross_validated(fold) for fold in range(FOLDS)},
}


def parse(argv):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data_dir", required=True, help="folder of the EmoGator corpus, with its split.csv")
    parser.add_argument("--model_name_or_path", default="openai/whisper-base", help="the Whisper backbone")
    parser.add_argument("--output_dir", type=Path, default=Path("runs/emogator_table"), help="folder of runs and table")
    parser.add_argument(
        "--only", nargs="*", choices=RUNS, default=list(RUNS), help="systems to run; without names none is"
    )
    return parser.parse_args(argv)


def main(argv=None):
    options = parse(argv)
    options.output_dir.mkdir(parents=True, exist_ok=True)
    os.environ["AVB_HF_CACHE"] = str(options.output_dir / "cache")
    for system in options.only:
        for run, command in RUNS[system].items():
            if not report.is_finished(options.output_dir, run):
                began = sum(os.times()[:4])
                command(options, options.output_dir / run)
                report.note_cost(options.output_dir, run, (sum(os.times()[:4]) - began) / 60)
    print(report.write(options.output_dir, RUNS))


if __name__ == "__main__":
    main()
