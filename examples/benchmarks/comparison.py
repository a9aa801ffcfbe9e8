"""Runs that are trained and tested side by side: each one's score, and how far its predictions are from the first's."""

import json
import tempfile
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path

import numpy as np
import ours
import pandas as pd

SEEDS = (1, 2, 3)
# It takes more of them to tell a small effect from chance.
MANY_SEEDS = tuple(range(1, 11))


@dataclass(frozen=True)
class Arm:
    """One way to train.

    Attributes:
        flags: What it adds to the recipe.
        claims_same_bytes: Whether on a CPU it is to predict exactly what the first arm predicts.
        seeds: With which it is trained.
    """

    flags: list = field(default_factory=list)
    claims_same_bytes: bool = False
    seeds: tuple = SEEDS


class Comparison:
    """Trains and tests arms, and writes what came of it into a section.

    Args:
        options: Those of the command line.
        section: Takes up the results.
        save: Writes the section down.
    """

    def __init__(self, options, section, save):
        self.options, self.section, self.save = options, section, save

    def compare(self, name, facts, recipe, arms, cache, by_contributor=False):
        """Train each arm with each of its seeds and test it.

        Args:
            name: Of this comparison.
            facts: What a reader should know of it.
            recipe: Flags that all arms share.
            arms: The arms by name.
            cache: Folder of cached states.
            by_contributor: Whether the clips are EmoGator's, and scored by contributor as well.
        """
        found = self.section[name] = {"facts": facts, "arms": {}}
        first = {}
        for arm_name, arm in arms.items():
            for seed in arm.seeds[:1] if self.options.quick else arm.seeds:
                self.options.say(f"{name}, {arm_name}, seed {seed}")
                run, predictions = train_and_test([*recipe, *arm.flags, "--seed", seed], cache)
                first.setdefault(seed, predictions)
                table, others = read(predictions), read(first[seed])
                apart = table.select_dtypes("number") - others.select_dtypes("number")
                run |= {"seed": seed, "difference": float(np.abs(apart.to_numpy()).max())}
                run |= {"claims_same_bytes": claims(arm), "same_bytes": predictions == first[seed]}
                run |= {"by_contributor": uar_by_contributor(table)} if by_contributor else {}
                found["arms"].setdefault(arm_name, []).append(run)
                found["facts"]["test_clips"] = len(table)
                self.save()


def train_and_test(flags, cache):
    """Return score and runtimes of a run, and the bytes of its `predictions.csv`."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "run"
        result = ours.train([*flags, "--eval_strategy", "no", "--do_predict"], cache, out)
        results = json.loads((out / "all_results.json").read_text())
        metric = "uar" if "test_uar" in results else "ccc"
        run = {"metric": metric, "score": results[f"test_{metric}"]}
        run |= {name: result[name] for name in ("train_runtime", "cache_runtime")}
        return run, (out / "predictions.csv").read_bytes()


def read(predictions):
    return pd.read_csv(BytesIO(predictions), dtype={"file_id": str, "prediction": str})


def claims(arm):
    import torch

    return arm.claims_same_bytes and not torch.cuda.is_available()


def uar_by_contributor(table):
    """Return the unweighted average recall of each contributor's clips, whose names tell contributor and category."""
    from avb_hf.tasks import TASKS

    parts = table["file_id"].str.split("-", expand=True)
    truth = np.array(TASKS["emogator"].labels)[parts[1].astype(int) - 1]
    recalls = (table["prediction"] == truth).groupby([parts[0], parts[1]]).mean()
    return recalls.groupby(level=0).mean().to_dict()


def broken_claims(section):
    """Return the names of the arms that do not predict what the first one does, though they claim to."""
    comparisons = {name: found for name, found in section.items() if isinstance(found, dict) and "arms" in found}
    return [
        f"{name}, {arm}, seed {run['seed']}"
        for name, found in comparisons.items()
        for arm, runs in found["arms"].items()
        for run in runs
        if run["claims_same_bytes"] and not run["same_bytes"]
    ]
