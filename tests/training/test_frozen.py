"""Runs whose frozen states are cached end as those that compute them in every step, and share them with others."""

import json

import pytest
import soundfile
from safetensors.torch import load_file

from avb_hf.training.state_cache import list_caches

CLIPS, TRAINING_CLIPS, VALIDATION_CLIPS = 36, 18, 9
READ_CLIPS, READ_SPLITS = TRAINING_CLIPS + VALIDATION_CLIPS, 2  # by a run that predicts nothing
ONE_STEP = ["--max_steps", "1"]
NO_DROPOUT = dict.fromkeys(("hidden_dropout", "attention_dropout", "activation_dropout", "feat_proj_dropout"), 0.0)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("freeze", "rnn", "precision"),
    [
        ("front end", "lstm", "bf16"),
        pytest.param("one block", "lstm", "fp32", marks=pytest.mark.slow),
        pytest.param("one block", "none", "bf16", marks=pytest.mark.slow),
        ("backbone", "none", "fp32"),
    ],
)
def test_cached_and_live_runs_end_alike(train, digest, read_json, computed, states_dir, freeze, rnn, precision):
    flags = ["--rnn", rnn, "--precision", precision]
    live = train(*flags, "--cache", "off", freeze=freeze, only=())
    assert not states_dir.exists()
    assert computed["clips"] > 2 * TRAINING_CLIPS
    computed.clear()
    kept = train(*flags, freeze=freeze, only=())
    assert computed["clips"] == CLIPS + 1  # the longest tells first how large the states will be
    assert digest(kept) == digest(live)
    assert (kept / "predictions.csv").read_bytes() == (live / "predictions.csv").read_bytes()
    assert (kept / "predictions.csv").read_text().count("\n") == 1 + CLIPS - TRAINING_CLIPS
    runtimes = [read_json(folder, "all_results.json").get("cache_runtime") for folder in (kept, live)]
    assert runtimes[0] > 0
    assert runtimes[1] is None


@pytest.mark.slow
def test_states_are_made_of_splits_that_are_read(train, computed):
    folder = train("--eval_strategy", "no", "--save_strategy", "no", "--load_best_model_at_end", "false", *ONE_STEP)
    assert computed.pop("clips") == TRAINING_CLIPS + 1
    train(*ONE_STEP)
    assert computed.pop("clips") == VALIDATION_CLIPS + 1
    done = train(*ONE_STEP, only=())
    assert computed.pop("clips") == CLIPS - TRAINING_CLIPS - VALIDATION_CLIPS + 1
    assert not (folder / "predictions.csv").exists()
    assert (done / "predictions.csv").exists()


@pytest.mark.slow
def test_accumulation_and_activation_checkpointing_do_not_disturb_the_cache(train, digest):
    flags = ["--per_device_train_batch_size", "3", "--gradient_accumulation_steps", "2"]
    assert digest(train(*flags, "--gradient_checkpointing")) == digest(train(*flags, "--cache", "off"))


@pytest.mark.slow
@pytest.mark.parametrize("workers", ["0", pytest.param("2", marks=pytest.mark.slow)])
def test_a_second_run_computes_nothing(train, digest, cached, forbid, workers):
    flags = ["--dataloader_num_workers", workers]
    first = train(*flags)
    before = {path: path.stat().st_mtime_ns for path in cached.files()}
    assert len(before) == READ_SPLITS
    forbid()
    assert digest(train(*flags)) == digest(first)
    assert {path: path.stat().st_mtime_ns for path in cached.files()} == before


@pytest.mark.slow
def test_runs_that_freeze_the_same_share_states(train, digest, change_backbone, forbid):
    first = digest(train())
    forbid()
    assert digest(train("--seed", "7", "--rnn", "none", "--pooling", "last", "--loss", "mse")) != first
    assert digest(train("--task", "high", "--per_device_train_batch_size", "4", "--max_train_samples", "9")) != first
    assert digest(train("--feature_layer", "1")) != first
    assert digest(train(backbone=change_backbone(NO_DROPOUT))) != first
    assert len(list(list_caches())) == 1


