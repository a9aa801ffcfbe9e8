import json
import logging
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    AutoConfig,
    AutoFeatureExtractor,
    AutoModelForAudioClassification,
    BertConfig,
    BertModel,
    HubertForCTC,
    Wav2Vec2ForCTC,
    Wav2Vec2ForPreTraining,
    WavLMForCTC,
    WhisperForConditionalGeneration,
)

from avb_hf.model import VocalBurstConfig, VocalBurstFeatureExtractor, Wav2Vec2ForVocalBurst

HEAD = {"num_labels": 3, "rnn_hidden_size": 8, "rnn_num_layers": 1}
BACKBONE = "wav2vec2-layer-stable"


def drop_first(weights):
    return dict(sorted(weights.items())[1:])


def prefix_all(weights):
    return {f"foo.{name}": value for name, value in weights.items()}


def add_one(weights):
    return weights | {"foo.weight": torch.zeros(2)}


def break_one(weights):
    name = sorted(weights)[0]
    return weights | {name: torch.full_like(weights[name], float("nan"))}


def reshape_one(weights):
    name = sorted(weights)[0]
    return weights | {name: torch.cat([weights[name], weights[name]])}


@pytest.fixture
def checkpoint(make_model, tmp_path):
    """A folder with a model of ours."""
    make_model(BACKBONE, label_range=(0, 1)).save_pretrained(tmp_path / "ours")
    return tmp_path / "ours"


def tamper(folder, change):
    path = folder / "model.safetensors"
    weights = change(load_file(path))
    save_file(weights, path, metadata={"format": "pt"})
    return sorted(weights)[0]


@pytest.mark.wide
@pytest.mark.parametrize("rnn", ["lstm", "none"])
def test_saving_and_loading_is_bit_exact(backbone, rnn, make_model, clips, pad, tmp_path):
    model = make_model(
        backbone, rnn=rnn, output_norm="batch", states_norm="layer", label_range=(0, 1),
        id2label={0: "b", 1: "a", 2: "c"}, label2id={"b": 0, "a": 1, "c": 2},
    )  # fmt: skip
    model.save_pretrained(tmp_path)
    again = Wav2Vec2ForVocalBurst.from_pretrained(tmp_path)
    before, after = model.state_dict(), again.state_dict()
    assert before.keys() == after.keys()
    assert [name for name in before if not torch.equal(before[name], after[name])] == []
    assert torch.equal(model(*pad(clips)).logits, again(*pad(clips)).logits)
    assert not again.training
    assert again.config.label_names == ["b", "a", "c"]
    fixed = [{name for name, value in m.named_parameters() if not value.requires_grad} for m in (model, again)]
    assert fixed[0] == fixed[1] == ({"encoder.embed_positions.weight"} if backbone == "whisper" else set())


def assert_loaded(model, reference):
    reference = dict(reference.named_parameters())
    assert [name for name, value in model.encoder.named_parameters() if not torch.equal(reference[name], value)] == []


@pytest.mark.wide
def test_a_backbone_is_loaded_whole(backbone, stock, stock_dir):
    folder = stock_dir(backbone)
    reference = type(stock(backbone)).from_pretrained(folder)
    model = Wav2Vec2ForVocalBurst.from_pretrained(folder, **HEAD)
    assert_loaded(model, reference.encoder if backbone == "whisper" else reference)
    assert model.config.encoder_config.model_type == backbone.split("-")[0]
    fixed = [name for name, value in model.named_parameters() if not value.requires_grad]
    assert fixed == ["encoder.embed_positions.weight"] * (backbone == "whisper")


@pytest.mark.parametrize(
    ("name", "model_class", "part"),
    [
        ("wav2vec2-layer-stable", Wav2Vec2ForCTC, "wav2vec2"),
        ("wav2vec2-group", Wav2Vec2ForPreTraining, "wav2vec2"),
        ("hubert-group", HubertForCTC, "hubert"),
        ("wavlm-layer", WavLMForCTC, "wavlm"),
        ("whisper", WhisperForConditionalGeneration, "model.encoder"),
    ],
)
def test_a_backbone_is_found_in_a_model_for_another_job(name, model_class, part, stock, tmp_path):
    whole = model_class(stock(name).config)
    whole.save_pretrained(tmp_path)
    assert_loaded(Wav2Vec2ForVocalBurst.from_pretrained(tmp_path, **HEAD), whole.get_submodule(part))


