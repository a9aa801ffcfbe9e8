"""The card of what is pushed says where it is, what it needs, and what its licence is, whenever it is pushed."""

import json

import pytest
from huggingface_hub import ModelCard

from avb_hf.cli import run

pytestmark = pytest.mark.slow


def test_a_run_that_is_pushed_later_has_a_card_that_says_so(hub, train_and_push, capsys):
    words = ["--num_train_epochs", "1", "--hub_strategy", "end"]
    folder = train_and_push("--push_to_hub", "false", *words)
    made = {name: (folder / name).read_bytes() for name in ("model.safetensors", "predictions.csv")}
    train_and_push("--resume", "auto", "--license", "mit", *words)
    pushed = hub.commits("tester/owls")[-1].files
    card = ModelCard(pushed["README.md"].decode())
    assert card.data.license == "mit"
    assert 'model="tester/owls"' in card.content
    assert str(folder) not in card.content.partition("## Training")[0]
    assert {result.dataset_split for result in card.data.eval_results} == {"validation", "test"}
    assert pushed["model.safetensors"] == made["model.safetensors"]
    assert {name: (folder / name).read_bytes() for name in made} == made, "it was trained again"

    capsys.readouterr()
    train_and_push("--resume", "auto", "--license", "mit", *words)
    assert "is finished: nothing to do" in capsys.readouterr().out


def test_a_licence_that_is_named_later_gets_into_the_card_without_a_push(train_and_push):
    words = ["--num_train_epochs", "1", "--push_to_hub", "false"]
    folder = train_and_push(*words)
    made = (folder / "model.safetensors").read_bytes()
    train_and_push(*words, "--resume", "auto", "--license", "mit")
    card = ModelCard.load(folder / "README.md")
    assert card.data.license == "mit"
    assert {result.dataset_split for result in card.data.eval_results} == {"validation", "test"}
    assert (folder / "model.safetensors").read_bytes() == made, "it was trained again"
    written = (folder / "README.md").stat().st_mtime_ns
    train_and_push(*words, "--resume", "auto")
    assert (folder / "README.md").stat().st_mtime_ns == written


def test_a_model_that_is_scored_again_in_part_has_a_card_of_all_that_is_known(hub, train_and_push):
    words = ["--num_train_epochs", "1", "--hub_strategy", "end"]
    folder = train_and_push("--push_to_hub", "false", *words)
    train_and_push("--resume", "auto", "--do_eval", "--license", "mit", *words)
    pushed = hub.commits("tester/owls")[-1].files
    card = ModelCard(pushed["README.md"].decode())
    assert card.data.license == "mit"
    assert "The epoch that scored best on the validation split was kept." in card.content
    assert "scores there are a little too high" in card.content
    found = {
        result.dataset_split: result.metric_value for result in card.data.eval_results if "mean" in result.metric_name
    }
    for split, prefix in (("validation", "eval"), ("test", "test")):
        assert found[split] == pytest.approx(json.loads(pushed[f"{prefix}_results.json"])[f"{prefix}_ccc"], abs=5e-5)
    assert (folder / "README.md").read_bytes() == pushed["README.md"]


def test_scores_of_a_model_that_was_trained_on_are_gone(train_and_push, tmp_path):
    words = ["--push_to_hub", "false", "--lr_scheduler_type", "constant", "--num_train_epochs"]
    folder = train_and_push(*words, "1")
    assert (folder / "test_results.json").is_file()
    train_and_push(*words, "2", "--resume", "auto", "--allow_changed_args", "--do_train", "--do_eval")
    assert not (folder / "test_results.json").exists()
    assert {result.dataset_split for result in ModelCard.load(folder / "README.md").data.eval_results} == {"validation"}


def test_a_card_that_was_edited_on_the_hub_stays(hub, train_and_push, caplog):
    words = ["--num_train_epochs", "1", "--hub_strategy", "end"]
    train_and_push(*words)
    repo, pushed = hub.repos["tester/owls"], hub.commits("tester/owls")[-1].files
    hub.add_commit(repo, "main", "my own words", pushed | {"README.md": b"# Mine\n"})
    train_and_push("--seed", "7", *words, folder="other")
    files = hub.commits("tester/owls")[-1].files
    assert hub.commits("tester/owls")[-1].title == "End of training"
    assert files["README.md"] == b"# Mine\n"
    assert files["model.safetensors"] != pushed["model.safetensors"]
    assert "README.md of tester/owls was written by somebody else and stays" in caplog.text


def test_the_card_of_a_model_without_its_code_says_what_it_needs(hub, corpus_dir, tmp_path):
    words = [
        "emo18",
        "--data_dir",
        corpus_dir,
        "--task",
        "two",
        "--num_train_epochs",
        "1",
        "--output_dir",
        tmp_path / "run",
    ]
    words += ["--push_to_hub", "--hub_model_id", "tester/owls", "--hub_strategy", "end"]
    assert run("baseline", [str(word) for word in words]) == 0
    card = ModelCard(hub.commits("tester/owls")[-1].files["README.md"].decode())
    assert "This needs avb_hf.\n" in card.content
    assert "pipeline(" not in card.content
    assert card.data.library_name is None
    clips = str(corpus_dir / "audio" / "any")
    assert run("predict", ["tester/owls", clips, "--output", str(tmp_path / "scores.csv")]) == 0
