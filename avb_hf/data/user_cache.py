"""Where on the user's disk things are kept that can be made again."""

import os
from pathlib import Path


def cache_folder() -> Path:
    """Return the folder that `AVB_HF_CACHE` names, else `~/.cache/avb_hf`; it need not exist."""
    return Path(os.environ.get("AVB_HF_CACHE") or Path.home() / ".cache" / "avb_hf").expanduser()
