"""A step asks an accelerator for no value, which it would have to wait for: tensors without values have none."""

from contextlib import nullcontext

import pytest
import torch

from avb_hf.model import VocalBurstConfig, Wav2Vec2ForVocalBurst
from avb_hf.training.exact import EffectiveBatch

CLIPS, SAMPLES, LABELS = 4, 16_000, 3
HEADS = {
    "ccc": {},
    "mse": {"loss": "mse", "pooling": "max"},
    "classes": {"problem_type": "single_label_classification", "pooling": "mean", "rnn": "gru"},
    "states": {"pool_over": "states", "pooling": "attentive", "rnn": "none"},
    "deviation": {"pool_over": "states", "pooling": "mean_std"},
}


@pytest.fixture
def without_values(monkeypatch):
    """The device of tensors without values, for which torch has no autocast."""
    monkeypatch.setattr(torch, "autocast", lambda *args, **kwargs: nullcontext())
    return torch.device("meta")


def make_batch(device, is_class):
    labels = torch.zeros(CLIPS, dtype=torch.long) if is_class else torch.zeros(CLIPS, LABELS)
    audio, mask = torch.zeros(CLIPS, SAMPLES), torch.ones(CLIPS, SAMPLES, dtype=torch.long)
    batch = {"input_values": audio, "attention_mask": mask, "labels": labels}
    return {name: value.to(device) for name, value in batch.items()}


@pytest.mark.wide
@pytest.mark.parametrize("num_batches", [1, pytest.param(2, marks=pytest.mark.slow)])
@pytest.mark.parametrize("attention", ["sdpa", pytest.param("eager", marks=pytest.mark.slow)])
@pytest.mark.parametrize("head", HEADS)
def test_a_step_asks_for_no_value(head, attention, num_batches, tiny_backbone, without_values):
    config = VocalBurstConfig(encoder_config=tiny_backbone, num_labels=LABELS, rnn_hidden_size=8, **HEADS[head])
    model = Wav2Vec2ForVocalBurst._from_config(config, attn_implementation=attention).to(without_values)
    model.freeze_feature_encoder()
    model.train()
    batches = [make_batch(without_values, head == "classes") for _ in range(num_batches)]
    step = EffectiveBatch(batches, model, lambda batch: model(batch["input_values"], batch["attention_mask"]).logits)
    for batch in batches:
        loss = step.part_of_loss(batch)
        loss.backward()
    assert loss.device == without_values
    assert all(weight.grad is not None for weight in model.parameters() if weight.requires_grad)


def test_a_value_that_is_asked_for_is_noticed(without_values):
    with pytest.raises(RuntimeError, match=r"item\(\) cannot be called on meta"):
        bool(torch.ones(2, device=without_values).all())
