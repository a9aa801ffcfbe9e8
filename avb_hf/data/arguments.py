"""The flags that say which clips and labels to read, and how."""

from dataclasses import dataclass
from typing import ClassVar, Literal

from transformers.hf_argparser import HfArg

SourceName = Literal["avb", "emogator", "manifest", "hub", "demo"]
Channels = Literal["mean", "first", "error"]
LongClips = Literal["error", "crop"]
OnBadAudio = Literal["error", "skip"]


@dataclass
class CorpusArguments:
    """What a corpus's labels are, and which clip is in which split."""

    _argument_group_name: ClassVar[str] = "data"

    source: SourceName = HfArg(default="avb", help="where clips and labels come from")
    task: str | None = HfArg(
        default=None, help="high, two, culture, type, emogator, or a YAML file that describes a task"
    )
    split_column: str | None = HfArg(
        default=None, help="manifest column with train, val (validation, dev, valid) or test"
    )
    speaker_column: str | None = HfArg(default=None, help="column of a manifest or dataset with the speaker")
    label_columns: list[str] | None = HfArg(
        default=None, help="columns of a manifest or dataset with the labels, in order"
    )
    class_names: list[str] | None = HfArg(
        default=None, help="class names in order (default: sorted, as found in the label column)"
    )
    problem_type: Literal["regression", "single_label_classification"] | None = HfArg(
        default=None,
        help="kind of the label columns (default: numbers are regression, one column of text is classification)",
    )
    label_range: list[float] | None = HfArg(
        default=None, help="lowest and highest label of a regression on label columns"
    )
    allow_missing_labels: bool = HfArg(
        default=False, help="read empty label cells as 'not rated' (default: as the task says)"
    )
    split_file: str | None = HfArg(
        default=None, help="EmoGator: CSV with columns contributor, split (default: DATA_DIR/split.csv)"
    )
    split_seed: int = HfArg(default=0, help="seed of a split that is drawn where the corpus has none")

    def __post_init__(self) -> None:
        if self.split_seed < 0:
            raise ValueError(f"--split_seed must be 0 or more, got {self.split_seed}")


@dataclass
class DataArguments(CorpusArguments):
    """Which clips and labels to read, and how (flags of `run_avb.py` and of the data commands)."""

    data_dir: str | None = HfArg(
        default=None, help="folder of the corpus (for a manifest: what its relative paths are relative to)"
    )
    manifest: str | None = HfArg(default=None, help="CSV, TSV or Parquet table with one clip a row (--source manifest)")
    path_column: str = HfArg(default="path", help="manifest column with the clip's path")
    id_column: str | None = HfArg(
        default=None, help="column of a manifest or dataset with the File_ID (default: a manifest's path as given)"
    )
    dataset_name: str | None = HfArg(
        default=None, help="id of a dataset on the Hub, or folder of Parquet files with the audio (--source hub)"
    )
    dataset_revision: str | None = HfArg(
        default=None, help="branch, tag or commit of the dataset on the Hub (default: main)"
    )
    channels: Channels = HfArg(default="mean", help="how several channels become one")
    max_duration: float = HfArg(default=30.0, help="longest clip in seconds")
    long_clips: LongClips = HfArg(
        default="error", help="what happens to a longer clip: stop and name it, or centre-crop it"
    )
    trim_db: float | None = HfArg(
        default=None, help="trim leading and trailing sound this many dB below the peak (off)"
    )
    on_bad_audio: OnBadAudio = HfArg(
        default="error", help="what happens to clips whose audio cannot be used: stop and name them, or train without"
    )
    max_bad_audio: float = HfArg(default=0.01, help="largest share of the clips that --on_bad_audio skip leaves out")
    max_train_samples: int | None = HfArg(default=None, help="use only this many training clips, drawn by --split_seed")
    max_eval_samples: int | None = HfArg(default=None, help="use only this many clips of each other split")

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("max_duration", "trim_db", "max_train_samples", "max_eval_samples"):
            value = getattr(self, name)
            if value is not None and not 0 < value < float("inf"):
                raise ValueError(f"--{name} must be a positive number, got {value}")
        if not 0 <= self.max_bad_audio < 1:
            raise ValueError(f"--max_bad_audio must be in [0, 1), got {self.max_bad_audio}")
