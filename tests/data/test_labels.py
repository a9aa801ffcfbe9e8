import dataclasses
import math

import numpy as np
import pyarrow as pa
import pytest

from avb_hf.data.labels import (
    LabelError,
    columns_on_1_9_scale,
    find_bad_labels,
    labels_vary,
    missing_label,
    parse_labels,
)
from avb_hf.tasks import TASKS, TaskSpec

TWO, TYPE = TASKS["two"], TASKS["type"]
UNBOUNDED = TaskSpec("free", ("x",))


def two(*valences, arousal="0.5"):
    return pa.table({"Arousal": [arousal] * len(valences), "Valence": list(valences)})


def parse(cells, task, allow_missing=False, unranged=()):
    """Parse rows that must be usable."""
    labels = parse_labels(cells, task)
    for error in find_bad_labels(cells, labels, task, allow_missing, unranged).values():
        raise error
    return labels.tolist()


def test_numbers_are_parsed_in_the_tasks_order():
    assert parse(two("0", " 0.25 ", arousal="1.0"), TWO) == [[0.0, 1.0], [0.25, 1.0]]
    assert parse(pa.table({"x": ["-1e3"]}), UNBOUNDED) == [[-1000.0]]


@pytest.mark.parametrize("cell", ["", " ", "nan", "NaN", "NA"])
def test_missing_labels_are_nan_only_where_allowed(cell):
    assert np.isnan(parse(two(cell, "1"), TWO, True)).tolist() == [[True, False], [False, False]]
    with pytest.raises(LabelError, match="label Valence is missing"):
        parse(two("1", cell), TWO)


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
    with pytest.raises(LabelError, match=message):
        parse(two(cell), TWO, True)


def test_each_bad_row_is_named_once_in_order_by_its_first_bad_label():
    cells = pa.table({"Valence": ["0", "1", "?", "2"], "Arousal": ["?", "1", "", "3"]})
    errors = find_bad_labels(cells, parse_labels(cells, TWO), TWO, False)
    assert [(row, error.kind, str(error).split()[1]) for row, error in errors.items()] == [
        (0, "bad_label", "Arousal"),
        (2, "bad_label", "Valence"),
        (3, "label_out_of_range", "Valence"),
    ]


def test_classes_become_indices():
    assert parse(pa.table({"Voc_Type": ["Gasp", "Other"]}), TYPE) == [0, 7]
    assert parse(pa.table({"Voc_Type": [""]}), TYPE, True) == [-100]
    with pytest.raises(LabelError, match="Voc_Type is missing"):
        parse(pa.table({"Voc_Type": ["Gasp", ""]}), TYPE)
    with pytest.raises(LabelError, match="got 'Laughs'; did you mean 'Laugh'"):
        parse(pa.table({"Voc_Type": ["Laughs"]}), TYPE, True)


def test_a_class_may_be_called_like_a_missing_label():
    task = TaskSpec("t", ("NA", "B"), "single_label_classification", "uar", "cross_entropy", class_column="c")
    assert parse(pa.table({"c": ["NA"]}), task) == [0]


@pytest.mark.parametrize("task", [TWO, TYPE])
def test_no_rows_have_no_labels(task):
    cells = pa.table({column: pa.array([], pa.string()) for column in task.label_columns})
    assert parse(cells, task) == []


@pytest.mark.parametrize(
    ("labels", "task", "varies"),
    [
        ([[0.0, 0.5], [0.0, 0.5]], TWO, False),
        ([[0.0, 0.5], [0.0, 0.6]], TWO, True),
        ([[0.0, math.nan], [0.0, 0.5]], TWO, False),
        ([[math.nan], [math.nan]], UNBOUNDED, False),
        ([[0.3]], UNBOUNDED, False),
        ([3, 3], TYPE, False),
        ([3, -100], TYPE, False),
        ([3, 4, -100], TYPE, True),
    ],
)
def test_placeholders_do_not_vary(labels, task, varies):
    assert labels_vary(np.array(labels), task) is varies


def test_a_missing_label_fits_the_task():
    assert missing_label(TYPE) == -100
    assert math.isnan(missing_label(TASKS["culture"]))


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
    labels = parse_labels(two(*valence), TWO)
    assert columns_on_1_9_scale(labels, TWO) == columns
    assert columns_on_1_9_scale(labels, dataclasses.replace(TWO, label_range=(1.0, 9.0))) == []


def test_the_range_of_some_columns_may_be_left_unchecked():
    assert parse(two("7"), TWO, unranged=["Valence"]) == [[7.0, 0.5]]
    with pytest.raises(LabelError, match="Arousal = 7"):
        parse(two("7", arousal="7"), TWO, unranged=["Valence"])
