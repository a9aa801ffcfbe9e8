"""Batches: padding, mask, label types, and clips that are too short."""

import numpy as np
import pytest
import torch

from avb_hf.data.collator import VocalBurstCollator
from avb_hf.model import VocalBurstFeatureExtractor
from avb_hf.tasks import TASKS


def rows_of(lengths, labels):
    rng = np.random.default_rng(3)
    return [
        {"file_id": f"clip{length}", "audio": rng.normal(0.2, 0.1, length).astype(np.float32), "labels": label}
        for length, label in zip(lengths, labels, strict=True)
    ]


def collate(task, rows, **fields):
    return VocalBurstCollator(VocalBurstFeatureExtractor(min_samples=400, **fields), TASKS[task])(rows)


def test_clips_are_padded_with_zeros_to_the_longest():
    rows = rows_of([500, 700], [[0.1, 0.2], [0.3, 0.4]])
    batch = collate("two", rows, do_normalize=False)
    assert batch["input_values"].shape == batch["attention_mask"].shape == (2, 700)
    assert batch["attention_mask"].sum(dim=1).tolist() == [500, 700]
    np.testing.assert_array_equal(batch["input_values"][0, :500], rows[0]["audio"])
    assert not batch["input_values"][0, 500:].any()


def test_each_clip_is_normalised_over_its_own_samples():
    rows = rows_of([500, 700], [[0.1, 0.2], [0.3, 0.4]])
    batch = collate("two", rows, do_normalize=True)
    for values, row in zip(batch["input_values"], rows, strict=True):
        audio = row["audio"].astype(np.float64)
        expected = (audio - audio.mean()) / np.sqrt(audio.var() + 1e-7)
        np.testing.assert_allclose(values[: len(audio)], expected, atol=1e-5)


def test_labels_of_a_regression_keep_nan():
    labels = collate("two", rows_of([500, 600], [[0.1, float("nan")], [0.3, 0.4]]))["labels"]
    assert (labels.dtype, labels.shape) == (torch.float32, (2, 2))
    assert labels.isnan().tolist() == [[False, True], [False, False]]


def test_labels_of_classes_are_whole_numbers():
    labels = collate("type", rows_of([500, 600], [7, -100]))["labels"]
    assert labels.dtype == torch.long
    assert labels.tolist() == [7, -100]


def test_rows_without_labels_give_a_batch_without():
    rows = [{name: row[name] for name in ("file_id", "audio")} for row in rows_of([500, 600], [1, 2])]
    assert set(collate("type", rows)) == {"input_values", "attention_mask"}


def test_a_clip_below_the_receptive_field_is_named():
    rows = rows_of([500, 399], [[0.1, 0.2], [0.3, 0.4]])
    with pytest.raises(ValueError, match=r"clip399: a clip needs at least 400 samples, got 399"):
        collate("two", rows)
    assert collate("two", rows_of([500, 400], [[0.1, 0.2], [0.3, 0.4]]))["input_values"].shape == (2, 500)
