import dataclasses
import json
from typing import get_args, get_type_hints

import pytest
from transformers import AutoConfig, Wav2Vec2Config

from avb_hf.model import POOLINGS, VocalBurstConfig
from avb_hf.model.configuration_vocal_burst import CHOICES
from avb_hf.model.encoders_vocal_burst import ENCODERS
from avb_hf.model.modeling_vocal_burst import RNN_CLASSES
from avb_hf.tasks import ProblemType
from avb_hf.training.arguments import ModelArguments

CLASSES = {"problem_type": "single_label_classification", "num_labels": 3}


@pytest.mark.parametrize("field", [field for field in CHOICES if field != "problem_type"])
def test_flags_offer_what_the_configuration_allows(field):
    hint = get_type_hints(ModelArguments)[field]
    literals = [hint, *get_args(hint)]
    offered = next(get_args(literal) for literal in literals if isinstance((get_args(literal) or [None])[0], str))
    assert offered == CHOICES[field]


def test_problem_types_are_those_of_tasks():
    assert get_args(ProblemType) == CHOICES["problem_type"]


def test_dicts_hold_the_choices():
    assert tuple(POOLINGS) == CHOICES["pooling"]
    assert (*RNN_CLASSES, "none") == CHOICES["rnn"]


def test_help_of_flags_names_the_configurations_defaults():
    flags = {field.name: field for field in dataclasses.fields(ModelArguments)}
    defaults = {field.name: field.default for field in dataclasses.fields(VocalBurstConfig) if field.name in flags}
    fixed = {name: str(default).lower() for name, default in defaults.items() if default is not None}
    assert len(fixed) == 10
    assert [name for name in fixed if flags[name].default is not None] == []
    assert [name for name, default in fixed.items() if f"(default: {default}" not in flags[name].metadata["help"]] == []


@pytest.mark.parametrize(("blocks", "expected"), [(24, 12), (12, 12), (3, 3)])
def test_default_block_is_the_twelfth_or_the_last(blocks, expected):
    config = VocalBurstConfig(encoder_config={"model_type": "hubert", "num_hidden_layers": blocks})
    assert config.feature_layer == expected
    assert config.encoder_config.num_hidden_layers == expected


@pytest.mark.parametrize("block", [0, -1, 4])
def test_a_block_that_is_not_there_is_refused(tiny_backbone, block):
    with pytest.raises(ValueError, match=f"feature_layer must be a block from 1 to 2, got {block}"):
        VocalBurstConfig(encoder_config=tiny_backbone, feature_layer=block)


@pytest.mark.parametrize("model_type", ENCODERS)
def test_what_would_disturb_the_states_is_turned_off(model_type):
    disturbing = {"mask_time_prob": 0.5, "mask_feature_prob": 0.5, "dtype": "float16"}
    dropped = {"encoder_layerdrop" if model_type == "whisper" else "layerdrop": 0.5}
    encoder = VocalBurstConfig(encoder_config={"model_type": model_type, **disturbing, **dropped}).encoder_config
    assert encoder.mask_time_prob == encoder.mask_feature_prob == 0
    assert getattr(encoder, next(iter(dropped))) == 0
    assert encoder.dtype is None


def test_norm_of_states_follows_the_backbone(tiny_backbone):
    assert VocalBurstConfig(encoder_config={"model_type": "whisper"}).states_norm == "layer"
    assert VocalBurstConfig(encoder_config=tiny_backbone).states_norm == "none"


@pytest.mark.parametrize(("label_range", "expected"), [((0, 1), "sigmoid"), (None, "none")])
def test_activation_follows_the_range(tiny_backbone, label_range, expected):
    assert VocalBurstConfig(encoder_config=tiny_backbone, label_range=label_range).output_activation == expected


@pytest.mark.parametrize(
    ("fields", "expected"), [({"loss": "ccc"}, "batch"), ({"loss": "mse"}, "none"), (CLASSES, "none")]
)
def test_batch_norm_for_the_ccc_follows_the_loss(tiny_backbone, fields, expected):
    assert VocalBurstConfig(encoder_config=tiny_backbone, output_norm="batch_for_ccc", **fields).output_norm == expected


@pytest.mark.parametrize("pooling_mask", [True, False])
def test_what_pools_padding(tiny_backbone, pooling_mask):
    reads = {
        pooling: VocalBurstConfig(
            encoder_config=tiny_backbone, pooling=pooling, pool_over="states", pooling_mask=pooling_mask
        ).pools_padding
        for pooling in POOLINGS
    }
    assert reads == {pooling: not pooling_mask and pooling not in ("first", "last") for pooling in POOLINGS}


def test_loss_follows_the_problem(tiny_backbone):
    assert VocalBurstConfig(encoder_config=tiny_backbone).loss == "ccc"
    assert VocalBurstConfig(encoder_config=tiny_backbone, **CLASSES).loss == "cross_entropy"


