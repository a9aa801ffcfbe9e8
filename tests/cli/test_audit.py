import re
import shutil

import numpy as np
import pytest
import soundfile
from transformers import Wav2Vec2Config, Wav2Vec2Model

from avb_hf.cli import main
from avb_hf.inference.perturbations import PERTURBATIONS
from avb_hf.model import VocalBurstConfig, VocalBurstFeatureExtractor, Wav2Vec2ForVocalBurst


@pytest.fixture
def checkpoint(tiny_backbone, tmp_path):
    """Give a function that writes a small checkpoint of ours."""

    def write(**fields):
        config = VocalBurstConfig(encoder_config=dict(tiny_backbone), rnn="none", label_range=(0, 1), **fields)
        Wav2Vec2ForVocalBurst(config).save_pretrained(tmp_path / "ours")
        VocalBurstFeatureExtractor.for_backbone(None, config).save_pretrained(tmp_path / "ours")
        return str(tmp_path / "ours")

    return write


def table_of(output):
    """Largest difference, relative difference and verdict of each perturbation."""
    rows = re.findall(r"^(\w[\w ]*?) {2,}(\S+) +(\S+)  (pass|FAIL)$", output, flags=re.MULTILINE)
    return {name: (float(difference), float(relative), verdict) for name, difference, relative, verdict in rows}


def test_a_backbone_on_synthetic_clips_passes(tiny_backbone_dir, capsys):
    assert main(["audit", str(tiny_backbone_dir)]) == 0
    output = capsys.readouterr().out
    lines = output.splitlines()
    assert lines[0].startswith(f"{tiny_backbone_dir}: raw states of block 2, float32, sdpa attention; largest value ")
    assert lines[1] == "16 clips of 0.04 to 4.00 s"
    assert lines[-1] == "pass"
    assert "tolerance: 5e-05 of the largest value" in lines
    largest = float(lines[0].split()[-1])
    table = table_of(output)
    assert list(table) == list(PERTURBATIONS)
    for difference, relative, verdict in table.values():
        assert relative == pytest.approx(difference / largest, rel=0.1)
        assert (relative < 5e-5, verdict) == (True, "pass")


def test_a_checkpoint_on_clips_of_a_folder_passes(checkpoint, corpus_dir, capsys):
    assert main(["audit", checkpoint(pooling="max"), str(corpus_dir), "--max_clips", "9", "--batch_size", "4"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert ": scores, float32" in lines[0]
    assert lines[1].startswith("9 clips of 0.")
    assert "tolerance: 1e-05 absolute" in lines
    assert re.fullmatch(rf"worst clip: {corpus_dir}/audio/any/\d+\.wav \([\w ]+\)", lines[-2])


def test_an_unmasked_pooling_fails_and_is_named(checkpoint, corpus_dir, capsys):
    name = checkpoint(pooling="max", pooling_mask=False)
    assert main(["audit", name, str(corpus_dir), "--max_clips", "9"]) == 1
    output = capsys.readouterr().out
    assert "FAIL" in [verdict for _, _, verdict in table_of(output).values()]
    assert output.splitlines()[-1] == "FAIL, probably since pooling_mask is false: max pooling reads padded frames"


@pytest.mark.slow
def test_an_unmasked_group_norm_fails_and_is_named(tiny_backbone, tmp_path, capsys):
    fields = tiny_backbone | {"feat_extract_norm": "group", "do_stable_layer_norm": False}
    Wav2Vec2Model(Wav2Vec2Config(**fields)).save_pretrained(tmp_path)
    assert main(["audit", str(tmp_path), "--feature_layer", "1", "--attn_implementation", "eager"]) == 0
    assert "raw states of block 1, float32, eager attention" in capsys.readouterr().out
    assert main(["audit", str(tmp_path), "--masked_group_norm", "false"]) == 1
    assert capsys.readouterr().out.splitlines()[-1].startswith("FAIL, probably since masked_group_norm is false")


@pytest.mark.slow
def test_a_cut_clip_is_told_of(tiny_backbone_dir, tmp_path, capsys):
    for name, seconds in (("long", 31), ("short", 1)):
        soundfile.write(tmp_path / f"{name}.wav", 0.1 * np.random.randn(seconds * 16_000), 16_000)
    assert main(["audit", str(tiny_backbone_dir), str(tmp_path)]) == 0
    line = capsys.readouterr().out.splitlines()[1]
    assert line == "2 clips of 1.00 to 30.00 s, 1 of them cut to their middle 30 s"


@pytest.mark.slow
def test_another_seed_takes_other_clips(tiny_backbone_dir, corpus_dir, capsys):
    outputs = []
    for seed in ("0", "0", "1"):
        assert main(["audit", str(tiny_backbone_dir), str(corpus_dir), "--max_clips", "9", "--seed", seed]) == 0
        outputs.append(capsys.readouterr().out)
    assert outputs[0] == outputs[1] != outputs[2]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["{here}/nope"], "nope: there is no such folder"),
        (["{here}"], "no config.json that names a model_type was found there"),
        ([], "the following arguments are required: checkpoint_or_backbone"),
        (["{model}", "{here}/nope"], "nope: there is no such file or folder"),
        (["{model}", "{here}"], "no audio file is in this folder"),
        (["{model}", "{here}/text"], "cannot be decoded"),
        (["{model}", "{clip}"], "an audit needs two clips"),
        (["{model}", "--max_clips", "1"], "--max_clips must be 2 or more, got 1"),
        (["{model}", "--batch_size", "0"], "--batch_size must be 2 or more, got 0"),
        (["{model}", "--feature_layer", "3"], "feature_layer must be a block from 1 to 2, got 3"),
        (["{model}", "--attn_implementation", "flash"], "invalid choice: 'flash'"),
        (["{model}", "--batchsize", "2"], "there is no flag --batchsize; did you mean --batch_size?"),
    ],
)
def test_mistakes_end_with_their_message(words, message, tiny_backbone_dir, corpus_dir, tmp_path, capsys):
    (tmp_path / "text").write_text("no audio")
    places = {"here": tmp_path, "model": tiny_backbone_dir, "clip": corpus_dir / "audio" / "any" / "00001.wav"}
    assert main(["audit", *(word.format(**places) for word in words)]) == 2
    captured = capsys.readouterr()
    assert message in captured.err.splitlines()[-1]
    assert captured.out == ""


def test_an_unreadable_clip_among_others_is_an_error(tiny_backbone_dir, corpus_dir, tmp_path, capsys):
    for clip in sorted(corpus_dir.rglob("*.wav"))[:3]:
        shutil.copy(clip, tmp_path)
    (tmp_path / "broken.mp3").write_bytes(b"ID3" + bytes(100))
    assert main(["audit", str(tiny_backbone_dir), str(tmp_path)]) == 2
    assert "broken.mp3" in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.slow
@pytest.mark.real_data
def test_whisper_passes_on_real_bursts(whisper_dir, emogator_dir, capsys):
    assert main(["audit", str(whisper_dir), str(emogator_dir), "--max_clips", "16"]) == 0
    output = capsys.readouterr().out
    assert "raw states of block 6, float32" in output
    assert max(relative for _, relative, _ in table_of(output).values()) < 5e-5
