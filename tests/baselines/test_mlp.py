"""The organisers' MLP against numpy, scikit-learn and a plain training loop."""

import copy
from itertools import pairwise

import audmetric
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from sklearn.preprocessing import StandardScaler
from torch import nn

from avb_hf.baselines.functionals_arguments import MlpArguments
from avb_hf.baselines.losses import FITTING_LOSSES
from avb_hf.baselines.mlp import Examples, MlpEstimator, OrganisersMlp
from avb_hf.tasks import TaskSpec

RATED = TaskSpec("rated", ("left", "right"), label_range=(1.0, 9.0), allow_missing=True)
UNBOUNDED = TaskSpec("unbounded", ("left", "right"))
CLASSES = TaskSpec(
    "classes",
    ("low", "middle", "high"),
    problem_type="single_label_classification",
    metric="uar",
    loss="cross_entropy",
    class_column="height",
)
TASKS = {task.name: task for task in (RATED, UNBOUNDED, CLASSES)}


def make_examples(task, count, seed, width=6):
    """Clips whose labels follow from the first column of functionals that differ in size and level."""
    rng = np.random.default_rng(seed)
    hidden = rng.normal(size=(count, width))
    functionals = (hidden * [1e3, 1, 1e-3, 1, 1, 0] + [5e4, 0, 0, 0, -7, 3]).astype(np.float32)
    signal = 1 / (1 + np.exp(-2 * hidden[:, 0]))
    if task.is_classification:
        return Examples(functionals, np.digitize(signal, (0.33, 0.67)))
    return Examples(functionals, 1 + 8 * np.stack([signal, 1 - signal], axis=1))


@pytest.mark.parametrize(
    ("features", "outputs", "expected"),
    [
        (88, 10, (88 * 128 + 128) + 2 * 128 + (128 * 64 + 64) + 2 * 64 + (64 * 32 + 32) + (32 * 10 + 10)),
        (6373, 8, 815_872 + 256 + 8_256 + 128 + 2_080 + 264),
    ],
)
def test_number_of_parameters(features, outputs, expected):
    assert sum(weight.numel() for weight in OrganisersMlp(features, outputs).parameters()) == expected


def dense(x, weights, number):
    return x @ weights[f"layers.{number}.weight"].T + weights[f"layers.{number}.bias"]


def normed(x, weights, number):
    x = (x - x.mean(axis=1, keepdims=True)) / np.sqrt(x.var(axis=1, keepdims=True) + 1e-5)
    return x * weights[f"layers.{number}.weight"] + weights[f"layers.{number}.bias"]


def leaky(x):
    return np.where(x > 0, x, 0.01 * x)


@pytest.mark.parametrize("label_range", [None, (1.0, 9.0)])
def test_forward_is_what_numpy_computes(label_range):
    network = OrganisersMlp(6, 3, label_range)
    for weight in network.parameters():
        nn.init.normal_(weight, std=0.5)
    functionals = make_examples(RATED, 40, seed=0).functionals
    network.standardise_like(torch.tensor(functionals))
    weights = {name: value.double().numpy() for name, value in network.state_dict().items()}
    x = (functionals - weights["feature_mean"]) / weights["feature_std"]
    x = leaky(normed(dense(x, weights, 0), weights, 1))
    x = leaky(normed(dense(x, weights, 3), weights, 4))
    expected = dense(leaky(dense(x, weights, 6)), weights, 8)
    if label_range is not None:
        expected = 1 + 8 / (1 + np.exp(-expected))
    with torch.no_grad():
        np.testing.assert_allclose(network(torch.tensor(functionals)).numpy(), expected, atol=1e-4)


def test_standardised_by_the_train_split_alone():
    train, validation = make_examples(RATED, 50, seed=1), make_examples(RATED, 50, seed=2)
    shifted = Examples(validation.functionals * 3 + 100, validation.labels)
    mlp = MlpEstimator(RATED, MlpArguments(num_train_epochs=1)).fit(train, shifted, seed=1)
    scaler = StandardScaler().fit(train.functionals.astype(np.float64))
    np.testing.assert_allclose(mlp.network.feature_mean, scaler.mean_, rtol=1e-12)
    np.testing.assert_allclose(mlp.network.feature_std, scaler.scale_, rtol=1e-9)
    assert scaler.scale_[5] == 1  # of the constant column