ANEW = {
    "trimmed": ["--trim_db", "40"],
    "channels": ["--channels", "first"],
    "depth": ["--freeze_blocks", "2"],
    "stored otherwise": ["--cache_dtype", "float16"],
    "precision": ["--precision", "bf16"],
}


@pytest.mark.slow
def test_what_states_depend_on_makes_them_anew(train, computed):
    train(*ONE_STEP)
    for number, flags in enumerate(ANEW.values(), start=2):
        computed.clear()
        train(*ONE_STEP, *flags)
        assert computed["clips"] == READ_CLIPS + 1
        assert len(list(list_caches())) == number


# A weight of a two-block backbone, and whether states of its first block depend on it.
WEIGHTS = {"encoder.layers.0.attention.q_proj.weight": True, "encoder.layers.1.attention.q_proj.weight": False}


@pytest.mark.slow
def test_weights_make_states_anew_where_they_are_frozen(train, change_backbone, computed):
    train(*ONE_STEP)
    for weight, is_frozen in WEIGHTS.items():
        computed.clear()
        train(*ONE_STEP, backbone=change_backbone(weight=weight))
        assert computed["clips"] == (READ_CLIPS + 1 if is_frozen else 0)


WHISPER = {
    "model_type": "whisper", "d_model": 16, "encoder_layers": 2, "encoder_attention_heads": 2, "encoder_ffn_dim": 32,
    "decoder_layers": 1, "dropout": 0.1,
}  # fmt: skip


@pytest.mark.slow
def test_other_positions_make_states_anew(train, digest, change_backbone, computed):
    """Whisper's positions are never trained, but each checkpoint brings its own."""
    source = train("--cache", "off", *ONE_STEP, backbone=["--encoder_config", json.dumps(WHISPER)])
    train(backbone=["--model_name_or_path", source])
    computed.clear()
    changed = change_backbone(weight="encoder.embed_positions.weight", source=source)
    kept = train(backbone=changed)
    assert computed["clips"] == READ_CLIPS + 1
    assert digest(kept) == digest(train("--cache", "off", backbone=changed))


@pytest.mark.slow
def test_a_corpus_that_moved_keeps_its_states_but_of_clips_that_changed(train, digest, make_corpus, tmp_path, computed):
    first = train(data_dir=make_corpus(tmp_path / "corpus"))
    moved = (tmp_path / "corpus").rename(tmp_path / "moved")
    samples, rate = soundfile.read(moved / "audio" / "any" / "00001.wav")
    soundfile.write(moved / "audio" / "any" / "00001.wav", samples[::-1], rate)
    computed.clear()
    second = train(data_dir=moved)
    assert computed["clips"] == 1 + 1
    assert digest(second) != digest(first)
    assert digest(second) == digest(train("--cache", "off", data_dir=moved))


@pytest.mark.slow
def test_half_precision_takes_half_the_room_and_differs_little(train, cached):
    exact = load_file(train() / "model.safetensors")
    size = sum(cached.sizes())
    for number, dtype in enumerate(("float16", "bfloat16"), start=1):
        half = load_file(train("--cache_dtype", dtype) / "model.safetensors")
        assert sum(cached.sizes()) == size + number * size / 2
        assert 0 < max((half[name] - value).abs().max().item() for name, value in exact.items()) < 0.05


@pytest.mark.slow
@pytest.mark.parametrize("flags", [["--freeze", "none", "--freeze_blocks", "0"], ["--dry_run"]], ids=str)
def test_what_writes_no_states(train, states_dir, flags):
    folder = train(*ONE_STEP, *flags)
    assert not states_dir.exists()
    assert (folder / "model.safetensors").exists() == ("--dry_run" not in flags)


@pytest.mark.slow
def test_predicting_alone_writes_no_states(train, states_dir):
    assert (train(only=["--do_predict"]) / "predictions.csv").exists()
    assert not states_dir.exists()
