"""The flags that say how the clips of a corpus are read and scored."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar, Literal

from avb_hf.data.arguments import Channels, LongClips

Precision = Literal["fp32", "bf16", "auto"]
# Flags that say how the work is done, not what comes out; where clips stand is in the list of clips, and what the model
# is in its digest.
_FREE_TO_CHANGE = ("path_column", "num_workers", "use_cpu", "model_revision")


@dataclass
class PredictArguments:
    """How clips are read and scored (flags of `avb predict`)."""

    _argument_group_name: ClassVar[str] = "predict"

    model_revision: str | None = field(
        default=None, metadata={"help": "branch, tag or commit of a Hub id (default: main)"}
    )
    path_column: str = field(default="path", metadata={"help": "column of a table with the clips' paths"})
    batch_size: int | None = field(
        default=None, metadata={"help": "clips that are run together (default: the fastest of a few, as measured)"}
    )
    precision: Precision = field(
        default="fp32", metadata={"help": "of the backbone; auto measures both, the head always runs in float32"}
    )
    channels: Channels = field(default="mean", metadata={"help": "how several channels become one"})
    max_duration: float = field(default=30.0, metadata={"help": "longest clip in seconds"})
    long_clips: LongClips = field(
        default="error", metadata={"help": "a longer clip is a bad one, or its centre is scored"}
    )
    trim_db: float | None = field(
        default=None, metadata={"help": "trim leading and trailing sound this many dB below the peak (off)"}
    )
    on_bad_audio: Literal["keep", "error"] = field(
        default="keep",
        metadata={"help": "a clip that cannot be used keeps its row, which says why and has no scores, or stops all"},
    )
    num_workers: int | None = field(
        default=None, metadata={"help": "threads that decode ahead of the model (default: one a core, at most 4)"}
    )
    use_cpu: bool = field(default=False, metadata={"help": "leave an accelerator alone"})

    def __post_init__(self) -> None:
        for name in ("batch_size", "num_workers"):
            if getattr(self, name) is not None and getattr(self, name) < 1:
                raise ValueError(f"--{name} must be 1 or more, got {getattr(self, name)}")
        for name in ("max_duration", "trim_db"):
            if getattr(self, name) is not None and not 0 < getattr(self, name) < float("inf"):
                raise ValueError(f"--{name} must be a positive number, got {getattr(self, name)}")

    def settings(self) -> dict[str, Any]:
        """Return the flags on which the scores depend."""
        return {name: value for name, value in asdict(self).items() if name not in _FREE_TO_CHANGE}
