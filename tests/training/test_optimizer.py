"""Who learns at which rate, and what decays."""

import pytest

from avb_hf.model import VocalBurstConfig, Wav2Vec2ForVocalBurst
from avb_hf.training.build import FREEZERS
from avb_hf.training.optimizer import parameter_groups


@pytest.fixture
def model(tiny_backbone):
    config = VocalBurstConfig(
        encoder_config=tiny_backbone, rnn_hidden_size=8, rnn_num_layers=2, states_norm="layer", output_norm="batch"
    )
    return Wav2Vec2ForVocalBurst(config)


def groups_of(model):
    decayed = [name for name, parameter in model.named_parameters() if parameter.ndim > 1]
    return parameter_groups(model, decayed, head_rate=1e-3, backbone_rate=1e-5, weight_decay=0.05)


def test_four_groups(model):
    rates = {(group["lr"], group["weight_decay"]) for group in groups_of(model)}
    assert rates == {(1e-3, 0.05), (1e-3, 0.0), (1e-5, 0.05), (1e-5, 0.0)}


@pytest.mark.parametrize("freeze", FREEZERS)
def test_all_that_is_trained_is_there_once(model, freeze):
    if FREEZERS[freeze]:
        getattr(model, FREEZERS[freeze])()
    grouped = [id(parameter) for group in groups_of(model) for parameter in group["params"]]
    trained = [id(parameter) for parameter in model.parameters() if parameter.requires_grad]
    assert sorted(grouped) == sorted(trained)
    assert all(group["params"] for group in groups_of(model))


def test_the_backbone_is_the_encoder(model):
    backbone = {id(parameter) for parameter in model.encoder.parameters()}
    decayed = {id(parameter) for parameter in model.parameters() if parameter.ndim > 1}
    for group in groups_of(model):
        for parameter in group["params"]:
            assert group["lr"] == (1e-5 if id(parameter) in backbone else 1e-3)
            assert group["weight_decay"] == (0.05 if id(parameter) in decayed else 0.0)


def test_a_frozen_backbone_leaves_the_heads_groups(model):
    model.freeze_base_model()
    assert {group["lr"] for group in groups_of(model)} == {1e-3}
