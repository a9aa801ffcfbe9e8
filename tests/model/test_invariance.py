"""A clip's states and scores are the same alone and in any batch."""

import pytest
import soundfile
import torch

from avb_hf.data.arguments import DataArguments
from avb_hf.data.audio import load_clip
from avb_hf.model import POOLINGS, Wav2Vec2ForVocalBurst


def scores_of(model, values, mask=None):
    with torch.no_grad():
        return model(values, mask).logits


def measure(model, poolings, values, mask):
    """States of each clip on its valid frames, and its scores by each pooling beside each other."""
    with torch.no_grad():
        states, num_frames = model.encoder(values, mask.sum(dim=1))
        scores = []
        for model.pooling in poolings:
            scores.append(model.score_states(states, num_frames))
    rows = zip(states, num_frames, strict=True)
    return [row[:count] for row, count in rows], torch.cat(scores, dim=1)


def batches_of(clips, pad):
    """The same clips together, behind loud padding, back to front, and with fewer mates; with their numbers."""
    numbers = list(range(len(clips)))
    return [
        (numbers, pad(clips)),
        (numbers, pad(clips, value=50.0, extra=4_321)),
        (numbers[::-1], pad(clips[::-1])),
        (numbers[2:], pad(clips[2:])),
    ]


@pytest.mark.wide
def test_no_batch_moves_states_or_scores(attended, make_model, clips, pad):
    backbone, attention = attended
    model = make_model(backbone, attn_implementation=attention)
    assert model.encoder.config._attn_implementation == attention
    poolings = [pooling(model.config.num_labels) for pooling in POOLINGS.values()]
    alone = [measure(model, poolings, *pad([clip])) for clip in clips]
    states_alone, scores_alone = [states[0] for states, _ in alone], torch.cat([scores for _, scores in alone])
    largest = max(states.abs().max() for states in states_alone)
    assert ((scores_alone - scores_alone[0]).abs().amax(dim=0) > 1e-5).all()  # the clips do differ
    for numbers, batch in batches_of(clips, pad):
        states, scores = measure(model, poolings, *batch)
        assert (scores - scores_alone[numbers]).abs().max() < 1e-5
        for number, row in zip(numbers, states, strict=True):
            assert row.shape == states_alone[number].shape
            assert (row - states_alone[number]).abs().max() < 5e-5 * largest


@pytest.mark.wide
@pytest.mark.parametrize("pooling", POOLINGS)
def test_no_batch_moves_the_scores_of_a_whole_model(one_of_each, pooling, make_model, clips, pad):
    pool_over = "states" if POOLINGS[pooling].widening > 1 else "logits"
    model = make_model(one_of_each, pooling=pooling, pool_over=pool_over, rnn="none")
    alone = torch.cat([scores_of(model, clip[None]) for clip in clips])
    assert (alone - alone[0]).abs().max() > 1e-3
    assert (scores_of(model, *pad(clips, value=50.0, extra=4_321)) - alone).abs().max() < 1e-5


def test_an_unmasked_group_norm_is_moved_by_padding(make_model, clips, pad):
    model = make_model("wav2vec2-group", masked_group_norm=False)
    alone = torch.cat([scores_of(model, clip[None]) for clip in clips])
    assert (scores_of(model, *pad(clips)) - alone).abs().max() > 1e-3


@pytest.mark.slow
@pytest.mark.real_data
@pytest.mark.parametrize(("fields", "bound"), [({}, 1e-5), ({"rnn": "none", "states_norm": "none"}, 2e-4)])
def test_no_batch_moves_real_scores(whisper_dir, emogator_dir, fields, bound, pad):
    model = Wav2Vec2ForVocalBurst.from_pretrained(whisper_dir, num_labels=10, pooling="mean", **fields)
    paths = sorted(emogator_dir.glob("data/mp3/*.mp3"))[::20]
    by_length = {soundfile.info(path).frames: path for path in paths}  # most clips last 1.92 s
    clips = [torch.from_numpy(load_clip(path, path.stem, DataArguments())) for path in by_length.values()]
    assert len(clips) > 5
    alone = torch.cat([scores_of(model, clip[None]) for clip in clips])
    assert (scores_of(model, *pad(clips)) - alone).abs().max() < bound
