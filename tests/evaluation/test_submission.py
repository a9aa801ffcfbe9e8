import runpy
from pathlib import Path

import numpy as np
import pytest

from avb_hf.evaluation.contest import write_contest_file
from avb_hf.evaluation.submission import check_submission, read_template
from avb_hf.tasks import TASKS

strictly_check = runpy.run_path(str(Path(__file__).with_name("contest_checker.py")))["check_contest_file"]

AVB_TASKS = {name: task for name, task in TASKS.items() if task.submission_name}
IDS = ["00001", "00002", "00010"]
GOOD = "File_ID,Valence,Arousal\n[00001],0.5,1e-05\n[00002],0.25,1.0\n[00010],0,.5\n"
MISSPELT = "SouthAfrica_Sadness"


@pytest.fixture
def check(tmp_path):
    """Give a function that checks a text as a contest file, and returns its problems as text."""

    def run(text, task="two", name=None, template=None):
        path = tmp_path / (name or f"A-VB-{TASKS[task].submission_name}_owls_1.csv")
        path.write_bytes(text.encode())
        if template is not None:
            (tmp_path / "template.csv").write_text(template)
            template = read_template(tmp_path / "template.csv", TASKS[task])
        return [str(problem) for problem in check_submission(path, TASKS[task], template)]

    return run


@pytest.mark.parametrize("task", AVB_TASKS.values(), ids=AVB_TASKS)
def test_what_we_write_is_fit(task, tmp_path):
    scores = np.random.default_rng(0).random((len(IDS), len(task.labels)))
    path = write_contest_file(tmp_path, "owls", 2, IDS[::-1], scores, task)
    assert check_submission(path, task) == []
    assert strictly_check(path, IDS) == []


