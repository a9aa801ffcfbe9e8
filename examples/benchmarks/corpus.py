"""What the benchmarks run on: noise of ragged length in the A-VB layout, and backbones of the usual shapes."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

RATE = 16_000
# Gamma-distributed lengths, in seconds.
GAMMA_SHAPE, MEAN, SHORTEST, LONGEST = 4, 2.2, 0.4, 12
VALIDATION_CLIPS = 8
FEATURE_LAYER = 12

_LAYER_NORM = {"feat_extract_norm": "layer", "conv_bias": True, "do_stable_layer_norm": True}
_GROUP_NORM = {"feat_extract_norm": "group", "conv_bias": False, "do_stable_layer_norm": False}
_TINY = {
    "conv_dim": [16, 16, 16], "conv_kernel": [80, 4, 4], "conv_stride": [40, 4, 2], "hidden_size": 16,
    "num_attention_heads": 2, "intermediate_size": 32, "num_conv_pos_embeddings": 8, "num_conv_pos_embedding_groups": 2,
}  # fmt: skip
# Fields of a Wav2Vec2Config; its defaults are BASE. LARGE is that of LARGE-LV60K and XLSR.
SHAPES = {
    "LARGE": _LAYER_NORM
    | {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16, "intermediate_size": 4096},
    "BASE": _GROUP_NORM
    | {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "intermediate_size": 3072},
}
TINY_SHAPES = {
    "LARGE": _LAYER_NORM | _TINY | {"num_hidden_layers": 24},
    "BASE": _GROUP_NORM | _TINY | {"num_hidden_layers": 12},
}


@dataclass
class Corpus:
    """Clips in the A-VB layout.

    Attributes:
        folder: Holds `labels/` and `audio/`.
        paths: The training clips.
        seconds: Their lengths.
        labels: Their intensities, `(clips, 10)`.
    """

    folder: Path
    paths: list[str]
    seconds: np.ndarray
    labels: np.ndarray

    def facts(self, batch_size):
        """Return clips, seconds, and the share of padding in our batches of an epoch and in random ones."""
        from avb_hf.training.sampler import EpochLengthSampler

        random = np.random.default_rng(0)
        shuffled = [padding(random.permutation(self.seconds), batch_size) for _ in range(200)]
        ours = self.seconds[list(EpochLengthSampler(self.seconds, batch_size, 0))]
        return {
            "clips": len(self.paths),
            "seconds": float(self.seconds.sum()),
            "batch_size": batch_size,
            "padding_ours": padding(ours, batch_size),
            "padding_random": float(np.mean(shuffled)),
        }


def write_corpus(folder, clips, longest=LONGEST):
    """Write clips whose lengths are evenly spaced quantiles of the gamma distribution, in random order."""
    import soundfile

    from avb_hf.tasks import TASKS

    task = TASKS["high"]
    random = np.random.default_rng(0)
    folder = Path(folder)
    (folder / "audio" / "wav").mkdir(parents=True)
    (folder / "labels").mkdir()
    train, validation = (random.permutation(_quantiles(count, longest)) for count in (clips, VALIDATION_CLIPS))
    labels = random.uniform(0, 1, (clips + VALIDATION_CLIPS, len(task.labels))).round(4)
    rows, paths = [",".join(["File_ID", "Split", *task.labels])], []
    for number, seconds in enumerate((*train, *validation)):
        paths.append(str(folder / "audio" / "wav" / f"{number:05d}.wav"))
        soundfile.write(paths[-1], 0.1 * random.standard_normal(int(seconds * RATE)), RATE)
        split = "Train" if number < clips else "Val"
        rows.append(",".join([f"[{number:05d}]", split, *(f"{value:.4f}" for value in labels[number])]))
    (folder / "labels" / task.label_file).write_text("\n".join(rows) + "\n", encoding="utf-8")
    return Corpus(folder, paths[:clips], train, labels[:clips])


def useful_flops(shape, seconds, blocks=FEATURE_LAYER):
    """Count the operations of blocks 1 to 12, forward and backward, on true frames alone: what fine-tuning asks for.

    Two operations a weight and frame in the linear layers, and `4 * frames * hidden` a frame in the attention; backward
    takes twice the forward. Front end, padding and blocks above 12 do not count, whoever computes them.
    """
    hidden, inner = shape["hidden_size"], shape["intermediate_size"]
    frames = np.asarray(seconds) * 50
    linear = 2 * (4 * hidden**2 + 2 * hidden * inner) * frames
    return float(3 * min(blocks, shape["num_hidden_layers"]) * (linear + 4 * hidden * frames**2).sum())


def _quantiles(count, longest):
    from scipy.stats import gamma

    middles = (np.arange(count) + 0.5) / count
    return gamma.ppf(middles, GAMMA_SHAPE, scale=MEAN / GAMMA_SHAPE).clip(SHORTEST, longest)


def padding(seconds, batch_size):
    """Return the share of padding in batches of clips that follow each other."""
    batches = [seconds[start : start + batch_size] for start in range(0, len(seconds), batch_size)]
    return float(1 - seconds.sum() / sum(len(batch) * batch.max() for batch in batches))
