"""Systems of the table that scikit-learn makes: chance, duration alone, and frozen Whisper states."""

import numpy as np
from report import CHOICE
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from uar_by_contributor import TASK

from avb_hf.data.arguments import DataArguments
from avb_hf.data.clips import ClipReader
from avb_hf.data.sources import load_corpus
from avb_hf.evaluation.prediction_files import write_predictions

CS = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 1e-1)


def chance(options, folder):
    """Give every class the same probability, so that all clips get the same class: exactly 1/30 of any contributor."""
    splits = _corpus(options)
    _write(folder, splits, lambda name: np.full((len(splits[name]), len(TASK.labels)), 1 / len(TASK.labels)))


def duration(options, folder):
    """Fit classes to the seconds that clips last."""
    splits = _corpus(options)
    seconds = {name: np.asarray(split["duration"][:])[:, None] for name, split in splits.items()}
    _choose(folder, splits, {"seconds": seconds})


def whisper(options, folder):
    """Fit classes to mean and standard deviation over time of a block's frozen states, for each block."""
    splits = _corpus(options)
    by_split = {name: _state_statistics(options, split) for name, split in splits.items()}
    blocks = zip(*by_split.values(), strict=True)
    features = {f"block {number}": dict(zip(splits, block, strict=True)) for number, block in enumerate(blocks, 1)}
    _choose(folder, splits, features)


def _corpus(options):
    return load_corpus(TASK, DataArguments(source="emogator", data_dir=options.data_dir))


def _state_statistics(options, split):
    """Return mean and deviation of every block's states, `(blocks, clips, 2 * width)`, each clip on its own."""
    import torch
    from tqdm.auto import tqdm

    from avb_hf import POOLINGS, VocalBurstFeatureExtractor, Wav2Vec2ForVocalBurst

    backbone = options.model_name_or_path
    model = Wav2Vec2ForVocalBurst.from_pretrained(backbone, num_labels=len(TASK.labels))
    extractor = VocalBurstFeatureExtractor.for_backbone(backbone, model.config)
    pooling = POOLINGS["mean_std"](model.config.encoder_config.hidden_size)
    statistics = []
    with torch.no_grad():
        for row in tqdm(split.with_transform(ClipReader(DataArguments())), desc="states", unit="clip", disable=None):
            batch = extractor(row["audio"], return_tensors="pt")
            states, num_frames = model.encoder.front_end(batch["input_values"], batch["attention_mask"].sum(dim=1))
            rows = []
            for block in range(model.config.feature_layer):
                states = model.encoder.blocks(states, num_frames, start=block, stop=block + 1)
                rows.append(pooling(states, num_frames))
            statistics.append(torch.cat(rows))
    return torch.stack(statistics, dim=1).numpy()


def _choose(folder, splits, features):
    """Take features and regularisation by the validation UAR, and leave predictions and what was taken.

    Args:
        folder: The run's folder.
        splits: The corpus.
        features: Arrays of shape `(clips, width)` by split, by name.
    """
    labels = {name: split["labels"][:] for name, split in splits.items()}
    best = -1.0
    for name, arrays in features.items():
        for c in CS:
            model = make_pipeline(StandardScaler(), LogisticRegression(C=c, max_iter=2000))
            model.fit(arrays["train"], labels["train"])
            uar = balanced_accuracy_score(labels["validation"], model.predict(arrays["validation"]))
            print(f"{name}, C {c:g}: validation UAR {uar:.4f}", flush=True)
            if uar > best:
                best, chosen, choice = uar, model, (name, c)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / CHOICE).write_text(f"{choice[0]}, C {choice[1]:g}\n", encoding="utf-8")
    _write(folder, splits, lambda name: chosen.predict_proba(features[choice[0]][name]))


def _write(folder, splits, predict):
    names = ("validation", "test")
    write_predictions(
        folder / "predictions.csv",
        [file_id for name in names for file_id in splits[name]["file_id"][:]],
        [name for name in names for _ in range(len(splits[name]))],
        np.concatenate([predict(name) for name in names]),
        TASK,
    )
