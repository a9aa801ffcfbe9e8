import dataclasses
from collections import Counter
from pathlib import Path

import pytest

from avb_hf.cli import train
from avb_hf.data.arguments import DataArguments
from avb_hf.experiments.arguments import TABLES
from avb_hf.experiments.grid import END2YOU, EXTRACTORS, RECIPES, TINY, run_of, runs_of
from avb_hf.experiments.jobs import LOCATIONS, Job, Run, data_words
from avb_hf.experiments.published import COLUMNS, read_published
from avb_hf.experiments.tables import LAYOUTS
from avb_hf.tasks import TASKS
from avb_hf.training.run_record import FREE_TO_CHANGE

PAPER = Path(__file__).resolve().parents[3] / "shared" / "paper" / "results.csv"


@pytest.fixture
def settings(settings_of, corpus_dir):
    return settings_of(corpus_dir)


def parse(run, folder, seed=7):
    return train.parse(Job(run, seed, folder).argv[1:])[:4]


def test_the_published_scores_are_there_in_order():
    scores = read_published()
    assert tuple(dict.fromkeys(score.table for score in scores)) == tuple(LAYOUTS) == TABLES
    assert Counter(score.table for score in scores) == {"I": 20, "II": 8, "III": 4, "IV": 8, "V": 12}
    assert dataclasses.astuple(scores[0]) == ("I", "val", "two", "end2you", "", "", "", "", "ccc", "49.88")
    assert scores[-1].percent == 41.72
    assert dataclasses.replace(scores[0], score_percent="").percent is None


@pytest.mark.real_data
def test_the_published_scores_are_those_of_the_paper():
    if not PAPER.is_file():
        pytest.skip(f"{PAPER} is not here")
    lines = [",".join(COLUMNS), *(",".join(dataclasses.astuple(score)) for score in read_published())]
    assert PAPER.read_text().splitlines() == lines


def test_scores_share_runs(settings):
    scores = read_published()
    assert len(runs_of(scores, settings)) == 36
    of_tables = {table: [score for score in scores if score.table == table] for table in ("I", "II", "III", "IV", "V")}
    by_table = {table: set(runs_of(part, settings)) for table, part in of_tables.items()}
    assert {table: len(runs) for table, runs in by_table.items()} == {"I": 20, "II": 8, "III": 4, "IV": 8, "V": 8}
    assert len(by_table["I"] & by_table["II"]) == len(by_table["I"] & by_table["III"]) == 2
    assert len(by_table["I"] & by_table["IV"]) == len(by_table["I"] & by_table["V"]) == 4


@pytest.mark.slow
@pytest.mark.parametrize("recipe", RECIPES)
def test_each_run_trains_what_its_score_says(recipe, settings, tmp_path):
    settings = dataclasses.replace(settings, recipe=recipe)
    for score in read_published():
        if score.backbone == END2YOU:
            continue
        data, model, run_args, args = parse(run_of(score, settings), tmp_path)
        assert (data.task, model.pooling, model.rnn) == (score.task, score.pooling, score.rnn)
        assert (args.num_train_epochs, args.seed, run_args.resume) == (float(score.epochs), 7, "auto")
        assert model.loss == {"ce": "cross_entropy"}.get(score.loss, score.loss)
        assert model.model_name_or_path == EXTRACTORS[score.backbone]
        assert run_args.early_stopping_patience == (5 if score.table == "V" else None)
        assert args.output_dir.startswith(str(tmp_path / "runs" / score.task))


def test_the_baseline_is_a_run_of_its_own(settings, tmp_path):
    from avb_hf.cli.baseline import EMO18

    score = next(score for score in read_published() if score.backbone == END2YOU)
    argv = Job(run_of(score, settings), 3, tmp_path).argv
    assert argv[:2] == ["baseline", "emo18"]
    data, _, run_args, args = train.parse(argv[2:], EMO18)[:4]
    assert (data.task, args.num_train_epochs, args.seed, run_args.resume) == ("two", 30, 3, "auto")
    proposed = parse(run_of(next(s for s in read_published() if s.backbone != END2YOU), settings), tmp_path)[2]
    assert run_args.precision == proposed.precision == "fp32"


@pytest.mark.slow
@pytest.mark.parametrize("recipe", RECIPES)
def test_tiny_runs_have_flags_that_fit_together(recipe, settings, tmp_path):
    settings = dataclasses.replace(settings, recipe=recipe, scale=TINY, train_flags=RECIPES[recipe])
    for run in runs_of(read_published(), settings):
        if run.words[0] == "train":
            _, _, run_args, args = parse(run, tmp_path)
            assert run_args.freeze == "backbone"
            assert args.num_train_epochs < 10


def test_other_flags_make_another_folder(settings, corpus_dir, tmp_path):
    score = read_published()[-10]
    keys = {
        run_of(score, dataclasses.replace(settings, **change)).key
        for change in ({}, {"recipe": "released"}, {"train_flags": ("--bf16",)}, {"scale": TINY})
    }
    assert len(keys) == 4
    assert run_of(score, settings).key == run_of(score, settings).key
    assert run_of(score, settings).key.startswith("culture-large-lv60k-lstm-last-ccc-50-")


def test_where_the_data_lie_makes_no_other_folder_but_stays_in_the_words():
    assert set(LOCATIONS) == {"--data_dir", "--manifest", "--split_file"}
    assert {flag.removeprefix("--") for flag in LOCATIONS} <= FREE_TO_CHANGE

    def run_on(place, task="mine.yaml", dataset="clips"):
        data = DataArguments(
            source="manifest", data_dir=f"{place}/audio", manifest=f"{place}/table.csv", task=f"{place}/{task}",
            dataset_name=f"{place}/{dataset}", split_file=f"{place}/split.csv",
        )  # fmt: skip
        return Run("label", ("train", *data_words(data)), TASKS["two"])

    assert run_on("/a").key == run_on("/b").key
    assert run_on("/a").words != run_on("/b").words
    assert len({run_on(*names).key for names in (("/a",), ("/a", "other.yaml"), ("/a", "mine.yaml", "other"))}) == 3
    hub, other = (Run("label", ("train", "--dataset_name", f"{owner}/clips"), TASKS["two"]) for owner in ("me", "you"))
    assert hub.key != other.key


def test_the_users_flags_win(settings, tmp_path):
    settings = dataclasses.replace(settings, train_flags=("--num_train_epochs", "1"))
    assert parse(run_of(read_published()[4], settings), tmp_path)[3].num_train_epochs == 1


def test_data_flags_survive_the_command_line(settings, tmp_path):
    changes = {"allow_missing_labels": True, "max_duration": 12.5, "label_columns": ["a b", "c"], "max_eval_samples": 9}
    data = dataclasses.replace(settings.data["two"], **changes)
    assert "--channels" not in data_words(data)
    again = train.parse([*data_words(data), "--output_dir", str(tmp_path)])[0]
    assert again == data
