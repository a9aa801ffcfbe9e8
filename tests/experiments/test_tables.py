import csv
import re
from functools import partial

import pandas as pd
import pytest
from matplotlib import image

from avb_hf.evaluation.submission import check_submission
from avb_hf.experiments import paper, scores
from avb_hf.experiments.jobs import make_jobs
from avb_hf.experiments.paper import PaperTables
from avb_hf.experiments.published import COLUMNS, read_published
from avb_hf.experiments.runner import carry_out, find_finished
from avb_hf.tasks import TASKS

pytestmark = pytest.mark.slow
ALL = ("I", "II", "III", "IV", "V")
OURS = r"-?\d+\.\d\d \(-?\d+\.\d\d to -?\d+\.\d\d( over clips)?, [12] seeds?\)"
CELL = re.compile(OURS + r" \\\| \d\d\.\d\d \\\| [+-]\d+\.\d\d")


def reproduce(settings, avb, root, tables=ALL, seeds=(1,), team="Owls"):
    experiment = PaperTables(read_published(), tables, settings, team)
    outcomes = carry_out(make_jobs(experiment.runs, seeds, root), avb)
    others = find_finished(make_jobs(experiment.other_runs, seeds, root))
    outcomes |= {job: outcome for job, outcome in others.items() if outcome == "done"}
    return experiment.report(outcomes, root), outcomes


def rows_of(root):
    with (root / "tables.csv").open() as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module", autouse=True)
