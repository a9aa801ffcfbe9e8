"""`--lora` on a model: what learns, what is merged, and what a checkpoint holds."""

import json
import sys

import pytest
import torch
from safetensors import safe_open

from avb_hf.cli import run
from avb_hf.model import VocalBurstConfig, Wav2Vec2ForVocalBurst
from avb_hf.training.adapter_files import load_adapters, save_adapters
from avb_hf.training.lora import add_adapters, is_adapted, merge_adapters, merged_weights
from avb_hf.training.lora_arguments import LoraArguments

peft = pytest.importorskip("peft", reason="peft is in the extra `lora`")

WHISPER = {
    "model_type": "whisper", "d_model": 16, "encoder_layers": 2, "encoder_attention_heads": 2, "encoder_ffn_dim": 32,
    "decoder_layers": 1, "decoder_attention_heads": 2, "decoder_ffn_dim": 16, "vocab_size": 4, "pad_token_id": 0,
}  # fmt: skip
FAMILIES = ("wav2vec2", "hubert", "wavlm", "whisper")
HEAD = {"num_labels": 3, "rnn_hidden_size": 8, "rnn_num_layers": 1, "pool_over": "states", "pooling": "attentive"}
ATTENTION = ["q_proj", "k_proj", "v_proj", "out_proj"]


@pytest.fixture
def make_model(tiny_backbone):
    """Give a function that builds a small model with random weights, its front end frozen, in evaluation mode."""

    def build(family="wav2vec2", seed=0, **fields):
        encoder = WHISPER if family == "whisper" else tiny_backbone | {"model_type": family}
        torch.manual_seed(seed)
        model = Wav2Vec2ForVocalBurst(VocalBurstConfig(encoder_config=dict(encoder), **(HEAD | fields)))
        model.freeze_feature_encoder()
        return model.eval()

    return build


@pytest.fixture
def make_adapted(make_model):
    """Give a function that does so and adds adapters of rank 2 that are not zero any more."""

    def build(family="wav2vec2", targets=ATTENTION, frozen_blocks=0, seed=0):
        model = make_model(family, seed)
        if frozen_blocks:
            model.freeze_blocks(frozen_blocks)
        add_adapters(model, flags(lora_target_modules=targets), frozen_blocks)
        for name, weight in model.named_parameters():
            if ".lora_B." in name:
                torch.nn.init.normal_(weight, std=0.3)
        return model.eval()

    return build


def flags(**more):
    return LoraArguments(model_name_or_path="any", lora=True, lora_r=2, lora_alpha=6, **more)


@pytest.fixture
def batch():
    """Three clips of ragged length."""
    torch.manual_seed(5)
    values, mask = torch.randn(3, 8_000), torch.ones(3, 8_000, dtype=torch.long)
    for row, length in enumerate((8_000, 5_003, 2_000)):
        values[row, length:], mask[row, length:] = 0, 0
    return {"input_values": values, "attention_mask": mask}


def scores(model, batch):
    with torch.no_grad():
        return model(**batch).logits


@pytest.mark.parametrize("family", FAMILIES)
def test_adapters_change_nothing_at_first(make_model, batch, family):
    model = make_model(family)
    before = scores(model, batch)
    add_adapters(model, flags(lora_target_modules=ATTENTION))
    torch.testing.assert_close(scores(model.eval(), batch), before, rtol=0, atol=1e-6)


@pytest.mark.parametrize("targets", [["q_proj", "v_proj"], ATTENTION])
@pytest.mark.parametrize("family", FAMILIES)
def test_every_adapter_and_the_head_learn_and_nothing_else(make_adapted, batch, family, targets):
    model = make_adapted(family, targets).train()
    model(**batch, labels=torch.rand(3, 3)).loss.backward()
    learning = {name for name, weight in model.named_parameters() if weight.requires_grad}
    adapters = {name for name, _ in model.named_parameters() if ".lora_" in name}
    assert len(adapters) == 2 * 2 * len(targets)  # A and B of each target in each of two blocks
    assert {name.split(".")[-4] for name in adapters} == set(targets)
    assert learning == adapters | {name for name, _ in model.named_parameters() if not name.startswith("encoder.")}
    for name, weight in model.named_parameters():
        assert (weight.grad is not None and weight.grad.abs().sum() > 0) == (name in learning), name


