import json

import numpy as np
import pytest
import torch
from torch import nn
from transformers import WhisperFeatureExtractor, WhisperModel
from transformers.audio_utils import mel_filter_bank

from avb_hf.model import Wav2Vec2ForVocalBurst
from avb_hf.model.encoders_vocal_burst import masked_group_norm
from avb_hf.model.log_mel_vocal_burst import log_mel

THIRTY_SECONDS = 480_000
HEAD = {"num_labels": 3, "rnn_hidden_size": 8, "rnn_num_layers": 1, "pooling": "mean"}


def output_of_block(model, block, *inputs):
    """What a forward hook sees on block `block`, counted from 1, of a stock model."""
    seen = []
    hook = model.encoder.layers[block - 1].register_forward_hook(lambda module, args, output: seen.append(output))
    with torch.no_grad():
        (model.encoder if isinstance(model, WhisperModel) else model)(*inputs)
    hook.remove()
    return seen[0][0] if isinstance(seen[0], tuple) else seen[0]


def states_of(model, values, mask=None):
    num_samples = torch.full((len(values),), values.shape[1]) if mask is None else mask.sum(dim=1)
    with torch.no_grad():
        return model.encoder(values, num_samples)


@pytest.mark.wide
@pytest.mark.parametrize("block", [1, 2, 3])
def test_states_are_what_a_hook_sees_on_the_stock_model(convolutional, block, stock_dir, stock):
    folder = stock_dir(convolutional)
    reference = type(stock(convolutional)).from_pretrained(folder)
    model = Wav2Vec2ForVocalBurst.from_pretrained(folder, feature_layer=block, masked_group_norm=False, **HEAD)
    clip = torch.randn(1, 9_001)
    states, num_frames = states_of(model, clip)
    expected = output_of_block(reference, block, clip)
    assert states.shape[1] == num_frames.item() > 20
    assert torch.equal(states, expected)


@pytest.mark.wide
@pytest.mark.parametrize("block", [1, 3])
@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_whisper_states_are_what_a_hook_sees_on_the_stock_encoder(block, attention, stock_dir):
    folder = stock_dir("whisper")
    reference = WhisperModel.from_pretrained(folder, attn_implementation=attention)
    model = Wav2Vec2ForVocalBurst.from_pretrained(folder, feature_layer=block, attn_implementation=attention, **HEAD)
    clip = torch.randn(1, THIRTY_SECONDS)
    mel, _ = log_mel(clip, torch.tensor([THIRTY_SECONDS]), 80)
    states, num_frames = states_of(model, clip)
    assert num_frames.item() == 1_500
    assert torch.equal(states, output_of_block(reference, block, mel))


@pytest.mark.wide
@pytest.mark.parametrize("block", [1, 2])
def test_blocks_above_are_not_there(backbone, block, stock, make_model):
    reference = stock(backbone)
    reference = reference.encoder if isinstance(reference, WhisperModel) else reference
    prefix = "" if backbone == "whisper" else "encoder."
    above = tuple(f"{prefix}layers.{index}." for index in range(block, 3))
    behind = f"{prefix}layer_norm." if backbone == "whisper" or "stable" in backbone else "nothing"
    expected = {
        name: value.shape
        for name, value in reference.named_parameters()
        if not name.startswith((*above, behind, "masked_spec_embed"))
    }
    model = make_model(backbone, feature_layer=block)
    assert {name: value.shape for name, value in model.encoder.named_parameters()} == expected


@pytest.mark.wide
def test_random_weights_are_those_of_the_stock_class(backbone, stock, make_model):
    torch.manual_seed(5)
    reference = stock(backbone, mask_time_prob=0.0)
    reference = reference.encoder if isinstance(reference, WhisperModel) else reference
    torch.manual_seed(5)
    own = dict(make_model(backbone).encoder.named_parameters())
    stock_parameters = dict(reference.named_parameters())
    assert own.keys() <= stock_parameters.keys()
    assert [name for name in own if not torch.equal(own[name], stock_parameters[name])] == []


def test_masked_group_norm_is_torchs_on_the_true_frames():
    norm = nn.GroupNorm(6, 6)
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    hidden, num_frames = 3 + torch.randn(3, 6, 20), torch.tensor([20, 7, 2])
    masked = masked_group_norm(hidden, num_frames, norm)
    for clip, row, count in zip(hidden, masked, num_frames, strict=True):
        torch.testing.assert_close(row[:, :count], norm(clip[None, :, :count])[0])
    assert masked_group_norm(hidden.bfloat16(), num_frames, norm).dtype == torch.bfloat16


