"""The folder that `save_pretrained` leaves, and what is pushed."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from huggingface_hub import HfApi, ModelCard
from transformers import pipeline

import avb_hf.model
from avb_hf.baselines.emo18 import Emo18Config, Emo18ForVocalBurst
from avb_hf.card_marker import is_ours
from avb_hf.model import VocalBurstFeatureExtractor, VocalBurstPipeline, Wav2Vec2ForVocalBurst

CODE = {path.name for path in Path(avb_hf.model.__file__).parent.glob("*.py")} - {"__init__.py"}
FILES = CODE | {"config.json", "model.safetensors", "preprocessor_config.json", "README.md"}
LABELS = ["zest", "awe", "mirth"]


def names(folder):
    return {path.name for path in folder.iterdir()}


def read(folder, name):
    return json.loads((folder / name).read_text())


@pytest.fixture
def model(make_model):
    return make_model(id2label=dict(enumerate(LABELS)))


def test_a_folder_holds_all_that_is_needed_and_nothing_else(model, tmp_path):
    model.save_pretrained(tmp_path)
    assert names(tmp_path) == FILES
    config = read(tmp_path, "config.json")
    assert config["id2label"] == {str(index): label for index, label in enumerate(LABELS)}
    assert config["auto_map"] == {
        "AutoConfig": "configuration_vocal_burst.VocalBurstConfig",
        "AutoModelForAudioClassification": "modeling_vocal_burst.Wav2Vec2ForVocalBurst",
    }
    assert config["custom_pipelines"] == {
        "vocal-burst-emotion": {
            "impl": "pipeline_vocal_burst.VocalBurstPipeline",
            "pt": ["AutoModelForAudioClassification"],
            "type": "audio",
        }
    }
    assert read(tmp_path, "preprocessor_config.json")["auto_map"] == {
        "AutoFeatureExtractor": "feature_extraction_vocal_burst.VocalBurstFeatureExtractor"
    }


def test_the_pipeline_leaves_the_same_folder(model, tmp_path):
    model.save_pretrained(tmp_path / "model")
    VocalBurstPipeline(model).save_pretrained(tmp_path / "pipe")
    for name in FILES:
        assert (tmp_path / "model" / name).read_bytes() == (tmp_path / "pipe" / name).read_bytes()


def test_the_pipeline_of_any_model_pushes_it_privately_with_all_that_belongs_to_it(hub, tmp_path):
    pipe = VocalBurstPipeline(
        Emo18ForVocalBurst(Emo18Config(id2label={0: "calm", 1: "wild"})), VocalBurstFeatureExtractor(do_normalize=False)
    )
    pipe.push_to_hub("tester/owls", tags=["owl"])
    pipe.save_pretrained(tmp_path / "larks", push_to_hub=True)
    for name in ("tester/owls", "tester/larks"):
        assert hub.repos[name].private
        _, commit = hub.commits(name)
        assert {"config.json", "model.safetensors", "preprocessor_config.json"} <= set(commit.files)
        assert json.loads(commit.files["preprocessor_config.json"])["do_normalize"] is False
    assert b"- owl\n" in hub.commits("tester/owls")[-1].files["README.md"]
    loaded = Emo18ForVocalBurst.from_pretrained("tester/owls").state_dict()
    assert all(torch.equal(loaded[name], value) for name, value in pipe.model.state_dict().items())
    HfApi().create_repo("tester/eagles", private=False)
    with pytest.raises(ValueError, match="tester/eagles exists and is public: push with private=False"):
        pipe.push_to_hub("tester/eagles")
    pipe.push_to_hub("tester/jays", private=False)
    assert not hub.repos["tester/jays"].private
    pipe.model.push_to_hub("tester/wrens")
    assert hub.repos["tester/wrens"].private


def test_a_card_that_lies_there_stays(model, tmp_path):
    (tmp_path / "README.md").write_text("ours")
    model.save_pretrained(tmp_path)
    assert (tmp_path / "README.md").read_text() == "ours"
    assert names(tmp_path) == FILES


def test_a_card_says_what_is_known(make_model, tmp_path):
    fields = {"id2label": dict(enumerate(LABELS)), "label_range": (0, 5), "base_model": "facebook/wav2vec2-base"}
    make_model(**fields).save_pretrained(tmp_path)
    card = ModelCard.load(tmp_path / "README.md")
    assert (card.data.library_name, card.data.pipeline_tag) == ("transformers", "audio-classification")
    assert (card.data.base_model, card.data.license) == ("facebook/wav2vec2-base", None)
    assert "one score for each of 3 labels, from 0 to 5: zest, awe, mirth." in " ".join(card.text.split())
    assert is_ours(tmp_path / "README.md")


def test_a_card_of_classes_speaks_of_probabilities(make_model, tmp_path):
    make_model(id2label=dict(enumerate(LABELS)), problem_type="single_label_classification").save_pretrained(tmp_path)
    text = " ".join((tmp_path / "README.md").read_text().split())
    assert "the probability of each of 3 classes: zest, awe, mirth." in text


def test_a_card_of_ours_that_names_other_labels_is_replaced(model, make_model, tmp_path):
    model.save_pretrained(tmp_path)
    written = (tmp_path / "README.md").read_text()
    (tmp_path / "README.md").write_text(written + "Scores: 0.5\n")
    model.save_pretrained(tmp_path)
    assert "Scores: 0.5" in (tmp_path / "README.md").read_text()
    make_model(id2label={0: "calm", 1: "wild", 2: "odd"}).save_pretrained(tmp_path)
    text = (tmp_path / "README.md").read_text()
    assert "calm, wild, odd" in text
    assert "Scores" not in text


def test_whoever_may_read_the_configuration_may_read_the_weights(model, tmp_path):
    model.save_pretrained(tmp_path)
    assert (tmp_path / "model.safetensors").stat().st_mode == (tmp_path / "config.json").stat().st_mode


@pytest.mark.parametrize("do_normalize", [False, True])
def test_preprocessing_is_the_backbones_and_goes_along(stock_dir, tmp_path, do_normalize):
    backbone = shutil.copytree(stock_dir("wav2vec2-layer"), tmp_path / "backbone")
    (backbone / "preprocessor_config.json").write_text(json.dumps({"do_normalize": do_normalize}))
    model = Wav2Vec2ForVocalBurst.from_pretrained(backbone, rnn="none", num_labels=2)
    for folder in ("once", "twice"):
        assert model.feature_extractor.do_normalize == do_normalize
        model.save_pretrained(tmp_path / folder)
        stored = VocalBurstFeatureExtractor.from_pretrained(tmp_path / folder)
        assert (stored.do_normalize, stored.min_samples) == (do_normalize, model.config.min_samples)
        model = Wav2Vec2ForVocalBurst.from_pretrained(tmp_path / folder)


def test_what_a_pipeline_made_of_the_configuration_does_not_stop_saving(model, tmp_path):
    """transformers puts classes into `custom_pipelines` of the configuration that it loads."""
    model.save_pretrained(tmp_path / "first")
    pipe = pipeline("vocal-burst-emotion", model=str(tmp_path / "first"), pipeline_class=VocalBurstPipeline)
    pipe.model.save_pretrained(tmp_path / "second")
    first, second = (read(tmp_path / name, "config.json")["custom_pipelines"] for name in ("first", "second"))
    assert second == first


def test_other_processes_write_nothing(model, tmp_path):
    model.save_pretrained(tmp_path, is_main_process=False)
    assert names(tmp_path) == set()


def test_given_weights_are_saved(model, tmp_path):
    weights = {name: value + 1 for name, value in model.state_dict().items()}
    model.save_pretrained(tmp_path, state_dict=weights)
    loaded = Wav2Vec2ForVocalBurst.from_pretrained(tmp_path).state_dict()
    assert all(torch.equal(loaded[name], value) for name, value in weights.items())


def test_a_push_uploads_the_whole_folder(model, tmp_path, hub):
    model.save_pretrained(tmp_path / "named", push_to_hub=True)
    model.save_pretrained(
        tmp_path / "other", push_to_hub=True, repo_id="tester/it", private=False, commit_message="first", tags=["owl"]
    )
    assert {key: repo.private for key, repo in hub.repos.items()} == {
        "tester/named": True,
        "tester/it": False,
    }
    assert names(tmp_path / "other") == FILES
    commit = hub.commits("tester/it")[-1]
    assert commit.title == "first"
    assert set(commit.files) == FILES
    assert b"- owl\n" in commit.files["README.md"]


def test_a_pushed_model_is_private_and_comes_back(model, hub):
    model.push_to_hub("tester/owls")
    (repo,) = hub.repos.values()
    assert repo.private
    assert set(hub.commits("tester/owls")[-1].files) >= FILES
    loaded = Wav2Vec2ForVocalBurst.from_pretrained("tester/owls").state_dict()
    assert all(torch.equal(loaded[name], value) for name, value in model.state_dict().items())


def test_a_push_leaves_the_card_that_is_there(model, hub):
    model.push_to_hub("tester/owls")
    HfApi().upload_file(path_or_fileobj=b"Hoots.", path_in_repo="README.md", repo_id="tester/owls")
    VocalBurstPipeline(model).push_to_hub("tester/owls")
    assert hub.commits("tester/owls")[-1].files["README.md"] == b"Hoots."


def test_the_weights_that_are_saved_are_those_that_are_pushed(model, tmp_path, hub):
    weights = {name: value + 1 for name, value in model.state_dict().items()}
    model.save_pretrained(tmp_path, state_dict=weights, push_to_hub=True, repo_id="tester/owls")
    pushed = hub.commits("tester/owls")[-1].files["model.safetensors"]
    assert pushed == (tmp_path / "model.safetensors").read_bytes()


def test_a_push_to_a_branch_makes_it(model, hub):
    model.push_to_hub("tester/owls", revision="night")
    assert set(hub.commits("tester/owls", "night")[-1].files) == FILES
    assert hub.commits("tester/owls")[-1].files == {}


def test_a_push_to_a_public_repository_must_be_asked_for(model, hub):
    HfApi().create_repo("tester/owls", private=False)
    with pytest.raises(ValueError, match="tester/owls exists and is public: push with private=False"):
        model.push_to_hub("tester/owls")
    model.push_to_hub("tester/owls", private=False)
    assert set(hub.commits("tester/owls")[-1].files) == FILES
