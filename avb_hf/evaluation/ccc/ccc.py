"""Concordance correlation coefficient (CCC) as a module of the `evaluate` library."""

import datasets
import evaluate
import numpy as np

from avb_hf.evaluation.metrics import METRICS
from avb_hf.tasks import TaskSpec


class CCC(evaluate.Metric):
    """CCC, Pearson's correlation and the A-VB organisers' CCC of one or more columns."""

    def _info(self) -> evaluate.MetricInfo:
        number = datasets.Value("float64")
        return evaluate.MetricInfo(
            description="Concordance correlation coefficient with population moments, per column and as their mean.",
            inputs_description=(
                "predictions, references: numbers, or lists with one number per label; a NaN reference is missing. "
                "label_names: names of the columns (default: 0, 1, ...)."
            ),
            citation="L. I-K. Lin (1989). A concordance correlation coefficient to evaluate reproducibility. "
            "Biometrics 45(1), 255-268.",
            features=[
                datasets.Features({"predictions": kind, "references": kind})
                for kind in (datasets.Sequence(number), number)
            ],
        )

    def _compute(
        self,
        predictions: list[float] | list[list[float]],
        references: list[float] | list[list[float]],
        label_names: list[str] | None = None,
    ) -> dict[str, float]:
        scores, labels = (
            np.asarray(values, dtype=np.float64).reshape(len(values), -1) for values in (predictions, references)
        )
        names = label_names or [str(column) for column in range(scores.shape[1])]
        return METRICS["ccc"](scores, labels, TaskSpec("ccc", tuple(names)))
