"""Emo-18: its shape, what it makes of frames and padding, and that it is a model like ours."""

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn import functional as F
from transformers import AutoFeatureExtractor, AutoModelForAudioClassification

from avb_hf.baselines.emo18 import Emo18Config, Emo18ForVocalBurst
from avb_hf.baselines.emo18_arguments import Emo18Arguments, Emo18RunArguments
from avb_hf.baselines.emo18_training import build_emo18
from avb_hf.baselines.losses import FITTING_LOSSES
from avb_hf.inference.audit import audit
from avb_hf.inference.load_model import load_audited, load_fine_tuned
from avb_hf.model import LOSSES, VocalBurstFeatureExtractor
from avb_hf.tasks import TASKS
from avb_hf.training.exact import require_uncut_batches

FRAME = 1_600
LABELS = ["calm", "wild", "odd"]
CLASSES = {"problem_type": "single_label_classification"}


def make_model(**fields):
    """An Emo-18 of three labels whose batch norm is not as it starts."""
    model = Emo18ForVocalBurst(Emo18Config(id2label=dict(enumerate(LABELS)), **fields))
    for norm in (module for module in model.modules() if isinstance(module, nn.BatchNorm1d)):
        for values in (norm.weight, norm.bias, norm.running_mean):
            nn.init.normal_(values, std=0.5)
        nn.init.uniform_(norm.running_var, 0.2, 2)
    return model.eval()


@pytest.fixture
def clips():
    """Five clips of one to seven frames, most with a rest behind the last whole one, of unequal loudness."""
    lengths = (11_300, 5_000, FRAME, 8_003, 3_199)
    return [torch.randn(length) * loudness for length, loudness in zip(lengths, (1, 0.1, 2, 1, 0.5), strict=True)]


def pad(clips, extra=0, value=0.0):
    longest = max(map(len, clips)) + extra
    values = torch.stack([F.pad(clip, (0, longest - len(clip)), value=value) for clip in clips])
    return values, torch.stack([(torch.arange(longest) < len(clip)).long() for clip in clips])


def scores_of(model, *batch):
    with torch.no_grad():
        return model(*batch).logits


