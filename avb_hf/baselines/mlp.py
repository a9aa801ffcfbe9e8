"""The challenge organisers' multilayer perceptron on functionals: an estimator that fits, predicts, saves and loads."""

from __future__ import annotations

import copy
import dataclasses
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from tqdm.auto import trange

from avb_hf.baselines.functionals_arguments import MlpArguments
from avb_hf.baselines.losses import FITTING_LOSSES
from avb_hf.evaluation import metrics
from avb_hf.model.losses_vocal_burst import LOSSES
from avb_hf.tasks import TaskSpec, check_choice, task_from_mapping
from avb_hf.whole_files import read_json, whole_file, write_json

WEIGHTS, CONFIG = "model.safetensors", "config.json"
MODEL_TYPE = "organisers_mlp"
_PREDICTED_AT_ONCE = 1024


class Examples(NamedTuple):
    """Clips to learn from or to be scored on.

    Attributes:
        functionals: Finite numbers of shape `(num_clips, num_features)`.
        labels: Annotations `(num_clips, num_labels)`, NaN where missing, or class indices `(num_clips,)`, -100 where
            missing.
    """

    functionals: np.ndarray
    labels: np.ndarray


class OrganisersMlp(nn.Module):
    """Four linear layers on standardised functionals.

    Args:
        num_features: Number of functionals.
        num_labels: Number of outputs.
        label_range: Lowest and highest label, into which a sigmoid maps the outputs; None leaves them as they are.

    Reference:
        A. Baird et al. (2022). The ACII 2022 Affective Vocal Bursts Workshop & Competition. arXiv:2207.03572.
    """

    def __init__(self, num_features: int, num_labels: int, label_range: tuple[float, float] | None = None) -> None:
        super().__init__()
        self.label_range = label_range
        self.register_buffer("feature_mean", torch.zeros(num_features, dtype=torch.float64))
        self.register_buffer("feature_std", torch.ones(num_features, dtype=torch.float64))
        self.layers = nn.Sequential(
            nn.Linear(num_features, 128), nn.LayerNorm(128), nn.LeakyReLU(),
            nn.Linear(128, 64), nn.LayerNorm(64), nn.LeakyReLU(),
            nn.Linear(64, 32), nn.LeakyReLU(),
            nn.Linear(32, num_labels),
        )  # fmt: skip

    def standardise_like(self, functionals: Tensor) -> None:
        """Take mean and deviation of each column, by which inputs are standardised; a constant one is centred only.

        Args:
            functionals: Those of the training clips, `(num_clips, num_features)`.
        """
        functionals = functionals.double()
        is_constant = functionals.amin(dim=0) == functionals.amax(dim=0)
        self.feature_mean.copy_(functionals.mean(dim=0))
        self.feature_std.copy_(functionals.std(dim=0, correction=0).masked_fill(is_constant, 1))

    def forward(self, functionals: Tensor) -> Tensor:
        """Map functionals `(batch, num_features)` to final scores or class logits `(batch, num_labels)`."""
        standardised = ((functionals - self.feature_mean) / self.feature_std).float()
        outputs = self.layers(standardised)  # (batch, num_labels)
        if self.label_range is None:
            return outputs
        low, high = self.label_range
        return low + (high - low) * torch.sigmoid(outputs)


