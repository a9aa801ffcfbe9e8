"""Score audio files with a fine-tuned model: `python examples/score_clips.py runs/quickstart clip.wav ...`."""

import sys

from avb_hf import VocalBurstPipeline


def main(checkpoint: str, paths: list[str]) -> None:
    pipe = VocalBurstPipeline(checkpoint)
    for path, scores in zip(paths, pipe(paths), strict=True):
        print(path, {label: round(score, 3) for label, score in scores.items()})


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
