"""Scores with and without each speed-up, and at each depth of freezing."""

from math import hypot
from statistics import mean

import numpy as np

from report.cells import mean_and_error, middle, number, standard_error, table

INTRODUCTION = (
    "Test scores of the last epoch, so that no choice among epochs blurs them, as mean over seeds with its standard "
    "error. Differences of an arm are from the first one at the same seeds, in brackets in units of the standard error "
    "of two independent means and, behind it, of the differences seed by seed; where chance alone moves scores a third "
    "of them is above 1. *Same bytes* stands where a speed-up claims to change nothing at all: each `predictions.csv` "
    "is the first arm's.\n\n"
)
ARMS = {
    "demo": (
        "Demo corpus",
        "The quickstart's recipe with `--freeze feature_encoder`, {epochs} epochs; the first arm has `--length_pool 1 "
        "--cache off --precision fp32 --optim adamw_torch`, the others differ from it by what they are called, and "
        "by the cache, which as the second shows changes nothing.",
    ),
    "emogator": (
        "EmoGator",
        "Whisper's encoder frozen, `--rnn none --pooling mean --precision fp32`, {epochs} epochs, {clips} training "
        "and {test_clips} test clips; the first arm has our defaults otherwise. Beside the error over seeds stands "
        "that over the test contributors.",
    ),
    "emogator, live": (
        "EmoGator, states computed in every step",
        "The same in {epochs} epochs, since the second arm runs Whisper in each of them.",
    ),
}
DEPTHS = {
    "depths of demo": (
        "Depth of freezing, demo corpus",
        "The quickstart's wav2vec 2.0 with 12 blocks, trained on task `high` for {pretraining_epochs} epochs, whose "
        "backbone is then fine-tuned to task `type` for {epochs} epochs with so many blocks frozen, in fp32.",
    ),
    "depths of emogator": (
        "Depth of freezing, EmoGator",
        "The packaged recipe for EmoGator, which fine-tunes Whisper's six blocks, cut to {epochs} epochs and {clips} "
        "training clips, one seed; the error is over the test contributors. The states of block 6 were there before.",
    ),
}


def scores(results):
    section = results["scores"]
    parts = [_part(section, name, *facts, _compared) for name, facts in ARMS.items()]
    parts += [_part(section, name, *facts, _depths) for name, facts in DEPTHS.items()]
    missing = f"\n{section['missing']}\n" if "missing" in section else ""
    return INTRODUCTION + "\n".join(filter(None, parts)) + missing


def _part(section, name, title, text, write):
    found = section.get(name)
    return f"### {title}\n\n{text.format(**found['facts'])}\n\n{write(found)}" if found else ""


def _compared(found):
    arms = found["arms"]
    first = next(iter(arms.values()), [])
    grouped = any("by_contributor" in run for run in first)
    rows = [_compared_row(name, runs, first, grouped) for name, runs in arms.items()]
    head = ["arm", "seeds", f"mean {metric_of(found)}", "error over seeds", *(["over contributors"] if grouped else [])]
    return table([*head, "difference", "largest difference of predictions", "same bytes", "s of training"], rows)


def metric_of(found):
    return next((run["metric"].upper() for runs in found["arms"].values() for run in runs), "score")


def _compared_row(name, runs, first, grouped):
    values = [run["score"] for run in runs]
    return [
        name,
        str(len(runs)),
        number(mean(values)),
        number(standard_error(values)),
        *([number(error_over_contributors(runs))] if grouped else []),
        "" if runs is first else difference(runs, first),
        "" if runs is first else f"{max(run['difference'] for run in runs):.1e}",
        "" if runs is first or not runs[0]["claims_same_bytes"] else same_bytes(runs),
        f"{middle(runs, 'train_runtime'):.1f}",
    ]


def difference(runs, first):
    """Return the mean difference between two arms at the seeds that both have, and how many standard errors it is.

    The first error is that of two independent means, the second that of the differences seed by seed.
    """
    seeds = {run["seed"] for run in runs}
    ours, others = [run["score"] for run in runs], [run["score"] for run in first if run["seed"] in seeds]
    apart = mean(ours) - mean(others)
    errors = hypot(standard_error(ours) or 0, standard_error(others) or 0), standard_error(np.subtract(ours, others))
    multiples = "; ".join(f"{abs(apart) / error:.1f}" for error in errors if error)
    return f"{apart:+.4f}" + (f" ({multiples})" if multiples else "")


def same_bytes(runs):
    return "yes" if all(run["same_bytes"] for run in runs) else "**no**"


def error_over_contributors(runs):
    """Return the standard error over contributors of their scores, each the mean over seeds."""
    names = runs[0]["by_contributor"]
    return standard_error([mean(run["by_contributor"][name] for run in runs) for name in names])


def _depths(found):
    rows = [
        [
            depth,
            f"{middle(runs, 'train_runtime'):.1f}",
            f"{runs[0]['cache_runtime']:.1f}",
            mean_and_error([run["score"] for run in runs]),
            *([number(error_over_contributors(runs), 3)] if "by_contributor" in runs[0] else []),
        ]
        for depth, runs in found["arms"].items()
    ]
    grouped = any(len(row) > 4 for row in rows)
    head = ["--freeze_blocks", "s of training", "making states, s", f"mean {metric_of(found)}"]
    return table([*head, *(["error over contributors"] if grouped else [])], rows)