# What is changed in a good file, and the problem that follows from it.
DAMAGES = {
    "another order": (("Valence,Arousal", "Arousal,Valence"), "line 1: column 2 must be 'Valence', got 'Arousal'"),
    "header in another case": (("File_ID", "file_id"), "line 1: column 1 must be 'File_ID', got 'file_id'"),
    "a column too many": (("Arousal\n", "Arousal,Awe\n"), "line 1: there must be 3 columns, got 4"),
    "no brackets": (("[00002]", "00002"), "line 3, File_ID 00002: a File_ID must stand in brackets, as [00001], got '"),
    "a clip twice": (("[00002]", "[00001]"), "line 3, File_ID 00001: the clip is in line 2 already"),
    "not sorted": (("[00001]", "[00005]"), "line 3, File_ID 00002: rows must be sorted by File_ID, this one follows "),
    "not a number": (("0.25", "nan"), "line 3, File_ID 00002: Valence must be a number in [0, 1], got 'nan'"),
    "infinite": (("0.25", "1e999"), "line 3, File_ID 00002: Valence must be a number in [0, 1], got '1e999'"),
    "out of range": (("1.0\n", "1.01\n"), "line 3, File_ID 00002: Arousal must be a number in [0, 1], got '1.01'"),
    "below the range": (("0.25", "-0.1"), "line 3, File_ID 00002: Valence must be a number in [0, 1], got '-0.1'"),
    "empty cell": (("0.25", ""), "line 3, File_ID 00002: Valence must be a number in [0, 1], got ''"),
    "a blank": (("0.25", " 0.25"), "line 3, File_ID 00002: Valence must be a number in [0, 1], got ' 0.25'"),
    "an underscore": (("0.25", "0_0"), "line 3, File_ID 00002: Valence must be a number in [0, 1], got '0_0'"),
    "a cell too few": (("0.25,", ""), "line 3, File_ID 00002: there must be 3 cells, got 2"),
    "an empty line": (("1.0\n", "1.0\n\n"), "line 4, File_ID : a File_ID must stand in brackets, as [00001], got ''"),
    "no line break at the end": ((",.5\n", ",.5"), "line 4: the last line must end with a line break"),
    "Windows' line breaks": (("\n", "\r\n"), "line 1: a carriage return ('\\r') does not belong there"),
    "a byte order mark": (("File_ID", "\ufeffFile_ID"), "line 1: a byte order mark ('\\ufeff') does not belong there"),
    "quotes": (("[00002]", '"[00002]"'), "line 3: a quotation mark ('\"') does not belong there"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_each_damage_is_told_with_line_and_clip(damage, check, tmp_path):
    (old, new), problem = DAMAGES[damage]
    assert [found for found in check(GOOD.replace(old, new)) if found.startswith(problem)]


@pytest.mark.parametrize("damage", sorted(set(DAMAGES) - {"out of range", "below the range", "infinite"}))
def test_another_checker_agrees(damage, check, tmp_path):
    old, new = DAMAGES[damage][0]
    assert check(GOOD.replace(old, new))
    text = GOOD.replace(",.5", ",0.5")  # which the other one does not know
    path = tmp_path / "A-VB-Two_owls_1.csv"
    path.write_bytes(text.replace(old.replace(",.5", ",0.5"), new.replace(",.5", ",0.5")).encode())
    assert strictly_check(path, IDS)


def test_a_good_file_has_no_problem(check):
    assert check(GOOD) == []


def test_one_damage_is_one_problem(check):
    assert len(check(GOOD.replace("0.25", "nan"))) == 1
    assert len(check(GOOD.replace("[00001]", "[00005]"))) == 1


@pytest.mark.parametrize("name", ["A-VB-High_owls_1.csv", "A-VB-Two_my_owls_1.csv", "A-VB-Two_owls.csv", "two.csv"])
def test_another_name_is_told(name, check):
    assert check(GOOD, name=name) == [f"the file must be named A-VB-Two_<team>_<n>.csv, got {name}"]


def test_classes_are_named(check):
    good = "File_ID,Voc_Type\n[00001],Gasp\n[00002],Other\n"
    assert check(good, "type") == []
    (problem,) = check(good.replace("Gasp", "gasp"), "type")
    assert problem.startswith("line 2, File_ID 00001: Voc_Type must be one of ['Gasp', ")
    assert problem.endswith("got 'gasp'; did you mean 'Gasp'?")


def test_no_text_and_no_rows(check, tmp_path):
    assert check("File_ID,Valence,Arousal\n") == ["the file has no rows"]
    assert "the file has no rows" in check("")
    path = tmp_path / "A-VB-Two_owls_1.csv"
    path.write_bytes(b"File_ID,Valence\xff")
    (problem,) = check_submission(path, TASKS["two"])
    assert problem.message.startswith("the file must be UTF-8 text")


def test_clips_are_those_of_the_template(check):
    template = "File_ID,Valence,Arousal\n[00001],,\n[00003],,\n[00010],,\n"
    assert check(GOOD, template=template) == [
        "line 3, File_ID 00002: the template does not have this clip",
        "File_ID 00003: the clip is missing, which the template has",
    ]
    assert check(GOOD, template=template.replace("00003", "00002")) == []


def test_a_template_may_name_clips_alone_and_without_brackets(check):
    assert check(GOOD, template="File_ID\n00001\n00002\n00010\n") == []


def test_of_a_table_of_labels_the_test_split_counts(check):
    table = "File_ID,Split,Valence,Arousal\n[00099],Train,0.1,0.2\n[00001],Test,,\n[00002],Test,,\n[00010],Test,,\n"
    assert check(GOOD, template=table) == []


def culture_file(label=None):
    labels = [label if name == "South Africa_Sadness" and label else name for name in TASKS["culture"].labels]
    return f"File_ID,{','.join(labels)}\n[00001]{',0.5' * 40}\n"


def test_the_organisers_misspelling_is_taken_from_their_template_alone(check):
    right, wrong = culture_file(), culture_file(MISSPELT)
    assert check(right, "culture") == check(right, "culture", template=right) == []
    assert check(right, "culture", template=wrong) == []
    assert check(wrong, "culture", template=wrong) == []
    problem = [f"line 1: column 28 must be 'South Africa_Sadness', got '{MISSPELT}'"]
    assert check(wrong, "culture") == check(wrong, "culture", template=right) == problem


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "columns must be"),
        ("id,Valence,Arousal\n1,,\n", "columns must be"),
        ("File_ID,Valence\n[00001],\n", "columns must be .'File_ID', 'Valence', 'Arousal'. or .'File_ID'."),
        ("File_ID\n", "must name each test clip once, got 0 rows"),
        ("File_ID\n1\n[1]\n", "must name each test clip once, got 2 rows of 1 clips"),
        ("File_ID,Split\n1,Train\n", "got 0 rows"),
        ("File_ID,Split\n1,Test\n2\n", r"rows must have 2 cells as the header, see lines \[3\]"),
    ],
)
def test_a_template_that_is_none_is_an_error(text, message, check):
    with pytest.raises(ValueError, match=message):
        check(GOOD, template=text)


def test_a_task_outside_the_contest_is_an_error(tmp_path):
    with pytest.raises(ValueError, match="'emogator' is no task of the A-VB contest"):
        check_submission(tmp_path / "x.csv", TASKS["emogator"])
