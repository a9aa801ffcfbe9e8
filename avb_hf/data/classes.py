"""How many clips each class has, and what is odd about names and numbers of classes."""

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from avb_hf.data.findings import Finding
from avb_hf.data.labels import MISSING_CLASS, is_missing
from avb_hf.data.listing import Clip
from avb_hf.data.splits import SPLITS
from avb_hf.tasks import TaskSpec

MIN_TRAIN_CLIPS = 3
MAX_NUMBERS = 10

ClassCounts = dict[str, dict[str, int]]


def count_classes(clips: Sequence[Clip], labels: np.ndarray, task: TaskSpec) -> ClassCounts:
    """Count the clips of each class.

    Args:
        clips: The clips of all splits.
        labels: Index of each clip's class; a clip without one does not count.
        task: What the labels mean.

    Returns:
        Number of clips by split and class, all classes of the task; without splits that have no class at all. Empty for
        a regression.
    """
    counts: ClassCounts = {}
    if not task.is_classification:
        return counts
    for clip, index in zip(clips, labels.tolist(), strict=True):
        if clip.split is not None and index != MISSING_CLASS:
            counts.setdefault(clip.split, dict.fromkeys(task.labels, 0))[task.labels[index]] += 1
    return {split: counts[split] for split in SPLITS if split in counts}


def find_odd_classes(counts: ClassCounts) -> Iterator[Finding]:
    """Find classes that differ only in case or surrounding blanks, and those that have too few clips.

    Args:
        counts: Number of clips by split and class.
    """
    alike = defaultdict(list)
    for name in next(iter(counts.values()), {}):
        alike[name.strip().casefold()].append(name)
        numbers = {split: held[name] for split, held in counts.items()}
        if min(numbers.values()) == 0 or numbers.get("train", MIN_TRAIN_CLIPS) < MIN_TRAIN_CLIPS:
            text = ", ".join(f"{number} in {split}" for split, number in numbers.items())
            yield Finding("rare_class", f"class {name!r} has these numbers of clips: {text}")
    for names in alike.values():
        if len(names) > 1:
            numbers = {name: sum(held[name] for held in counts.values()) for name in names}
            text = ", ".join(f"{name!r} ({number} clips)" for name, number in numbers.items())
            yield Finding("similar_classes", f"are these one class? {text}")


def find_numbered_classes(column: str, cells: Iterable[str]) -> Iterator[Finding]:
    """Find out whether the labels of a regression look like classes: few different values, all whole numbers.

    Args:
        column: Name of the label column.
        cells: Its cells.
    """
    distinct = {cell for cell in cells if not is_missing(cell)}
    try:
        numbers = {float(cell) for cell in distinct}
    except ValueError:
        return  # what is no number is an error of its own
    if 2 <= len(numbers) <= MAX_NUMBERS and all(math.isfinite(number) and number.is_integer() for number in numbers):
        listed = ", ".join(f"{number:.0f}" for number in sorted(numbers))
        message = (
            f"column {column} holds only the whole numbers {listed}: it is read as a regression; "
            "--problem_type single_label_classification makes classes of it"
        )
        yield Finding("classes_as_numbers", message)
