"""The flags that say what of a prepared corpus is published, and where."""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from avb_hf.data.arguments import CorpusArguments, OnBadAudio
from avb_hf.tasks import check_choice

# Sources of whose folders `avb prepare` makes one of the same kind.
PREPARED_SOURCES = ("avb", "emogator", "manifest")


@dataclass
class PublishArguments(CorpusArguments):
    """What of a prepared corpus is published, and where (flags of `avb prepare`)."""

    _argument_group_name: ClassVar[str] = "publish"

    push_to_hub: str | None = field(
        default=None, metadata={"help": "publish OUT as this dataset of the Hub (user/name), in Parquet files"}
    )
    parquet_dir: str | None = field(
        default=None, metadata={"help": "folder for these files, with or without a push (default: OUT-parquet)"}
    )
    public: bool = field(default=False, metadata={"help": "let everybody read the dataset; needs --license"})
    license: str | None = field(
        default=None, metadata={"help": "licence of audio and labels in the Hub's words, such as cc-by-4.0 or other"}
    )
    on_bad_audio: OnBadAudio = field(
        default="error", metadata={"help": "rows without usable audio: publish nothing, or publish without them"}
    )
    max_bad_audio: float = field(
        default=0.01, metadata={"help": "largest share of the clips that --on_bad_audio skip leaves out"}
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        given = [item.name for item in dataclasses.fields(self) if getattr(self, item.name) != item.default]
        if given and not self.is_wanted:
            raise ValueError(f"--{given[0]} says what is published: give --push_to_hub or --parquet_dir as well")
        check_choice("--source of a prepared corpus", self.source, PREPARED_SOURCES)
        if self.public and self.push_to_hub is None:
            raise ValueError("--public belongs to --push_to_hub")
        if self.license is not None and not re.fullmatch(r"[a-z0-9][a-z0-9.-]*", self.license):
            raise ValueError(f"--license must be an identifier of the Hub, such as cc-by-4.0, got {self.license!r}")
        if self.public and self.license is None:
            raise ValueError("--public needs --license, which says what everybody may do with audio and labels")

    @property
    def is_wanted(self) -> bool:
        """Whether anything is published, on the Hub or in a folder."""
        return self.push_to_hub is not None or self.parquet_dir is not None

    def find_folder(self, out: str | Path) -> Path:
        """Return the folder that takes the Parquet files.

        Args:
            out: The folder with the prepared clips.
        """
        from avb_hf.data.prepare.path_tables import followed  # brings pyarrow, which no --help should wait for

        out = followed(out)
        return followed(self.parquet_dir or out.with_name(f"{out.name}-parquet"))
