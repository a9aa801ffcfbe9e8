import dataclasses
import math

import pytest

from avb_hf.data.labels import columns_on_1_9_scale, labels_vary, missing_labels, parse_labels
from avb_hf.tasks import TASKS, TaskSpec

TWO, TYPE = TASKS["two"], TASKS["type"]
UNBOUNDED = TaskSpec("free", ("x",))


def two(valence, arousal="0.5"):
    return dict(zip(TWO.labels, (valence, arousal), strict=True))


def test_numbers_are_parsed_in_the_tasks_order():
    assert parse_labels(dict(reversed(two("0", "1.0").items())), TWO, False) == [0.0, 1.0]
    assert parse_labels({"x": "-1e3"}, UNBOUNDED, False) == [-1000.0]


@pytest.mark.parametrize("cell", ["", " ", "nan", "NaN", "NA"])
def test_missing_labels_are_nan_only_where_allowed(cell):
    assert [math.isnan(value) for value in parse_labels(two(cell), TWO, True)] == [True, False]
    with pytest.raises(ValueError, match="label Valence is missing"):
        parse_labels(two(cell), TWO, False)


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        ("high", "must be a finite number, got 'high'"),
        ("0,5", "must be a finite number"),
        ("inf", "must be a finite number"),
        ("-0.01", r"Valence = -0.01 is outside label_range \[0, 1\]"),
        ("4.5", r"--label_range\); labels on a scale of 1-9"),
    ],
)
def test_bad_numbers_are_errors(cell, message):
    with pytest.raises(ValueError, match=message):
        parse_labels(two(cell), TWO, True)


def test_classes_become_indices():
    assert [parse_labels({"Voc_Type": name}, TYPE, False) for name in ("Gasp", "Other")] == [0, 7]
    assert parse_labels({"Voc_Type": ""}, TYPE, True) == -100
    with pytest.raises(ValueError, match="Voc_Type is missing"):
        parse_labels({"Voc_Type": ""}, TYPE, False)
    with pytest.raises(ValueError, match="got 'Laughs'; did you mean 'Laugh'"):
        parse_labels({"Voc_Type": "Laughs"}, TYPE, True)


def test_a_class_may_be_called_like_a_missing_label():
    task = TaskSpec("t", ("NA", "B"), "single_label_classification", "uar", "cross_entropy", class_column="c")
    assert parse_labels({"c": "NA"}, task, False) == 0


@pytest.mark.parametrize(
    ("labels", "varies"),
    [
        ([[0.0, 0.5], [0.0, 0.5]], False),
        ([[0.0, 0.5], [0.0, 0.6]], True),
        ([[0.0, math.nan], [0.0, 0.5]], False),
        ([[math.nan], [math.nan]], False),
        ([[0.3]], False),
        ([3, 3], False),
        ([3, -100], False),
        ([3, 4, -100], True),
    ],
)
def test_placeholders_do_not_vary(labels, varies):
    assert labels_vary(labels) is varies


def test_missing_labels_fit_the_task():
    assert missing_labels(TYPE) == -100
    assert len(missing_labels(TASKS["culture"])) == 40
    assert all(math.isnan(value) for value in missing_labels(TASKS["culture"]))


@pytest.mark.parametrize(
    ("valence", "columns"),
    [
        (["1", "9"], ["Valence"]),
        (["1.5", "", "nan", "x"], ["Valence"]),
        (["1", "1"], []),
        (["0.9", *["2"] * 9], ["Valence"]),
        (["0.9", *["2"] * 8], []),
        (["1", "10"], []),
        (["", ""], []),
    ],
)
def test_a_scale_of_1_to_9_is_a_columns(valence, columns):
    rows = [two(cell) for cell in valence]
    assert columns_on_1_9_scale(rows, TWO) == columns
    assert columns_on_1_9_scale(rows, dataclasses.replace(TWO, label_range=(1.0, 9.0))) == []


def test_the_range_of_some_columns_may_be_left_unchecked():
    assert parse_labels(two("7"), TWO, False, unranged=["Valence"]) == [7.0, 0.5]
    with pytest.raises(ValueError, match="Arousal = 7"):
        parse_labels(two("7", "7"), TWO, False, unranged=["Valence"])
