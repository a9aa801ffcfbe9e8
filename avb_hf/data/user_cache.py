"""Where on the user's disk things are kept that can be made again."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class CacheFolderError(ValueError, RuntimeError):
    """The user's cache cannot be used; a RuntimeError too, as that of a user without a home is.

    Args:
        reason: Why.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(f"{reason}; name another folder by AVB_HF_CACHE, or train without one by --cache off")


def cache_folder() -> Path:
    """Return the folder that `AVB_HF_CACHE` names, else `~/.cache/avb_hf`; it need not exist.

    Raises:
        CacheFolderError: If the user has no home to look in.
    """
    try:
        return Path(os.environ.get("AVB_HF_CACHE") or Path.home() / ".cache" / "avb_hf").expanduser()
    except RuntimeError as error:
        raise CacheFolderError(f"the cache has no place ({error})") from error


@contextmanager
def writing_to_cache() -> Iterator[None]:
    """Turn what the system says, where the cache cannot be written, into what can be done.

    Raises:
        CacheFolderError: If there is any OSError.
    """
    try:
        yield
    except OSError as error:
        raise CacheFolderError(f"the cache {cache_folder()} cannot be written ({error})") from error
