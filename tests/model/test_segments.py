"""Where bursts begin and end in a recording."""

import numpy as np
import pytest

from avb_hf.model.reading_vocal_burst import read_clip
from avb_hf.model.segments_vocal_burst import find_bursts

RATE = 16_000


def decibels(value):
    return 10 ** (value / 20)


def record(spans, seconds=10.0, floor=-50.0, loudness=-10.0):
    """White noise at a level in dBFS, with tones from and to the given seconds."""
    recording = decibels(floor) * np.random.default_rng(5).standard_normal(int(seconds * RATE))
    for start, end in spans:
        time = np.arange(round(start * RATE), round(end * RATE))
        recording[time] += decibels(loudness) * np.sin(0.3 * time)
    return recording.astype(np.float32)


def seconds_of(recording, **changes):
    return [(start / RATE, end / RATE) for start, end in find_bursts(recording, RATE, **changes)]


TRUE = [(1.0, 1.5), (3.0, 4.2), (6.0, 6.2)]


@pytest.mark.parametrize("floor", [-70, -50, -30, -25])
@pytest.mark.parametrize("gain", [1, 1e-3, 30])
def test_bursts_are_found_in_noise_of_any_level_whatever_the_gain(floor, gain):
    found = seconds_of(gain * record(TRUE, floor=floor))
    np.testing.assert_allclose(found, TRUE, atol=0.03)


def test_bursts_in_digital_silence_are_found():
    recording = record(TRUE, floor=-300)
    recording[np.abs(recording) < 1e-9] = 0
    np.testing.assert_allclose(seconds_of(recording), TRUE, atol=0.03)


@pytest.mark.parametrize("offset", [0.02, -0.3])
def test_an_offset_and_rumble_hide_no_burst(offset):
    time = np.arange(10 * RATE) / RATE
    rumble = 0.2 * np.sin(2 * np.pi * 8 * time) + 0.2 * np.sin(2 * np.pi * 11.7 * time)
    quiet = record(TRUE, loudness=-30)
    np.testing.assert_allclose(seconds_of((quiet + offset).astype(np.float32)), TRUE, atol=0.03)
    np.testing.assert_allclose(seconds_of((quiet + offset + rumble).astype(np.float32)), TRUE, atol=0.05)


def test_an_offset_alone_is_no_burst():
    assert seconds_of(np.full(10 * RATE, 0.25, np.float32)) == []


def test_a_burst_that_touches_an_end_is_cut_there():
    found = seconds_of(record([(0.0, 1.0), (9.0, 10.0)]))
    np.testing.assert_allclose(found, [(0.0, 1.0), (9.0, 10.0)], atol=0.03)
    assert found[0][0] == 0
    assert found[-1][1] <= 10.0


def test_a_short_pause_is_inside_a_burst_and_a_long_one_between_two():
    laughter = [(1.0, 1.2), (1.6, 1.8), (2.2, 2.4)]
    np.testing.assert_allclose(seconds_of(record(laughter)), [(1.0, 2.4)], atol=0.03)
    np.testing.assert_allclose(seconds_of(record(laughter), max_pause=0.2), laughter, atol=0.03)
    apart = [(1.0, 1.5), (2.2, 2.7)]
    np.testing.assert_allclose(seconds_of(record(apart)), apart, atol=0.03)


def test_a_click_is_no_burst():
    recording = record([(3.0, 4.0), (6.0, 6.002)])
    np.testing.assert_allclose(seconds_of(recording), [(3.0, 4.0)], atol=0.03)
    assert len(seconds_of(recording, min_duration=0.0)) == 2


def test_a_long_burst_is_cut_into_equal_parts():
    found = seconds_of(record([(5.0, 75.0)], seconds=90.0))
    assert len(found) == 3
    lengths = [end - start for start, end in found]
    np.testing.assert_allclose(lengths, 70 / 3, atol=0.03)
    assert [end for _, end in found[:-1]] == [start for start, _ in found[1:]]


@pytest.mark.parametrize("recording", [np.zeros(0), np.zeros(RATE), record([], seconds=20), np.ones(3)], ids=len)
def test_nothing_is_found_where_nothing_stands_out(recording):
    assert find_bursts(recording.astype(np.float32), RATE) == []


def test_the_threshold_is_relative_to_the_noise():
    faint = record([(3.0, 4.0)], floor=-50, loudness=-44)  # a tone's level is 3 dB below its peak
    assert seconds_of(faint) == []
    np.testing.assert_allclose(seconds_of(faint, threshold_db=2.5), [(3.0, 4.0)], atol=0.05)


def compose(clips, rng):
    """Put clips 1-2 s apart into noise at -50 dBFS; true spans are in samples."""
    import librosa

    parts, spans, position = [], [], 0
    for clip in clips:
        pause = np.zeros(int(rng.uniform(1, 2) * RATE))
        burst = librosa.effects.trim(clip * decibels(-3) / np.abs(clip).max(), top_db=30)[0]
        spans.append((position + len(pause), position + len(pause) + len(burst)))
        position = spans[-1][1]
        parts += [pause, burst]
    recording = np.concatenate([*parts, np.zeros(RATE)])
    return recording + decibels(-50) * rng.standard_normal(len(recording)), spans


def overlap(one, other):
    shared = max(0, min(one[1], other[1]) - max(one[0], other[0]))
    return shared / (one[1] - one[0] + other[1] - other[0] - shared)


def f1_of(found, spans):
    hits = 0
    free = list(found)
    for span in spans:
        best = max(free, key=lambda other: overlap(span, other), default=None)
        if best is not None and overlap(span, best) >= 0.5:
            free.remove(best)
            hits += 1
    return 2 * hits / (len(found) + len(spans))


@pytest.mark.slow
@pytest.mark.real_data
def test_real_bursts_are_found(emogator_dir):
    paths = sorted((emogator_dir / "data" / "mp3").glob("*.mp3"))
    scores = []
    for seed in range(10):
        rng = np.random.default_rng(seed)
        clips = [read_clip(paths[index], RATE)[0] for index in rng.choice(len(paths), 20, replace=False)]
        recording, spans = compose(clips, rng)
        scores.append(f1_of(find_bursts(recording.astype(np.float32), RATE), spans))
    assert np.mean(scores) >= 0.9, scores
