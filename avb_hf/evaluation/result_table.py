"""The table of scores that ends a run."""

from avb_hf.evaluation.metrics import LABEL_SCORES
from avb_hf.tasks import TaskSpec


def result_table(results: dict[str, float], task: TaskSpec, prefix: str) -> str:
    """Lay out the scores of one split as text: label, score and number of labelled samples, the headline last.

    Args:
        results: Scores by name, as a run writes them (`test_ccc`, `test_ccc_<label>`, `test_n_<label>`, ...).
        task: Names the labels and the headline.
        prefix: What precedes the names, without the underscore: `eval` or `test`.

    Returns:
        Lines of equal width without a final line break; a label without a score shows a dash.
    """
    each = LABEL_SCORES[task.metric]
    scored = [label for label in task.labels if f"{prefix}_{each}_{label}" in results]
    noun = "classes" if task.is_classification else "labels"
    of = f"{len(scored)} of {len(task.labels)}" if len(scored) < len(task.labels) else f"{len(scored)}"
    rows = [
        (label, _score(results, f"{prefix}_{each}_{label}"), _count(results, f"{prefix}_n_{label}"))
        for label in task.labels
    ]
    headline = f"{prefix}_{task.metric}"
    last = (f"{headline} (mean of {of} {noun})", _score(results, headline), _count(results, f"{prefix}_num_samples"))
    return _aligned([("label", each, "n"), *rows, last])


def _score(results: dict[str, float], key: str) -> str:
    return f"{results[key]:.4f}" if key in results else "-"


def _count(results: dict[str, float], key: str) -> str:
    return f"{results[key]:.0f}" if key in results else "-"


def _aligned(rows: list[tuple[str, str, str]]) -> str:
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    lines = [f"{name:<{widths[0]}}  {score:>{widths[1]}}  {n:>{widths[2]}}" for name, score, n in rows]
    rule = "-" * len(lines[0])
    return "\n".join([lines[0], rule, *lines[1:-1], rule, lines[-1]])
