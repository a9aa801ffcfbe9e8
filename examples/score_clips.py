"""Score audio files with a fine-tuned model: `python examples/score_clips.py runs/quickstart clip.wav ...`."""

import sys

import librosa
import soundfile
import torch

from avb_hf import VocalBurstFeatureExtractor, Wav2Vec2ForVocalBurst


def main(checkpoint: str, paths: list[str]) -> None:
    model = Wav2Vec2ForVocalBurst.from_pretrained(checkpoint)
    extractor = VocalBurstFeatureExtractor.from_pretrained(checkpoint)
    for path in paths:
        frames, rate = soundfile.read(path, dtype="float32", always_2d=True)
        clip = librosa.resample(
            frames.mean(axis=1), orig_sr=rate, target_sr=extractor.sampling_rate, res_type="soxr_hq"
        )
        with torch.no_grad():
            scores = model(**extractor(clip, return_tensors="pt")).logits[0]
        if model.config.problem_type == "single_label_classification":
            scores = scores.softmax(dim=0)
        print(
            path,
            {label: round(score, 3) for label, score in zip(model.config.label_names, scores.tolist(), strict=True)},
        )


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
