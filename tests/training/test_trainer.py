"""The trainer against a plain PyTorch loop, and what it does with accumulation, NaN and a score that stands still."""

import copy
import json
import math

import pytest
import soundfile
import torch

from avb_hf.data.arguments import DataArguments
from avb_hf.data.clips import ClipReader
from avb_hf.data.sources import load_corpus
from avb_hf.model import Wav2Vec2ForVocalBurst
from avb_hf.tasks import TASKS
from avb_hf.training.arguments import ModelArguments, RunArguments
from avb_hf.training.build import build_model
from avb_hf.training.finite import NonFiniteGradientError
from avb_hf.training.sampler import EpochLengthSampler
from avb_hf.training.trainer import make_trainer
from avb_hf.training.training_arguments import VocalBurstTrainingArguments

TASK = TASKS["two"]
NO_DROPOUT = dict.fromkeys(("hidden_dropout", "attention_dropout", "activation_dropout", "feat_proj_dropout"), 0.0)
BATCH = 8


@pytest.fixture
def build(corpus_dir, tiny_backbone, tmp_path):
    """Give a function that makes a trainer of the same model whatever the training flags."""

    def make(train_clips=None, run_args=None, model_args=None, **flags):
        data = DataArguments(data_dir=str(corpus_dir), task="two", max_train_samples=train_clips)
        torch.manual_seed(1)
        encoder = json.dumps(tiny_backbone | NO_DROPOUT)
        fields = {"encoder_config": encoder, "rnn_hidden_size": 8, "pooling": "mean"} | (model_args or {})
        model, extractor = build_model(TASK, ModelArguments(**fields), "none")
        splits = load_corpus(TASK, data).with_transform(ClipReader(data))
        defaults = {
            "per_device_train_batch_size": BATCH, "logging_strategy": "steps", "logging_steps": 1, "disable_tqdm": True,
            "eval_strategy": "no", "save_strategy": "no", "load_best_model_at_end": False,
        }  # fmt: skip
        args = VocalBurstTrainingArguments(output_dir=str(tmp_path / "run"), **defaults | flags)
        return make_trainer(model, extractor, splits, TASK, run_args or RunArguments(), args)

    return make


def logged_losses(trainer):
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


@pytest.mark.parametrize("frozen", [None, 1])
def test_the_batch_that_tells_the_precision_lies_where_the_model_is(build, monkeypatch, frozen):
    kept = {}

    def keep(args, wanted, before, model, make_batch):
        kept.update(model=model, make_batch=make_batch)
        if frozen is not None:
            model.freeze_blocks(frozen)
        return 0.0

    monkeypatch.setattr("avb_hf.training.trainer.settle_precision", keep)
    build()
    read_frozen = Wav2Vec2ForVocalBurst.run_frozen

    def run_frozen(self, *inputs):
        assert all(part.is_meta for part in inputs)
        return [
            part.to("meta") for part in read_frozen(on_cpu, *(torch.ones_like(part, device="cpu") for part in inputs))
        ]

    on_cpu = copy.deepcopy(kept["model"])
    monkeypatch.setattr(Wav2Vec2ForVocalBurst, "run_frozen", run_frozen)
    kept["model"].to("meta")
    batch = kept["make_batch"]()
    assert ("frozen_states" in batch) == (frozen is not None)
    assert all(value.is_meta for value in batch.values())


def waves_and_labels(split):
    rows = split.with_format(None)
    waves = [torch.from_numpy(soundfile.read(path, dtype="float32")[0]) for path in rows["path"]]
    waves = [(wave - wave.mean()) / torch.sqrt(wave.var(correction=0) + 1e-7) for wave in waves]
    return waves, torch.tensor(rows["labels"])


def plain_loss(scores, labels):
    """One minus the mean CCC, from the textbook's moments."""
    variances = scores.var(0, correction=0) + labels.var(0, correction=0)
    covariances = ((scores - scores.mean(0)) * (labels - labels.mean(0))).mean(0)
    return (1 - 2 * covariances / (variances + (scores.mean(0) - labels.mean(0)) ** 2 + 1e-8)).mean()


