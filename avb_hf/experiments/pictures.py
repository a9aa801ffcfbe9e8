"""The tables as pictures: our scores with their intervals, and the published ones beside them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from avb_hf.experiments.tables import HEADINGS, LAYOUTS, OVER_CLIPS, Result, arrange, name_of, tables_of
from avb_hf.whole_files import whole_file

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

OURS, PUBLISHED = "#1f5fa8", "#d1722a"


def require_matplotlib() -> None:
    """Refuse to begin where nothing can be drawn.

    Raises:
        ImportError: If matplotlib is not installed.
    """
    if find_spec("matplotlib") is None:
        raise ImportError("the pictures of the tables need matplotlib: pip install 'avb_hf[reproduce]'")


def draw(results: Sequence[Result], asked: Sequence[str], folder: Path) -> list[Path]:
    """Draw each of `tables_of` as `table_<number>_<split>.png`, and return the files.

    Raises:
        ImportError: If matplotlib is not installed.
    """
    require_matplotlib()
    paths = []
    for (table, split), part in tables_of(results, asked).items():
        path = folder / f"table_{table}_{split}.png"
        figure = _draw_table(part, f"Table {table}, {HEADINGS[split]}: {LAYOUTS[table].title}", table)
        with whole_file(path) as draft:
            figure.savefig(draft, dpi=150, format="png")
        paths.append(path)
    return paths


def _draw_table(results: Sequence[Result], title: str, table: str) -> Figure:
    from matplotlib.figure import Figure

    rows, columns, cells = arrange(results, LAYOUTS[table])
    figure = Figure(figsize=(1.8 + 2.6 * len(columns), 1.6 + 0.45 * len(rows)), layout="constrained")
    panels = figure.subplots(1, len(columns), sharey=True, squeeze=False)[0]
    for panel, column in zip(panels, columns, strict=True):
        _draw_column(panel, [cells.get((row, column)) for row in rows])
        metric = next(cells[row, column].published.metric for row in rows if (row, column) in cells)
        panel.set_title(name_of(column), fontsize=10)
        panel.set_xlabel(f"{metric.upper()} in percent")
    panels[0].set_yticks(range(len(rows)), [name_of(row) for row in rows])
    panels[0].set_ylim(len(rows) - 0.5, -0.5)
    figure.suptitle(title, fontsize=11)
    markers = {label: marker for panel in panels for marker, label in _legend_of(panel)}
    if markers:
        figure.legend(markers.values(), markers.keys(), loc="outside lower center", ncols=2, frameon=False)
    return figure


def _draw_column(panel: Axes, results: Sequence[Result | None]) -> None:
    for place, result in enumerate(results):
        if result is None:
            continue
        if result.percent is not None and result.ours is not None:
            ours, low, high = result.percent
            # The percentile interval of a mean need not hold it.
            reach = [[max(ours - low, 0)], [max(high - ours, 0)]]
            label = f"ours, 95 % interval{'' if result.ours.num_speakers else OVER_CLIPS}"
            panel.errorbar([ours], [place - 0.1], xerr=reach, fmt="o", color=OURS, capsize=3, label=label)
        if result.published.percent is not None:
            panel.plot([result.published.percent], [place + 0.1], "D", mfc="none", color=PUBLISHED, label="published")
    panel.grid(axis="x", alpha=0.3)


def _legend_of(panel: Axes) -> Iterator[tuple[Any, str]]:
    return zip(*panel.get_legend_handles_labels(), strict=True)
