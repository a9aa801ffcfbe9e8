"""Where clips and labels come from: a module a source, with `infer_task(args)`, `list_clips(task, args, findings)`."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType

from datasets import DatasetDict

from avb_hf.data.arguments import DataArguments
from avb_hf.data.corpus import make_splits
from avb_hf.data.findings import Finding
from avb_hf.data.listing import Listing
from avb_hf.data.sources import avb, demo, emogator, hub, manifest
from avb_hf.data.sources.label_columns import TASK_FLAGS
from avb_hf.data.splits import subsample
from avb_hf.tasks import TaskSpec

SOURCES: dict[str, ModuleType] = {"avb": avb, "emogator": emogator, "manifest": manifest, "hub": hub, "demo": demo}

# Sources, and the flags that they alone read: given with another, these would be ignored.
_OWN_FLAGS: dict[tuple[str, ...], tuple[str, ...]] = {
    ("emogator",): ("split_file",),
    ("manifest",): ("manifest", "split_column"),
    ("hub",): ("dataset_name", "dataset_revision"),
    ("manifest", "hub"): ("id_column", "speaker_column", *TASK_FLAGS),
}


def infer_task(args: DataArguments) -> TaskSpec:
    """Return the task that the flags name or describe.

    Raises:
        ValueError: If they do neither, or belong to another source.
    """
    _check_flags(args)
    return SOURCES[args.source].infer_task(args)


def list_clips(task: TaskSpec, args: DataArguments, findings: list[Finding]) -> Listing:
    """Return all clips that `args` names.

    Args:
        task: What the labels mean.
        args: Which corpus to read.
        findings: Takes up what is wrong with the rows that name the clips.

    Raises:
        ValueError: If there is nothing to go on with, or a flag belongs to another source.
    """
    _check_flags(args)
    return SOURCES[args.source].list_clips(task, args, findings)


def load_corpus(task: TaskSpec, args: DataArguments, skipped: list[Finding] | None = None) -> DatasetDict:
    """Read the corpus that `args` names, cut to `max_train_samples` and `max_eval_samples`.

    Args:
        task: What the labels mean.
        args: Which corpus to read, and how.
        skipped: Takes up why each clip was left out that `on_bad_audio="skip"` leaves out.

    Returns:
        Splits `train`, `validation` and, if there is one, `test`; `avb_hf.data.corpus.make_splits` tells the columns.

    Raises:
        ValueError: If the corpus cannot be used, or a flag belongs to another source.
    """
    findings: list[Finding] = []
    with _uncollected():
        splits = make_splits(list_clips(task, args, findings), task, args, findings, skipped)
    return subsample(splits, args.max_train_samples, args.max_eval_samples, args.split_seed)


def resolve_commit(args: DataArguments) -> str | None:
    """Return the commit at which a dataset of the Hub is read; None where the corpus is not there.

    Raises:
        ValueError: If a flag belongs to another source, or there is no such dataset.
        OSError: If the Hub cannot be reached, and the dataset is not in the cache.
    """
    _check_flags(args)
    return hub.resolve_commit(args) if args.source == "hub" else None


def splits_were_drawn(args: DataArguments) -> bool:
    """Whether the corpus lacks a split of its own, so that the run must write down the one that was drawn."""
    draws = {"emogator": emogator.draws_split, "manifest": manifest.draws_split, "hub": hub.draws_split}
    return args.source in draws and draws[args.source](args)


@contextmanager
def _uncollected() -> Iterator[None]:
    """Pause the garbage collector, which would walk more and more rows again and again; there are no cycles in them."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def _check_flags(args: DataArguments) -> None:
    for owners, flags in _OWN_FLAGS.items():
        for flag in flags:
            if getattr(args, flag) is not None and args.source not in owners:
                raise ValueError(f"--{flag} belongs to --source {' or '.join(owners)}, got --source {args.source}")
