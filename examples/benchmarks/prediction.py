"""`avb predict` beside transformers' stock pipeline: one model, the same WAV files read in every round, by turns."""

import tempfile
from functools import partial
from time import perf_counter

import numpy as np
import ours
import soundfile
from corpus import RATE
from sections import make_corpus, shapes

LEAST_ROUNDS = 3
PRECISIONS = ("fp32", "bf16")
PEERS = {"pipeline, batch 1": 1, "pipeline, batch 8": 8}


def prediction(options, section, save):
    """Time each arm, and compare its scores with those of the pipeline at batch 1, in which no clip is padded."""
    section["rounds"] = rounds = 1 if options.quick else max(options.rounds, LEAST_ROUNDS)
    with tempfile.TemporaryDirectory() as folder:
        corpus = make_corpus(options, "prediction", folder)
        model, extractor = load(options)
        section["runs_bf16"] = ours.runs_bf16()
        precisions = PRECISIONS if section["runs_bf16"] or options.quick else PRECISIONS[:1]
        section["choosing"], arms = arms_of(model, extractor, corpus, precisions)
        reference = next(iter(arms.values()))()
        section |= {
            "model": options.checkpoint or "The shape of BASE, random weights",
            "clips": len(corpus.paths),
            "audio_seconds": float(corpus.seconds.sum()),
            "spread": float(np.ptp(reference, axis=0).max()),
            "arms": {},
        }
        for round_number in range(rounds):
            for name, arm in arms.items():
                options.say(f"prediction, round {round_number + 1}: {name}")
                began = perf_counter()
                scores = arm()
                took, apart = perf_counter() - began, float(np.abs(scores - reference).max())
                section["arms"].setdefault(name, []).append({"seconds": took, "difference": apart})
                save()


def load(options):
    """Return the model of all arms and its feature extractor."""
    import torch

    from avb_hf.model import VocalBurstConfig, VocalBurstFeatureExtractor, Wav2Vec2ForVocalBurst

    device = "cuda" if torch.cuda.is_available() else "cpu"
    if options.checkpoint:
        model = Wav2Vec2ForVocalBurst.from_pretrained(options.checkpoint)
        return model.to(device), VocalBurstFeatureExtractor.from_pretrained(options.checkpoint)
    torch.manual_seed(0)
    encoder = {"model_type": "wav2vec2", **shapes(options)["BASE"]}
    config = VocalBurstConfig(encoder_config=encoder, num_labels=10, label_range=(0, 1))
    return Wav2Vec2ForVocalBurst(config).eval().to(device), VocalBurstFeatureExtractor.for_backbone(None, config)


def arms_of(model, extractor, corpus, precisions):
    """Return the seconds that choosing our batch sizes took, and by name functions that score all clips."""
    from transformers import pipeline

    pipe = pipeline("audio-classification", model=model, feature_extractor=extractor, device=model.device, top_k=None)
    arms = {name: partial(run_pipeline, pipe, corpus.paths, size) for name, size in PEERS.items()}
    choosing = 0.0
    for precision in precisions:
        settled, seconds = settle(model, extractor, corpus.paths, precision)
        choosing += seconds
        arms[f"predict, {precision}, batch {settled.batch_size}"] = partial(
            run_ours, model, extractor, corpus.paths, settled
        )
    return choosing, arms


def run_pipeline(pipe, files, batch_size):
    """Score by the pipeline, whose batching is its own; soundfile decodes for it, since it would need ffmpeg itself."""

    def decode():
        for file in files:
            yield {"raw": soundfile.read(file, dtype="float32")[0], "sampling_rate": RATE}

    labels = pipe.model.config.label_names
    rows = ({part["label"]: part["score"] for part in scores} for scores in pipe(decode(), batch_size=batch_size))
    return np.array([[row[label] for label in labels] for row in rows])


def run_ours(model, extractor, files, args):
    from avb_hf import predict

    labels = model.config.label_names
    return np.array([[row[label] for label in labels] for row in predict(model, files, args, extractor)])


def settle(model, extractor, files, precision):
    """Let the timer choose the batch size once; return arguments that name it, and what choosing cost in seconds."""
    from avb_hf.inference.clip_list import list_clips
    from avb_hf.inference.predict_arguments import PredictArguments
    from avb_hf.inference.scorer import Scorer
    from avb_hf.inference.timing import choose

    args = PredictArguments(precision=precision)
    samples = np.array([soundfile.info(file).frames for file in files])
    began = perf_counter()
    choice = choose(Scorer(model, extractor, args), list_clips(files), samples, args)
    seconds = perf_counter() - began
    return PredictArguments(precision=choice.precision, batch_size=choice.batch_size), seconds
