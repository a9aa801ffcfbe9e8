"""Compare `predict` with transformers' stock pipeline on ragged clips: `python examples/benchmarks/prediction.py`.

Both take the same model (random weights of the shape of wav2vec 2.0 BASE under the default head, or `--checkpoint`) and
the same WAV files, read from disk in every round, in one process; the arms take turns. The pipeline's batching is its
own, and soundfile decodes for it, since it would need ffmpeg itself.
"""

import argparse
import json
import os
import platform
import statistics
import sys
import tempfile
from pathlib import Path
from time import perf_counter

import numpy as np
import soundfile
import torch
import transformers
from transformers import pipeline

from avb_hf.inference.clip_list import list_clips
from avb_hf.inference.predict import predict
from avb_hf.inference.predict_arguments import PredictArguments
from avb_hf.inference.scorer import Scorer
from avb_hf.inference.timing import choose
from avb_hf.model import VocalBurstConfig, VocalBurstFeatureExtractor, Wav2Vec2ForVocalBurst

RATE = 16_000
SHAPE, MEAN_SECONDS = 4, 2.2
PEERS = {"pipeline, batch 1": 1, "pipeline, batch 8": 8}


def make_clips(folder, count):
    """Write noise of gamma-distributed length; return the total length in seconds."""
    random = np.random.default_rng(0)
    lengths = np.maximum(random.gamma(SHAPE, MEAN_SECONDS / SHAPE, count) * RATE, RATE // 10).astype(int)
    for number, samples in enumerate(lengths):
        soundfile.write(folder / f"{number:04d}.wav", 0.1 * random.standard_normal(samples), RATE)
    return float(lengths.sum()) / RATE


def load(checkpoint, device):
    if checkpoint is not None:
        model = Wav2Vec2ForVocalBurst.from_pretrained(checkpoint)
        return model.to(device), VocalBurstFeatureExtractor.from_pretrained(checkpoint)
    torch.manual_seed(0)
    config = VocalBurstConfig(encoder_config={"model_type": "wav2vec2"}, num_labels=10, label_range=(0, 1))
    return Wav2Vec2ForVocalBurst(config).eval().to(device), VocalBurstFeatureExtractor.for_backbone(None, config)


def run_pipeline(pipe, files, batch_size):
    def decode():
        for file in files:
            yield {"raw": soundfile.read(file, dtype="float32")[0], "sampling_rate": RATE}

    labels = pipe.model.config.label_names
    rows = ({part["label"]: part["score"] for part in scores} for scores in pipe(decode(), batch_size=batch_size))
    return np.array([[row[label] for label in labels] for row in rows])


def run_ours(model, extractor, folder, args):
    labels = model.config.label_names
    return np.array([[row[label] for label in labels] for row in predict(model, folder, args, extractor)])


def score_alone(model, extractor, files):
    """Run the plain model on each clip alone: what all arms are compared with."""
    scores = []
    for file in files:
        inputs = extractor(soundfile.read(file, dtype="float32")[0], return_tensors="pt").to(model.device)
        with torch.no_grad():
            logits = model(**inputs).logits[0]
        is_regression = model.config.problem_type == "regression"
        scores.append((logits if is_regression else logits.softmax(dim=-1)).cpu().numpy())
    return np.array(scores)


def settle(model, extractor, folder, precision):
    """Let the timer choose the batch size once; return arguments that name it, and what choosing cost in seconds."""
    scorer, clips = Scorer(model, extractor, PredictArguments()), list_clips([folder])
    samples = np.array([soundfile.info(path).frames for path in clips.paths])
    started = perf_counter()
    choice = choose(scorer, clips, samples, PredictArguments(precision=precision))
    return PredictArguments(precision=choice.precision, batch_size=choice.batch_size), perf_counter() - started


def measure(arms, rounds):
    """Run the arms by turns; return seconds of each round, and the scores of the last, by arm."""
    seconds, scores = {name: [] for name in arms}, {}
    for _ in range(rounds):
        for name, arm in arms.items():
            started = perf_counter()
            scores[name] = arm()
            seconds[name].append(perf_counter() - started)
    return seconds, scores


def tabulate(facts):
    yield f"{facts['clips']} clips, {facts['audio_seconds']:.0f} s of audio, {facts['rounds']} rounds by turns; "
    yield f"{facts['device']}, {facts['threads']} threads, torch {facts['torch']}, "
    yield f"transformers {facts['transformers']}.\n\n"
    names = list(PEERS)
    yield f"| | audio-seconds per second | {' | '.join(f'against {name}' for name in names)} | largest error |\n"
    yield "|---|---|" + "---|" * len(names) + "---|\n"
    for name, arm in facts["arms"].items():
        ratios = " | ".join(f"{facts['arms'][peer]['seconds'] / arm['seconds']:.2f}" for peer in names)
        yield f"| {name} | {facts['audio_seconds'] / arm['seconds']:.2f} | {ratios} | {arm['error']:.1e} |\n"
    yield f"\nChoosing the batch sizes took {facts['choosing_seconds']:.1f} s, once.\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--checkpoint", help="a fine-tuned model (default: random weights)")
    parser.add_argument("--clips", type=int, default=48)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path, help="write all numbers there")
    args = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model, extractor = load(args.checkpoint, device)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        audio_seconds = make_clips(folder, args.clips)
        files = sorted(folder.iterdir())
        pipe = pipeline("audio-classification", model=model, feature_extractor=extractor, device=device, top_k=None)
        arms, choosing = {}, 0.0
        for peer, size in PEERS.items():
            arms[peer] = lambda size=size: run_pipeline(pipe, files, size)
        for precision in ("fp32", "bf16"):
            settled, seconds = settle(model, extractor, folder, precision)
            choosing += seconds
            label = f"predict, {precision}, batch {settled.batch_size}"
            arms[label] = lambda settled=settled: run_ours(model, extractor, folder, settled)
        expected = score_alone(model, extractor, files)
        seconds, scores = measure(arms, args.rounds)
    facts = {
        "device": torch.cuda.get_device_name() if device.type == "cuda" else platform.processor() or "CPU",
        "threads": torch.get_num_threads(),
        "cores": os.cpu_count(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "clips": args.clips,
        "rounds": args.rounds,
        "audio_seconds": audio_seconds,
        "choosing_seconds": choosing,
        "arms": {
            name: {
                "seconds": statistics.median(seconds[name]),
                "all_seconds": seconds[name],
                "error": float(np.abs(scores[name] - expected).max()),
            }
            for name in arms
        },
    }
    sys.stdout.writelines(tabulate(facts))
    if args.json is not None:
        args.json.write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
