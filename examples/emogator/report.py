"""From the runs that are there to `table.md` and `table.json`: nothing is trained here."""

import json

import numpy as np
from uar_by_contributor import TASK, contributor_scores, read_split

from avb_hf.evaluation.metrics import METRICS
from avb_hf.evaluation.statistics import paired_t_interval, t_interval

CHOICE = "choice.txt"  # what a run of several settings took
OURS = "fine_tuned"
TITLES = {
    "chance": "chance",
    "duration": "duration alone, logistic regression",
    "egemaps": "eGeMAPS, MLP",
    "compare": "ComParE, MLP",
    "emo18": "Emo-18",
    "whisper": "frozen Whisper, mean and deviation, logistic regression",
    "frozen": "ours, frozen",
    OURS: "ours, fine-tuned",
}


def is_finished(output_dir, run):
    """Whether a run has left its predictions, which it does last."""
    return (output_dir / run / "predictions.csv").is_file()


def note_cost(output_dir, run, minutes):
    """Keep the CPU minutes, user and system, of a run and its children."""
    path = output_dir / "costs.json"
    path.write_text(json.dumps(_costs(output_dir) | {run: minutes}, indent=1) + "\n", encoding="utf-8")


def measure(output_dir, runs):
    """Return the scores of the run with the best validation UAR, and the CPU minutes of all; None if none is there."""
    folders = {run: output_dir / run for run in runs if is_finished(output_dir, run)}
    if not folders:
        return None
    uars = {run: _uar(folder, "validation") for run, folder in folders.items()}
    best = max(uars, key=uars.__getitem__)
    choice = folders[best] / CHOICE
    return {
        "choice": choice.read_text(encoding="utf-8").strip() if choice.is_file() else folders[best].name,
        "validation_uar": uars[best],
        "test_uar": _uar(folders[best], "test"),
        "contributors": contributor_scores(folders[best]),
        "cpu_minutes": _total_cost(output_dir, folders),
    }


def compare(row, ours):
    """Add to a row by how much ours is above it for each test contributor, and in the mean with its 95 % interval."""
    names, scores = zip(*ours["contributors"].items(), strict=True)
    others = [row["contributors"][name] for name in names]
    row["differences"] = dict(zip(names, np.subtract(scores, others).tolist(), strict=True))
    row["mean_difference"] = float(np.mean(scores) - np.mean(others))
    row["low"], row["high"] = paired_t_interval(scores, others)
    row["undecided"] = row["low"] <= 0 <= row["high"]


def cross_validation(output_dir, runs):
    """Return the UAR of every contributor, each from the fold that was tested on it; None while a fold is missing."""
    if not all(is_finished(output_dir, run) for run in runs):
        return None
    scores = {}
    for run in runs:
        scores |= contributor_scores(output_dir / run)
    low, high = t_interval(list(scores.values()))
    mean = sum(scores.values()) / len(scores)
    return {"uar": mean, "low": low, "high": high, "contributors": scores, "cpu_minutes": _total_cost(output_dir, runs)}


def write(output_dir, runs):
    """Write `table.md` and `table.json`, and return the page."""
    rows = {system: measure(output_dir, runs[system]) for system in TITLES}
    rows = {system: row for system, row in rows.items() if row is not None}
    for system, row in rows.items():
        if OURS in rows and system != OURS:
            compare(row, rows[OURS])
    folds = cross_validation(output_dir, runs["cross_validation"])
    text = json.dumps({"systems": rows, "cross_validation": folds}, indent=1)
    (output_dir / "table.json").write_text(text + "\n", encoding="utf-8")
    page = _table(rows) + (_differences(rows[OURS]) if OURS in rows else "") + (_folds(folds) if folds else "")
    (output_dir / "table.md").write_text(page, encoding="utf-8")
    return page


def _table(rows):
    names = list(next(iter(rows.values()))["contributors"]) if rows else []
    differences = [f"Δ {name}" for name in [*names, "mean", "95 % interval"]]
    head = ["", "validation UAR", "test UAR", *differences, "CPU min"]
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *(_cells(*item) for item in rows.items())]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _differences(ours):
    count = len(ours["contributors"])
    return (
        f"\nΔ: UAR of {TITLES[OURS]}, less that of the row, for each of the {count} test contributors and in the mean, "
        f"with Student's interval of the mean over these {count} ({count - 1} degrees of freedom); undecided where it "
        "includes zero. CPU min: of all runs of the row.\n"
    )


def _cells(system, row):
    title = TITLES[system] + (f" ({row['choice']})" if row["choice"] != system else "")
    compared = ["-"] * (len(row["contributors"]) + 2)
    if "differences" in row:
        interval = f"{row['low']:+.3f} to {row['high']:+.3f}" + ", undecided" * row["undecided"]
        compared = [*(f"{value:+.3f}" for value in [*row["differences"].values(), row["mean_difference"]]), interval]
    return [title, f"{row['validation_uar']:.3f}", f"{row['test_uar']:.3f}", *compared, _minutes(row)]


def _folds(folds):
    scores = sorted(folds["contributors"].values())
    return (
        f"\nFrozen, cross-validated over {len(scores)} contributors: UAR {folds['uar']:.3f}, 95 % t interval "
        f"{folds['low']:.3f} to {folds['high']:.3f} ({len(scores) - 1} degrees of freedom); contributors from "
        f"{scores[0]:.3f} to {scores[-1]:.3f}; {_minutes(folds)} CPU min. The head is the one that is best on the "
        "table's validation contributors, whom folds test too: there it may score a little too high.\n"
    )


def _minutes(row):
    return "?" if row["cpu_minutes"] is None else f"{row['cpu_minutes']:.1f}"


def _total_cost(output_dir, runs):
    costs = _costs(output_dir)
    return sum(costs[run] for run in runs) if costs.keys() >= set(runs) else None


def _costs(output_dir):
    path = output_dir / "costs.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def _uar(folder, split):
    preds, labels, _ = read_split(folder, split)
    return METRICS["uar"](preds, labels, TASK)["uar"]