@pytest.mark.parametrize("family", FAMILIES)
def test_what_is_merged_scores_alike_and_is_a_plain_model(make_model, make_adapted, batch, family):
    model = make_adapted(family)
    plain = make_model(family)
    assert not torch.allclose(scores(model, batch), scores(plain, batch), rtol=0, atol=1e-3)
    expected, beside = scores(model, batch), merged_weights(model)
    assert is_adapted(model)
    merge_adapters(model)
    assert not is_adapted(model)
    torch.testing.assert_close(scores(model, batch), expected, rtol=0, atol=1e-5)
    own = model.state_dict()
    assert list(own) == list(plain.state_dict()) == list(beside)
    assert [str(module) for module in model.modules()] == [str(module) for module in plain.modules()]
    assert all(torch.equal(own[name], beside[name]) for name in own)
    assert not [module for module in model.modules() if "torch_multi_head_self_attention" in vars(module)]
    merge_adapters(model)  # and again, which does nothing
    assert all(torch.equal(value, beside[name]) for name, value in model.state_dict().items())


def test_merged_weights_follow_the_papers_formula(make_model, make_adapted):
    layer = "encoder.encoder.layers.1.attention.k_proj"
    own, base = make_adapted().state_dict(), make_model().state_dict()[f"{layer}.weight"]
    product = own[f"{layer}.lora_B.default.weight"] @ own[f"{layer}.lora_A.default.weight"]
    torch.testing.assert_close(merged_weights(make_adapted())[f"{layer}.weight"].shape, base.shape)
    model = make_adapted()
    model.load_state_dict(own)
    torch.testing.assert_close(merged_weights(model)[f"{layer}.weight"], base + 6 / 2 * product, rtol=0, atol=1e-6)


def test_an_adapter_that_is_not_finite_is_not_merged(make_adapted):
    model = make_adapted()
    dict(model.named_parameters())["encoder.encoder.layers.0.attention.q_proj.lora_B.default.weight"].data[0] = (
        torch.nan
    )
    with pytest.raises(ValueError, match="NaNs"):
        merge_adapters(model)


def test_frozen_blocks_get_no_adapter(make_adapted):
    names = [name for name, _ in make_adapted(frozen_blocks=1).named_parameters() if ".lora_" in name]
    assert names
    assert all(name.startswith("encoder.encoder.layers.1.") for name in names)


@pytest.mark.parametrize("family", FAMILIES)
def test_peft_itself_reads_a_checkpoint(make_model, make_adapted, batch, tmp_path, family):
    model = make_adapted(family)
    model.config._name_or_path = "any"
    save_adapters(model, tmp_path)
    other = make_model(family)
    torch.nn.init.normal_(other.classifier.weight)  # the head is in the checkpoint
    wrapped = peft.PeftModel.from_pretrained(other, tmp_path).eval()
    merged = wrapped.merge_and_unload()
    torch.testing.assert_close(scores(merged, batch), scores(model, batch), rtol=0, atol=1e-5)


