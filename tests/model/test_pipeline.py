"""The pipeline of our own: what it returns, for what it is given."""

import json

import numpy as np
import pytest
import soundfile
import torch
from datasets import Audio, Dataset
from transformers import AudioClassificationPipeline
from transformers.pipelines.pt_utils import KeyDataset

from avb_hf import predict
from avb_hf.model import VocalBurstPipeline
from avb_hf.model.pooling_vocal_burst import POOLINGS
from avb_hf.model.segments_vocal_burst import find_bursts

RATE = 16_000
LABELS = ["zest", "awe", "mirth"]
KINDS = {
    "regression": {"label_range": (0, 1)},
    "unbounded": {"output_norm": "batch"},
    "frames first": {"label_range": (1, 9), "activation_before_pooling": True, "pooling": "max"},
    "classes": {"problem_type": "single_label_classification", "pooling": "last"},
}


@pytest.fixture(scope="module")
def build(make_model):
    def build(backbone="wav2vec2-layer-stable", **fields):
        torch.manual_seed(4)
        model = make_model(backbone, id2label=dict(enumerate(LABELS)), **fields)
        with torch.no_grad():
            model.classifier.weight.mul_(30)  # so that scores differ
        return model

    return build


@pytest.fixture(scope="module")
def pipe(build):
    return VocalBurstPipeline(build(**KINDS["regression"]))


@pytest.fixture
def waves():
    rng = np.random.default_rng(6)
    return [rng.standard_normal(length).astype(np.float32) for length in (9_000, 4_321, 16_000, 700)]


@pytest.fixture
def recording(waves):
    """Three of the clips, loud, in faint noise; the last is too short."""
    parts = [np.zeros(RATE)]
    for wave in waves:
        parts += [0.1 * wave, np.zeros(RATE)]
    clip = np.concatenate(parts)
    return (clip + 1e-3 * np.random.default_rng(7).standard_normal(len(clip))).astype(np.float32)


def as_input(wave):
    return {"array": wave, "sampling_rate": RATE}


def logits_of(model, wave):
    batch = model.feature_extractor(wave, return_tensors="pt")
    with torch.no_grad():
        return model(**batch).logits[0].double().numpy()


def expected(model, wave):
    logits = logits_of(model, wave)
    if model.config.problem_type == "single_label_classification":
        logits = np.exp(logits) / np.exp(logits).sum()
    return dict(zip(LABELS, logits.tolist(), strict=True))


