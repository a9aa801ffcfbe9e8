"""Clips as a source names them."""

from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa


@dataclass(frozen=True, slots=True)
class Clip:
    """One clip as a source names it.

    Attributes:
        file_id: Name of the clip, without brackets.
        path: Its audio file.
        split: train, validation or test; None where the source names an unknown one.
        place: Where the clip is named (`high_info.csv, line 7`), for messages.
        speaker: Who is heard, if known.
    """

    file_id: str
    path: str
    split: str | None
    place: str | None
    speaker: str | None = None


@dataclass(frozen=True)
class Listing:
    """All clips that a source names.

    Attributes:
        clips: The clips, in the order of the splits' rows.
        cells: Text of the label cells, a column each; a row each clip.
        where: The table or folder that names them, for messages.
        test_is_labelled: Whether an unusable label of a test clip is an error, as in the other splits; otherwise the
            test split is labelled only if every row's labels parse, lie in range and vary.
        folder: Folder in which every audio file should be named; None where there may be others.
        others: Files that belong to the corpus although they are no clip's, as the second one of a name.
    """

    clips: list[Clip]
    cells: pa.Table
    where: Path
    test_is_labelled: bool = False
    folder: Path | None = None
    others: tuple[str, ...] = ()
