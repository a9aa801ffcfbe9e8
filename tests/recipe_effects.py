"""What is seen of each flag of a recipe, by its value, on what the flags make: a model and a trainer."""

from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple
from unittest import mock

import numpy as np
import pytest
import soundfile
import torch
from torch import nn
from torch.nn import functional as F

from avb_hf.data.clips import ClipReader
from avb_hf.model.pooling_vocal_burst import LastPooling, MaxPooling

NO_DROPOUT = dict.fromkeys(("hidden_dropout", "attention_dropout", "activation_dropout", "feat_proj_dropout"), 0.0)


def loudness(made):
    """Peak of a clip of two channels, of which the second is silent."""
    path = Path(made.args.output_dir).with_name("stereo.wav")
    wave = 0.5 * np.sin(np.arange(8_000) / 8)
    soundfile.write(path, np.stack([wave, 0 * wave], axis=1), 16_000, subtype="FLOAT")
    (clip,) = ClipReader(made.data)({"path": [str(path)], "file_id": ["stereo"]})["audio"]
    return pytest.approx(float(np.abs(clip).max()), abs=1e-3)


def deviation(made):
    wave = 0.1 * np.sin(np.arange(8_000))
    values = made.extractor(wave.astype(np.float32), sampling_rate=16_000, return_tensors="np")["input_values"]
    return pytest.approx(float(values.std()), abs=1e-3)


@torch.no_grad()
def states_moved(made):
    """Whether a backbone's states of a clip depend on padding behind it."""
    clip, num_samples = torch.randn(1, 4_000), torch.tensor([4_000])
    encoder = made.model.eval().encoder
    (alone, num_frames), (beside, _) = encoder(clip, num_samples), encoder(F.pad(clip, (0, 4_000)), num_samples)
    return bool((alone - beside[:, :num_frames]).abs().max() > 1e-5)


@torch.no_grad()
def scores_moved(made):
    """Whether a clip's scores depend on the states behind its own."""
    states, num_frames = torch.randn(1, 9, made.model.config.encoder_config.hidden_size), torch.tensor([5])
    score = made.model.eval().score_states
    return bool((score(states, num_frames) - score(states[:, :5], num_frames)).abs().max() > 1e-5)


def high_scores(made, count_frames=False):
    """Scores, or those of frames, of a model that is very sure of high ones."""
    made.model.eval().classifier.bias.data += 9
    states = torch.randn(2, 5, made.model.config.encoder_config.hidden_size)
    score = made.model.score_frames if count_frames else made.model.score_states
    return score(states, torch.tensor([5, 3])).max() > 1


def loss_of_opposites(made):
    """The CCC loss of two labels whose predictions have a CCC of -1."""
    labels = torch.tensor([[0.0, 0.0], [1.0, 1.0]])
    return pytest.approx(made.model.compute_loss(1 - labels, labels).item(), abs=1e-5)


def rate_after(made, steps, share_of=100):
    made.trainer.create_optimizer()
    scheduler = made.trainer.create_scheduler(num_training_steps=share_of)
    for _ in range(steps):
        made.trainer.optimizer.step()
        scheduler.step()
    return pytest.approx(scheduler.get_last_lr()[0] / scheduler.base_lrs[0])


def optimizer(made):
    found = made.trainer.create_optimizer()
    return type(found), bool(found.defaults.get("fused"))


def length_of_step(made):
    """Whether a plain gradient step of rate 1 is short."""
    vector = nn.utils.parameters_to_vector
    before = vector(made.model.parameters()).detach().clone()
    made.trainer.train()
    return bool((vector(made.model.parameters()).detach() - before).norm() < 0.0011)


def is_loss_of_all(made):
    """Whether the loss that is logged of a step of two batches is that of their clips together."""
    clips = [made.trainer.train_dataset[index] for index in range(18)]
    with torch.no_grad():
        expected = made.model(**made.trainer.data_collator(clips)).loss.item()
    return abs(made.trainer.train().training_loss - expected) < 1e-5


def alike_in_length(made):
    """Whether batches hold clips of like length: of neighbouring ranks, but for the blur, where chance makes it 10."""
    durations = np.array(made.trainer.train_dataset.with_format(None)["duration"][:])
    rank = durations.argsort().argsort()
    batches = [rank[batch] for batch in made.trainer.get_train_dataloader().batch_sampler]
    return bool(np.mean([np.ptp(batch) for batch in batches if len(batch) == 4]) < 5)


def precision(made):
    """Whether steps were timed, and what was taken if bf16 is then faster."""
    module = "avb_hf.training.precision"
    with (
        mock.patch(f"{module}.bf16_is_emulated", return_value=False),
        mock.patch(f"{module}.time_steps", return_value={"fp32": 2.0, "bf16": 1.0}) as timed,
    ):
        return made.trainer.precision, timed.called


def trained(made):
    made.trainer.train()
    return made.trainer


def same(*values):
    return {value: value for value in values}


class Effect(NamedTuple):
    """What is seen of a flag (`observe`), by its value; flags beside it, and fields of the backbone, that show it."""

    observe: Callable[[Any], Any]
    expected: dict[Any, Any]
    common: Mapping[str, Any] = MappingProxyType({})
    backbone: Mapping[str, Any] = MappingProxyType({})
    task: str = "two"
    trains: bool = False


