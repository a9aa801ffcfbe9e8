"""Which clip is trained on, validated on and tested on: reading, drawing and writing it."""

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from datasets import DatasetDict

from avb_hf.data.findings import CorpusError, Finding
from avb_hf.tasks import check_choice

SPLITS = ("train", "validation", "test")
SPLIT_NAMES = {
    "train": "train",
    "val": "validation",
    "validation": "validation",
    "dev": "validation",
    "valid": "validation",
    "test": "test",
}
# 70/15/15 in every 20 clips, and of any 7 in a row one for validation and one for test.
_DEALING = tuple("validation" if i in (3, 10, 17) else "test" if i in (6, 13, 19) else "train" for i in range(20))
_HELD_OUT_SHARE = 0.15


def parse_split(value: str) -> str:
    """Return the name of the split that `value` means, in any case.

    Raises:
        ValueError: If it is no known word for one.
    """
    check_choice("split", value.strip().lower(), tuple(SPLIT_NAMES))
    return SPLIT_NAMES[value.strip().lower()]


def draw_by_group(groups: Sequence[str], seed: int) -> list[str]:
    """Draw a split in which all clips of a group (a speaker) stand on one side.

    Args:
        groups: Group of each clip.
        seed: Same seed and same set of groups, same split, whatever the order of the clips.

    Returns:
        Split of each clip: of the groups 15 % (at least one) go to validation, as many to test, the rest to train.

    Raises:
        CorpusError: If there are fewer than three groups.
    """
    names = sorted(set(groups))
    if len(names) < 3:
        message = f"a split disjoint by speaker needs at least 3 speakers, got {names}; give the split itself"
        raise CorpusError([Finding("undrawable_split", message)])
    order = np.random.default_rng(seed).permutation(names)
    held_out = max(1, round(_HELD_OUT_SHARE * len(names)))
    assigned = dict.fromkeys(names, "train")
    assigned |= dict.fromkeys(order[:held_out].tolist(), "validation")
    assigned |= dict.fromkeys(order[held_out : 2 * held_out].tolist(), "test")
    return [assigned[group] for group in groups]


def draw_by_class(classes: Sequence[str], seed: int) -> list[str]:
    """Draw a 70/15/15 split of every class; clips of one class, where there are no classes.

    Args:
        classes: Class of each clip.
        seed: Same seed and same clips in the same order, same split.

    Returns:
        Split of each clip. A class of seven or more clips is in all three splits.

    Raises:
        CorpusError: If there are fewer than seven clips.
    """
    if len(classes) < 7:
        message = f"a split can be drawn from 7 clips or more, got {len(classes)}; give the split itself"
        raise CorpusError([Finding("undrawable_split", message)])
    random = np.random.default_rng(seed)
    rank = {name: position for position, name in enumerate(random.permutation(sorted(set(classes))).tolist())}
    class_by_class = sorted(random.permutation(len(classes)).tolist(), key=lambda index: rank[classes[index]])
    drawn = [""] * len(classes)
    for position, index in enumerate(class_by_class):
        drawn[index] = _DEALING[position % len(_DEALING)]
    return drawn


def write_split_table(splits: DatasetDict, path: Path) -> None:
    """Write which clip is in which split as a CSV file with the columns `file_id` and `split`."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["file_id", "split"])
        for name, split in splits.items():
            writer.writerows([file_id, name] for file_id in split.with_format(None)["file_id"])


def subsample(splits: DatasetDict, max_train: int | None, max_other: int | None, seed: int) -> DatasetDict:
    """Keep a random part of each split, in the split's order.

    Args:
        splits: The corpus.
        max_train: Most clips of the train split; None keeps all.
        max_other: Most clips of each other split; None keeps all.
        seed: Seed of the draw.

    Raises:
        ValueError: If a number is below 1.
    """
    limits = {name: max_train if name == "train" else max_other for name in splits}
    for name, limit in limits.items():
        if limit is not None and limit < 1:
            raise ValueError(f"number of {name} clips must be at least 1, got {limit}")
    return DatasetDict(
        {
            name: split
            if (limit := limits[name]) is None or limit >= len(split)
            else split.select(sorted(np.random.default_rng(seed).choice(len(split), limit, replace=False).tolist()))
            for name, split in splits.items()
        }
    )
