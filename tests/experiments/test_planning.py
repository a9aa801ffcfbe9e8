"""From flags to runs: what has been moved is found again, and what was typed is passed on."""

import csv
import shutil
from pathlib import Path

import pytest

from avb_hf.cli import reproduce
from avb_hf.data.arguments import DataArguments
from avb_hf.experiments import paper, planning, runner
from avb_hf.experiments.arguments import ReproduceArguments
from avb_hf.experiments.planning import make_experiment

pytestmark = pytest.mark.slow


def words_of(run, name):
    """What follows a flag, each time."""
    return [word for before, word in zip(run.words, run.words[1:], strict=False) if before == name]


def plan(root, data, typed=(), **flags):
    return make_experiment(ReproduceArguments(**flags), data, Path(root), typed)


def test_corpus_and_output_folder_may_be_moved(with_speakers, fake_avb, tmp_path, monkeypatch):
    monkeypatch.setattr(runner, "in_own_process", fake_avb)
    monkeypatch.setattr(paper, "draw", lambda *args: [])
    corpus, root = tmp_path / "corpus", tmp_path / "paper"
    shutil.copytree(with_speakers, corpus)
    flags = ["--tables", "III", "--seeds", "1"]
    assert reproduce.main([*flags, "--data_dir", str(corpus), "--output_dir", str(root)]) == 0
    (tmp_path / "elsewhere").mkdir()
    corpus, root = corpus.rename(tmp_path / "elsewhere" / "A-VB"), root.rename(tmp_path / "elsewhere" / "runs")
    assert reproduce.main([*flags, "--data_dir", str(corpus), "--output_dir", str(root), "--collect"]) == 0
    with (root / "tables.csv").open() as file:
        assert {row["status"] for row in csv.DictReader(file) if row["table"] == "III"} == {"done"}
    assert reproduce.main([*flags, "--data_dir", str(corpus), "--output_dir", str(root)]) == 0
    assert len(fake_avb.calls) == 4


def test_another_team_runs_nothing(with_speakers, fake_avb, tmp_path, monkeypatch):
    monkeypatch.setattr(runner, "in_own_process", fake_avb)
    monkeypatch.setattr(paper, "draw", lambda *args: [])
    flags = ["--tables", "V", "--seeds", "1", "--data_dir", str(with_speakers), "--output_dir", str(tmp_path)]
    for team in ("Owls", "Wrens"):
        assert reproduce.main([*flags, "--team_name", team]) == 0
        files = {path.name.split("_")[1] for path in (tmp_path / "submissions").iterdir()}
        assert files == {team, f"{team}-emo18"}
    assert len(fake_avb.calls) == 8


def test_emogators_runs_are_known_by_their_names_wherever_it_lies(tmp_path):
    def keys(place):
        folder = tmp_path / place / "corpus"
        folder.mkdir(parents=True)
        for number, split in enumerate(("train", "val", "test"), start=1):
            (folder / f"00000{number}-01-1.mp3").touch()
            with (folder / "split.csv").open("a") as file:
                file.write(f"contributor,split\n00000{number},{split}\n" if number == 1 else f"00000{number},{split}\n")
        data = DataArguments(source="emogator", data_dir=str(folder))
        flags = {"tables": ["III", "IV"], "model_name_or_path": "some/backbone"}
        return [run.key for run in plan(tmp_path / place / "out", data, **flags).runs]

    here = keys("here")
    assert here == keys("there")
    assert len(set(here)) == 5


@pytest.mark.parametrize(
    ("recipe", "typed", "channels", "expected"),
    [
        ("released", {"channels"}, "mean", ["mean"]),
        ("released", set(), "mean", []),
        ("released", {"channels"}, "error", ["error"]),
        ("paper", {"channels"}, "mean", []),  # as the recipe says: the same runs as without it
    ],
)
def test_a_default_that_was_typed_wins_over_the_recipe(recipe, typed, channels, expected, corpus_dir, tmp_path):
    data = DataArguments(data_dir=str(corpus_dir), channels=channels)
    runs = plan(tmp_path, data, typed, tables=["I"], recipe=recipe).runs
    proposed = [run for run in runs if run.words[0] == "train"]
    assert [words_of(run, "--channels") for run in proposed] == [expected] * 16


def test_task_files_and_dataset_folders_are_absolute_in_commands(with_speakers, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    labels = "labels: [Valence, Arousal]\nlabel_range: [0, 1]\n"
    Path("mine.yaml").write_text(labels)
    table = ["path,Valence,Arousal,split,who"]
    table += [f"{n}.wav,0.{n},0.5,{('train', 'val', 'test')[n % 3]},{n % 6}" for n in range(1, 19)]
    Path("table.csv").write_text("\n".join(table))
    data = DataArguments(
        source="manifest", manifest="table.csv", task="mine.yaml", split_column="split", speaker_column="who"
    )
    runs = plan(tmp_path / "out", data, study="padding", model_name_or_path="some/backbone").runs
    assert {word for run in runs for word in words_of(run, "--task")} == {str(tmp_path / "mine.yaml")}
    Path("two").write_text("a file that is named as a task")
    data = DataArguments(data_dir=str(with_speakers), task="two")
    runs = plan(tmp_path / "out", data, study="padding", model_name_or_path="some/backbone").runs
    assert {word for run in runs for word in words_of(run, "--task")} == {"two"}
    Path("clips").mkdir()
    folder, on_hub = (
        planning._resolved(DataArguments(source="hub", dataset_name=name)).dataset_name
        for name in ("clips", "me/clips")
    )
    assert (folder, on_hub) == (str(tmp_path / "clips"), "me/clips")