def test_a_checkpoint_holds_adapters_head_and_the_name_of_the_backbone(tiny_backbone_dir, tmp_path):
    model = Wav2Vec2ForVocalBurst.from_pretrained(tiny_backbone_dir, rnn_hidden_size=8, pooling="last")
    model.config.base_model, model.config.base_model_revision = str(tiny_backbone_dir), "0123abc"  # as of the Hub
    add_adapters(model, flags())
    save_adapters(model, tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {
        "adapter_config.json", "adapter_model.safetensors", "config.json",
    }  # fmt: skip
    config = json.loads((tmp_path / "adapter_config.json").read_text())
    assert (config["base_model_name_or_path"], config["revision"]) == (str(tiny_backbone_dir), "0123abc")
    assert set(config["modules_to_save"]) == {"rnn", "classifier"}
    with safe_open(tmp_path / "adapter_model.safetensors", framework="pt") as file:
        parts = {name.removeprefix("base_model.model.").split(".")[0] for name in file.keys()}  # noqa: SIM118
        of_encoder = [name for name in file.keys() if ".encoder." in name]  # noqa: SIM118
    assert parts == {"encoder", "rnn", "classifier"}
    assert len(of_encoder) == 2 * 2 * 2
    assert all(".lora_" in name for name in of_encoder)
    with pytest.raises(ValueError, match="holds adapters without their backbone"):
        Wav2Vec2ForVocalBurst.from_pretrained(tmp_path)


def test_a_checkpoint_is_read_back_bit_for_bit(make_adapted, tmp_path):
    model, other = make_adapted(), make_adapted()
    save_adapters(model, tmp_path)
    for weight in other.parameters():
        if weight.requires_grad:
            weight.data += 1
    load_adapters(other, tmp_path)
    assert all(torch.equal(value, other.state_dict()[name]) for name, value in model.state_dict().items())


def test_a_checkpoint_of_something_else_is_refused(make_adapted, tmp_path):
    model = make_adapted()
    model.peft_config["default"].base_model_name_or_path, model.peft_config["default"].revision = "owls", "0123abc"
    save_adapters(model, tmp_path)
    with pytest.raises(
        ValueError, match=r"owls \(--model_revision 0123abc\), and the backbone's weights are not those"
    ):
        load_adapters(make_adapted(seed=1), tmp_path)
    with pytest.raises(ValueError, match=r"lora_A\.weight has shape \(2, 16\) there, in the model None, and 7 more"):
        load_adapters(make_adapted(targets=["q_proj", "v_proj"]), tmp_path)
    with pytest.raises(ValueError, match="holds no adapters"):
        load_adapters(make_adapted(), tmp_path / "nothing")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--freeze", "backbone"], "got --freeze backbone"),
        (["--freeze", "none"], "got --freeze none"),
        (["--freeze_blocks", "2"], "--freeze_blocks 2 freezes all"),
        (["--lora_target_modules", "q_projj"], "must be one of ['intermediate_dense', 'k_proj', 'out_proj', "),
        (["--lora_r", "0"], "--lora_r must be at least 1, got 0"),
        (["--lora_dropout", "1"], "--lora_dropout must be in [0, 1), got 1.0"),
        (["--lora", "false", "--lora_r", "4"], "--lora_r goes with --lora, which is not given"),
        (["--encoder_config", "{}"], "--lora adapts pretrained weights"),
        (
            ["--activation_checkpointing", "--activation_checkpointing_kwargs", '{"use_reentrant": true}'],
            "loses the gradients of adapters behind frozen layers",
        ),
    ],
)
def test_what_does_not_go_together_is_refused(run_flags, tmp_path, capsys, words, message):
    base = [*run_flags("front end"), "--lora", "--output_dir", str(tmp_path / "run")]
    assert run("train", [*base, *words]) == 2
    assert message in capsys.readouterr().err
    assert not list((tmp_path / "run").glob("*"))


def test_without_peft_the_extra_is_named(run_flags, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "peft", None)
    assert run("train", [*run_flags("front end"), "--lora", "--output_dir", str(tmp_path / "run")]) == 2
    assert "pip install 'avb_hf[lora]'" in capsys.readouterr().err


def test_a_system_without_a_backbone_has_no_such_flag(corpus_dir, tmp_path, capsys):
    words = ["emo18", "--lora", "--data_dir", str(corpus_dir), "--task", "two", "--output_dir", str(tmp_path / "run")]
    assert run("baseline", words) == 2
    assert "there is no flag --lora" in capsys.readouterr().err