class MlpEstimator:
    """Trains the organisers' MLP, keeps the epoch with the best headline score on validation, and predicts with it.

    Args:
        task: What is predicted.
        args: How it is trained.

    Attributes:
        loss: Key of `LOSSES`.
        validation_scores: Headline score after each epoch.

    Raises:
        ValueError: If the loss does not fit the task.
    """

    def __init__(self, task: TaskSpec, args: MlpArguments) -> None:
        fitting = FITTING_LOSSES[task.problem_type]
        self.task, self.args, self.loss = task, args, args.loss or fitting[0]
        check_choice(f"loss of task {task.name!r}", self.loss, fitting)
        self.validation_scores: list[float] = []
        self._network: OrganisersMlp | None = None

    @property
    def best_epoch(self) -> int:
        """The epoch, from 1, whose weights are kept: the first of those with the best validation score."""
        return 1 + int(np.argmax(self.validation_scores))

    @property
    def network(self) -> OrganisersMlp:
        """The trained network.

        Raises:
            ValueError: If there is none yet.
        """
        if self._network is None:
            raise ValueError("the MLP is neither trained nor loaded: call fit() or load() first")
        return self._network

    def fit(self, train: Examples, validation: Examples, seed: int) -> MlpEstimator:
        """Train from new weights. The same seed makes the same weights; the global random state is left alone.

        Args:
            train: What to learn from; by these alone functionals are standardised.
            validation: What the epoch is chosen by, and when to stop.
            seed: Seed of weights and order.

        Raises:
            ValueError: If functionals are not finite, shapes do not fit, or validation cannot be scored.
        """
        functionals, labels = self._as_tensors(train)
        network = self._new_network(functionals.shape[1], seed)
        network.standardise_like(functionals)
        optimizer = torch.optim.Adam(
            network.parameters(), lr=self.args.learning_rate, weight_decay=self.args.weight_decay, fused=True
        )
        order = torch.Generator().manual_seed(seed)
        self.validation_scores, self._network = [], None
        with _unwarned():
            for _ in trange(self.args.num_train_epochs, desc=f"MLP of seed {seed}", unit="epoch", disable=None):
                self._train_epoch(network, optimizer, functionals, labels, order)
                scores = _predict(network, validation.functionals)
                results = metrics.METRICS[self.task.metric](scores, validation.labels, self.task)
                self.validation_scores.append(results[self.task.metric])
                if self.best_epoch == len(self.validation_scores):
                    self._network = copy.deepcopy(network)
                if len(self.validation_scores) - self.best_epoch >= self.args.early_stopping_patience:
                    break
        return self

    def predict(self, functionals: np.ndarray) -> np.ndarray:
        """Score clips.

        Args:
            functionals: Finite numbers of shape `(num_clips, num_features)`.

        Returns:
            Final scores, or class probabilities, of shape `(num_clips, num_labels)`, float32.

        Raises:
            ValueError: If nothing was trained yet, or the functionals are of another number or not finite.
        """
        _check_functionals(functionals, len(self.network.feature_mean))
        scores = torch.from_numpy(_predict(self.network, functionals))
        return (scores.softmax(dim=1) if self.task.is_classification else scores).numpy()

    def save(self, folder: str | Path, facts: dict[str, Any] | None = None) -> None:
        """Write weights and standardisation to `model.safetensors`, the rest to `config.json`.

        Args:
            folder: Where to; it must exist.
            facts: What to write into `config.json` beside what the estimator knows.

        Raises:
            ValueError: If nothing was trained yet.
        """
        config = {
            "model_type": MODEL_TYPE,
            "num_features": len(self.network.feature_mean),
            "task": dataclasses.asdict(self.task),
            "training": self.args.of_mlp(),
            "validation_scores": self.validation_scores,
        }
        with whole_file(Path(folder) / WEIGHTS) as draft:
            save_file(self.network.state_dict(), draft, metadata={"format": "pt"})
        write_json(Path(folder) / CONFIG, config | (facts or {}))

    @classmethod
    def load(cls, folder: str | Path) -> MlpEstimator:
        """Read what `save` wrote.

        Raises:
            ValueError: If it is damaged, or another model's.
            OSError: If it is not there.
        """
        path = Path(folder) / CONFIG
        config = read_json(path)
        if not isinstance(config, dict) or config.get("model_type") != MODEL_TYPE:
            raise ValueError(f"{path} is no configuration of an MLP on functionals (model_type {MODEL_TYPE!r})")
        estimator = cls(task_from_mapping(config["task"], str(path)), MlpArguments(**config["training"]))
        estimator.validation_scores = config["validation_scores"]
        network = estimator._new_network(config["num_features"], seed=0)
        try:
            network.load_state_dict(load_file(Path(folder) / WEIGHTS))
        except RuntimeError as error:
            raise ValueError(f"{Path(folder) / WEIGHTS} does not fit {path}: {error}") from error
        estimator._network = network
        return estimator

    def _new_network(self, num_features: int, seed: int) -> OrganisersMlp:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return OrganisersMlp(num_features, len(self.task.labels), self.task.label_range)

    def _train_epoch(
        self,
        network: OrganisersMlp,
        optimizer: torch.optim.Optimizer,
        functionals: Tensor,
        labels: Tensor,
        order: torch.Generator,
    ) -> None:
        for batch in torch.randperm(len(labels), generator=order).split(self.args.batch_size):
            loss = LOSSES[self.loss](network(functionals[batch]), labels[batch], None)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

    def _as_tensors(self, examples: Examples) -> tuple[Tensor, Tensor]:
        functionals, labels = examples
        _check_functionals(functionals, functionals.shape[-1])
        shape = (len(functionals),) if self.task.is_classification else (len(functionals), len(self.task.labels))
        if labels.shape != shape:
            raise ValueError(f"task {self.task.name!r}: labels must have shape {shape}, got {labels.shape}")
        dtype = torch.int64 if self.task.is_classification else torch.float32
        return torch.tensor(functionals, dtype=torch.float32), torch.tensor(labels, dtype=dtype)


@torch.no_grad()
def _predict(network: OrganisersMlp, functionals: np.ndarray) -> np.ndarray:
    """Run the network in parts; the result has shape `(num_clips, num_labels)`, logits where the labels are classes."""
    parts = torch.tensor(functionals, dtype=torch.float32).split(_PREDICTED_AT_ONCE)
    return torch.cat([network(part) for part in parts]).numpy()


def _check_functionals(functionals: np.ndarray, num_features: int) -> None:
    if functionals.ndim != 2 or functionals.shape[1] != num_features:
        raise ValueError(f"functionals must have shape (num_clips, {num_features}), got {functionals.shape}")
    rows = np.flatnonzero(~np.isfinite(functionals).all(axis=1))
    if rows.size:
        raise ValueError(f"functionals must be finite, got NaN or infinity in rows {rows[:10].tolist()}")


@contextmanager
def _unwarned() -> Iterator[None]:
    """Keep the metrics from naming labels without a score after every epoch; who scores the result names them once."""
    level = metrics.logger.level
    metrics.logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        metrics.logger.setLevel(level)