@pytest.mark.parametrize("field", CHOICES)
def test_an_unknown_choice_names_the_nearest(tiny_backbone, field):
    known = CHOICES[field][-1]
    with pytest.raises(ValueError, match=rf"{field} must be one of .*got '{known}t'; did you mean '{known}'\?"):
        VocalBurstConfig(encoder_config=tiny_backbone, **{field: known + "t"})


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"output_activation": "sigmoid"}, "needs label_range"),
        ({"label_range": (1, 0)}, r"low < high, got \[1.0, 0.0\]"),
        ({"label_range": (0, 0)}, "low < high"),
        ({"label_range": (0, 1, 2)}, "low < high"),
        ({"activation_before_pooling": True, "pool_over": "states"}, "pool_over='logits'"),
        ({"pooling": "mean_std", "num_labels": 5}, "needs pool_over='states', got 'logits': it would make 10 .* of 5"),
        ({"pooling": "attentive", "pool_over": "logits"}, "'attentive' needs pool_over='states'"),
        ({"loss": "cross_entropy"}, "'cross_entropy' does not fit problem_type 'regression'"),
        ({"loss": "ccc", **CLASSES}, "'ccc' does not fit problem_type 'single_label_classification'"),
        ({"class_weights": [1.0, 2.0], "num_labels": 2}, "'cross_entropy', got loss 'ccc'"),
        ({"class_weights": [1.0, 2.0], **CLASSES}, "3 values, got 2"),
    ],
)
def test_contradictions_are_refused(tiny_backbone, fields, message):
    with pytest.raises(ValueError, match=message):
        VocalBurstConfig(encoder_config=tiny_backbone, **fields)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"poolling": "last"}, "'poolling'; did you mean 'pooling'?"),
        ({"rnn_hidden": 3}, "'rnn_hidden'; did you mean 'rnn_hidden_size'?"),
        ({"xyz": 3}, "no configuration argument is named 'xyz'"),
        ({"encoder_config": {"hiden_size": 8}}, "encoder_config: .*'hiden_size'; did you mean 'hidden_size'?"),
        ({"encoder_config": {"model_type": "whisper", "d_modell": 8}}, "'d_modell'; did you mean 'd_model'?"),
    ],
)
def test_a_misspelt_argument_names_the_nearest(fields, message):
    with pytest.raises(TypeError, match=message.replace("?", r"\?")):
        VocalBurstConfig(**fields)


def test_a_misspelt_model_type_names_the_nearest():
    with pytest.raises(ValueError, match="'wav2vec3'; did you mean 'wav2vec2'"):
        VocalBurstConfig(encoder_config={"model_type": "wav2vec3"})


def test_file_is_complete_and_reads_back_the_same(tiny_backbone, tmp_path):
    config = VocalBurstConfig(
        encoder_config=tiny_backbone, feature_layer=1, id2label={0: "b", 1: "a"}, label2id={"b": 0, "a": 1},
        label_range=(1, 9), pooling="max", rnn="gru", output_norm="batch", loss="mse", masked_group_norm=False,
    )  # fmt: skip
    config.save_pretrained(tmp_path)
    stored = json.loads((tmp_path / "config.json").read_text())
    assert stored["model_type"] == "vocal_burst"
    assert CHOICES.keys() <= stored.keys()
    assert stored["encoder_config"]["num_hidden_layers"] == 1
    assert stored["states_norm"] == "none"
    assert stored["output_activation"] == "sigmoid"
    again = AutoConfig.from_pretrained(tmp_path)
    assert type(again) is VocalBurstConfig
    assert again.to_dict() | {"_name_or_path": ""} == config.to_dict()
    assert again.label_names == ["b", "a"]


def test_a_key_of_another_version_in_a_saved_file_is_no_misspelling(tiny_backbone, tmp_path):
    VocalBurstConfig(encoder_config=tiny_backbone).save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"of_another_version": 1}))
    assert AutoConfig.from_pretrained(tmp_path).of_another_version == 1


def test_the_callers_backbone_configuration_stays_as_it_is():
    backbone = Wav2Vec2Config(num_hidden_layers=6, layerdrop=0.1)
    VocalBurstConfig(encoder_config=backbone, feature_layer=2)
    assert (backbone.num_hidden_layers, backbone.layerdrop) == (6, 0.1)


def test_min_samples_of_the_published_front_end():
    assert VocalBurstConfig(encoder_config={"model_type": "wav2vec2"}).min_samples == 400
    assert VocalBurstConfig(encoder_config={"model_type": "whisper"}).min_samples == 201


def test_max_samples_are_whispers_thirty_seconds():
    assert VocalBurstConfig(encoder_config={"model_type": "whisper"}).max_samples == 480_000
    assert VocalBurstConfig(encoder_config={"model_type": "wav2vec2"}).max_samples is None


def test_classes_have_no_label_range():
    with pytest.raises(ValueError, match="label_range belongs to a regression"):
        VocalBurstConfig(problem_type="single_label_classification", label_range=(0, 1))
