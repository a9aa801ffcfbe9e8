import dataclasses
import runpy
from pathlib import Path

import numpy as np
import pytest

from avb_hf.evaluation.contest import contest_file_name, write_contest_file
from avb_hf.evaluation.submission import check_submission
from avb_hf.tasks import TASKS

check_contest_file = runpy.run_path(str(Path(__file__).with_name("contest_checker.py")))["check_contest_file"]

AVB_TASKS = {name: task for name, task in TASKS.items() if task.submission_name}
IDS = ["00310", "00002", "59201", "00011"]


def random_scores(task, dtype=np.float32):
    return np.random.default_rng(0).random((len(IDS), len(task.labels))).astype(dtype)


@pytest.mark.parametrize("task", AVB_TASKS.values(), ids=AVB_TASKS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_strict_checker_accepts_all_four_tasks(task, dtype, tmp_path):
    path = write_contest_file(tmp_path / "out", "tiny-team", 3, IDS, random_scores(task, dtype), task)
    assert path == tmp_path / "out" / f"A-VB-{task.name.capitalize()}_tiny-team_3.csv"
    assert check_contest_file(path, IDS) == []


def test_there_are_four_contest_tasks():
    assert list(AVB_TASKS) == ["high", "two", "culture", "type"]


def test_each_clip_keeps_its_own_scores(tmp_path):
    scores = np.array([[0.3, 1e-7], [0.1, 0.2], [0.5, 0.6], [0.7, 0.8]], dtype=np.float32)
    path = write_contest_file(tmp_path, "t", 1, IDS, scores, TASKS["two"])
    assert path.read_text() == (
        "File_ID,Valence,Arousal\n[00002],0.1,0.2\n[00011],0.7,0.8\n[00310],0.3,1e-07\n[59201],0.5,0.6\n"
    )


def test_scores_outside_the_range_of_labels_are_brought_to_its_ends(tmp_path):
    scores = np.array([[-0.1, 1.1], [0.0, 1.0], [0.25, 0.5], [-3.0, 0.75]], dtype=np.float32)
    path = write_contest_file(tmp_path, "t", 1, IDS, scores, TASKS["two"])
    assert path.read_text().splitlines()[1:] == [
        "[00002],0.0,1.0",
        "[00011],0.0,0.75",
        "[00310],0.0,1.0",
        "[59201],0.25,0.5",
    ]
    assert check_submission(path, TASKS["two"]) == []
    assert scores.min() == -3  # the caller's are left alone


def test_labels_without_a_range_bound_no_score(tmp_path):
    unbounded = dataclasses.replace(TASKS["two"], label_range=None)
    path = write_contest_file(tmp_path, "t", 1, ["1"], np.array([[-4.0, 9.0]]), unbounded)
    assert path.read_text().splitlines()[1:] == ["[1],-4.0,9.0"]


def test_each_clip_keeps_its_own_class(tmp_path):
    path = write_contest_file(tmp_path, "t", 1, IDS, np.eye(8)[[2, 0, 7, 5]] - 4, TASKS["type"])
    assert path.read_text() == "File_ID,Voc_Type\n[00002],Gasp\n[00011],Groan\n[00310],Cry\n[59201],Other\n"


@pytest.mark.parametrize("team", ["", "a_b", "a/b", "..", "a b", "é", "a\n"])
def test_a_team_name_that_does_not_fit_in_a_file_name_is_an_error(team, tmp_path):
    with pytest.raises(ValueError, match="team_name must"):
        write_contest_file(tmp_path, team, 1, IDS, random_scores(TASKS["two"]), TASKS["two"])


@pytest.mark.parametrize("submission", [0, -1, 1.0, "1", True])
def test_a_submission_that_is_no_positive_whole_number_is_an_error(submission):
    with pytest.raises(ValueError, match="submission must be a whole number from 1"):
        contest_file_name("team", submission, TASKS["high"])


def test_a_task_outside_the_contest_is_an_error(tmp_path):
    with pytest.raises(ValueError, match="'emogator' is no task of the A-VB contest"):
        write_contest_file(tmp_path, "t", 1, IDS, random_scores(TASKS["emogator"]), TASKS["emogator"])


@pytest.mark.parametrize("file_id", ["[00001]", "a,b", 'a"b', "a\nb", ""])
def test_a_file_id_that_would_break_the_format_is_an_error(file_id, tmp_path):
    with pytest.raises(ValueError, match="File_IDs must have no bracket"):
        write_contest_file(tmp_path, "t", 1, [*IDS[:3], file_id], random_scores(TASKS["two"]), TASKS["two"])


def test_no_rows_or_a_clip_twice_are_errors(tmp_path):
    with pytest.raises(ValueError, match="got none"):
        write_contest_file(tmp_path, "t", 1, [], np.zeros((0, 2)), TASKS["two"])
    with pytest.raises(ValueError, match="several rows of"):
        write_contest_file(tmp_path, "t", 1, ["00001"] * 4, random_scores(TASKS["two"]), TASKS["two"])
    assert not list(tmp_path.iterdir())


GOOD = "File_ID,Valence,Arousal\n[00001],0.5,1e-05\n[00002],0.25,1.0\n"


def check_text(tmp_path, text, name="A-VB-Two_team_1.csv"):
    path = tmp_path / name
    path.write_bytes(text.encode())
    return check_contest_file(path, ["00001", "00002"])


def test_the_checker_accepts_a_good_file(tmp_path):
    assert check_text(tmp_path, GOOD) == []


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("File_ID", "file_id"),
        ("Valence,Arousal", "Arousal,Valence"),
        ("[00001]", "00001"),
        ("[00001]", "[1]"),
        ("[00001]", "[00002]"),
        ("[00002]", "[00003]"),
        ("[00001],0.5,1e-05\n[00002],0.25,1.0", "[00002],0.25,1.0\n[00001],0.5,1e-05"),
        ("\n[00002],0.25,1.0", ""),
        ("0.25", "nan"),
        ("0.25", "inf"),
        ("0.25", ""),
        ("0.25", " 0.25"),
        ("0.25,", ""),
        ("1.0\n", "1.0"),
        ("1.0\n", "1.0\n\n"),
        ("\n", "\r\n"),
        ("File_ID", "\ufeffFile_ID"),
        ("[00001]", '"[00001]"'),
    ],
)
def test_the_checker_refuses_a_damaged_file(old, new, tmp_path):
    assert check_text(tmp_path, GOOD.replace(old, new))


@pytest.mark.parametrize("name", ["A-VB-Two_my_team_1.csv", "A-VB-two_team_1.csv", "A-VB-Two_team.csv", "Two_t_1.csv"])
def test_the_checker_refuses_another_file_name(name, tmp_path):
    assert check_text(tmp_path, GOOD, name)


def test_the_checker_refuses_a_class_index(tmp_path):
    text = "File_ID,Voc_Type\n[00001],Gasp\n[00002],{}\n"
    assert check_text(tmp_path, text.format("Other"), "A-VB-Type_t_1.csv") == []
    assert check_text(tmp_path, text.format("7"), "A-VB-Type_t_1.csv")
