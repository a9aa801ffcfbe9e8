"""The flags of the feature baselines. Imports no torch."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields
from typing import Any, ClassVar

from avb_hf.tasks import LossName


@dataclass
class MlpArguments:
    """How the organisers' MLP is trained; the defaults are theirs."""

    loss: LossName | None = field(
        default=None, metadata={"help": "training loss (default: mse, for classes cross_entropy)"}
    )
    learning_rate: float = field(default=1e-3, metadata={"help": "learning rate of Adam"})
    weight_decay: float = field(default=1e-4, metadata={"help": "L2 penalty in Adam's gradient"})
    batch_size: int = field(default=8, metadata={"help": "training clips a step"})
    num_train_epochs: int = field(default=25, metadata={"help": "most epochs"})
    early_stopping_patience: int = field(
        default=5, metadata={"help": "stop after this many epochs without a better headline score on validation"}
    )

    def __post_init__(self) -> None:
        for name in ("batch_size", "num_train_epochs", "early_stopping_patience"):
            if getattr(self, name) < 1:
                raise ValueError(f"--{name} must be at least 1, got {getattr(self, name)}")
        for name in ("learning_rate", "weight_decay"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise ValueError(f"--{name} must be a number of 0 or more, got {getattr(self, name)}")

    def of_mlp(self) -> dict[str, Any]:
        """Return the fields of this class, without those of a subclass."""
        return {part.name: asdict(self)[part.name] for part in fields(MlpArguments)}


@dataclass
class FunctionalsArguments(MlpArguments):
    """How a feature baseline is run (flags of `avb baseline compare` and `avb baseline egemaps`)."""

    _argument_group_name: ClassVar[str] = "functionals and MLP"

    output_dir: str | None = field(
        default=None, metadata={"help": "folder for the model, scores and predictions (required)"}
    )
    seeds: list[int] = field(
        default_factory=lambda: [1, 2, 3, 4, 5],
        metadata={"help": "an MLP is trained with each; the best on validation is kept and scored"},
    )
    num_workers: int | None = field(
        default=None, metadata={"help": "threads that decode and run openSMILE (default: one a core)"}
    )
    overwrite: bool = field(default=False, metadata={"help": "delete another run in --output_dir first"})
    team_name: str = field(
        default="team", metadata={"help": "team in the name of a contest file: A-VB-High_<team>_<n>.csv"}
    )
    submission: int = field(default=1, metadata={"help": "number in the name of a contest file"})

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.output_dir is None:
            raise ValueError("--output_dir is required: the folder for the model, scores and predictions")
        if not self.seeds or len(set(self.seeds)) < len(self.seeds) or min(self.seeds) < 0:
            raise ValueError(f"--seeds must be distinct numbers of 0 or more, got {self.seeds}")
        if self.num_workers is not None and self.num_workers < 1:
            raise ValueError(f"--num_workers must be at least 1, got {self.num_workers}")
