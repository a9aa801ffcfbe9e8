"""UAR of each EmoGator test contributor and of all: `python examples/emogator/uar_by_contributor.py OUT`."""

import sys
from pathlib import Path

import pandas as pd

from avb_hf import TASKS
from avb_hf.evaluation.prediction_files import read_predictions
from avb_hf.evaluation.statistics import group_scores, t_interval

TASK = TASKS["emogator"]


def read_split(folder, split):
    """Return probabilities `(clips, 30)`, categories from 0, and contributors of the clips of a split that a run left.

    A clip's name tells contributor and category, from 1: `NNNNNN-EE-I`.
    """
    table = read_predictions(Path(folder) / "predictions.csv", TASK)
    part = table[table["split"] == split]
    if not part["file_id"].str.fullmatch(r"\d{6}-\d{2}-\d+").all():
        raise SystemExit(f"{folder}: these are no EmoGator clips, whose names tell contributor and category")
    categories = part["file_id"].str[7:9].astype(int) - 1
    return part[list(TASK.labels)].to_numpy(), categories.to_numpy(), part["file_id"].str[:6].to_list()


def contributor_scores(folder, split="test"):
    """Return the UAR of each contributor of a split.

    Everyone gave three clips of each of the 30 categories. So this is the share of right answers among 90, in steps of
    1/90, and its mean over contributors is the UAR of all their clips, as a mean difference is that of two such UARs.
    """
    return group_scores(TASK, *read_split(folder, split))


def main(folder):
    scores = pd.Series(contributor_scores(folder))
    low, high = t_interval(scores)
    print(scores.round(3).to_string())
    print(f"mean {scores.mean():.4f}, standard error over {len(scores)} contributors {scores.sem():.4f}, ", end="")
    print(f"95 % t interval {low:.3f} to {high:.3f}")


if __name__ == "__main__":
    main(sys.argv[1])