def close(one, other):
    assert list(one) == list(other)
    return list(one.values()) == pytest.approx(list(other.values()), abs=1e-6, rel=3e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_scores_are_the_models_in_the_order_of_the_labels(build, waves, kind):
    model = build(**KINDS[kind])
    pipe = VocalBurstPipeline(model)
    for wave in waves:
        assert close(pipe(as_input(wave)), expected(model, wave))


@pytest.mark.parametrize("kind", KINDS)
def test_as_list_is_what_the_stock_pipeline_returns(build, waves, kind):
    model = build(**KINDS[kind])
    stock = AudioClassificationPipeline(model, feature_extractor=model.feature_extractor, task="audio-classification")
    ours = VocalBurstPipeline(model)(as_input(waves[0]), as_list=True)
    theirs = stock(waves[0])
    assert [item["label"] for item in ours] == [item["label"] for item in theirs]
    assert [item["score"] for item in ours] == pytest.approx([item["score"] for item in theirs], abs=1e-6)


@pytest.mark.parametrize("kind", ["regression", "classes"])
@pytest.mark.parametrize("batch_size", [1, 2, 3, 8])
def test_a_batch_gives_what_single_calls_give(build, waves, kind, batch_size):
    model = build(**KINDS[kind])
    results = VocalBurstPipeline(model)([as_input(wave) for wave in waves], batch_size=batch_size)
    assert isinstance(results, list)
    assert len(results) == len(waves)
    assert all(close(result, expected(model, wave)) for result, wave in zip(results, waves, strict=True))


def test_files_and_arrays_give_the_same(pipe, waves, tmp_path):
    path = tmp_path / "clip.wav"
    soundfile.write(path, waves[0], RATE, subtype="FLOAT")
    results = [pipe(path), pipe(str(path)), pipe(path.read_bytes()), *pipe((path, as_input(waves[0])))]
    assert all(result == results[0] for result in results)
    assert pipe([]) == pipe(()) == []


def test_files_of_another_rate_score_as_in_a_prediction_of_many(pipe, make_corpus, tmp_path):
    folder = make_corpus(tmp_path / "corpus", suffix=".ogg", rate=44_100, channels=2, clips=8) / "audio"
    rows = list(predict(pipe.model, [str(folder)], feature_extractor=pipe.feature_extractor))
    assert len(rows) == 8
    for row in rows:
        assert close(pipe(folder / row["file"]), {label: row[label] for label in LABELS})


def test_generators_and_datasets_are_read_as_they_are_asked_for(pipe, waves, tmp_path):
    for index, wave in enumerate(waves):
        soundfile.write(tmp_path / f"{index}.wav", wave, RATE, subtype="FLOAT")
    paths = [str(path) for path in sorted(tmp_path.glob("*.wav"))]
    alone = [pipe(path) for path in paths]
    typed = Dataset.from_dict({"voice": paths}).cast_column("voice", Audio())
    plain = Dataset.from_dict({"audio": paths})
    many = [typed, typed.to_iterable_dataset(), plain, KeyDataset(plain, "audio"), (path for path in paths)]
    for inputs in many:
        results = pipe(inputs)
        assert not isinstance(results, list)
        assert list(results) == alone

    def endless():
        yield paths[0]
        raise AssertionError("asked for more than was needed")

    assert next(iter(pipe(endless()))) == alone[0]


def test_segments_are_spans_with_the_scores_of_what_lies_in_them(pipe, recording):
    spans = pipe(as_input(recording), segment=True)
    bursts = find_bursts(recording, RATE)
    assert len(bursts) == 3
    assert [(span["start"], span["end"]) for span in spans] == [(start / RATE, end / RATE) for start, end in bursts]
    for span, (start, end) in zip(spans, bursts, strict=True):
        assert close(span["scores"], expected(pipe.model, recording[start:end]))


@pytest.mark.parametrize("batch_size", [1, 2, 5])
def test_recordings_with_and_without_bursts_in_one_list(pipe, recording, batch_size):
    silence = as_input(np.zeros(RATE, np.float32))
    alone = pipe(as_input(recording), segment=True)
    results = pipe([silence, as_input(recording), silence, as_input(recording)], segment=True, batch_size=batch_size)
    assert [len(result) for result in results] == [0, 3, 0, 3]
    for result in (results[1], results[3]):
        for span, other in zip(result, alone, strict=True):
            assert (span["start"], span["end"]) == (other["start"], other["end"])
            assert close(span["scores"], other["scores"])
    assert pipe(silence, segment=True) == []


@pytest.mark.parametrize("family", ["wav2vec2-layer-stable", "whisper"])
@pytest.mark.parametrize("kind", KINDS)
def test_the_pooling_of_a_trajectory_is_the_score(build, waves, kind, family):
    model = build(family, **KINDS[kind])
    [result, _] = VocalBurstPipeline(model)([as_input(wave) for wave in waves[:2]], trajectory=True, batch_size=2)
    assert (result["start"], result["end"]) == (0, len(waves[0]) / RATE)
    assert close(result["scores"], expected(model, waves[0]))
    frames = torch.tensor(list(result["trajectory"]["outputs"].values())).T[None]
    pooled = POOLINGS[model.config.pooling](len(LABELS))(frames, torch.tensor([frames.shape[1]]))[0]
    if kind == "regression":
        pooled = pooled.sigmoid()
    elif kind == "classes":
        pooled = pooled.softmax(dim=0)
    assert close(dict(zip(LABELS, pooled.tolist(), strict=True)), result["scores"])


@pytest.mark.parametrize("family", ["wav2vec2-group", "whisper"])
def test_a_frame_lies_where_its_sound_is(build, family):
    """A click moves the trajectory first in the frames whose time it is."""
    model = build(family, rnn="none", label_range=(0, 1))
    pipe = VocalBurstPipeline(model)
    quiet = np.full(RATE, 1e-3, np.float32)
    clicked = quiet.copy()
    clicked[8_000] = 1.0
    front_ends = []
    for wave in (quiet, clicked):
        values = torch.from_numpy(wave)[None]
        front_ends.append(model.encoder.front_end(values, torch.tensor([RATE]))[0][0].detach())
    times = pipe(as_input(quiet), trajectory=True)["trajectory"]["times"]
    moved = (front_ends[1] - front_ends[0]).abs().sum(dim=1).numpy()
    assert len(times) == len(moved)
    touched = np.asarray(times)[moved > 0.2 * moved.max()]
    assert abs(touched.mean() - 0.5) < 0.015
    np.testing.assert_allclose(np.diff(times), 0.02, atol=1e-9)


def test_trajectories_of_spans_are_timed_in_the_recording(pipe, recording):
    for span in pipe(as_input(recording), segment=True, trajectory=True, batch_size=2):
        times = span["trajectory"]["times"]
        assert span["start"] < times[0] < span["start"] + 0.05
        assert span["end"] - 0.05 < times[-1] < span["end"]
        assert {len(outputs) for outputs in span["trajectory"]["outputs"].values()} == {len(times)}


def test_a_model_that_pools_states_has_no_trajectory(build, waves):
    pipe = VocalBurstPipeline(build(pool_over="states", pooling="attentive"))
    assert list(pipe(as_input(waves[0]))) == LABELS
    with pytest.raises(ValueError, match="trajectory needs a model with pool_over 'logits'"):
        pipe(as_input(waves[0]), trajectory=True)


def test_a_clip_that_is_too_long_for_the_model_is_named(build, tmp_path):
    pipe = VocalBurstPipeline(build("whisper"))
    recording = 1e-4 * np.random.default_rng(1).standard_normal(31 * RATE)
    recording[RATE : 2 * RATE] += 0.1 * np.sin(np.arange(RATE))
    soundfile.write(tmp_path / "long.wav", recording, RATE)
    with pytest.raises(ValueError, match=r"long\.wav lasts 31\.0 s, the model takes up to 30 s; segment=True"):
        pipe(tmp_path / "long.wav")
    assert len(pipe(tmp_path / "long.wav", segment=True)) == 1


def test_arguments_of_a_call_may_be_given_beforehand(build, recording):
    pipe = VocalBurstPipeline(build(), segment=True, batch_size=2)
    assert len(pipe(as_input(recording))) == 3
    assert list(pipe(as_input(recording), segment=False)) == LABELS


@pytest.mark.parametrize("name", ["segments", "top_k"])
def test_an_unknown_argument_is_refused(pipe, waves, name):
    hint = "; did you mean 'segment'" if name == "segments" else ""
    with pytest.raises(TypeError, match=rf"VocalBurstPipeline has no argument '{name}'{hint}"):
        pipe(as_input(waves[0]), **{name: True})
    with pytest.raises(TypeError, match=name):
        VocalBurstPipeline(pipe.model, **{name: True})


def test_a_model_in_training_is_brought_to_evaluation(build, waves):
    model = build(backbone_changes={"hidden_dropout": 0.5})
    scores = VocalBurstPipeline(model)(as_input(waves[0]))
    assert VocalBurstPipeline(model.train())(as_input(waves[0])) == scores


def test_results_are_json(pipe, recording):
    result = pipe(as_input(recording), segment=True, trajectory=True)
    assert json.loads(json.dumps(result, allow_nan=False)) == result
