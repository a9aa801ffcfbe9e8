"""Where a corpus's files are, and that they are inside the corpus."""

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


def is_inside(path: Path, folder: Path) -> bool:
    """Whether a file, symbolic links followed, is inside a folder."""
    return path.resolve().is_relative_to(folder.resolve())


def find_orphans(listing: Listing) -> list[Path]:
    """Return the audio files of the corpus's folder that no clip is; none, where the folder may hold others."""
    if listing.folder is None:
        return []
    named = {path.resolve() for path in (*(clip.path for clip in listing.clips), *listing.others)}
    found = (path for path in listing.folder.rglob("*") if path.suffix.lower() in AUDIO_SUFFIXES and path.is_file())
    return sorted(path for path in found if path.resolve() not in named)