def few_resamples():
    """What intervals are is tested elsewhere."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scores, "bootstrap_interval", partial(scores.bootstrap_interval, num_resamples=20))
        yield


@pytest.fixture
def undrawn(monkeypatch):
    """Leave the pictures out, which take most of the time."""
    monkeypatch.setattr(paper, "draw", lambda *args: [])


@pytest.fixture(scope="module")
def grid(settings_of, with_speakers, new_avb, tmp_path_factory):
    """Folder, report and outcomes of all tables with two seeds, on speakers and labelled test clips."""
    root = tmp_path_factory.mktemp("grid")
    return root, *reproduce(settings_of(with_speakers), new_avb(), root, seeds=(1, 2))


def test_every_cell_is_filled(grid):
    root, report, outcomes = grid
    rows = rows_of(root)
    assert list(rows[0]) == [*COLUMNS, "ours", "low", "high", "seeds", "n", "status"]
    published = [tuple(row[column] for column in COLUMNS) for row in rows]
    assert published == [tuple(vars(score).values()) for score in read_published()]
    assert {(row["status"], row["seeds"], row["n"]) for row in rows} == {("done", "2", "9")}
    assert all(float(row["low"]) <= float(row["high"]) for row in rows)
    assert report.is_complete
    assert len(outcomes) == 72


def test_the_markdown_has_the_papers_layout(grid):
    _, report, _ = grid
    titles = re.findall(r"^## (.*)$", report.text, re.MULTILINE)
    assert [title.partition(":")[0] for title in titles] == [
        "Table I, validation", "Table II, validation", "Table III, validation", "Table IV, validation",
        "Table V, validation", "Table V, test",
    ]  # fmt: skip
    lines = report.text.splitlines()
    first = lines.index(next(line for line in lines if line.startswith("|")))
    assert lines[first] == "|  | TWO | HIGH | CULTURE | TYPE |"
    heads = [line.split(" | ")[0].strip("| ") for line in lines[first + 2 : first + 7]]
    assert heads == ["End2You (Emo-18)", "BASE", "LARGE", "LARGE-LV60K", "XLSR53"]
    rows = [line for line in lines if line.startswith("|")]
    cells = [cell for line in rows for cell in re.split(r"(?<!\\)\|", line)[2:-1] if "seed" in cell]
    assert len(cells) == 52
    assert [cell for cell in cells if not CELL.fullmatch(cell.strip())] == []
    assert "over clips" not in "".join(cells)
    assert "so they flatter" in report.text
    assert "the 3 speakers of a split" in report.text


def test_numbers_are_ours_theirs_and_the_difference(grid):
    root, report, _ = grid
    row = rows_of(root)[5]
    difference = float(row["ours"]) - float(row["score_percent"])
    assert f"{row['ours']} ({row['low']} to {row['high']}, 2 seeds) \\| 58.69 \\| " in report.text
    assert abs(difference) > 0.01
    cell = next(line for line in report.text.splitlines() if line.startswith("| BASE")).split(" | ")[2]
    assert float(cell.split("\\|")[2]) == pytest.approx(difference, abs=0.011)


def test_the_pictures_open(grid):
    root, report, _ = grid
    names = {path.name for path in report.files if path.suffix == ".png"}
    assert names == {f"table_{table}_val.png" for table in ALL} | {"table_V_test.png"}
    for name in names:
        assert min(image.imread(root / name).shape[:2]) > 200


def test_final_models_and_the_baseline_hand_in_a_file_a_task_and_seed(grid):
    root, report, _ = grid
    names = {path.name for path in (root / "submissions").iterdir()}
    assert names == {
        f"A-VB-{task}_{team}_{n}.csv"
        for task in ("High", "Two", "Culture", "Type") for team in ("Owls", "Owls-emo18") for n in (1, 2)
    }  # fmt: skip
    for name in names:
        assert check_submission(root / "submissions" / name, TASKS[name.split("_")[0].split("-")[-1].lower()]) == []
    assert root / "submissions" / "A-VB-High_Owls_1.csv" in report.files


def scores_by_clip(path, task, key):
    table = pd.read_csv(path, dtype={key: str})
    return table.set_index(table[key].str.strip("[]"))[list(TASKS[task].labels)]


def test_a_files_number_is_the_place_of_its_seed_and_old_files_go(
    settings_of, with_speakers, fake_avb, tmp_path, undrawn
):
    settings = settings_of(with_speakers)
    folder = tmp_path / "submissions"
    reproduce(settings, fake_avb, tmp_path, ("V",), seeds=(5, 3, 4))
    (folder / "A-VB-High_Larks_3.csv").touch()
    jobs = [
        job
        for job in reproduce(settings, fake_avb, tmp_path, ("V",), seeds=(3, 4))[1]
        if "high-large-lv60k" in job.name
    ]
    assert sorted(path.name for path in folder.glob("A-VB-High*")) == [
        "A-VB-High_Larks_3.csv", "A-VB-High_Owls-emo18_1.csv", "A-VB-High_Owls-emo18_2.csv", "A-VB-High_Owls_1.csv",
        "A-VB-High_Owls_2.csv",
    ]  # fmt: skip
    (jobs[0].folder / "predictions.csv").unlink()
    fake_avb.leave = lambda argv: 5
    reproduce(settings, fake_avb, tmp_path, ("V",), seeds=(3, 4))
    assert [path.name for path in folder.glob("A-VB-High_Owls_*")] == ["A-VB-High_Owls_2.csv"]
    handed_in = scores_by_clip(folder / "A-VB-High_Owls_2.csv", "high", "File_ID")
    predicted = scores_by_clip(jobs[1].folder / "predictions.csv", "high", "file_id").loc[handed_in.index]
    pd.testing.assert_frame_equal(handed_in, predicted.clip(0, 1), check_names=False)


def test_another_team_runs_nothing_and_renames_the_files(settings_of, with_speakers, fake_avb, tmp_path, undrawn):
    settings, folder = settings_of(with_speakers), tmp_path / "submissions"
    reproduce(settings, fake_avb, tmp_path, ("V",))
    calls, before = len(fake_avb.calls), {path.name: path.read_bytes() for path in folder.iterdir()}
    (folder / "A-VB-High_Larks_3.csv").touch()
    reproduce(settings, fake_avb, tmp_path, ("V",), team="Wrens")
    assert len(fake_avb.calls) == calls
    (folder / "A-VB-High_Larks_3.csv").unlink()  # what says something else was kept
    after = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert after == {name.replace("Owls", "Wrens"): content for name, content in before.items()}
    assert len(after) == 8


def test_tables_without_the_final_one_leave_the_contest_files_alone(
    settings_of, with_speakers, fake_avb, tmp_path, undrawn
):
    (tmp_path / "submissions").mkdir()
    (tmp_path / "submissions" / "A-VB-High_Owls_2.csv").touch()
    report, _ = reproduce(settings_of(with_speakers), fake_avb, tmp_path, ("III",))
    assert [path.name for path in (tmp_path / "submissions").iterdir()] == ["A-VB-High_Owls_2.csv"]
    assert {path.name for path in report.files} == {"tables.csv", "tables.md"}


def test_without_test_labels_the_file_is_what_is_told(settings_of, unlabelled, fake_avb, tmp_path, undrawn):
    report, _ = reproduce(settings_of(unlabelled), fake_avb, tmp_path, ("V",))
    rows = [row for row in rows_of(tmp_path) if row["table"] == "V"]
    assert {row["status"] for row in rows if row["split"] == "val"} == {"done"}
    tests = [row for row in rows if row["split"] == "test"]
    assert {(row["status"], row["ours"], row["low"], row["n"], row["seeds"]) for row in tests} == {
        ("submitted file", "", "", "", "1")
    }
    assert "| submitted file \\| 62.02 \\|" in report.text
    assert report.text.count(" over clips, 1 seed)") == 4  # Table I has gaps and was not asked for
    assert "the contest files are in `submissions`" in report.text
    assert report.is_complete
    assert len(list((tmp_path / "submissions").iterdir())) == 8


def test_what_fails_is_told_and_the_rest_is_there(settings_of, with_speakers, fake_avb, tmp_path, undrawn):
    def fail(argv):
        raise OSError("disk full")

    fake_avb.instead = {2: fail, 4: fail}
    report, _ = reproduce(settings_of(with_speakers), fake_avb, tmp_path, ("III",), seeds=(1, 2))
    rows = rows_of(tmp_path)
    failed = [row for row in rows if row["status"] == "failed: OSError: disk full"]
    assert {(row["backbone"], row["loss"], row["seeds"]) for row in failed} == {
        ("xlsr53", "mse", "1"), ("xlsr53", "ccc", "1"),
    }  # fmt: skip
    assert report.text.count(", 1 seed, 1 failed)") == 2
    assert report.text.count(", 2 seeds)") == 2
    assert not report.is_complete


def test_a_run_that_failed_with_all_seeds_has_no_number(settings_of, with_speakers, fake_avb, tmp_path, undrawn):
    fake_avb.leave = lambda argv: 5
    report, _ = reproduce(settings_of(with_speakers), fake_avb, tmp_path, ("III",))
    rows = [row for row in rows_of(tmp_path) if row["table"] == "III"]
    assert {(row["status"], row["ours"], row["seeds"]) for row in rows} == {("failed: exit code 5", "", "0")}
    assert "| failed \\| 63.77 \\|  |" in report.text


def test_other_tables_are_told_where_their_runs_are_there(settings_of, with_speakers, fake_avb, tmp_path, undrawn):
    settings = settings_of(with_speakers)
    reproduce(settings, fake_avb, tmp_path, ("II",))
    rows = rows_of(tmp_path)
    done = {row["table"] for row in rows if row["status"] == "done"}
    assert done == {"I", "II", "III", "IV"}  # which share runs with it
    assert {row["status"] for row in rows if row["table"] == "V"} == {"not run"}
    calls = len(fake_avb.calls)
    report, _ = reproduce(settings, fake_avb, tmp_path, ("III",))
    assert len(fake_avb.calls) == calls + 2
    assert [row["status"] for row in rows_of(tmp_path) if row["table"] == "II"] == ["done"] * 8
    assert report.is_complete
    assert re.findall(r"^## (Table \w+)", report.text, re.MULTILINE) == ["Table II", "Table III"]  # others have gaps


def test_scores_on_other_labels_are_a_failure(settings_of, with_speakers, fake_avb, tmp_path, monkeypatch, undrawn):
    monkeypatch.setattr("avb_hf.experiments.scores.TOLERANCE", -1)
    report, _ = reproduce(settings_of(with_speakers), fake_avb, tmp_path, ("III",))
    statuses = {row["status"] for row in rows_of(tmp_path) if row["table"] == "III"}
    assert all("the labels are not those of the run" in status for status in statuses)
    assert not report.is_complete