def test_the_encoder_of_whisper_may_stand_alone(stock, tmp_path):
    encoder = stock("whisper").encoder
    encoder.save_pretrained(tmp_path)
    assert_loaded(Wav2Vec2ForVocalBurst.from_pretrained(tmp_path, **HEAD), encoder)


def test_old_names_of_weight_norm_are_read(stock_dir, tmp_path):
    folder = shutil.copytree(stock_dir(BACKBONE), tmp_path / "old")
    old = {"parametrizations.weight.original0": "weight_g", "parametrizations.weight.original1": "weight_v"}

    def rename(weights):
        for new_name, old_name in old.items():
            weights = {name.replace(new_name, old_name): value for name, value in weights.items()}
        return weights

    tamper(folder, rename)
    assert any(name.endswith("weight_g") for name in load_file(folder / "model.safetensors"))
    assert_loaded(
        Wav2Vec2ForVocalBurst.from_pretrained(folder, **HEAD),
        Wav2Vec2ForVocalBurst.from_pretrained(stock_dir(BACKBONE), **HEAD).encoder,
    )


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (drop_first, "lacks"),
        (prefix_all, "lacks"),
        (add_one, "has weights that the model does not: foo.weight"),
        (break_one, "holds weights that are not finite"),
        (reshape_one, "has the wrong shape for"),
    ],
)
def test_a_checkpoint_of_ours_that_does_not_fit_is_refused(checkpoint, change, what):
    first = sorted(load_file(checkpoint / "model.safetensors"))[0]
    tamper(checkpoint, change)
    with pytest.raises(ValueError, match=what) as caught:
        Wav2Vec2ForVocalBurst.from_pretrained(checkpoint)
    assert str(checkpoint) in str(caught.value)
    assert change is add_one or first in str(caught.value)


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (drop_first, "lacks"),
        (prefix_all, "lacks"),
        (break_one, "holds weights that are not finite"),
        (reshape_one, "has the wrong shape for"),
    ],
)
@pytest.mark.parametrize("name", ["wav2vec2-layer-stable", "whisper"])
def test_a_backbone_that_does_not_fit_is_refused(name, change, what, stock_dir, tmp_path):
    folder = shutil.copytree(stock_dir(name), tmp_path / "backbone")
    needed = "encoder.layers.0." if name == "wav2vec2-layer-stable" else "encoder."

    def change_needed(weights):
        own = {key: value for key, value in weights.items() if key.startswith(needed)}
        return {key: value for key, value in weights.items() if key not in own} | change(own)

    tamper(folder, change_needed)
    with pytest.raises(ValueError, match=what) as caught:
        Wav2Vec2ForVocalBurst.from_pretrained(folder, **HEAD)
    assert str(folder) in str(caught.value)
    assert "layers.0." in str(caught.value) or "conv1" in str(caught.value)


def test_unused_weights_of_a_backbone_are_no_error_but_are_logged(stock_dir, caplog):
    with caplog.at_level(logging.DEBUG, logger="avb_hf"):
        Wav2Vec2ForVocalBurst.from_pretrained(stock_dir("wav2vec2-layer-stable"), feature_layer=2, **HEAD)
    assert "of its tensors are not used" in caplog.text
    assert "encoder.layers.2.attention.k_proj.bias" in caplog.text


@pytest.mark.parametrize("changes", [{"num_labels": 5}, {"rnn_hidden_size": 4}, {"rnn": "none"}, {"feature_layer": 1}])
def test_a_changed_architecture_does_not_fit_the_checkpoint(checkpoint, changes):
    with pytest.raises(ValueError, match="does not fit the model"):
        Wav2Vec2ForVocalBurst.from_pretrained(checkpoint, **changes)


def test_fields_without_weights_may_be_changed(checkpoint):
    model = Wav2Vec2ForVocalBurst.from_pretrained(checkpoint, pooling="max", loss="mse")
    assert (model.config.pooling, model.config.loss, model.pooling.__class__.__name__) == ("max", "mse", "MaxPooling")


@pytest.mark.parametrize(
    ("argument", "nearest"), [("poolling", "pooling"), ("feature_layers", "feature_layer"), ("revison", "revision")]
)
def test_a_misspelt_argument_names_the_nearest(checkpoint, stock_dir, argument, nearest):
    for folder in (checkpoint, stock_dir(BACKBONE)):
        with pytest.raises(TypeError, match=rf"no argument '{argument}'; did you mean '{nearest}'\?"):
            Wav2Vec2ForVocalBurst.from_pretrained(folder, **{argument: "x"})


