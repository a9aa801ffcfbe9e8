"""The scores as modules of the `evaluate` library, loaded from the installed package without a network."""

from pathlib import Path

import evaluate

from avb_hf.evaluation.metrics import METRICS
from avb_hf.tasks import check_choice


def load_metric(name: str) -> evaluate.EvaluationModule:
    """Return a metric as an `evaluate` module.

    Args:
        name: `ccc` (predictions and references are numbers, or lists with one number per label) or `uar` (both are
            class indices). `compute` takes the names of labels or classes as `label_names`.

    Raises:
        ValueError: If there is no such metric.
    """
    check_choice("metric", name, tuple(METRICS))
    return evaluate.load(str(Path(__file__).resolve().parent / name))
