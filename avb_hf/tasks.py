"""What a model predicts: label names, kind of problem, loss, score and label range, as data.

This is the only place of the package where a label name is written.
"""

from __future__ import annotations

import dataclasses
import difflib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

import yaml

ProblemType = Literal["regression", "single_label_classification"]
LossName = Literal["ccc", "mse", "cross_entropy"]
MetricName = Literal["ccc", "uar"]

EMOTIONS = (
    "Awe", "Excitement", "Amusement", "Awkwardness", "Fear", "Horror", "Distress", "Triumph", "Sadness", "Surprise",
)  # fmt: skip
COUNTRIES = ("China", "United States", "South Africa", "Venezuela")
VOCALISATIONS = ("Gasp", "Laugh", "Cry", "Scream", "Grunt", "Groan", "Pant", "Other")
EMOGATOR_CATEGORIES = (
    "Adoration", "Amusement", "Anger", "Awe", "Confusion", "Contempt", "Contentment", "Desire", "Disappointment",
    "Disgust", "Distress", "Ecstasy", "Elation", "Embarrassment", "Fear", "Guilt", "Interest", "Neutral", "Pain",
    "Pride", "Realization", "Relief", "Romantic Love", "Sadness", "Serenity", "Shame", "Surprise (Negative)",
    "Surprise (Positive)", "Sympathy", "Triumph",
)  # fmt: skip

DEFAULT_METRICS: dict[str, MetricName] = {"regression": "ccc", "single_label_classification": "uar"}
DEFAULT_LOSSES: dict[str, LossName] = {"regression": "ccc", "single_label_classification": "cross_entropy"}

RESERVED_LABELS = ("file_id", "split", "prediction", "official", "ccc", "uar")