ONE_STEP = {"max_steps": 1, "lr_scheduler_type": "constant", "warmup_steps": 0, "weight_decay": 0}
UNWATCHED = {"eval_strategy": "no", "save_strategy": "no", "load_best_model_at_end": "false"}
TWO_EPOCHS = {"num_train_epochs": 2, "load_best_model_at_end": "false"}
EFFECTS = {
    "channels": Effect(loudness, {"mean": 0.25, "first": 0.5}),
    "do_normalize": Effect(deviation, {False: 0.0707, True: 1.0}),
    "states_norm": Effect(lambda made: type(made.model.states_norm), {"none": type(None), "layer": nn.LayerNorm}),
    "masked_group_norm": Effect(
        states_moved, {True: False, False: True}, backbone={"feat_extract_norm": "group", "do_stable_layer_norm": False}
    ),
    "rnn": Effect(lambda made: type(made.model.rnn), {"lstm": nn.LSTM, "gru": nn.GRU, "none": type(None)}),
    "rnn_hidden_size": Effect(lambda made: made.model.rnn.hidden_size, same(512, 8)),
    "rnn_num_layers": Effect(lambda made: made.model.rnn.num_layers, same(2, 1)),
    "pool_over": Effect(
        lambda made: made.model.pooling.out_features,
        {"logits": 2, "states": 8},
        {"activation_before_pooling": "false"},
    ),
    "pooling": Effect(lambda made: type(made.model.pooling), {"last": LastPooling, "max": MaxPooling}),
    "pooling_mask": Effect(scores_moved, {True: False, False: True}, {"pooling": "mean"}),
    "output_norm": Effect(
        lambda made: type(made.model.output_norm), {"none": type(None), "batch_for_ccc": nn.BatchNorm1d}
    ),
    "output_activation": Effect(high_scores, {"none": True, "sigmoid": False}),
    "activation_before_pooling": Effect(
        lambda made: high_scores(made, count_frames=True),
        {False: True, True: False},
        {"output_activation": "sigmoid", "output_norm": "none"},
    ),
    "ccc_reduction": Effect(loss_of_opposites, {"mean": 2, "sum": 4}),
    "ccc_scope": Effect(
        is_loss_of_all,
        {"batch": True, "micro": False},
        ONE_STEP | UNWATCHED | {
            "learning_rate": 0, "backbone_learning_rate": 0, "per_device_train_batch_size": 9, "cache": "off",
            "gradient_accumulation_steps": 2, "frozen_dropout": "false", "output_norm": "none",
        },
        NO_DROPOUT,
        trains=True,
    ),
    "class_weights": Effect(
        lambda made: made.model.loss_weight(torch.tensor([0])).item(), {"none": 1, "balanced": 9 / 16}, task="type"
    ),
    "freeze": Effect(
        lambda made: [made.is_trained(getattr(made.model.encoder, part)) for part in ("feature_extractor", "encoder")],
        {"feature_encoder": [False, True], "backbone": [False, False], "none": [True, True]},
    ),
    "freeze_blocks": Effect(lambda made: sum(map(made.is_trained, made.model.encoder.encoder.layers)), {0: 2, 1: 1}),
    "frozen_dropout": Effect(
        lambda made: made.model.train().encoder.feature_extractor.training, same(True, False), {"cache": "off"}
    ),
    "learning_rate": Effect(lambda made: made.group_of(made.model.classifier.weight)["lr"], same(1e-4, 1e-3)),
    "backbone_learning_rate": Effect(
        lambda made: made.group_of(made.model.encoder.encoder.layers[0].feed_forward.output_dense.weight)["lr"],
        same(1e-4, 1e-5),
    ),
    "lr_scheduler_type": Effect(lambda made: rate_after(made, 50), {"cosine": 0.5, "constant": 1}, {"warmup_steps": 0}),
    "warmup_steps": Effect(
        lambda made: rate_after(made, 3), {0: 1, 0.06: 0.5, 4: 0.75}, {"lr_scheduler_type": "constant_with_warmup"}
    ),
    "optim": Effect(
        optimizer,
        {
            "adam": (torch.optim.Adam, False),
            "adamw_torch": (torch.optim.AdamW, False),
            "adamw_torch_fused": (torch.optim.AdamW, True),
        },
    ),
    "weight_decay": Effect(
        lambda made: made.group_of(made.model.classifier.weight)["weight_decay"], same(0.0625, 0.05)
    ),
    "decay_all": Effect(
        lambda made: made.group_of(made.model.classifier.bias)["weight_decay"] > 0, same(True, False)
    ),
    "max_grad_norm": Effect(
        length_of_step,
        {0: False, 1.0: False, 0.001: True},
        ONE_STEP | UNWATCHED | {"optim": "sgd", "learning_rate": 1, "backbone_learning_rate": 1, "loss": "mse"},
        trains=True,
    ),
    "per_device_train_batch_size": Effect(
        lambda made: len(next(iter(made.trainer.get_train_dataloader()))["labels"]), same(16, 4)
    ),
    "per_device_eval_batch_size": Effect(
        lambda made: len(next(iter(made.trainer.get_eval_dataloader()))["labels"]), {16: 9, 4: 4}
    ),
    "length_pool": Effect(alike_in_length, {1: False, 50: True}, {"per_device_train_batch_size": 4}),
    "num_train_epochs": Effect(lambda made: trained(made).state.epoch, same(20, 2), UNWATCHED, trains=True),
    "precision": Effect(
        precision, {"fp32": ("float32", False), "auto": ("bfloat16", True), "bf16": ("bfloat16", False)}
    ),
    "eval_strategy": Effect(
        lambda made: sum("eval_ccc" in entry for entry in trained(made).state.log_history),
        {"epoch": 2, "no": 0},
        TWO_EPOCHS | {"save_strategy": "no"},
        trains=True,
    ),
    "save_strategy": Effect(
        lambda made: len(list(Path(trained(made).args.output_dir).glob("checkpoint-*"))),
        {"epoch": 2, "no": 0},
        TWO_EPOCHS,
        trains=True,
    ),
}  # fmt: skip
