import sys

import pytest
from matplotlib import image
from matplotlib.colors import same_color
from matplotlib.figure import Figure

from avb_hf.experiments import pictures
from avb_hf.experiments.published import read_published
from avb_hf.experiments.scores import Score
from avb_hf.experiments.tables import Result

pytestmark = pytest.mark.slow


@pytest.fixture
def figures(monkeypatch):
    """The figures that are saved."""
    seen, save = [], Figure.savefig
    monkeypatch.setattr(
        Figure, "savefig", lambda self, *args, **kwargs: (seen.append(self), save(self, *args, **kwargs))
    )
    return seen


def results(num_speakers):
    """Table III with our scores of the first three of its four cells, each one point above the published one."""
    published = [score for score in read_published() if score.table == "III"]
    ours = [
        Score(s.percent / 100 + 0.01, s.percent / 100 - 0.02, s.percent / 100 + 0.05, 9, num_speakers)
        for s in published
    ]
    return [
        *(Result(score, own, ("done",)) for score, own in zip(published[:3], ours[:3], strict=True)),
        Result(published[3], None, ("failed: no luck",)),
    ]


def drawn(panel, colour):
    """Each thing in a colour on a panel, as its horizontal reach."""
    lines = [line for line in panel.get_lines() if same_color(line.get_color(), colour)]
    assert all(line.get_visible() for line in lines)
    bars = [
        bar.get_segments()[0][:, 0].tolist() for bar in panel.collections if same_color(bar.get_colors()[0], colour)
    ]
    return sorted(line.get_xdata()[0] for line in lines if line.get_marker() in ("o", "D")), bars


def test_scores_intervals_and_published_are_where_they_belong(figures, tmp_path):
    told = results(num_speakers=3)
    assert pictures.draw(told, ["III"], tmp_path) == [tmp_path / "table_III_val.png"]
    assert [path.name for path in tmp_path.iterdir()] == ["table_III_val.png"]
    assert image.imread(tmp_path / "table_III_val.png").shape[0] > 200
    panels = figures[0].axes
    assert len(panels) == 2
    for panel, backbone in zip(panels, ("large-lv60k", "xlsr53"), strict=True):
        part = [result for result in told if result.published.backbone == backbone]
        assert drawn(panel, pictures.PUBLISHED)[0] == pytest.approx(sorted(r.published.percent for r in part))
        scored = [result.percent for result in part if result.percent is not None]
        ours, intervals = drawn(panel, pictures.OURS)
        assert ours == pytest.approx(sorted(percent[0] for percent in scored))
        assert sorted(intervals) == [pytest.approx(percent[1:]) for percent in sorted(scored, key=lambda p: p[1])]
        left, right = panel.get_xlim()
        bottom, top = panel.get_ylim()
        assert all(left < end < right for interval in intervals for end in interval)
        assert all(top < line.get_ydata()[0] < bottom for line in panel.get_lines())


@pytest.mark.parametrize(("num_speakers", "label"), [(3, "ours, 95 % interval"), (0, "ours, 95 % interval over clips")])
def test_the_legend_says_what_was_drawn_for_the_intervals(num_speakers, label, figures, tmp_path):
    pictures.draw(results(num_speakers), ["III"], tmp_path)
    assert {text.get_text() for text in figures[0].legends[0].get_texts()} == {label, "published"}


def test_without_matplotlib_the_extra_is_named_and_nothing_else_needs_it(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ImportError, match=r"pip install 'avb_hf\[reproduce\]'"):
        pictures.draw(results(3), ["III"], tmp_path)