def plain_layers(features, outputs, seed):
    """The network written down once more; layers are made in the same order, so from one seed come the same weights."""
    torch.manual_seed(seed)
    widths, layers = (features, 128, 64, 32, outputs), []
    for number, (wide, narrow) in enumerate(pairwise(widths)):
        layers += [nn.Linear(wide, narrow)] + [nn.LayerNorm(narrow)] * (number < 2) + [nn.LeakyReLU()] * (number < 3)
    return nn.Sequential(*layers)


@pytest.mark.parametrize("task", [RATED, CLASSES], ids=lambda task: task.name)
def test_training_is_that_of_a_plain_loop(task):
    train, validation = make_examples(task, 60, seed=3), make_examples(task, 40, seed=4)
    args = MlpArguments(num_train_epochs=9, early_stopping_patience=2, learning_rate=0.03)
    mlp = MlpEstimator(task, args).fit(train, validation, seed=5)

    scaler = StandardScaler().fit(train.functionals.astype(np.float64))
    inputs, held_out = (torch.tensor(scaler.transform(part.functionals)).float() for part in (train, validation))
    labels = torch.tensor(train.labels) if task.is_classification else torch.tensor(train.labels).float()
    network, order = plain_layers(6, len(task.labels), seed=5), torch.Generator().manual_seed(5)
    optimizer = torch.optim.Adam(network.parameters(), lr=0.03, weight_decay=1e-4)
    scores, kept = [], []
    for _ in range(9):
        for batch in torch.randperm(60, generator=order).split(8):
            outputs = network(inputs[batch])
            if task.is_classification:
                loss = nn.functional.cross_entropy(outputs, labels[batch])
            else:
                loss = nn.functional.mse_loss(1 + 8 * outputs.sigmoid(), labels[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        with torch.no_grad():
            outputs = network(held_out)
        kept.append((outputs.softmax(1) if task.is_classification else 1 + 8 * outputs.sigmoid()).numpy())
        if task.is_classification:
            truth, predicted = validation.labels.tolist(), kept[-1].argmax(axis=1).tolist()
            scores.append(audmetric.unweighted_average_recall(truth, predicted))
        else:
            columns = zip(validation.labels.T, kept[-1].T, strict=True)
            scores.append(np.mean([audmetric.concordance_cc(*column) for column in columns]))

    best = max(range(len(mlp.validation_scores)), key=lambda epoch: scores[epoch])
    assert len(mlp.validation_scores) == min(9, best + 1 + 2)
    np.testing.assert_allclose(mlp.validation_scores, scores[: len(mlp.validation_scores)], atol=1e-5)
    np.testing.assert_allclose(mlp.predict(validation.functionals), kept[best], atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("task", TASKS.values(), ids=TASKS)
def test_a_planted_signal_is_learnt(task):
    train, validation, test = (make_examples(task, count, seed=count) for count in (200, 100, 101))
    mlp = MlpEstimator(task, MlpArguments(learning_rate=0.005)).fit(train, validation, seed=1)
    scores = mlp.predict(test.functionals)
    assert scores.shape == (101, len(task.labels))
    if task.is_classification:
        np.testing.assert_allclose(scores.sum(axis=1), 1, atol=1e-5)
        assert audmetric.unweighted_average_recall(test.labels.tolist(), scores.argmax(axis=1).tolist()) > 0.8
    else:
        assert min(audmetric.concordance_cc(test.labels[:, i], scores[:, i]) for i in (0, 1)) > 0.9
    if task is RATED:
        assert scores.min() >= 1
        assert scores.max() <= 9


def test_the_ccc_can_be_the_loss():
    train, validation = make_examples(RATED, 200, seed=1), make_examples(RATED, 50, seed=2)
    mlp = MlpEstimator(RATED, MlpArguments(loss="ccc", num_train_epochs=8)).fit(train, validation, seed=1)
    assert max(mlp.validation_scores) > 0.8


def test_clips_without_a_label_have_no_part_in_the_loss():
    train, validation = make_examples(RATED, 40, seed=6), make_examples(RATED, 20, seed=7)
    twice = Examples(np.tile(train.functionals, (2, 1)), np.concatenate([train.labels, np.full((40, 2), np.nan)]))
    args = MlpArguments(batch_size=80, num_train_epochs=6)
    one, other = (MlpEstimator(RATED, args).fit(part, validation, seed=1) for part in (train, twice))
    np.testing.assert_allclose(one.predict(train.functionals), other.predict(train.functionals), atol=1e-3)


def weights_of(mlp):
    return {name: value.numpy() for name, value in mlp.network.state_dict().items()}


def test_seeds_reproduce_and_differ():
    train, validation = make_examples(CLASSES, 40, seed=8), make_examples(CLASSES, 20, seed=9)
    args = MlpArguments(num_train_epochs=2)
    torch.manual_seed(1)
    state = torch.get_rng_state()
    first = MlpEstimator(CLASSES, args).fit(train, validation, seed=3)
    assert torch.equal(state, torch.get_rng_state())
    torch.manual_seed(2)
    again, other = (MlpEstimator(CLASSES, args).fit(train, validation, seed=seed) for seed in (3, 4))
    for name, value in weights_of(first).items():
        np.testing.assert_array_equal(value, weights_of(again)[name])
    assert (weights_of(first)["layers.0.weight"] != weights_of(other)["layers.0.weight"]).any()


def test_patience():
    train, validation = make_examples(RATED, 20, seed=1), make_examples(RATED, 20, seed=2)
    args = MlpArguments(learning_rate=0, early_stopping_patience=3)
    mlp = MlpEstimator(RATED, args).fit(train, validation, seed=1)
    assert (len(mlp.validation_scores), mlp.best_epoch) == (4, 1)


@pytest.fixture(scope="module", params=TASKS.values(), ids=TASKS)
def saved(request, tmp_path_factory):
    """A trained estimator and the folder that it was saved to."""
    train, validation = make_examples(request.param, 40, seed=8), make_examples(request.param, 20, seed=9)
    args = MlpArguments(num_train_epochs=3, weight_decay=0.01)
    mlp = MlpEstimator(request.param, args).fit(train, validation, seed=3)
    folder = tmp_path_factory.mktemp("mlp")
    mlp.save(folder)
    return mlp, folder


def test_what_is_loaded_predicts_the_same(saved):
    mlp, folder = saved
    assert {path.name for path in folder.iterdir()} == {"config.json", "model.safetensors"}
    loaded = MlpEstimator.load(folder)
    functionals = make_examples(mlp.task, 30, seed=10).functionals
    np.testing.assert_array_equal(loaded.predict(functionals), mlp.predict(functionals))
    assert (loaded.task, loaded.loss, loaded.args.of_mlp()) == (mlp.task, mlp.loss, mlp.args.of_mlp())
    assert loaded.validation_scores == mlp.validation_scores


def test_weights_of_another_network_are_refused(saved, tmp_path):
    _, folder = saved
    (tmp_path / "config.json").write_text((folder / "config.json").read_text())
    weights = load_file(folder / "model.safetensors")
    save_file(weights | {"feature_mean": torch.zeros(7, dtype=torch.float64)}, tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match=r"model\.safetensors does not fit .*config\.json"):
        MlpEstimator.load(tmp_path)


def test_the_configuration_of_another_model_is_refused(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "wav2vec2"}')
    with pytest.raises(ValueError, match="no configuration of an MLP"):
        MlpEstimator.load(tmp_path)


@pytest.mark.parametrize("task", TASKS.values(), ids=TASKS)
def test_only_losses_that_fit_are_taken(task):
    for loss in FITTING_LOSSES[task.problem_type]:
        assert MlpEstimator(task, MlpArguments(loss=loss)).loss == loss
    wrong = "mse" if task.is_classification else "cross_entropy"
    with pytest.raises(ValueError, match=f"must be one of .*got '{wrong}'"):
        MlpEstimator(task, MlpArguments(loss=wrong))


def test_what_cannot_be_predicted_is_refused():
    mlp = MlpEstimator(RATED, MlpArguments(num_train_epochs=1))
    train, validation = make_examples(RATED, 20, seed=1), make_examples(RATED, 20, seed=2)
    with pytest.raises(ValueError, match="neither trained nor loaded"):
        mlp.predict(train.functionals)
    broken = copy.deepcopy(train)
    broken.functionals[4, 2] = np.inf
    with pytest.raises(ValueError, match=r"NaN or infinity in rows \[4\]"):
        mlp.fit(broken, validation, seed=1)
    with pytest.raises(ValueError, match=r"shape \(num_clips, 6\), got \(20, 5\)"):
        mlp.fit(train, validation, seed=1).predict(train.functionals[:, :5])
    with pytest.raises(ValueError, match=r"labels must have shape \(20, 2\), got \(20, 1\)"):
        mlp.fit(Examples(train.functionals, train.labels[:, :1]), validation, seed=1)


@pytest.mark.parametrize(
    "flags", [{"batch_size": 0}, {"num_train_epochs": 0}, {"early_stopping_patience": 0}, {"learning_rate": -1.0}]
)
def test_flags_out_of_range(flags):
    with pytest.raises(ValueError, match=f"--{next(iter(flags))} must be"):
        MlpArguments(**flags)
