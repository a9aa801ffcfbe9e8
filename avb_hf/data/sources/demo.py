"""The demo corpus as a data source: it is written into the user's cache on first use."""

from __future__ import annotations

import dataclasses
import logging
from pathlib import Path

from avb_hf.data.arguments import DataArguments
from avb_hf.data.demo_corpus import VERSION, write_demo_corpus
from avb_hf.data.findings import Finding
from avb_hf.data.listing import Listing
from avb_hf.data.sources import avb
from avb_hf.data.user_cache import cache_folder
from avb_hf.tasks import TASKS, TaskSpec, load_task

logger = logging.getLogger(__name__)

SEED = 7


def infer_task(args: DataArguments) -> TaskSpec:
    """Return the task that the flags name, and A-VB High if they name none.

    Raises:
        ValueError: If `args.task` is neither a known task nor a readable task file.
    """
    return TASKS["high"] if args.task is None else load_task(args.task)


def list_clips(task: TaskSpec, args: DataArguments, findings: list[Finding]) -> Listing:
    """Return the demo corpus's clips as the `avb` source finds them, and write the corpus before if it is absent.

    Raises:
        ValueError: If a data folder is given, or the task is none of the four A-VB tasks.
    """
    if args.data_dir is not None:
        raise ValueError(
            f"the demo source takes no data_dir, got {args.data_dir!r}; "
            "its corpus lies in the folder that AVB_HF_CACHE names, else in ~/.cache/avb_hf"
        )
    folder = corpus_folder()
    if not (folder / "labels").is_dir():
        logger.info("writing the demo corpus to %s", folder)
        write_demo_corpus(folder, seed=SEED)
    return avb.list_clips(task, dataclasses.replace(args, data_dir=str(folder)), findings)


def corpus_folder() -> Path:
    """Return where the demo corpus lies in the user's cache; the name tells its design and seed."""
    return cache_folder() / f"demo-corpus-v{VERSION}-seed{SEED}"
