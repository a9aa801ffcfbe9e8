"""The paper's published scores, as they stand in `published.csv`."""

import csv
from dataclasses import dataclass, fields
from importlib.resources import files


@dataclass(frozen=True)
class PublishedScore:
    """One score of the paper's Tables I to V: a row of `published.csv`, whose columns these are, as text.

    Attributes:
        table: Roman number of the table.
        split: `val` or `test`.
        task: Key of the task.
        backbone: The extractor in the paper's words, or `end2you` for the organisers' baseline.
        rnn: `lstm`, `none`, or empty for the baseline.
        pooling: How frames become one score; empty for the baseline.
        loss: `ccc`, `mse`, `ce`, or empty for the baseline.
        epochs: Number of epochs; empty for the baseline.
        metric: `ccc` or `uar`.
        score_percent: The score in percent; empty where nothing is published.
    """

    table: str
    split: str
    task: str
    backbone: str
    rnn: str
    pooling: str
    loss: str
    epochs: str
    metric: str
    score_percent: str

    @property
    def percent(self) -> float | None:
        """The published score in percent; None if there is none."""
        return float(self.score_percent) if self.score_percent else None


COLUMNS = tuple(field.name for field in fields(PublishedScore))


def read_published() -> list[PublishedScore]:
    """Return all published scores in the order of the paper.

    Source:
        D.-K. Nguyen et al. (2022). Fine-tuning Wav2vec for Vocal-burst Emotion Recognition. Tables I to V.
    """
    text = files("avb_hf.experiments").joinpath("published.csv").read_text(encoding="utf-8")
    return [PublishedScore(**row) for row in csv.DictReader(text.splitlines())]
