"""Where a corpus's files are, and that they are inside the corpus."""

from pathlib import Path

from avb_hf.data.arguments import DataArguments


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


def check_inside(path: Path, folder: Path) -> None:
    """Check that a file, symbolic links followed, is inside a folder.

    Raises:
        ValueError: If it is not.
    """
    if not path.resolve().is_relative_to(folder.resolve()):
        raise ValueError(f"{path} leads out of the data folder {folder}")