@pytest.mark.wide
def test_num_frames_are_those_the_convolutions_give(backbone, make_model):
    model = make_model(backbone)
    for samples in range(model.config.min_samples, model.config.min_samples + 700, 53):
        states, num_frames = states_of(model, torch.randn(1, samples))
        # A stretch of less than a hop at the end makes no mel frame, so Whisper may have a frame of padding.
        assert 1 <= num_frames.item() <= states.shape[1] <= num_frames.item() + (backbone == "whisper")


def test_the_shortest_clip_gives_one_frame(backbone, make_model, pad):
    model = make_model(backbone)
    shortest, other = torch.randn(model.config.min_samples), torch.randn(8_000)
    states, num_frames = states_of(model, *pad([shortest, other]))
    assert num_frames[0] == 1
    alone, _ = states_of(model, shortest[None])
    torch.testing.assert_close(alone[0, :1], states[0, :1], atol=1e-5, rtol=1e-5)


def test_a_whisper_clip_beyond_the_positions_is_refused(make_model):
    with pytest.raises(ValueError, match=r"up to 30 s, got 30\.02 s"):
        make_model("whisper")(torch.zeros(1, THIRTY_SECONDS + 320))


def test_log_mel_is_whispers_own_at_thirty_seconds():
    clips = [0.1 * torch.randn(THIRTY_SECONDS) for _ in range(2)]
    own, num_frames = log_mel(torch.stack(clips), torch.tensor([THIRTY_SECONDS] * 2), 80)
    extractor = WhisperFeatureExtractor(feature_size=80)
    expected = extractor([clip.numpy() for clip in clips], sampling_rate=16_000, return_tensors="pt").input_features
    assert num_frames.tolist() == [3_000, 3_000]
    assert torch.equal(own, expected)


def numpy_log_mel(clip, num_mel_bins):
    """Whisper's log-mel of one clip in float64, frame by frame."""
    mirrored = np.pad(clip.astype(np.float64), 200, mode="reflect")
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(400) / 400)
    frames = [mirrored[160 * index : 160 * index + 400] * window for index in range(len(clip) // 160)]
    power = np.abs(np.fft.rfft(np.stack(frames), axis=1)) ** 2
    filters = mel_filter_bank(201, num_mel_bins, 0.0, 8_000.0, 16_000, norm="slaney", mel_scale="slaney")
    log = np.log10(np.maximum(power @ filters, 1e-10))
    return ((np.maximum(log, log.max() - 8) + 4) / 4).T


@pytest.mark.parametrize("num_mel_bins", [80, 128])
def test_log_mel_is_that_of_each_clip_alone(num_mel_bins, pad):
    quiet_end = torch.cat([torch.randn(4_000), 1e-6 * torch.randn(4_000)])  # the floor of 8 below the loudest counts
    click = torch.zeros(1_641)
    click[560] = 1  # between two frames; its mirror image beyond the end falls on the middle of one and is louder
    clips = [click, quiet_end, 3 * torch.randn(2_345), 0.01 * torch.randn(12_000), torch.randn(201)]
    values, mask = pad(clips, value=7.0)
    mel, num_frames = log_mel(values, mask.sum(dim=1), num_mel_bins)
    for clip, row, count in zip(clips, mel, num_frames, strict=True):
        expected = numpy_log_mel(clip.numpy(), num_mel_bins)
        assert expected.shape[1] == count
        np.testing.assert_allclose(row[:, :count].numpy(), expected, atol=2e-5)
        assert (row[:, count:] == 0).all()


def test_log_mel_of_silence_is_finite():
    mel, _ = log_mel(torch.zeros(1, 1_600), torch.tensor([1_600]), 80)
    assert (mel == -1.5).all()  # (log10(1e-10) + 4) / 4


@pytest.mark.slow
@pytest.mark.real_data
def test_real_whisper_is_float32_and_bit_equal_to_the_stock_encoder(whisper_dir, tmp_path):
    assert json.loads((whisper_dir / "config.json").read_text())["dtype"] == "float16"
    model = Wav2Vec2ForVocalBurst.from_pretrained(whisper_dir, feature_layer=5, **HEAD)
    model.save_pretrained(tmp_path)
    again = Wav2Vec2ForVocalBurst.from_pretrained(tmp_path)
    for loaded in (model, again):
        assert {parameter.dtype for parameter in loaded.parameters()} == {torch.float32}
    clip = torch.randn(1, THIRTY_SECONDS)
    mel, _ = log_mel(clip, torch.tensor([THIRTY_SECONDS]), 80)
    reference = WhisperModel.from_pretrained(whisper_dir, dtype=torch.float32)
    assert torch.equal(states_of(again, clip)[0], output_of_block(reference, 5, mel))
