"""EmoGator's own layout: `NNNNNN-EE-I.mp3`, contributor, category 01-30 and instance."""

import re
from pathlib import Path

import pyarrow as pa

from avb_hf.data.arguments import DataArguments
from avb_hf.data.findings import CorpusError, Finding
from avb_hf.data.listing import Clip, Listing
from avb_hf.data.locations import corpus_folder
from avb_hf.data.splits import draw_by_group, parse_split
from avb_hf.data.tables import forbid_other_columns, read_table, require_columns
from avb_hf.tasks import TASKS, TaskSpec, load_task

FILE_NAME = re.compile(r"(\d{6})-(\d{2})-(\d+)\.(?:mp3|wav)", re.IGNORECASE)


def infer_task(args: DataArguments) -> TaskSpec:
    """Return the task that `args.task` names, by default the 30 categories."""
    return load_task(args.task or "emogator")


def draws_split(args: DataArguments) -> bool:
    """Whether the corpus comes without a split file, so that `list_clips` draws the split."""
    return _split_file(args) is None


def list_clips(task: TaskSpec, args: DataArguments, findings: list[Finding]) -> Listing:
    """Find the clips below the folder, by their names, and split them by contributor.

    Args:
        task: A classification into EmoGator's categories, or some of their names in another order.
        args: `data_dir` is the folder; `split_file`, by default `split.csv` in it, says which contributor is where, and
            without one `split_seed` draws a 70/15/15 split.
        findings: Takes up contributors and categories that cannot be used.

    Returns:
        The clips in the order of the file names.

    Raises:
        ValueError: If no clip is found, or no split can be drawn.
    """
    folder = corpus_folder(args)
    if not task.is_classification:
        raise ValueError(f"--source emogator has classes, task {task.name!r} is a {task.problem_type}")
    paths = sorted((path for path in folder.rglob("*") if FILE_NAME.fullmatch(path.name)), key=lambda path: path.name)
    if not paths:
        message = "no file below it is named NNNNNN-EE-I.mp3 (contributor, category, instance)"
        raise CorpusError([Finding("no_clips", message, path=str(folder))])
    contributors = [path.name[:6] for path in paths]
    split_file = _split_file(args)
    splits: dict[str, str | None]
    if split_file is None:
        splits = dict(zip(contributors, draw_by_group(contributors, args.split_seed), strict=True))
    else:
        splits = _read_splits(split_file, contributors, findings)
    clips = [
        Clip(path.stem, str(path), splits[contributor], None, contributor)
        for path, contributor in zip(paths, contributors, strict=True)
    ]
    cells = pa.table({task.label_columns[0]: list(map(_category, paths))})
    return Listing(clips, cells, folder, test_is_labelled=True, folder=folder)


def _split_file(args: DataArguments) -> Path | None:
    if args.split_file is not None:
        return Path(args.split_file)
    default = corpus_folder(args) / "split.csv"
    return default if default.is_file() else None


def _read_splits(path: Path, contributors: list[str], findings: list[Finding]) -> dict[str, str | None]:
    table = read_table(path, findings)
    require_columns(table, ("contributor", "split"))
    forbid_other_columns(table, ("contributor", "split"))
    splits: dict[str, str | None] = {}
    for row in table.rows:
        contributor = row.cells["contributor"]
        if contributor in splits:
            findings.append(Finding("bad_row", f"contributor {contributor} is listed twice", place=row.place))
        try:
            splits[contributor] = parse_split(row.cells["split"])
        except ValueError as error:
            splits[contributor] = None
            findings.append(Finding("unknown_split", str(error), place=row.place))
    for contributor in sorted(set(contributors) - set(splits)):
        splits[contributor] = None
        message = f"contributor {contributor} has clips and is not listed"
        findings.append(Finding("unlisted_speaker", message, path=str(path)))
    return splits


def _category(path: Path) -> str:
    """Return the name of the category in a file's name, and where there is none such its number, which is no class."""
    number = path.name.split("-")[1]
    names = dict(enumerate(TASKS["emogator"].labels, start=1))
    return names.get(int(number), number)