def convolve(state, frames, uses_batch):
    """Convolve frames `(frames, samples)` as the paper's toolkit does; by moments of the batch, or those stored."""
    x, moments = frames[:, None], []
    for number, (padding, pool) in enumerate([(3, 10), (2, 8), (2, 8)]):
        weight, bias = (state[f"convolutions.{number}.0.{name}"] for name in ("weight", "bias"))
        windows = F.pad(x, (padding, padding)).unfold(2, weight.shape[2], 1)
        x = torch.einsum("nclk,ock->nol", windows, weight) + bias[:, None]
        norm = {name: state[f"convolutions.{number}.1.{name}"] for name in ("weight", "bias")}
        mean, variance = (state[f"convolutions.{number}.1.running_{name}"] for name in ("mean", "var"))
        if uses_batch:
            mean, variance = x.mean((0, 2)), x.var((0, 2), correction=0)
            moments.append((mean, x.var((0, 2))))
        x = (x - mean[:, None]) / (variance + 1e-5).sqrt()[:, None] * norm["weight"][:, None] + norm["bias"][:, None]
        x = torch.where(x > 0, x, 0.01 * x)
        x = x[:, :, : x.shape[2] // pool * pool].unflatten(2, (-1, pool)).amax(dim=3)
    return x.flatten(1), moments


def run_lstm(state, x):
    """Run frames `(frames, features)` through two layers, gate by gate; return the last output."""
    for layer in (0, 1):
        w_x, w_h, b_x, b_h = (
            state[f"rnn.{name}_l{layer}"] for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
        )
        hidden = cell = torch.zeros(256, dtype=x.dtype)
        outputs = []
        for frame in x:
            enter, forget, new, leave = (w_x @ frame + b_x + w_h @ hidden + b_h).chunk(4)
            cell = forget.sigmoid() * cell + enter.sigmoid() * new.tanh()
            hidden = leave.sigmoid() * cell.tanh()
            outputs.append(hidden)
        x = torch.stack(outputs)
    return x[-1]


def by_hand(model, clips, uses_batch=False):
    """Scores of clips, and the moments of the batch, without a module of PyTorch's."""
    state = model.state_dict()
    counts = [len(clip) // FRAME for clip in clips]
    frames = torch.cat([clip[: count * FRAME].view(count, FRAME) for clip, count in zip(clips, counts, strict=True)])
    features, moments = convolve(state, frames, uses_batch)
    last = torch.stack([run_lstm(state, part) for part in features.split(counts)])
    return last @ state["classifier.weight"].T + state["classifier.bias"], moments


def test_parameters():
    model = Emo18ForVocalBurst(Emo18Config(num_labels=10))
    parts = {name: sum(p.numel() for p in part.parameters()) for name, part in model.named_children()}
    assert parts == {"convolutions": 247_616, "rnn": 1_314_816, "pooling": 0, "classifier": 2_570}
    assert model.num_parameters() == model.num_parameters(only_trainable=True) == 1_565_002


def test_scores_are_those_worked_out_by_hand(clips):
    model, clips = make_model().double(), [clip.double() for clip in clips]
    expected, _ = by_hand(model, clips)
    assert expected.std(dim=0).min() > 0.01
    torch.testing.assert_close(scores_of(model, *pad(clips)), expected)


def test_batch_norm_takes_its_moments_over_valid_frames_only(clips):
    model, clips = make_model().double().train(), [clip.double() for clip in clips]
    norms = [stage[1] for stage in model.convolutions]
    before = [(norm.running_mean.clone(), norm.running_var.clone()) for norm in norms]
    expected, moments = by_hand(model, clips, uses_batch=True)
    torch.testing.assert_close(scores_of(model, *pad(clips, extra=4_321, value=50.0)), expected)
    for norm, old, new in zip(norms, before, moments, strict=True):
        torch.testing.assert_close(norm.running_mean, 0.9 * old[0] + 0.1 * new[0])
        torch.testing.assert_close(norm.running_var, 0.9 * old[1] + 0.1 * new[1])


def test_padding_reaches_no_gradient(clips):
    model, labels = make_model().train(), torch.rand(len(clips), 3)
    gradients = []
    for extra, value in ((0, 0.0), (4_321, 50.0)):
        values, mask = pad(clips, extra, value)
        model(values.requires_grad_(), mask, labels).loss.backward()
        assert (values.grad * (1 - mask)).abs().max() == 0 < values.grad.abs().max()
        gradients.append([parameter.grad.clone() for parameter in model.parameters()])
        model.zero_grad()
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("fields", [{}, CLASSES], ids=["regression", "classes"])
def test_no_batch_moves_a_score(clips, fields):
    model = make_model(**fields)
    extractor = VocalBurstFeatureExtractor(do_normalize=False, min_samples=FRAME)
    report = audit(model, extractor, {str(n): clip.numpy() for n, clip in enumerate(clips)}, batch_size=3)
    assert report.passed
    assert (report.tolerance, report.probable_causes) == (1e-5, ())


def test_a_batch_norm_over_the_batch_would_be_caught(clips, monkeypatch):
    def over_the_batch(self, x):
        return F.batch_norm(x, None, None, self.weight, self.bias, training=True)

    monkeypatch.setattr(nn.BatchNorm1d, "forward", over_the_batch)
    extractor = VocalBurstFeatureExtractor(do_normalize=False, min_samples=FRAME)
    report = audit(make_model(), extractor, {str(n): clip.numpy() for n, clip in enumerate(clips)}, batch_size=3)
    assert [effect.perturbation for effect in report.effects if report.holds(effect)] == ["padding"]


def test_what_follows_the_last_whole_frame_is_not_heard():
    model, clip = make_model(), torch.randn(1, 3 * FRAME)
    scores = [scores_of(model, clip[:, :samples]) for samples in (FRAME, 2 * FRAME - 1, 2 * FRAME, 3 * FRAME)]
    torch.testing.assert_close(scores[0], scores[1])
    assert (scores[2] - scores[1]).abs().max() > 1e-3 < (scores[3] - scores[2]).abs().max()


def test_a_clip_of_less_than_a_frame_is_refused():
    model = make_model()
    assert model.config.min_samples == FRAME
    with pytest.raises(ValueError, match="a clip needs at least 1600 samples, got one of 1599"):
        model(*pad([torch.randn(FRAME - 1), torch.randn(FRAME)]))


def test_padding_on_the_left_is_refused(clips):
    values, mask = pad(clips)
    with pytest.raises(ValueError, match="padded on the right"):
        make_model()(values.flip(1), mask.flip(1))


def test_a_checkpoint_scores_as_before(clips, tmp_path):
    model = make_model(label_range=(0, 1))
    model.save_pretrained(tmp_path)
    VocalBurstFeatureExtractor(do_normalize=False, min_samples=FRAME).save_pretrained(tmp_path)
    expected, batch = scores_of(model, *pad(clips)), pad(clips)
    loaded, extractor = load_fine_tuned(str(tmp_path))
    audited, _, quantity = load_audited(str(tmp_path))
    by_auto_class = AutoModelForAudioClassification.from_pretrained(tmp_path)
    for again in (loaded, audited, by_auto_class, Emo18ForVocalBurst.from_pretrained(tmp_path)):
        assert type(again) is Emo18ForVocalBurst
        assert not again.training
        assert torch.equal(scores_of(again, *batch), expected)
    assert (quantity, loaded.config.label_names, loaded.config.loss) == ("scores", LABELS, "mse")
    for again in (extractor, AutoFeatureExtractor.from_pretrained(tmp_path)):
        assert type(again) is VocalBurstFeatureExtractor
        assert (again.do_normalize, again.min_samples) == (False, FRAME)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda weights: weights.pop("rnn.bias_hh_l1"), "lacks rnn.bias_hh_l1"),
        (lambda weights: weights.pop("convolutions.0.1.running_var"), "lacks convolutions.0.1.running_var"),
        (lambda weights: weights["classifier.bias"].fill_(float("nan")), "not finite: classifier.bias"),
        (lambda weights: weights.update(other=torch.zeros(1)), "weights that the model does not: other"),
    ],
)
def test_a_checkpoint_that_does_not_fit_is_an_error(change, message, tmp_path):
    make_model().save_pretrained(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    change(weights)
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match=message):
        load_fine_tuned(str(tmp_path))


