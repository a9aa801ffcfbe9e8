"""Our arms: `avb train` as a user calls it, in this process, and how far its states are from the stock model's."""

import json
import os
import tempfile
from contextlib import contextmanager, redirect_stdout
from io import StringIO
from pathlib import Path

from clock import watching
from corpus import FEATURE_LAYER, RATE

UNCHECKED = ["--save_strategy", "no", "--load_best_model_at_end", "false", "--disable_tqdm", "true"]


@contextmanager
def cache_in(folder):
    """Make our cache an empty or shared folder of the benchmark's own."""
    before = os.environ.get("AVB_HF_CACHE")
    os.environ["AVB_HF_CACHE"] = str(folder)
    try:
        yield
    finally:
        del os.environ["AVB_HF_CACHE"]
        if before is not None:
            os.environ["AVB_HF_CACHE"] = before


def train(flags, cache=None, out=None):
    """Run `avb train` and return its epochs and its runtimes.

    Args:
        flags: What a user would type behind `avb train`, without `--output_dir`.
        cache: Folder of cached states; None is an empty one that is deleted afterwards.
        out: Folder that takes what the run leaves; None is one that is deleted afterwards.
    """
    from avb_hf.cli.train import parse, run

    with tempfile.TemporaryDirectory() as folder, cache_in(cache or Path(folder) / "cache"):
        out = Path(out or Path(folder) / "run")
        with watching() as epochs, redirect_stdout(StringIO()):
            run(*parse([*map(str, flags), *UNCHECKED, "--do_train", "--output_dir", str(out)]))
        results = json.loads((out / "all_results.json").read_text())
        record = json.loads((out / "resolved_config.json").read_text())
        runtimes = {name: results.get(name, 0.0) for name in ("train_runtime", "cache_runtime", "precision_runtime")}
        return {
            "epochs": epochs,
            **runtimes,
            "precision": "bf16" if record["flags"]["bf16"] else "fp32",
            "clips": {split: facts["clips"] for split, facts in record["audio"].items()},
        }


def fine_tune(corpus, shape, batch_size, flags, epochs=2, cache=None):
    """Time our fine-tuning of a backbone with random weights; `scores` are those of predicted clips, if there are."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "run"
        result = train(
            [
                *("--source", "avb", "--data_dir", corpus.folder, "--task", "high"),
                *("--encoder_config", json.dumps({"model_type": "wav2vec2", **shape})),
                *("--per_device_train_batch_size", batch_size, "--num_train_epochs", epochs),
                *("--eval_strategy", "no", *flags),
            ],
            cache,
            out,
        )
        return result | {"scores": _read_scores(out / "predictions.csv")}


def state_errors(corpus, shape, clips=4):
    """Compare our states of block 12 with the stock model's on the same weights and clips.

    Stock states are those of each clip alone in float32. Compared are ours of each clip alone, in float32 and under
    bfloat16 autocast, and ours of all these clips in one padded batch.

    Returns:
        Largest absolute difference by what is compared, and `largest_state`.
    """
    import soundfile
    import torch
    from transformers import Wav2Vec2Config, Wav2Vec2FeatureExtractor, Wav2Vec2Model

    torch.manual_seed(0)
    device = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else torch.device("cpu")
    stock = Wav2Vec2Model(Wav2Vec2Config(**shape)).eval()
    model = _make_model(corpus, shape).eval()
    weights = stock.state_dict()
    model.encoder.load_state_dict({name: weights[name] for name in model.encoder.state_dict()})
    stock, model = stock.to(device), model.to(device)
    extractor = Wav2Vec2FeatureExtractor(return_attention_mask=True)

    def batch_of(paths):
        audio = [soundfile.read(path, dtype="float32")[0] for path in paths]
        return extractor(audio, sampling_rate=RATE, padding=True, return_tensors="pt").to(device)

    def ours(batch, bf16=False):
        with torch.no_grad(), torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            states, num_frames = model.run_frozen(batch["input_values"], batch["attention_mask"])
            return model.encoder.blocks(states, num_frames).float()

    alone = [batch_of([path]) for path in corpus.paths[:clips]]
    with torch.no_grad():
        truth = [stock(one["input_values"], output_hidden_states=True).hidden_states[FEATURE_LAYER] for one in alone]
    padded = ours(batch_of(corpus.paths[:clips]))
    found = {
        "fp32": [ours(one) for one in alone],
        "bf16": [ours(one, bf16=True) for one in alone],
        "fp32, padded batch": [states[None, : one.shape[1]] for states, one in zip(padded, truth, strict=True)],
    }
    errors = {name: max((a - b).abs().max().item() for a, b in zip(states, truth, strict=True))
              for name, states in found.items()}  # fmt: skip
    return errors | {"largest_state": max(states.abs().max().item() for states in truth)}


def runs_bf16():
    """Return whether `--precision auto` would time bf16 here at all."""
    import torch

    from avb_hf.bf16_speed import bf16_is_emulated

    return torch.cuda.is_available() or not bf16_is_emulated()


def _make_model(corpus, shape):
    from avb_hf import VocalBurstConfig, Wav2Vec2ForVocalBurst

    config = VocalBurstConfig(encoder_config={"model_type": "wav2vec2", **shape}, num_labels=corpus.labels.shape[1])
    model = Wav2Vec2ForVocalBurst(config)
    model.freeze_feature_encoder()
    return model


def _read_scores(path):
    import pandas as pd

    return pd.read_csv(path).iloc[:, 2:].to_numpy().tolist() if path.is_file() else None
