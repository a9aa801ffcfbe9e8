"""Where a corpus's files are, and that they are inside the corpus."""

import os
from pathlib import Path

from avb_hf.data.arguments import DataArguments
from avb_hf.data.listing import Listing

AUDIO_SUFFIXES = (
    ".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aif", ".aiff", ".au", ".m4a", ".aac", ".wma", ".webm",
    ".wave", ".aifc", ".caf", ".w64", ".rf64", ".amr",
)  # fmt: skip


def corpus_folder(args: DataArguments) -> Path:
    """Return the folder that `data_dir` names.

    Raises:
        ValueError: If none is named or it does not exist.
    """
    if args.data_dir is None:
        raise ValueError(f"--source {args.source} needs --data_dir, the folder of the corpus")
    folder = Path(args.data_dir)
    if not folder.is_dir():
        raise ValueError(f"data_dir {folder} is not a folder")
    return folder


class LinkFollower:
    """Follows symbolic links of many files, and looks at a folder once; links must not change while it is in use."""

    def __init__(self) -> None:
        self._folders: dict[str, str] = {}
        self._no_links: dict[str, frozenset[str]] = {}

    def follow(self, path: str | Path) -> str:
        """Return the absolute path that is left when all symbolic links are followed."""
        text = os.fspath(path)
        folder, separator, name = text.rpartition(os.sep)
        folder += separator
        if folder not in self._no_links:
            self._no_links[folder] = _names_of_no_links(folder)
        # A name that the folder does not list may still be one of its files, in other letters.
        if name in self._no_links[folder] or not (name in ("", ".", "..") or os.path.islink(text)):
            return self._follow_folder(folder) + name
        return os.path.realpath(text)

    def is_inside(self, path: str | Path, folder: str | Path) -> bool:
        """Whether a file, symbolic links followed, is inside a folder."""
        return (self.follow(path) + os.sep).startswith(self._follow_folder(os.fspath(folder)))

    def _follow_folder(self, folder: str) -> str:
        """Return the folder's own path with a separator at its end."""
        if folder not in self._folders:
            self._folders[folder] = os.path.join(os.path.realpath(folder), "")
        return self._folders[folder]


def _names_of_no_links(folder: str) -> frozenset[str]:
    try:
        with os.scandir(folder or os.curdir) as entries:
            return frozenset(entry.name for entry in entries if not entry.is_symlink())
    except OSError:  # the file will be missed when it is read
        return frozenset()


def find_orphans(listing: Listing) -> list[Path]:
    """Return the audio files of the corpus's folder that no clip is; none, where the folder may hold others."""
    if listing.folder is None:
        return []
    links = LinkFollower()
    named = {links.follow(path) for path in (*(clip.path for clip in listing.clips), *listing.others)}
    found = (path for path in listing.folder.rglob("*") if path.suffix.lower() in AUDIO_SUFFIXES and path.is_file())
    return sorted(path for path in found if links.follow(path) not in named)
