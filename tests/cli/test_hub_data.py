"""`--source hub` through the commands: what is trained and found is what the prepared corpus gives."""

import json
from pathlib import Path

import pandas as pd
import pytest

from avb_hf.cli import run
from avb_hf.training.state_cache import StateCache, list_caches

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def sources(make_corpus, tmp_path_factory):
    """Flags of a prepared corpus as a folder of files, and as a dataset of Parquet files."""
    folder = tmp_path_factory.mktemp("corpus")
    words = [str(make_corpus(folder / "raw")), str(folder / "out"), "--num_workers", "1"]
    assert run("prepare", [*words, "--parquet_dir", str(folder / "hub")]) == 0
    hub = ["--source", "hub", "--dataset_name", str(folder / "hub"), "--task", "two"]
    return {"avb": ["--data_dir", str(folder / "out"), "--task", "two"], "hub": hub}


def train(flags, folder, *more):
    assert run("train", [*flags, *more, "--output_dir", str(folder), "--disable_tqdm", "true"]) == 0
    return (folder / "predictions.csv").read_text()


@pytest.mark.parametrize("workers", [0, 2])
def test_a_run_on_a_dataset_is_the_run_on_its_files(sources, tiny_flags, tmp_path, workers):
    more = [*tiny_flags, "--dataloader_num_workers", str(workers)]
    one, other = (train(sources[name], tmp_path / name, *more) for name in ("avb", "hub"))
    assert one == other
    assert len(one.splitlines()) == 1 + 9 + 9


def test_states_of_frozen_layers_are_shared_with_the_files(sources, tiny_flags, tmp_path, monkeypatch):
    monkeypatch.setenv("AVB_HF_CACHE", str(tmp_path / "cache"))
    more = [*tiny_flags, "--freeze", "backbone"]
    one = train(sources["avb"], tmp_path / "avb", *more)
    (cache,) = list_caches()
    assert cache.num_clips == 36
    monkeypatch.setattr(StateCache, "write", lambda self, states: pytest.fail("states were made again"))
    assert train(sources["hub"], tmp_path / "hub", *more) == one


def test_states_made_of_a_dataset_are_found_again(sources, tiny_flags, tmp_path, monkeypatch):
    monkeypatch.setenv("AVB_HF_CACHE", str(tmp_path / "cache"))
    more = [*tiny_flags, "--freeze", "backbone"]
    one = train(sources["hub"], tmp_path / "one", *more)
    monkeypatch.setattr(StateCache, "write", lambda self, states: pytest.fail("states were made again"))
    assert train(sources["hub"], tmp_path / "two", *more) == one


def test_the_doctor_looks_at_datasets(sources, capsys):
    assert run("doctor", sources["hub"]) == 0
    assert "0 errors, 0 warnings" in capsys.readouterr().out
    assert run("doctor", [*sources["hub"], "--dataset_revision", "main"]) == 2
    assert "--dataset_revision is for the Hub" in capsys.readouterr().err


@pytest.fixture
def published(hub, make_corpus, tmp_path):
    """Flags of a dataset on the Hub, its first commit, and a function that pushes one with other labels and splits."""
    raw = make_corpus(tmp_path / "raw")
    words = [str(raw), str(tmp_path / "out"), "--num_workers", "1", "--task", "two", "--push_to_hub", "bursts"]
    assert run("prepare", words) == 0

    def move_on():
        path = raw / "labels" / "two_info.csv"
        table = pd.read_csv(path, dtype=str)
        table["Arousal"] = table["Arousal"].to_numpy()[::-1]
        table.to_csv(path, index=False)
        assert run("prepare", words) == 0
        return hub.commits("datasets/tester/bursts")[-1].oid

    flags = ["--source", "hub", "--dataset_name", "tester/bursts", "--task", "two"]
    return flags, hub.commits("datasets/tester/bursts")[-1].oid, move_on


def commit_of(folder):
    return json.loads((folder / "resolved_config.json").read_text())["flags"]["dataset_revision"]


def test_a_run_and_its_resume_read_the_dataset_at_one_commit(hub, published, tiny_flags, tmp_path, cut_after, capsys):
    flags, first, move_on = published
    words = [*flags, *tiny_flags]
    whole = train(words, tmp_path / "whole")
    here = tmp_path / "here"
    cut_after(4, lambda: train(words, here))
    assert commit_of(here) == first
    second = move_on()
    assert second != first
    assert train(words, here, "--resume", "auto") == whole
    assert commit_of(here) == first
    card = (here / "README.md").read_text()
    assert f"revision: {first}" in card
    assert second not in card

    assert train(words, tmp_path / "later") != whole
    assert commit_of(tmp_path / "later") == second
    assert train([*words, "--dataset_revision", first], tmp_path / "named") == whole
    assert train(words, here, "--resume", "auto") == whole, "a finished run is recognised"
    capsys.readouterr()
    again = [*words, "--output_dir", str(here), "--resume", "auto", "--dataset_revision", "main"]
    assert run("train", again) == 2
    assert f"flags.dataset_revision: '{first}' is now '{second}'" in capsys.readouterr().err


def test_the_dataset_is_looked_up_once_and_the_commit_of_a_branch_is_recorded(hub, published, tiny_flags, tmp_path):
    flags, first, _ = published
    repo = hub.repos["datasets/tester/bursts"]
    repo.branches["try"] = [repo.find(first)]
    before = len(hub.calls)
    train([*flags, *tiny_flags, "--dataset_revision", "try"], tmp_path / "run")
    assert commit_of(tmp_path / "run") == first
    lookups = [path for _, path, _ in hub.calls[before:] if path.endswith("/revision/try")]
    assert len(lookups) == 1
    asked = [path for _, path, _ in hub.calls[before:] if "/resolve/" in path]
    assert asked
    assert all(f"/resolve/{first}/" in path for path in asked)


def test_a_folder_has_no_commit(sources, tiny_flags, tmp_path):
    train([*sources["hub"], *tiny_flags], tmp_path / "run")
    assert commit_of(tmp_path / "run") is None


def test_a_validation_split_that_is_drawn_is_written_down(sources, tiny_flags, tmp_path):
    folder = tmp_path / "two splits"
    (folder / "data").mkdir(parents=True)
    given = Path(sources["hub"][3])
    for path in given.rglob("*"):
        if path.name.startswith(("train", "test")):
            (folder / path.relative_to(given)).write_bytes(path.read_bytes())
    train([*sources["hub"][:3], str(folder), *sources["hub"][4:], *tiny_flags], tmp_path / "run")
    table = pd.read_csv(tmp_path / "run" / "split.csv")
    assert table["split"].value_counts().to_dict() == {"train": 15, "test": 9, "validation": 3}
