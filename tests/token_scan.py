"""Looks for tokens of the Hub in what tests leave behind."""

import os
from collections.abc import Container
from pathlib import Path

from avb_hf.data.hub_account import LIKE_A_TOKEN

LARGEST = 1_000_000
# Folders of tests that plant tokens on purpose, as pytest names them but for the number behind it.
PLANTED = {
    "test_a_token_among_what_is_pus",  # training/test_hub.py
    "test_a_file_with_a_token_is_no",  # data/test_hub_account.py
    "test_the_scan_of_files_finds_w",  # test_token_scan.py
}


def files_with_tokens(folder: Path, planted: Container[str] = ()) -> list[Path]:
    """Text files below a folder that hold what looks like a token; large and binary ones are not looked into.

    Args:
        folder: Where to look; links are not followed.
        planted: Folders right below it that are left out, without the digits at the end of their names.
    """
    found = []
    for top, folders, names in os.walk(folder):
        if Path(top) == folder:
            folders[:] = [name for name in folders if name.rstrip("0123456789") not in planted]
        found += [path for path in map(Path(top).joinpath, names) if _holds_token(path)]
    return found


def _holds_token(path: Path) -> bool:
    if not path.is_file() or path.is_symlink() or path.stat().st_size > LARGEST:
        return False
    content = path.read_bytes()
    return b"\0" not in content[:1024] and LIKE_A_TOKEN.search(content) is not None