def test_a_backbone_of_another_kind_is_refused(tmp_path):
    config = BertConfig(vocab_size=9, hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8)
    BertModel(config).save_pretrained(tmp_path)
    for make in (
        lambda: Wav2Vec2ForVocalBurst.from_pretrained(tmp_path),
        lambda: Wav2Vec2ForVocalBurst(VocalBurstConfig(encoder_config=config)),
    ):
        with pytest.raises(ValueError, match=r"one of \['wav2vec2', 'hubert', 'wavlm', 'whisper'\], got 'bert'"):
            make()


@pytest.mark.parametrize("content", [None, {"hidden_size": 8}])
def test_a_folder_without_a_model_type_is_refused(tmp_path, content):
    if content is not None:
        (tmp_path / "config.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"no config\.json that names a model_type"):
        Wav2Vec2ForVocalBurst.from_pretrained(tmp_path)


def test_auto_classes_load_without_a_trust_flag(checkpoint, clips, pad):
    VocalBurstFeatureExtractor(do_normalize=False, min_samples=680).save_pretrained(checkpoint)
    assert type(AutoConfig.from_pretrained(checkpoint)) is VocalBurstConfig
    model = AutoModelForAudioClassification.from_pretrained(checkpoint)
    assert type(model) is Wav2Vec2ForVocalBurst
    own = Wav2Vec2ForVocalBurst.from_pretrained(checkpoint)
    assert torch.equal(model(*pad(clips)).logits, own(*pad(clips)).logits)
    extractor = AutoFeatureExtractor.from_pretrained(checkpoint)
    assert type(extractor) is VocalBurstFeatureExtractor
    assert (extractor.do_normalize, extractor.min_samples) == (False, 680)


@pytest.mark.parametrize("source", ["ours", "backbone"])
def test_weights_stored_in_half_precision_become_float32(source, checkpoint, stock_dir, tmp_path):
    folder = checkpoint if source == "ours" else shutil.copytree(stock_dir("whisper"), tmp_path / "backbone")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"dtype": "float16"}))
    weights = load_file(folder / "model.safetensors")
    half = {name: value.half() if value.is_floating_point() else value for name, value in weights.items()}
    save_file(half, folder / "model.safetensors", metadata={"format": "pt"})
    model = Wav2Vec2ForVocalBurst.from_pretrained(folder, **({} if source == "ours" else HEAD))
    model.save_pretrained(tmp_path / "again")
    again = Wav2Vec2ForVocalBurst.from_pretrained(tmp_path / "again")
    for loaded in (model, again):
        assert {value.dtype for value in loaded.state_dict().values()} == {torch.float32}
    assert AutoModelForAudioClassification.from_pretrained(tmp_path / "again").dtype == torch.float32


@pytest.mark.parametrize("source", ["ours", "backbone"])
def test_another_precision_is_loaded_when_asked_for(source, checkpoint, stock_dir, clips, pad):
    folder = checkpoint if source == "ours" else stock_dir(BACKBONE)
    model = Wav2Vec2ForVocalBurst.from_pretrained(folder, dtype=torch.bfloat16, **({} if source == "ours" else HEAD))
    assert {value.dtype for value in model.parameters()} == {torch.bfloat16}
    assert model(*pad(clips)).logits.isfinite().all()


def test_loading_info_is_handed_out(checkpoint, stock_dir):
    for folder, fields in ((checkpoint, {}), (stock_dir(BACKBONE), HEAD)):
        model, info = Wav2Vec2ForVocalBurst.from_pretrained(folder, output_loading_info=True, **fields)
        assert isinstance(model, Wav2Vec2ForVocalBurst)
        assert not info["missing_keys"]


def test_a_configuration_object_may_be_given(checkpoint):
    config = VocalBurstConfig.from_pretrained(checkpoint)
    config.pooling = "first"
    model = Wav2Vec2ForVocalBurst.from_pretrained(checkpoint, config=config)
    assert model.config.pooling == "first"
    assert Wav2Vec2ForVocalBurst.from_pretrained(checkpoint, config=config, pooling="max").config.pooling == "max"
