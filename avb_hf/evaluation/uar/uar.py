"""Unweighted average recall (UAR) as a module of the `evaluate` library."""

import datasets
import evaluate
import numpy as np

from avb_hf.evaluation.metrics import METRICS
from avb_hf.tasks import TaskSpec


class UAR(evaluate.Metric):
    """Mean recall over the classes present in the references, and the recall of each."""

    def _info(self) -> evaluate.MetricInfo:
        index = datasets.Value("int64")
        return evaluate.MetricInfo(
            description="Unweighted average recall: mean recall over the classes present in the references.",
            inputs_description=(
                "predictions, references: class indices; a reference of -100 is missing. "
                "label_names: names of all classes (default: 0, 1, ... up to the largest index that occurs)."
            ),
            citation="",
            features=datasets.Features({"predictions": index, "references": index}),
        )

    def _compute(
        self, predictions: list[int], references: list[int], label_names: list[str] | None = None
    ) -> dict[str, float]:
        names = label_names or [str(index) for index in range(max(*predictions, *references) + 1)]
        strange = sorted(set(predictions) - set(range(len(names))))
        if strange:
            raise ValueError(f"predictions must be class indices from 0 to {len(names) - 1}, got {strange[:10]}")
        task = TaskSpec(
            "uar",
            tuple(names),
            problem_type="single_label_classification",
            metric="uar",
            loss="cross_entropy",
            class_column="class",
        )
        return METRICS["uar"](np.eye(len(names))[predictions], np.asarray(references), task)
