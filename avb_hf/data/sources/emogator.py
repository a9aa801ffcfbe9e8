"""EmoGator's own layout: `NNNNNN-EE-I.mp3`, contributor, category 01-30 and instance."""

import re
from pathlib import Path

from datasets import DatasetDict

from avb_hf.data.arguments import DataArguments
from avb_hf.data.clips import Clip, make_splits
from avb_hf.data.locations import corpus_folder
from avb_hf.data.problems import raise_together
from avb_hf.data.splits import draw_by_group, parse_split
from avb_hf.data.tables import forbid_other_columns, read_table, require_columns
from avb_hf.tasks import TASKS, TaskSpec, load_task

FILE_NAME = re.compile(r"(\d{6})-(\d{2})-(\d+)\.mp3", re.IGNORECASE)


def infer_task(args: DataArguments) -> TaskSpec:
    """Return the task that `args.task` names, by default the 30 categories."""
    return load_task(args.task or "emogator")


def draws_split(args: DataArguments) -> bool:
    """Whether the corpus comes without a split file, so that `load` draws the split."""
    return _split_file(args) is None


def load(task: TaskSpec, args: DataArguments) -> DatasetDict:
    """Find the clips below the folder, by their names, and split them by contributor.

    Args:
        task: A classification into EmoGator's categories, or some of their names in another order.
        args: `data_dir` is the folder; `split_file`, by default `split.csv` in it, says which contributor is where, and
            without one `split_seed` draws a 70/15/15 split.

    Returns:
        The splits, as `make_splits` builds them, in the order of the file names.

    Raises:
        ValueError: If no clip is found, or a contributor, category or clip cannot be used.
    """
    folder = corpus_folder(args)
    if not task.is_classification:
        raise ValueError(f"--source emogator has classes, task {task.name!r} is a {task.problem_type}")
    paths = sorted((path for path in folder.rglob("*") if FILE_NAME.fullmatch(path.name)), key=lambda path: path.name)
    if not paths:
        raise ValueError(f"{folder}: no file below it is named NNNNNN-EE-I.mp3 (contributor, category, instance)")
    names = [FILE_NAME.fullmatch(path.name) for path in paths]
    contributors = [name[1] for name in names if name]
    split_file = _split_file(args)
    if split_file is None:
        splits = draw_by_group(contributors, args.split_seed)
    else:
        splits = _read_splits(split_file, contributors)
    clips = [
        Clip(path.stem, path, split, {task.label_columns[0]: _category(path)}, str(path), contributor)
        for path, split, contributor in zip(paths, splits, contributors, strict=True)
    ]
    return make_splits(clips, task, args, folder, test_is_labelled=True)


def _split_file(args: DataArguments) -> Path | None:
    if args.split_file is not None:
        return Path(args.split_file)
    default = corpus_folder(args) / "split.csv"
    return default if default.is_file() else None


def _read_splits(path: Path, contributors: list[str]) -> list[str]:
    table = read_table(path)
    require_columns(table, ("contributor", "split"))
    forbid_other_columns(table, ("contributor", "split"))
    splits: dict[str, str] = {}
    problems = []
    for row in table.rows:
        contributor = row.cells["contributor"]
        if contributor in splits:
            problems.append(f"{row.place}: contributor {contributor} is listed twice")
        try:
            splits[contributor] = parse_split(row.cells["split"])
        except ValueError as error:
            problems.append(f"{row.place}: {error}")
    unlisted = sorted(set(contributors) - set(splits))
    problems += [f"contributor {contributor} has clips and is not listed" for contributor in unlisted]
    raise_together(problems, str(path))
    return [splits[contributor] for contributor in contributors]


def _category(path: Path) -> str:
    names = TASKS["emogator"].labels
    number = int(path.name.split("-")[1])
    if not 1 <= number <= len(names):
        raise ValueError(f"{path}: the category must be 01-{len(names)}, got {number:02d}")
    return names[number - 1]
