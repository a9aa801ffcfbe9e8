"""From published scores to the runs that reproduce them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from avb_hf.data.arguments import DataArguments
from avb_hf.experiments.jobs import Run, data_words
from avb_hf.experiments.published import PublishedScore
from avb_hf.tasks import TaskSpec

END2YOU = "end2you"
# The paper's words for the extractors, and their names on the Hub.
EXTRACTORS = {
    "base": "facebook/wav2vec2-base",
    "large": "facebook/wav2vec2-large",
    "large-lv60k": "facebook/wav2vec2-large-lv60",
    "xlsr53": "facebook/wav2vec2-large-xlsr-53",
}
LOSSES = {"ccc": "ccc", "mse": "mse", "ce": "cross_entropy"}
# Epochs of the runs that stop early (Table V).
STOPPED_EARLY = "50"


@dataclass(frozen=True)
class Scale:
    """How large runs are.

    Attributes:
        epochs: Epochs by what the paper says; it says nothing of the organisers' baseline.
        patience: Evaluations without a better score after which the runs of Table V stop.
        flags: Further flags of the proposed model.
        baseline_flags: Further flags of the organisers' baseline.
    """

    epochs: Mapping[str, str]
    patience: str
    flags: tuple[str, ...] = ()
    baseline_flags: tuple[str, ...] = ()


# The paper tells no patience. The organisers trained their baseline for 30 epochs; the precision is that of `paper`.
FULL = Scale({"20": "20", "50": "50", "": "30"}, patience="5", baseline_flags=("--precision", "fp32"))
TINY = Scale(
    {"20": "4", "50": "6", "": "2"},
    patience="2",
    flags=(
        "--states_norm", "layer", "--rnn_hidden_size", "64", "--learning_rate", "0.005", "--weight_decay", "0",
        "--precision", "fp32",
    ),
    baseline_flags=("--learning_rate", "0.001", "--precision", "fp32"),
)  # fmt: skip
# Recipes, and what makes the states of a tiny run cacheable; those of `released` differ from step to step.
RECIPES: dict[str, tuple[str, ...]] = {
    "paper": ("--freeze", "backbone"),
    "released": (),
    "recommended": ("--freeze", "backbone"),
}


@dataclass(frozen=True)
class Settings:
    """What the runs of a grid have in common.

    Attributes:
        tasks: Each task by the word of the published scores.
        data: Which clips and labels are read, by the same word.
        recipe: Recipe of the proposed model.
        extractors: Hub id or folder by the paper's word.
        scale: How large the runs are.
        train_flags: Further flags of the proposed model, which win.
        pinned: Names of flags of the data that were given, and that the recipe has otherwise.
    """

    tasks: Mapping[str, TaskSpec]
    data: Mapping[str, DataArguments]
    recipe: str
    extractors: Mapping[str, str]
    scale: Scale = FULL
    train_flags: tuple[str, ...] = ()
    pinned: frozenset[str] = frozenset()


def run_of(score: PublishedScore, settings: Settings) -> Run:
    """Return the run that gives a score; scores that share a run get equal ones."""
    make_words = _baseline_words if score.backbone == END2YOU else _proposed_words
    parts = (score.task, score.backbone, score.rnn, score.pooling, score.loss, score.epochs)
    return Run(
        label="-".join(filter(None, parts)),
        words=tuple(make_words(score, settings)),
        task=settings.tasks[score.task],
        shape=", ".join(filter(None, (score.backbone, score.rnn and f"rnn {score.rnn}"))),
        states=score.backbone,
    )


def runs_of(scores: Sequence[PublishedScore], settings: Settings) -> list[Run]:
    """Return the distinct runs that give all of some scores, in the order of their first scores."""
    return list(dict.fromkeys(run_of(score, settings) for score in scores))


def _proposed_words(score: PublishedScore, settings: Settings) -> list[str]:
    scale = settings.scale
    words = ["train", settings.recipe, *data_words(settings.data[score.task], settings.pinned)]
    words += ["--model_name_or_path", settings.extractors[score.backbone], "--rnn", score.rnn]
    words += ["--pooling", score.pooling, "--loss", LOSSES[score.loss]]
    words += ["--num_train_epochs", scale.epochs[score.epochs]]
    if score.epochs == STOPPED_EARLY:
        words += ["--early_stopping_patience", scale.patience]
    return [*words, *scale.flags, *settings.train_flags]


def _baseline_words(score: PublishedScore, settings: Settings) -> list[str]:
    words = ["baseline", "emo18", *data_words(settings.data[score.task])]
    return [*words, "--num_train_epochs", settings.scale.epochs[score.epochs], *settings.scale.baseline_flags]
