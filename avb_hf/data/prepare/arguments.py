"""The flags that say how raw recordings are prepared."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar, Literal

from avb_hf.data.arguments import Channels

Subtype = Literal["PCM_16", "FLOAT"]
# Flags that say how the work is done, not what comes out.
_FREE_TO_CHANGE = ("num_workers", "overwrite")


@dataclass
class PrepareArguments:
    """How raw recordings are prepared (flags of `avb prepare`)."""

    _argument_group_name: ClassVar[str] = "prepare"

    channels: Channels = field(default="mean", metadata={"help": "how several channels become one"})
    peak_db: float = field(default=-3.0, metadata={"help": "level of each clip's loudest sample, in dB of full scale"})
    keep_level: bool = field(default=False, metadata={"help": "leave the clips as loud as they are"})
    subtype: Subtype = field(default="PCM_16", metadata={"help": "samples of the wav files, in libsndfile's words"})
    manifest: list[str] | None = field(
        default=None, metadata={"help": "CSV, TSV or Parquet tables, in RAW or not, that name clips by path"}
    )
    path_column: str = field(default="path", metadata={"help": "manifest column with the clip's path"})
    id_column: str | None = field(
        default=None,
        metadata={"help": "manifest column with the File_ID (default: the path, kept in a column File_ID)"},
    )
    num_workers: int | None = field(default=None, metadata={"help": "processes (default: one a core)"})
    overwrite: bool = field(default=False, metadata={"help": "delete what an earlier call made in OUT first"})

    def __post_init__(self) -> None:
        if not -96 < self.peak_db <= 0:
            raise ValueError(f"--peak_db must be above -96 and at most 0 dB, got {self.peak_db}")
        if self.num_workers is not None and self.num_workers < 1:
            raise ValueError(f"--num_workers must be 1 or more, got {self.num_workers}")

    def settings(self) -> dict[str, Any]:
        """Return the flags on which the content of OUT depends."""
        return {name: value for name, value in asdict(self).items() if name not in _FREE_TO_CHANGE}
