"""`--torch_compile`: the training of an eager run, in few graphs, under the same names."""

import itertools
import json

import pytest
import torch
from safetensors.torch import load_file
from torch._dynamo.utils import counters

from avb_hf.model import VocalBurstConfig, Wav2Vec2ForVocalBurst
from avb_hf.training.compiled import compile_blocks
from avb_hf.training.exact import RandomState
from avb_hf.training.training_arguments import COMPILE_MODES, VocalBurstTrainingArguments

pytestmark = pytest.mark.slow

NO_DROPOUT = dict.fromkeys(("hidden_dropout", "attention_dropout", "activation_dropout", "feat_proj_dropout"), 0.0)
WHISPER = {
    "model_type": "whisper", "d_model": 16, "encoder_layers": 2, "encoder_attention_heads": 2, "encoder_ffn_dim": 32,
}  # fmt: skip
BACKBONES = {
    "wav2vec2": {},
    "hubert": {"model_type": "hubert", "feat_extract_norm": "group", "do_stable_layer_norm": False},
    "wavlm": {"model_type": "wavlm"},
    "whisper": WHISPER,
}
CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def _fresh_graphs():
    """Let each test make its own graphs."""
    torch._dynamo.reset()
    counters.clear()
    yield
    torch._dynamo.reset()


@pytest.fixture
def make_model(tiny_backbone):
    """Give a function that builds a tiny model by its backbone's model type; always the same one."""

    def make(name="wav2vec2", **changes):
        torch.manual_seed(1)
        backbone = BACKBONES[name] if name == "whisper" else tiny_backbone | BACKBONES[name]
        config = VocalBurstConfig(
            encoder_config=backbone | changes, num_labels=3, rnn_hidden_size=8, rnn_num_layers=1, pooling="mean"
        )
        return Wav2Vec2ForVocalBurst(config)

    return make


def batch(*lengths):
    """Clips of so many samples, padded."""
    generator = torch.Generator().manual_seed(sum(lengths))
    mask = (torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]).long()
    return torch.randn(mask.shape, generator=generator) * mask, mask


def num_graphs():
    return counters["stats"]["unique_graphs"]


RAGGED = [(8_000, 5_000, 3_000), (4_000, 2_500), (9_999, 9_000, 1_600, 1_600), (6_400, 5_101, 3_333), (2_000, 1_700)]


@pytest.mark.parametrize(
    ("name", "backend"),
    [("wav2vec2", "eager"), *(pytest.param(name, "aot_eager", marks=pytest.mark.slow) for name in BACKBONES)],
)
def test_one_graph_for_all_lengths_and_blocks_which_says_the_same(make_model, name, backend):
    eager, compiled = make_model(name).eval(), make_model(name).eval()
    compile_blocks(compiled, backend, "default", CPU)
    counters.clear()
    with torch.no_grad():
        for lengths in RAGGED:
            expected, logits = (model(*batch(*lengths)).logits for model in (eager, compiled))
            torch.testing.assert_close(logits, expected, rtol=0, atol=1e-5)
    assert num_graphs() == (2 if name == "wavlm" else 1)  # WavLM's first block makes the bias that the others are given
    assert compiled.state_dict().keys() == eager.state_dict().keys()


@pytest.mark.slow
def test_graphs_are_few_whatever_is_done(make_model):
    model = make_model()
    model.freeze_blocks(1)
    compile_blocks(model, "eager", "default", CPU)
    counters.clear()
    lengths = (*RAGGED, (3_000,), (4_000,), (5_000, 5_000), (6_000, 6_000))
    for clips, trains, grad, bf16 in itertools.product(lengths, *[(True, False)] * 3):
        with torch.set_grad_enabled(grad), torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            model.train(trains)(*batch(*clips))
    assert 8 < num_graphs() <= 32  # with and without training, gradient, bf16, a batch of one, and padding


def test_what_is_frozen_is_not_compiled(make_model):
    eager, compiled = make_model(), make_model()
    for model in (eager, compiled):
        model.freeze_blocks(1)
    compile_blocks(compiled, "eager", "default", CPU)
    counters.clear()
    states, expected = (model.run_frozen(*batch(8_000, 5_000))[0] for model in (compiled, eager))
    assert torch.equal(states, expected)
    assert num_graphs() == 0
    compiled(*batch(8_000, 5_000))
    assert num_graphs() == 1


