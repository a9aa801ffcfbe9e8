"""Label names and their order, and what a task may not be."""

import pytest

from avb_hf.tasks import TASKS, TaskSpec, check_choice, load_task, task_from_mapping

# Spelled out here, from the organisers' column list: Surprise stands last, over all countries.
CULTURE = """
China_Awe China_Excitement China_Amusement China_Awkwardness China_Fear China_Horror China_Distress China_Triumph
China_Sadness United~States_Awe United~States_Excitement United~States_Amusement United~States_Awkwardness
United~States_Fear United~States_Horror United~States_Distress United~States_Triumph United~States_Sadness
South~Africa_Awe South~Africa_Excitement South~Africa_Amusement South~Africa_Awkwardness South~Africa_Fear
South~Africa_Horror South~Africa_Distress South~Africa_Triumph South~Africa_Sadness Venezuela_Awe Venezuela_Excitement
Venezuela_Amusement Venezuela_Awkwardness Venezuela_Fear Venezuela_Horror Venezuela_Distress Venezuela_Triumph
Venezuela_Sadness China_Surprise United~States_Surprise South~Africa_Surprise Venezuela_Surprise
"""
OFFICIAL = {
    "high": "Awe Excitement Amusement Awkwardness Fear Horror Distress Triumph Sadness Surprise",
    "two": "Valence Arousal",
    "culture": CULTURE,
    "type": "Gasp Laugh Cry Scream Grunt Groan Pant Other",
}
REGRESSION = {"name": "mine", "labels": ("a", "b")}
CLASSES = REGRESSION | {
    "problem_type": "single_label_classification", "metric": "uar", "loss": "cross_entropy", "class_column": "word",
}  # fmt: skip


@pytest.mark.parametrize("name", OFFICIAL)
def test_labels_are_in_the_official_order(name):
    assert list(TASKS[name].labels) == [label.replace("~", " ") for label in OFFICIAL[name].split()]


def test_number_of_labels():
    assert {name: len(task.labels) for name, task in TASKS.items()} == {
        "high": 10, "two": 2, "culture": 40, "type": 8, "emogator": 30,
    }  # fmt: skip


def test_headlines_and_columns():
    assert TASKS["culture"].headline == "eval_ccc"
    assert TASKS["emogator"].headline == "eval_uar"
    assert TASKS["type"].label_columns == ("Voc_Type",)
    assert TASKS["two"].label_columns == ("Valence", "Arousal")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (REGRESSION | {"labels": ()}, "at least one"),
        (REGRESSION | {"labels": ("a", "a")}, "distinct"),
        (REGRESSION | {"labels": ("split", "b")}, "split"),
        (REGRESSION | {"labels": ("official",)}, "official"),
        (REGRESSION | {"labels": ("x_ccc",)}, "x_ccc"),
        (REGRESSION | {"problem_type": "regresion"}, "did you mean 'regression'"),
        (REGRESSION | {"loss": "cc"}, "did you mean 'ccc'"),
        (REGRESSION | {"loss": "cross_entropy"}, "does not fit"),
        (REGRESSION | {"metric": "uar"}, "must be 'ccc'"),
        (REGRESSION | {"label_range": (1.0, 1.0)}, "low < high"),
        (CLASSES | {"class_column": None}, "class_column"),
        (CLASSES | {"loss": "mse"}, "does not fit"),
        (CLASSES | {"metric": "ccc"}, "must be 'uar'"),
    ],
)
def test_contradictions_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        TaskSpec(**fields)


def test_sound_tasks_are_taken():
    assert TaskSpec(**REGRESSION).is_classification is False
    assert TaskSpec(**CLASSES).label_columns == ("word",)


def test_task_file(tmp_path):
    path = tmp_path / "relief.yaml"
    path.write_text("labels: [Relief, '7']\nlabel_range: [1, 9]\nloss: mse\nallow_missing: true\n")
    task = load_task(str(path))
    assert (task.name, task.labels, task.label_range) == ("relief", ("Relief", "7"), (1.0, 9.0))
    assert (task.loss, task.metric, task.problem_type, task.allow_missing) == ("mse", "ccc", "regression", True)


def test_task_file_of_classes_needs_no_loss_and_score():
    fields = {"labels": ["sob", "sigh"], "problem_type": "single_label_classification", "class_column": "word"}
    task = task_from_mapping(fields, "words.yaml")
    assert (task.name, task.metric, task.loss) == ("words", "uar", "cross_entropy")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("lables: [a]\n", "did you mean 'labels'"),
        ("name: x\n", "labels"),
        ("- a\n- b\n", "mapping"),
        ("a: [b\n", "no valid YAML"),
        ("labels: Pain\n", "labels must be a list"),
        ("labels: [yes, no]\n", "YAML reads a bare yes"),
        ("labels: [a]\nlabel_range: 5\n", "label_range must be a list"),
        ("labels: [a]\nlabel_range: [0, 1, 2]\n", "two numbers"),
        ("labels: [a]\nallow_missing: 'no'\n", "true or false"),
        ("labels: [a]\nproblem_type: single_label_classification\nclass_column: c\n", "two classes"),
        ("labels: [a]\nproblem_type: classification\n", "single_label_classification"),
    ],
)
def test_task_file_that_cannot_be_used(tmp_path, text, message):
    path = tmp_path / "task.yaml"
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        load_task(str(path))


def test_task_that_is_not_there(tmp_path):
    with pytest.raises(ValueError, match="did you mean 'culture'"):
        load_task("cultur")
    with pytest.raises(ValueError, match=r"none\.yaml does not exist"):
        load_task(str(tmp_path / "none.yaml"))


def test_check_choice_lists_what_is_allowed():
    check_choice("pooling", "max", ("max", "mean"))
    with pytest.raises(ValueError, match=r"pooling must be one of \['max', 'mean'\], got 'maxx'; did you mean 'max'\?"):
        check_choice("pooling", "maxx", ("max", "mean"))
    with pytest.raises(ValueError, match=r"got 3$"):
        check_choice("pooling", 3, ("max", "mean"))


@pytest.mark.parametrize("label", ["split", "file_id", "prediction", "official", "my_ccc", "my_uar"])
def test_a_label_that_our_own_files_use_otherwise_is_refused(label):
    with pytest.raises(ValueError, match=label):
        TaskSpec("mine", (label, "x"))
