"""Find the bursts in a recording, score them and draw both.

`python examples/spans.py CHECKPOINT RECORDING PICTURE`; with `--clips FOLDER` the recording is made first: a minute of
the folder's clips in random order, place and stereo position, in faint noise, at 44.1 kHz.
"""

import argparse
from pathlib import Path

import librosa
import matplotlib
import numpy as np
import soundfile

from avb_hf import VocalBurstPipeline

matplotlib.use("Agg")  # draws without a screen
RATE, SECONDS = 44_100, 60


def compose(folder: Path, recording: Path, seed: int = 1) -> list[tuple[float, float, Path]]:
    """Write the recording; return start and end in seconds, and the file, of each clip in it."""
    rng = np.random.default_rng(seed)
    frames = 10 ** (-50 / 20) * rng.standard_normal((SECONDS * RATE, 2))
    placed, time = [], 1.0
    for path in rng.permutation(sorted(path for path in folder.rglob("*") if path.suffix in (".wav", ".flac", ".mp3"))):
        clip = librosa.effects.trim(librosa.load(path, sr=RATE)[0], top_db=30)[0]
        clip *= 10 ** (-3 / 20) / np.abs(clip).max()
        end = time + len(clip) / RATE
        if end > SECONDS - 1:
            break
        start, pan = int(time * RATE), rng.uniform(0.3, 0.7)
        frames[start : start + len(clip)] += clip[:, None] * np.sqrt([pan, 1 - pan])
        placed.append((time, end, path))
        time = end + rng.uniform(1, 2)
    soundfile.write(recording, frames, RATE)
    return placed


def draw(recording: Path, spans: list[dict], picture: Path) -> None:
    """Draw the waveform, and below it each span's score for each label."""
    from matplotlib import pyplot

    frames, rate = soundfile.read(recording)
    figure, (top, bottom) = pyplot.subplots(
        2, sharex=True, figsize=(12, 5.5), height_ratios=(1, 1.6), layout="constrained"
    )
    top.plot(np.arange(len(frames)) / rate, frames.mean(axis=1), color="0.4", linewidth=0.4)
    top.set(ylabel="amplitude", xlim=(0, len(frames) / rate), title=f"{recording.name}: {len(spans)} bursts")
    bottom.set(xlabel="seconds")
    if spans:
        draw_scores(top, bottom, spans)
    figure.savefig(picture, dpi=110)


def draw_scores(top, bottom, spans: list[dict]) -> None:
    labels = list(spans[0]["scores"])
    scores = np.array([list(span["scores"].values()) for span in spans])
    rows = np.arange(len(labels) + 1) - 0.5
    for span, column in zip(spans, scores, strict=True):
        times = [span["start"], span["end"]]
        top.axvspan(*times, color="tab:orange", alpha=0.25)
        mesh = bottom.pcolormesh(times, rows, column[:, None], vmin=scores.min(), vmax=scores.max())
        bottom.plot(np.mean(times), column.argmax(), "r.", markersize=5)
    bottom.set(yticks=range(len(labels)), yticklabels=labels, ylim=(rows[-1], rows[0]))
    bottom.figure.colorbar(mesh, ax=bottom, label="score; a dot marks the highest", aspect=30, pad=0.01)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("checkpoint", "recording", "picture"):
        parser.add_argument(name, type=Path)
    parser.add_argument("--clips", type=Path, help="make the recording of the clips in this folder")
    args = parser.parse_args()
    if args.clips is not None:
        compose(args.clips, args.recording)
    spans = VocalBurstPipeline(args.checkpoint)(args.recording, segment=True)
    for span in spans:
        print(f"{span['start']:6.2f} - {span['end']:6.2f} s  {max(span['scores'], key=span['scores'].get)}")
    draw(args.recording, spans, args.picture)


if __name__ == "__main__":
    main()