def check_choice(name: str, value: Any, allowed: tuple[Any, ...]) -> None:
    """Raise a ValueError that lists what is allowed and names the nearest, unless `value` is in `allowed`."""
    if value in allowed:
        return
    near = difflib.get_close_matches(str(value), [str(option) for option in allowed], n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    raise ValueError(f"{name} must be one of {list(allowed)}, got {value!r}{hint}")


@dataclass(frozen=True)
class TaskSpec:
    """One prediction task.

    Attributes:
        name: Key of the task, as in the official file names.
        labels: Output columns in order: label names of a regression, class names of a classification.
        problem_type: Kind of problem, in the words of transformers' configurations.
        metric: Headline score.
        loss: Training loss unless a flag names another.
        label_range: Lowest and highest possible label, or None where labels are unbounded or classes.
        allow_missing: Whether an empty or NaN label means "not rated" instead of an error.
        class_column: Table column that holds the class name of a classification.
        label_file: File in `<data_dir>/labels` of the official layout that holds the task's labels.
        submission_name: The task's word in the name of a contest file (`A-VB-<word>_<team>_<n>.csv`).
        accepted_spellings: Column names that are read as one of `labels` (misspelling to label), never written.

    Raises:
        ValueError: If the fields contradict each other.
    """

    name: str
    labels: tuple[str, ...]
    problem_type: ProblemType = "regression"
    metric: MetricName = "ccc"
    loss: LossName = "ccc"
    label_range: tuple[float, float] | None = None
    allow_missing: bool = False
    class_column: str | None = None
    label_file: str | None = None
    submission_name: str | None = None
    accepted_spellings: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, allowed in (("problem_type", ProblemType), ("metric", MetricName), ("loss", LossName)):
            check_choice(f"task {self.name!r}: {name}", getattr(self, name), get_args(allowed))
        if not self.labels or len(set(self.labels)) != len(self.labels):
            raise ValueError(f"task {self.name!r}: labels must be distinct and at least one, got {list(self.labels)}")
        clashing = [label for label in self.labels if label in RESERVED_LABELS or label.endswith(("_ccc", "_uar"))]
        if clashing:
            raise ValueError(f"task {self.name!r}: labels that our own files use otherwise: {clashing}")
        expected = DEFAULT_METRICS[self.problem_type]
        if self.metric != expected:
            raise ValueError(
                f"task {self.name!r}: metric of {self.problem_type} must be {expected!r}, got {self.metric!r}"
            )
        if (self.loss == "cross_entropy") != self.is_classification:
            raise ValueError(f"task {self.name!r}: loss {self.loss!r} does not fit problem_type {self.problem_type!r}")
        if self.label_range is not None and not self.label_range[0] < self.label_range[1]:
            raise ValueError(f"task {self.name!r}: label_range must be low < high, got {self.label_range}")
        if self.is_classification and len(self.labels) < 2:
            raise ValueError(f"task {self.name!r}: two classes are the least, got {list(self.labels)}")
        if self.is_classification and self.class_column is None:
            raise ValueError(f"task {self.name!r}: a classification names its class_column")

    @property
    def is_classification(self) -> bool:
        """Whether each clip has one class rather than a number per label."""
        return self.problem_type == "single_label_classification"

    @property
    def label_columns(self) -> tuple[str, ...]:
        """Columns of a label table that the task reads."""
        return (self.class_column,) if self.class_column is not None else self.labels

    @property
    def headline(self) -> str:
        """Name of the headline score among the evaluation results, for instance `eval_ccc`."""
        return f"eval_{self.metric}"


TASKS: dict[str, TaskSpec] = {
    "high": TaskSpec("high", EMOTIONS, label_range=(0.0, 1.0), label_file="high_info.csv", submission_name="High"),
    "two": TaskSpec(
        "two", ("Valence", "Arousal"), label_range=(0.0, 1.0), label_file="two_info.csv", submission_name="Two"
    ),
    "culture": TaskSpec(
        "culture",
        tuple(f"{country}_{emotion}" for country in COUNTRIES for emotion in EMOTIONS[:-1])
        + tuple(f"{country}_{EMOTIONS[-1]}" for country in COUNTRIES),
        label_range=(0.0, 1.0),
        allow_missing=True,
        label_file="culture_info.csv",
        submission_name="Culture",
        accepted_spellings={"SouthAfrica_Sadness": "South Africa_Sadness"},
    ),
    "type": TaskSpec(
        "type",
        VOCALISATIONS,
        problem_type="single_label_classification",
        metric="uar",
        loss="cross_entropy",
        class_column="Voc_Type",
        label_file="type_info.csv",
        submission_name="Type",
    ),
    "emogator": TaskSpec(
        "emogator",
        EMOGATOR_CATEGORIES,
        problem_type="single_label_classification",
        metric="uar",
        loss="cross_entropy",
        class_column="category",
    ),
}


def task_from_mapping(mapping: dict[str, Any], where: str) -> TaskSpec:
    """Build a user's task from plain values, as a YAML file or flags give them.

    Args:
        mapping: Fields of `TaskSpec` by name; `metric` and `loss` follow from `problem_type` unless given.
        where: What the values came from, for error messages.

    Raises:
        ValueError: If a field is unknown, missing or contradictory.
    """
    names = tuple(f.name for f in dataclasses.fields(TaskSpec))
    for key in mapping:
        check_choice(f"{where}: task field", key, names)
    if not mapping.get("labels"):
        raise ValueError(f"{where}: a task needs `labels`, the label columns or class names in order")
    values = {"name": Path(where).stem, "problem_type": "regression"} | mapping
    check_choice(f"{where}: problem_type", values["problem_type"], get_args(ProblemType))
    values.setdefault("metric", DEFAULT_METRICS[values["problem_type"]])
    values.setdefault("loss", DEFAULT_LOSSES[values["problem_type"]])
    values["labels"] = _checked(where, "labels", values["labels"], str)
    if values.get("label_range") is not None:
        low_high = _checked(where, "label_range", values["label_range"], int | float)
        if len(low_high) != 2:
            raise ValueError(f"{where}: label_range must be two numbers, lowest and highest, got {list(low_high)}")
        values["label_range"] = (float(low_high[0]), float(low_high[1]))
    if not isinstance(values.get("allow_missing", False), bool):
        raise ValueError(f"{where}: allow_missing must be true or false, got {values['allow_missing']!r}")
    return TaskSpec(**values)


def _checked(where: str, name: str, values: Any, kind: Any) -> tuple[Any, ...]:
    if not isinstance(values, list | tuple):
        raise ValueError(f"{where}: {name} must be a list, got {values!r}")
    wrong = [value for value in values if not isinstance(value, kind) or isinstance(value, bool)]
    if wrong:
        raise ValueError(f"{where}: {name} must hold {kind}, got {wrong}; YAML reads a bare yes, no or 1 as no text")
    return tuple(values)


def load_task(name_or_path: str) -> TaskSpec:
    """Return a task of `TASKS` by its key, or read a user's task from a YAML file.

    Raises:
        ValueError: If it is neither a key nor a readable task file.
    """
    if name_or_path in TASKS:
        return TASKS[name_or_path]
    path = Path(name_or_path)
    if path.suffix not in (".yaml", ".yml"):
        check_choice("task (or a .yaml file with one)", name_or_path, tuple(TASKS))
    if not path.is_file():
        raise ValueError(f"task file {name_or_path} does not exist")
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise ValueError(f"task file {path} is no valid YAML: {error}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path}: expected a mapping of task fields, got {type(content).__name__}")
    return task_from_mapping(content, str(path))