@pytest.mark.slow
def test_dropout_is_drawn_alike_with_and_without_gradient(make_model):
    """The loss of accumulated batches looks ahead without gradient, and must see what training will see."""
    model = make_model(**dict.fromkeys(NO_DROPOUT, 0.3)).train()
    compile_blocks(model, "inductor", "default", CPU)
    for lengths in RAGGED[:2]:
        before = RandomState.now()
        with torch.no_grad():
            ahead = model(*batch(*lengths)).logits
        other = model(*batch(*lengths)).logits
        before.restore()
        assert (ahead - other).abs().max() > 1e-4
        torch.testing.assert_close(model(*batch(*lengths)).logits, ahead, rtol=0, atol=1e-6)


def losses_of(folder):
    state = json.loads((folder / "trainer_state.json").read_text())
    return [entry["loss"] for entry in state["log_history"] if "loss" in entry]


EACH_STEP = ["--logging_strategy", "steps", "--logging_steps", "1", "--save_strategy", "epoch"]


@pytest.mark.slow
@pytest.mark.parametrize(
    "flags",
    [["--gradient_accumulation_steps", "2"], ["--freeze_blocks", "1", "--gradient_checkpointing"]],
    ids=["accumulation", "checkpointing"],
)
def test_a_compiled_run_has_the_losses_and_names_of_an_eager_one(train, change_backbone, flags):
    backbone = change_backbone(NO_DROPOUT)
    flags = [*EACH_STEP, *flags, "--per_device_train_batch_size", "4"]
    eager = train(*flags, freeze="front end", backbone=backbone)
    compiled = train(*flags, "--torch_compile", freeze="front end", backbone=backbone)
    assert num_graphs() > 0
    expected = losses_of(eager)
    assert len(expected) >= 6
    assert max(expected) - min(expected) > 0.02, "the losses stand still and would prove nothing"
    assert losses_of(compiled) == pytest.approx(expected, abs=1e-5)
    for file in sorted(path.relative_to(eager) for path in eager.rglob("model.safetensors")):
        assert load_file(compiled / file).keys() == load_file(eager / file).keys()
    for folder in (compiled, eager):
        assert Wav2Vec2ForVocalBurst.from_pretrained(folder).state_dict().keys() == load_file(eager / file).keys()


@pytest.mark.slow
def test_a_compiled_run_that_was_cut_off_and_resumed_is_uninterrupted(train, digest, cut_after, tmp_path):
    flags = ["--torch_compile", "--save_strategy", "epoch", "--num_train_epochs", "3"]  # with dropout
    whole = train(*flags, freeze="front end")
    cut_after(5, lambda: train(*flags, freeze="front end", folder=tmp_path / "cut"))
    torch._dynamo.reset()  # another process has no graphs yet
    resumed = train(*flags, "--resume", "auto", freeze="front end", folder=tmp_path / "cut")
    assert digest(resumed) == digest(whole)
    assert losses_of(resumed) == losses_of(whole)


def test_a_resume_does_not_compile_what_was_not(train, tmp_path, capsys):
    train(folder=tmp_path / "run")
    train("--torch_compile_backend", "eager", "--resume", "auto", folder=tmp_path / "run", code=2)
    assert "flags.torch_compile: False is now True" in capsys.readouterr().err


def test_nothing_is_left_to_compile(train, capsys):
    train("--torch_compile", freeze="backbone", code=2)
    assert "--torch_compile compiles the transformer blocks that are trained" in capsys.readouterr().err


def test_a_machine_without_a_compiler(make_model, monkeypatch):
    monkeypatch.setattr("torch._inductor.config.cpp.cxx", ("/no/compiler",))
    with pytest.raises(ValueError, match="--torch_compile does not work on this machine") as caught:
        compile_blocks(make_model(), "inductor", "default", CPU)
    assert "C++ compiler" in str(caught.value)


@pytest.mark.parametrize(
    ("fields", "compiles"),
    [
        ({}, (False, None, None)),
        ({"torch_compile": True}, (True, "inductor", "default")),
        ({"torch_compile_backend": "aot_eager"}, (True, "aot_eager", "default")),
        ({"torch_compile_mode": COMPILE_MODES[1]}, (True, "inductor", COMPILE_MODES[1])),
    ],
)
def test_what_is_asked_for(tmp_path, fields, compiles):
    args = VocalBurstTrainingArguments(output_dir=str(tmp_path), **fields)
    assert (args.torch_compile, args.torch_compile_backend, args.torch_compile_mode) == compiles


@pytest.mark.parametrize("fields", [{"torch_compile_mode": "reduce-overhead"}, {"torch_compile_backend": "cudagraphs"}])
def test_what_is_not_offered(tmp_path, fields):
    ((flag, value),) = fields.items()
    with pytest.raises(ValueError, match=f"--{flag} must be one of .* got '{value}'"):
        VocalBurstTrainingArguments(output_dir=str(tmp_path), **fields)