def test_flags_of_a_backbone_are_not_for_it(tmp_path):
    make_model().save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="--feature_layer is for a bare backbone"):
        load_audited(str(tmp_path), feature_layer=1)


@pytest.mark.parametrize("loss", LOSSES)
def test_the_loss_is_that_of_the_proposed_model(loss, clips):
    is_class = loss == "cross_entropy"
    model = make_model(loss=loss, **(CLASSES if is_class else {}))
    labels = torch.tensor([0, 2, -100, 1, 1]) if is_class else torch.rand(5, 3)
    output = model(*pad(clips), labels)
    torch.testing.assert_close(output.loss, LOSSES[loss](output.logits, labels))


def test_losses_are_all_that_there_are():
    assert {loss for losses in FITTING_LOSSES.values() for loss in losses} == set(LOSSES)


def test_a_loss_that_does_not_fit_is_refused():
    with pytest.raises(ValueError, match=r"loss of a regression must be one of \['mse', 'ccc'\], got 'cross_entropy'"):
        Emo18Config(loss="cross_entropy")


def test_half_precision_stays_near(clips):
    model, batch, labels = make_model().train(), pad(clips), torch.rand(5, 3)
    expected = scores_of(model, *batch)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = model(*batch, labels)
    assert output.loss.dtype == output.logits.dtype == torch.float32
    assert 0 < (output.logits - expected).abs().max() < 0.05 * expected.abs().max()
    output.loss.backward()
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())


@pytest.mark.parametrize("name", TASKS)
def test_it_is_built_for_every_task(name):
    task = TASKS[name]
    model, extractor = build_emo18(task, Emo18Arguments(), Emo18RunArguments())
    config = model.config
    assert (config.label_names, config.problem_type) == (list(task.labels), task.problem_type)
    assert config.loss == ("cross_entropy" if task.is_classification else "mse")
    assert (extractor.do_normalize, extractor.min_samples) == (False, FRAME)


def test_class_weights_are_stored_and_used(clips):
    task = TASKS["type"]
    args = Emo18Arguments(class_weights="balanced")
    model, _ = build_emo18(task, args, Emo18RunArguments(), [*range(8), 0, 0])
    np.testing.assert_allclose(model.config.class_weights, [10 / 24] + [10 / 8] * 7)
    labels = torch.tensor([0, 1, 2, 0, 0])
    output = model.eval()(*pad(clips), labels)
    expected = F.cross_entropy(output.logits, labels, torch.tensor(model.config.class_weights))
    torch.testing.assert_close(output.loss, expected)


@pytest.mark.parametrize(("accumulation", "processes"), [(2, 1), (1, 2)])
def test_its_batches_must_not_be_cut(accumulation, processes):
    require_uncut_batches(make_model(), 1, 1)
    with pytest.raises(ValueError, match="batch norm"):
        require_uncut_batches(make_model(), accumulation, processes)