def plain_loop(model, split, steps, rate, backbone_rate, warmup, how):
    """Train as the flags of the test below say, with nothing but PyTorch; return the losses."""
    waves, labels = waves_and_labels(split)
    durations = torch.tensor([len(wave) for wave in waves]) / 16_000
    optimizer = how["optimizer"](
        {
            "params": [parameter],
            "lr": backbone_rate if name.startswith("encoder.") else rate,
            "weight_decay": how["decay"] if parameter.ndim > 1 else how["decay_of_vectors"],
        }
        for name, parameter in model.named_parameters()
    )
    starts = [group["lr"] for group in optimizer.param_groups]
    sampler, losses, epoch = EpochLengthSampler(durations, BATCH, 42), [], 0
    model.train()
    while len(losses) < steps:
        sampler.set_epoch(epoch)
        for batch in torch.tensor(list(sampler)).split(BATCH):
            if len(losses) == steps:
                break
            done = len(losses)
            share = (
                done / warmup if done < warmup else 0.5 * (1 + math.cos(math.pi * (done - warmup) / (steps - warmup)))
            )
            for group, start in zip(optimizer.param_groups, starts, strict=True):
                group["lr"] = start * share
            values = torch.nn.utils.rnn.pad_sequence([waves[index] for index in batch], batch_first=True)
            mask = torch.nn.utils.rnn.pad_sequence([torch.ones(len(waves[i]), dtype=torch.long) for i in batch], True)
            loss = plain_loss(model(values, mask).logits, labels[batch].float())
            optimizer.zero_grad()
            loss.backward()
            if how["max_norm"] is not None:
                torch.nn.utils.clip_grad_norm_(model.parameters(), how["max_norm"])
            optimizer.step()
            losses.append(loss.item())
        epoch += 1
    return losses


