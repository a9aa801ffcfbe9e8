"""A name that is meant as a path is never looked for on the Hub."""

import pytest
from transformers import PreTrainedConfig

from avb_hf.inference.load_model import find_model_class


@pytest.fixture
def asked(monkeypatch, tmp_path):
    """What is looked for on the Hub; the working folder holds `runs/one`."""
    (tmp_path / "runs" / "one").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    names = []

    def get_config_dict(name, **_):
        names.append(name)
        return {"model_type": "wav2vec2"}, {}

    monkeypatch.setattr(PreTrainedConfig, "get_config_dict", get_config_dict)
    return names


@pytest.mark.parametrize("name", ["runs/nothere", "runs/one/checkpoint-3", "a/b/c", "./x", "../x", "~/x", "/nothere"])
def test_a_folder_that_is_not_there_is_told_at_once(name, asked):
    with pytest.raises(ValueError, match=f"^{name}: there is no such folder$"):
        find_model_class(name)
    assert asked == []


@pytest.mark.parametrize("name", ["someone/model", "model", "runs/one"])
def test_other_names_are_looked_up(name, asked):
    assert find_model_class(name) is None
    assert asked == [name]
