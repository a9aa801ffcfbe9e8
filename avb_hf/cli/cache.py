"""`avb cache`: list and clear what is kept on disk because it can be made again."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Any, ClassVar

from transformers.hf_argparser import HfArg

from avb_hf.cli.flags import FlagParser, print_help

USAGE = "avb cache [--clear KEY ...] [--clear_all]"


@dataclass
class CacheArguments:
    """What is to be deleted."""

    _argument_group_name: ClassVar[str] = "cache"

    clear: list[str] | None = HfArg(default=None, help="keys of the frozen states to delete")  # type: ignore[assignment]
    clear_all: bool = HfArg(default=False, help="delete all frozen states")  # type: ignore[assignment]


def main(argv: list[str]) -> int:
    """List the frozen states that are cached, or delete some.

    Args:
        argv: Flags.

    Raises:
        ValueError: If a key does not exist.
    """
    if "-h" in argv or "--help" in argv:
        print_help([CacheArguments], USAGE)
        return 0
    (args,) = FlagParser([CacheArguments], usage=USAGE).parse(argv)
    from avb_hf.training.state_cache import clear_cache, list_caches, states_folder

    caches = list(list_caches())
    keys = [cache.folder.name for cache in caches] if args.clear_all else args.clear
    if keys is not None:
        freed = sum(clear_cache(key) for key in keys)
        sys.stdout.write(f"deleted {len(keys)} of {len(caches)}, {freed / 1e6:.1f} MB\n")
        return 0
    sys.stdout.write(f"{states_folder()}\n")
    for cache in caches:
        sys.stdout.write(
            f"  {cache.folder.name} {cache.size / 1e6:>9.1f} MB {cache.num_clips:>6} clips  {_describe(cache.facts)}\n"
        )
    return 0


def _describe(facts: dict[str, Any]) -> str:
    depth = "front end" if facts["block"] == 0 else f"block {facts['block']}"
    return f"{facts['encoder']['model_type']}, {depth}, {facts['precision']} stored as {facts['dtype']}"
