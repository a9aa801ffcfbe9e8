"""Which attention a model runs, and what its configuration says of it."""

import pytest

from avb_hf.model import Wav2Vec2ForVocalBurst

HEAD = {"num_labels": 3, "rnn": "none"}
ONLY_EAGER = r"one of \['eager'\] for wavlm, got '{}': transformers has eager attention only .* pass 'eager' or leave"


def attention_of(model):
    """What the configuration says, and what the backbone runs."""
    return model.config._attn_implementation, model.encoder.config._attn_implementation


@pytest.mark.wide
@pytest.mark.parametrize("attention", [None, "eager", "sdpa"])
@pytest.mark.parametrize("name", ["wav2vec2-group", "hubert-layer-stable", "whisper"])
def test_sdpa_is_the_default(name, attention, make_model, stock_dir, tmp_path):
    given = {} if attention is None else {"attn_implementation": attention}
    expected = (attention or "sdpa",) * 2
    random = make_model(name, **given)
    random.save_pretrained(tmp_path)
    assert attention_of(random) == expected
    assert attention_of(Wav2Vec2ForVocalBurst.from_pretrained(stock_dir(name), **HEAD, **given)) == expected
    assert attention_of(Wav2Vec2ForVocalBurst.from_pretrained(tmp_path, **given)) == expected


@pytest.mark.wide
@pytest.mark.parametrize("given", [{}, {"attn_implementation": "eager"}])
@pytest.mark.parametrize("name", ["wavlm-group", "wavlm-layer-stable"])
def test_wavlm_is_eager_and_says_so(name, given, make_model, stock_dir, tmp_path):
    random = make_model(name, **given)
    random.save_pretrained(tmp_path)
    backbone = Wav2Vec2ForVocalBurst.from_pretrained(stock_dir(name), **HEAD, **given)
    again = Wav2Vec2ForVocalBurst.from_pretrained(tmp_path, **given)
    assert [attention_of(model) for model in (random, backbone, again)] == [("eager", "eager")] * 3


@pytest.mark.parametrize("attention", ["sdpa", "flash_attention_2"])
def test_wavlm_has_no_other(attention, make_model, stock_dir, tmp_path):
    message = ONLY_EAGER.format(attention)
    with pytest.raises(ValueError, match=message):
        make_model("wavlm-layer", attn_implementation=attention)
    with pytest.raises(ValueError, match=message):
        Wav2Vec2ForVocalBurst.from_pretrained(stock_dir("wavlm-layer"), attn_implementation=attention, **HEAD)
    make_model("wavlm-layer").save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=message):
        Wav2Vec2ForVocalBurst.from_pretrained(tmp_path, attn_implementation=attention)
    with pytest.raises(ValueError, match=message):
        make_model("wavlm-layer", attn_implementation={"encoder_config": attention})


@pytest.mark.parametrize("attention", ["flex_attention", "flash_attention_2", "paged|eager", "sdpaa"])
@pytest.mark.parametrize("name", ["wav2vec2-layer", "whisper"])
def test_others_are_refused_by_name(name, attention, make_model, stock_dir):
    with pytest.raises(ValueError, match=r"one of \['eager', 'sdpa'\] for .* no other is tested with padding"):
        make_model(name, attn_implementation=attention)
    with pytest.raises(ValueError, match=r"attn_implementation must be one of"):
        Wav2Vec2ForVocalBurst.from_pretrained(stock_dir(name), attn_implementation=attention, **HEAD)
