"""`avb cache`: list and clear what is kept on disk because it can be made again."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from transformers.hf_argparser import HfArg

from avb_hf.cli.flags import FlagParser, print_help
from avb_hf.tasks import check_choice

if TYPE_CHECKING:
    from avb_hf.data.header_index import IndexSummary
    from avb_hf.training.state_cache import CacheSummary

USAGE = "avb cache [--clear KEY ...] [--clear_all]"
# How the names of folders begin that are written on first use, and what they hold.
WRITTEN = {"demo-corpus-": "the demo corpus", "tiny-backbones-": "tiny backbones for a rehearsal of the grid"}


@dataclass
class CacheArguments:
    """What is to be deleted."""

    _argument_group_name: ClassVar[str] = "cache"

    clear: list[str] | None = HfArg(default=None, help="keys of what is to be deleted")  # type: ignore[assignment]
    clear_all: bool = HfArg(default=False, help="delete all that is listed")  # type: ignore[assignment]


@dataclass(frozen=True)
class Kept:
    """One thing in the cache.

    Attributes:
        size: Bytes on disk.
        content: What it holds, in words.
        delete: Deletes it.
    """

    size: int
    content: str
    delete: Callable[[], Any]


def main(argv: list[str]) -> int:
    """List what the user's cache holds, or delete some of it.

    Args:
        argv: Flags.

    Raises:
        ValueError: If a key does not exist.
    """
    if "-h" in argv or "--help" in argv:
        print_help([CacheArguments], USAGE)
        return 0
    (args,) = FlagParser([CacheArguments], usage=USAGE).parse(argv)
    from avb_hf.data.user_cache import cache_folder

    kept = _list_kept(cache_folder())
    if args.clear is None and not args.clear_all:
        sys.stdout.write(f"{cache_folder()}\n")
        sys.stdout.writelines(f"  {key} {one.size / 1e6:>9.1f} MB  {one.content}\n" for key, one in kept.items())
        return 0
    keys = set(kept if args.clear_all else args.clear)
    for key in sorted(keys):
        check_choice("--clear", key, tuple(kept))
    for key in keys:
        kept[key].delete()
    freed = sum(kept[key].size for key in keys)
    sys.stdout.write(f"deleted {len(keys)} of {len(kept)}, {freed / 1e6:.1f} MB\n")
    return 0


def _list_kept(folder: Path) -> dict[str, Kept]:
    from avb_hf.data.header_index import list_indexes
    from avb_hf.training.state_cache import clear_cache, list_caches

    states = {
        cache.folder.name: Kept(cache.size, _describe_states(cache), partial(clear_cache, cache.folder.name))
        for cache in list_caches()
    }
    headers = {
        index.file.name: Kept(index.size, _describe_headers(index), index.file.unlink) for index in list_indexes()
    }
    written = {
        path.name: Kept(_size(path), content, partial(shutil.rmtree, path))
        for start, content in WRITTEN.items()
        for path in sorted(folder.glob(f"{start}*"))
    }
    return states | headers | written


def _describe_states(cache: CacheSummary) -> str:
    facts = cache.facts or {}
    try:
        depth = "front end" if facts["block"] == 0 else f"block {facts['block']}"
        made = f"{facts['encoder']['model_type']}, {depth}, {facts['precision']} stored as {facts['dtype']}"
    except (KeyError, TypeError):
        made = "damaged, or of another version"
    return f"frozen states of {cache.num_clips} clips: {made}"


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _describe_headers(index: IndexSummary) -> str:
    if index.audio is None:
        return "headers, damaged"
    return f"headers of {index.num_files} files below {index.audio}"
