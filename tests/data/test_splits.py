import csv
from collections import Counter

import pytest
from datasets import Dataset, DatasetDict

from avb_hf.data.splits import draw_by_class, draw_by_group, parse_split, subsample, write_split_table


@pytest.mark.parametrize("value", ["val", "Validation", "DEV", "valid"])
def test_split_values_are_read_in_any_case(value):
    assert parse_split(value) == "validation"
    assert (parse_split("Train"), parse_split("TEST")) == ("train", "test")


def test_an_unknown_split_value_lists_the_allowed_ones():
    with pytest.raises(ValueError, match=r"\['train', 'val', .*'test'\], got 'trian'; did you mean 'train'"):
        parse_split("trian")


@pytest.mark.parametrize("count", [3, 5, 20, 36])
def test_groups_stand_on_one_side(count):
    groups = [f"s{i % count}" for i in range(4 * count)]
    splits = draw_by_group(groups, seed=0)
    sides = {group: {split for g, split in zip(groups, splits, strict=True) if g == group} for group in groups}
    assert all(len(side) == 1 for side in sides.values())
    held_out = max(1, round(0.15 * count))
    assert Counter(side.pop() for side in sides.values()) == {
        "train": count - 2 * held_out, "validation": held_out, "test": held_out
    }  # fmt: skip


def test_a_drawn_split_follows_its_seed_and_not_the_order_of_clips():
    groups = [f"s{i}" for i in range(20)]
    first = dict(zip(groups, draw_by_group(groups, 1), strict=True))
    assert first == dict(zip(groups[::-1], draw_by_group(groups[::-1], 1), strict=True))
    assert first != dict(zip(groups, draw_by_group(groups, 2), strict=True))
    assert draw_by_class(groups, 1) == draw_by_class(groups, 1) != draw_by_class(groups, 2)


def test_every_class_is_split_alike():
    classes = ["a"] * 200 + ["b"] * 60 + ["c"] * 7
    splits = draw_by_class(classes, seed=0)
    for name, size in Counter(classes).items():
        counts = Counter(split for split, c in zip(splits, classes, strict=True) if c == name)
        assert abs(counts["train"] - 0.7 * size) <= 2
        assert counts["validation"] >= 1
        assert counts["test"] >= 1
    assert Counter(draw_by_class([""] * 100, 0)) == {"train": 70, "validation": 15, "test": 15}


def test_too_little_to_draw_from_is_an_error():
    with pytest.raises(ValueError, match=r"at least 3 speakers, got \['a', 'b'\]"):
        draw_by_group(["a", "b", "a"], 0)
    with pytest.raises(ValueError, match="7 clips or more, got 6"):
        draw_by_class(["a"] * 6, 0)


@pytest.fixture
def splits():
    return DatasetDict(
        {name: Dataset.from_dict({"file_id": [f"{name}{i:02}" for i in range(10)]}) for name in ("train", "validation")}
    )


def test_the_split_table_names_every_clip(splits, tmp_path):
    write_split_table(splits, tmp_path / "split.csv")
    with (tmp_path / "split.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 20
    assert rows[12] == {"file_id": "validation02", "split": "validation"}


def test_a_subsample_is_seeded_and_keeps_the_order(splits):
    part = subsample(splits, 4, None, seed=0)
    ids = list(part["train"]["file_id"])
    assert len(ids) == 4
    assert ids == sorted(ids)
    assert len(part["validation"]) == 10
    assert ids == list(subsample(splits, 4, 99, seed=0)["train"]["file_id"])
    assert any(ids != list(subsample(splits, 4, None, seed=seed)["train"]["file_id"]) for seed in (1, 2, 3))
    with pytest.raises(ValueError, match="at least 1, got 0"):
        subsample(splits, 0, None, seed=0)