# Flags, and what they are in PyTorch: the defaults, and those of the paper.
OPTIMIZATIONS = {
    "ours": (
        {"warmup_steps": 4}, {},
        {"optimizer": torch.optim.AdamW, "decay": 0.05, "decay_of_vectors": 0.0, "max_norm": 1.0},
    ),
    "paper": (
        {"warmup_steps": 0, "optim": "adam", "weight_decay": 0.0625, "max_grad_norm": 0.0}, {"decay_all": True},
        {"optimizer": torch.optim.Adam, "decay": 0.0625, "decay_of_vectors": 0.0625, "max_norm": None},
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", OPTIMIZATIONS)
def test_twenty_steps_equal_a_plain_loop(build, case):
    flags, run_flags, how = OPTIMIZATIONS[case]
    run_args = RunArguments(backbone_learning_rate=5e-4, precision="fp32", **run_flags)
    trainer = build(run_args=run_args, max_steps=20, learning_rate=2e-3, **flags)
    reference = build()
    expected = plain_loop(reference.model, reference.train_dataset, 20, 2e-3, 5e-4, flags["warmup_steps"], how)
    trainer.train()
    assert max(expected) - min(expected) > 0.02, "the losses stand still and would prove nothing"
    assert logged_losses(trainer) == pytest.approx(expected, abs=1e-6)


def test_the_backbones_rate_is_a_tenth_unless_given(build):
    rates = {group["lr"] for group in build(learning_rate=2e-3).create_optimizer().param_groups}
    assert sorted(rates) == pytest.approx([2e-4, 2e-3])
    run_args = RunArguments(backbone_learning_rate=0.5)
    rates = {group["lr"] for group in build(run_args=run_args, learning_rate=2e-3).create_optimizer().param_groups}
    assert rates == {2e-3, 0.5}


def test_biases_and_norms_do_not_decay(build):
    trainer = build(weight_decay=0.3)
    names = {id(parameter): name for name, parameter in trainer.model.named_parameters()}
    groups = trainer.create_optimizer().param_groups
    spared = {names[id(p)] for group in groups if group["weight_decay"] == 0 for p in group["params"]}
    assert spared == {name for name, parameter in trainer.model.named_parameters() if parameter.ndim == 1}


def test_plain_adam_adds_the_decay_to_the_gradient(build):
    trainer = build(optim="adam", weight_decay=0.3, learning_rate=1e-3, adam_beta1=0.5, adam_epsilon=1e-12)
    optimizer, weight = trainer.create_optimizer(), trainer.model.classifier.weight
    assert type(optimizer) is torch.optim.Adam
    assert optimizer.defaults["betas"][0] == 0.5
    before = weight.detach().clone()
    weight.grad = torch.zeros_like(weight)
    optimizer.step()  # a decay that is all of the gradient moves by the learning rate, whatever its size
    torch.testing.assert_close(before - weight, 1e-3 * before.sign(), rtol=1e-4, atol=0)


@pytest.mark.parametrize("model_args", [{"output_norm": "batch"}, {"pooling": "max", "pooling_mask": False}], ids=str)
def test_a_model_whose_clips_depend_on_their_batch_is_not_trained_on_parts_of_it(build, model_args):
    with pytest.raises(ValueError, match="--gradient_accumulation_steps 1, got 1 and 2 "):
        build(model_args=model_args, gradient_accumulation_steps=2)
    assert build(model_args=model_args).args.gradient_accumulation_steps == 1
    build(model_args=model_args, gradient_accumulation_steps=2, do_eval=True)  # nothing is trained


def one_step(build, batch_size, accumulation):
    """Loss that is logged, and the gradient, of one plain gradient step on 16 clips."""
    flags = {"max_steps": 1, "learning_rate": 1.0, "warmup_steps": 0, "optim": "sgd", "max_grad_norm": 0.0}
    flags |= {"weight_decay": 0.0, "lr_scheduler_type": "constant"}
    trainer = build(
        16, RunArguments(backbone_learning_rate=1.0), {"loss": "mse"}, per_device_train_batch_size=batch_size,
        gradient_accumulation_steps=accumulation, **flags,
    )  # fmt: skip
    before = torch.nn.utils.parameters_to_vector(trainer.model.parameters()).detach().clone()
    trainer.train()
    after = torch.nn.utils.parameters_to_vector(trainer.model.parameters()).detach()
    return logged_losses(trainer)[0], before - after


@pytest.mark.slow
def test_accumulated_batches_are_one_batch(build):
    loss, gradient = one_step(build, 16, 1)
    accumulated_loss, accumulated_gradient = one_step(build, 4, 4)
    assert accumulated_loss == pytest.approx(loss, abs=1e-6)
    assert gradient.norm() > 1e-3
    torch.testing.assert_close(accumulated_gradient, gradient, atol=2e-6, rtol=1e-4)


def test_a_gradient_that_is_not_finite_stops_before_the_step(build):
    trainer = build(max_steps=3)
    took, step = [], trainer.create_optimizer().step

    def poisoned_step(*args, **kwargs):
        step(*args, **kwargs)
        took.append({name: value.clone() for name, value in trainer.model.state_dict().items()})
        trainer.model.classifier.bias.register_hook(lambda gradient: gradient * math.nan)

    trainer.optimizer.step = poisoned_step
    with pytest.raises(NonFiniteGradientError, match=r"^step 2: .*the clips of the step are \d{5}(, \d{5})*$"):
        trainer.train()
    (after_first,) = took
    for name, value in trainer.model.state_dict().items():
        assert value.isfinite().all()
        assert torch.equal(value, after_first[name])


def test_a_norm_that_overflows_stops_before_the_step(build):
    trainer = build(max_steps=3)
    trainer.model.classifier.bias.register_hook(lambda gradient: gradient * 0 + 3e38)  # finite, but their norm is not
    before = {name: value.clone() for name, value in trainer.model.state_dict().items()}
    with pytest.raises(NonFiniteGradientError, match=r"^step 1: "):
        trainer.train()
    assert all(torch.equal(value, before[name]) for name, value in trainer.model.state_dict().items())


@pytest.mark.slow
def test_a_headline_that_is_not_finite_stops_the_run(build):
    trainer = build(num_train_epochs=2, eval_strategy="epoch")
    torch.nn.init.constant_(trainer.model.classifier.bias, math.nan)
    with pytest.raises(ValueError, match="finite"):
        trainer.train()


@pytest.mark.slow
def test_a_validation_split_without_labels_stops_the_run(build):
    trainer = build(num_train_epochs=2, eval_strategy="epoch")
    trainer.eval_dataset = trainer.eval_dataset.remove_columns("labels")
    with pytest.raises(ValueError, match="eval_ccc"):
        trainer.train()


@pytest.mark.slow
def test_early_stopping(build):
    flags = {"eval_strategy": "epoch", "save_strategy": "epoch", "load_best_model_at_end": True, "save_total_limit": 1}
    trainer = build(run_args=RunArguments(early_stopping_patience=2), num_train_epochs=9, learning_rate=0.0, **flags)
    trainer.train()
    assert trainer.state.epoch == 3  # the first is the best, two more bring nothing


@pytest.mark.slow
def test_early_stopping_needs_evaluations_and_nothing_else(build):
    run_args = RunArguments(early_stopping_patience=1)
    with pytest.raises(ValueError, match="--eval_strategy no"):
        build(run_args=run_args)
    trainer = build(run_args=run_args, eval_strategy="epoch", num_train_epochs=9, learning_rate=0.0)
    trainer.train()
    assert trainer.state.epoch == 2


def test_nothing_is_pickled_beside_the_model(build, tmp_path):
    trainer = build(max_steps=1)
    trainer.train()
    trainer.save_model()
    assert {path.suffix for path in (tmp_path / "run").iterdir()} == {".json", ".safetensors", ".py", ".md"}
    assert json.loads((tmp_path / "run" / "training_args.json").read_text())["max_steps"] == 1


def test_the_best_epoch_is_chosen_by_the_headline(build):
    trainer = build(eval_strategy="epoch", save_strategy="epoch", load_best_model_at_end=True, num_train_epochs=1)
    assert (trainer.args.metric_for_best_model, trainer.args.greater_is_better) == ("eval_ccc", True)


def test_a_whole_split_is_scored_at_once(build):
    by_one, by_all = (build(per_device_eval_batch_size=size).evaluate()["eval_ccc"] for size in (1, 9))
    assert by_one == pytest.approx(by_all, abs=1e-5)
