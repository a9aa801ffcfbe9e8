"""A saved model, used by plain transformers in a process that has no avb_hf."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

import avb_hf
from avb_hf.model import VocalBurstConfig, VocalBurstPipeline, Wav2Vec2ForVocalBurst

pytestmark = pytest.mark.slow

RATE = 16_000
LABELS = ["zest", "awe", "mirth"]
HEADS = {
    "regression": {"label_range": (0, 1), "pooling": "mean"},
    "classes": {"problem_type": "single_label_classification", "pooling": "last"},
}
SCRIPT = """
import json, sys
from pathlib import Path
sys.modules["avb_hf"] = None  # whoever imports it gets an ImportError
import numpy as np
from transformers import AutoFeatureExtractor, AutoModelForAudioClassification, pipeline

folder, clips, recording, package = sys.argv[1:]
clips = list(np.load(clips).values())
model = AutoModelForAudioClassification.from_pretrained(folder, trust_remote_code=True)
extractor = AutoFeatureExtractor.from_pretrained(folder, trust_remote_code=True)
stock = pipeline("audio-classification", model=folder, trust_remote_code=True)
ours = pipeline("vocal-burst-emotion", model=folder, trust_remote_code=True)
inferred = pipeline(model=folder, trust_remote_code=True)
arrays = [{"array": clip, "sampling_rate": 16_000} for clip in clips]
result = {
    "logits": [model(**extractor(clip, return_tensors="pt")).logits[0].tolist() for clip in clips],
    "stock": [stock(clip) for clip in clips],
    "ours": [ours(array) for array in arrays],
    "batched": ours(arrays, batch_size=2),
    "as_list": [inferred(array, as_list=True) for array in arrays],
    "spans": ours(recording, segment=True, trajectory=True),
    "schema": ours.output_schema(segment=True),
}
model.save_pretrained(folder + "-again")
ours.save_pretrained(folder + "-of-pipeline")
files = [getattr(module, "__file__", None) or "" for module in list(sys.modules.values())]
result["ours_here"] = [file for file in files if Path(package) in Path(file).parents]
sys.stdout.write("\\n" + json.dumps(result))
"""


@pytest.fixture(scope="module")
def clips():
    rng = np.random.default_rng(8)
    return [rng.standard_normal(length).astype(np.float32) for length in (8_000, 12_345, 3_000)]


@pytest.fixture(scope="module")
def recording(tmp_path_factory, clips):
    """Two of the clips in faint noise, at 44.1 kHz and in stereo."""
    path = tmp_path_factory.mktemp("recording") / "recording.wav"
    frames = 1e-3 * np.random.default_rng(9).standard_normal((4 * 44_100, 2))
    for start, clip in zip((1, 3), clips, strict=False):
        frames[start * 44_100 : start * 44_100 + len(clip)] += 0.1 * clip[:, None]
    soundfile.write(path, frames, 44_100, subtype="FLOAT")
    return path


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory, tiny_backbone, clips, recording):
    """Give a function from a kind of head to the folder of its model and what the other process says of it."""
    known = {}

    def run(kind):
        if kind not in known:
            home = tmp_path_factory.mktemp(kind)
            torch.manual_seed(2)
            fields = {"id2label": dict(enumerate(LABELS)), "rnn_hidden_size": 8, **HEADS[kind]}
            model = Wav2Vec2ForVocalBurst(VocalBurstConfig(encoder_config=tiny_backbone, **fields)).eval()
            with torch.no_grad():
                model.classifier.weight.mul_(30)  # so that scores differ
            model.feature_extractor.do_normalize = False
            model.save_pretrained(home / "model")
            np.savez(home / "clips.npz", *clips)
            known[kind] = model, home, say(home, recording)
        return known[kind]

    return run


def say(home, recording):
    arguments = [home / "model", home / "clips.npz", recording, Path(avb_hf.__file__).parent]
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=home,
        env=os.environ | {"HF_MODULES_CACHE": str(home / "modules")},
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return json.loads(done.stdout.splitlines()[-1])


def flat(result):
    """The numbers of a nested result in order, and its words."""
    if isinstance(result, dict):
        pairs = [flat(value) for value in result.values()]
        words = list(result)
    elif isinstance(result, list):
        pairs, words = [flat(value) for value in result], []
    else:
        return ([], [result]) if isinstance(result, str) else ([result], [])
    return sum((numbers for numbers, _ in pairs), []), sum((more for _, more in pairs), words)


def same(one, other):
    numbers, words = flat(one)
    other_numbers, other_words = flat(other)
    return words == other_words and numbers == pytest.approx(other_numbers, abs=1e-6)


@pytest.mark.parametrize("kind", [pytest.param("regression"), pytest.param("classes")])
def test_a_process_without_the_package_gives_the_same_numbers(elsewhere, kind, clips, recording):
    model, _, said = elsewhere(kind)
    assert said["ours_here"] == []
    logits = []
    with torch.no_grad():
        for clip in clips:
            logits.append(model(**model.feature_extractor(clip, return_tensors="pt")).logits[0])
    assert same(said["logits"], [row.tolist() for row in logits])
    is_class = kind == "classes"
    scores = [(row.softmax(dim=0) if is_class else row).tolist() for row in logits]
    named = [dict(zip(LABELS, row, strict=True)) for row in scores]
    assert same(said["ours"], named)
    assert same(said["batched"], named)
    for key in ("stock", "as_list"):
        ranked = [{item["label"]: item["score"] for item in result} for result in said[key]]
        assert [list(result) for result in ranked] == [sorted(row, key=row.get, reverse=True) for row in named]
        assert same([{label: result[label] for label in LABELS} for result in ranked], named)
    pipe = VocalBurstPipeline(model)
    assert len(said["spans"]) == 2
    assert same(said["spans"], pipe(recording, segment=True, trajectory=True))
    assert said["schema"] == pipe.output_schema(segment=True)


def test_what_it_saves_travels_on(elsewhere):
    _, home, _ = elsewhere("regression")
    first = {path.name: path.read_bytes() for path in (home / "model").iterdir()}
    assert "pipeline_vocal_burst.py" in first
    for name in ("model-again", "model-of-pipeline"):
        again = {path.name: path.read_bytes() for path in (home / name).iterdir()}
        assert again.keys() == first.keys()
        assert {file for file in first if again[file] != first[file]} == set()
