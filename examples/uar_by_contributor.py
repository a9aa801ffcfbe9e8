"""UAR of each EmoGator test contributor and its standard error: `python examples/uar_by_contributor.py OUT`."""

import sys
from pathlib import Path

import pandas as pd
from sklearn.metrics import recall_score

from avb_hf import TASKS


def main(folder: str) -> None:
    table = pd.read_csv(Path(folder) / "predictions.csv", dtype={"file_id": str})
    test = table[table["split"] == "test"]
    if not test["file_id"].str.fullmatch(r"\d{6}-\d{2}-\d+").all():
        raise SystemExit(f"{folder}: these are no EmoGator clips, whose names tell contributor and category")
    contributor, category, _ = zip(*test["file_id"].str.split("-"), strict=True)
    truth = [TASKS["emogator"].labels[int(number) - 1] for number in category]
    frame = pd.DataFrame({"contributor": contributor, "truth": truth, "prediction": list(test["prediction"])})
    scores = pd.Series(
        {
            name: recall_score(part["truth"], part["prediction"], average="macro", labels=part["truth"].unique())
            for name, part in frame.groupby("contributor")
        }
    )
    print(scores.round(3).to_string())
    print(f"mean {scores.mean():.4f}, standard error over {len(scores)} contributors {scores.sem():.4f}")


if __name__ == "__main__":
    main(sys.argv[1])
