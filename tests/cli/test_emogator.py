"""The EmoGator recipe in miniature: real clips, real weights, two steps."""

import json

import pytest

from avb_hf.cli import run


@pytest.mark.slow
@pytest.mark.real_data
def test_the_recipe_runs_on_real_clips_and_weights(emogator_dir, whisper_dir, tmp_path):
    flags = ["--data_dir", str(emogator_dir), "--model_name_or_path", str(whisper_dir), "--output_dir", str(tmp_path)]
    small = ["--max_train_samples", "32", "--max_eval_samples", "40", "--max_steps", "2"]
    assert run("train", ["emogator", *flags, *small]) == 0
    results = json.loads((tmp_path / "all_results.json").read_text())
    assert results["test_num_samples"] == results["eval_num_samples"] == 40
    assert 0 <= results["test_uar"] <= 1
