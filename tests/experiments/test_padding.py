import csv
import shutil

import audmetric
import numpy as np
import pandas as pd
import pytest
from scipy import stats

from avb_hf.cli import train
from avb_hf.data.arguments import DataArguments
from avb_hf.experiments.jobs import make_jobs
from avb_hf.experiments.padding import PaddingStudy
from avb_hf.experiments.runner import carry_out
from avb_hf.tasks import TASKS

SYSTEMS = ["first", "last", "max masked", "max unmasked", "mean masked", "mean unmasked"]
OTHERS = [name for name in SYSTEMS if name != "last"]


@pytest.fixture(scope="module")
def study(with_speakers):
    data = DataArguments(data_dir=str(with_speakers), task="two")
    return PaddingStudy(data, TASKS["two"], "some/backbone", ("--num_train_epochs", "2"))


@pytest.fixture(scope="module")
def carried_out_well(study, new_avb, tmp_path_factory):
    """Folder and report of the study with two seeds, where unmasked poolings are much noisier than all others."""
    root, avb = tmp_path_factory.mktemp("study"), new_avb()
    leave = avb.leave
    avb.leave = lambda argv: leave(argv, noise=0.6 if "false" in argv else 0.02)
    return root, carried_out(study, avb, root)


def carried_out(study, avb, root, seeds=(1, 2)):
    return study.report(carry_out(make_jobs(study.runs, seeds, root), avb), root)


def read(root):
    with (root / "padding.csv").open() as file:
        return list(csv.DictReader(file))


def test_runs_differ_in_pooling_mask_and_rnn_alone(study, tmp_path):
    parsed = [train.parse([*run.words[1:], "--output_dir", str(tmp_path)])[:4] for run in study.runs]
    found = {(model.rnn, model.pooling, model.pooling_mask) for _, model, _, _ in parsed}
    assert len(found) == len(study.runs) == 12
    assert {(rnn, pooling) for rnn, pooling, mask in found if not mask} == {
        (rnn, pooling) for rnn in ("lstm", "none") for pooling in ("max", "mean")
    }
    for _, model, run_args, args in parsed:
        assert (run_args.freeze, run_args.cache, run_args.length_pool) == ("backbone", "auto", 1)
        assert (model.model_name_or_path, args.num_train_epochs) == ("some/backbone", 2)


@pytest.mark.slow
def test_the_table_has_scores_and_paired_differences(carried_out_well):
    root, report = carried_out_well
    rows = read(root)
    for split in ("val", "test"):
        for rnn in ("lstm", "none"):
            part = [row for row in rows if (row["split"], row["rnn"]) == (split, rnn)]
            assert [row["system"] for row in part if not row["minus"]] == SYSTEMS
            assert [(row["system"], row["minus"]) for row in part if row["minus"]] == [
                ("max masked", "max unmasked"), ("mean masked", "mean unmasked"), *(("last", name) for name in OTHERS),
            ]  # fmt: skip
    assert {(row["speakers"], row["seeds"]) for row in rows} == {("3", "2")}
    verdicts = {(row["system"], row["minus"], row["verdict"]) for row in rows if row["minus"]}
    assert ("mean masked", "mean unmasked", "higher") in verdicts
    assert ("last", "first", "higher") not in verdicts
    assert "the mean over 3 speakers of the CCC of a speaker's clips, itself the mean over 2 seeds" in report.text
    assert (root / "padding.md").read_text() == report.text


def mean_ccc(labels, predictions):
    return np.mean([audmetric.concordance_cc(labels[name], predictions[name]) for name in ("Valence", "Arousal")])


@pytest.mark.slow
def test_differences_are_paired_by_speaker(carried_out_well, with_speakers):
    root, _ = carried_out_well
    labels = pd.read_csv(with_speakers / "labels" / "two_info.csv", dtype={"File_ID": str})
    labels.index = labels["File_ID"].str.strip("[]")
    by_system = {}
    for name in ("max masked", "max unmasked"):
        folders = sorted((root / "runs").glob(f"padding-two-lstm-{name.replace(' ', '-')}-*-seed?"))
        assert len(folders) == 2
        of_seeds = []
        for folder in folders:
            table = pd.read_csv(folder / "predictions.csv", dtype={"file_id": str}).set_index("file_id")
            table = table[table["split"] == "test"]
            speakers = labels.loc[table.index, "Speaker"]
            of_seeds.append([mean_ccc(labels.loc[part.index], part) for _, part in table.groupby(speakers)])
        by_system[name] = np.mean(of_seeds, axis=0)
    differences = 100 * (by_system["max masked"] - by_system["max unmasked"])
    low, high = stats.t.interval(0.95, 2, differences.mean(), stats.sem(differences))
    row = next(
        row for row in read(root)
        if (row["split"], row["rnn"], row["system"], row["minus"]) == ("test", "lstm", "max masked", "max unmasked")
    )  # fmt: skip
    found = [float(row[column]) for column in ("percent", "low", "high")]
    assert found == pytest.approx([differences.mean(), low, high], abs=0.006)


@pytest.mark.slow
def test_a_kill_in_the_middle_and_a_failure(study, fake_avb, tmp_path):
    def kill(argv):
        raise KeyboardInterrupt

    fake_avb.instead = {5: kill}
    with pytest.raises(KeyboardInterrupt):
        carried_out(study, fake_avb, tmp_path, (1,))
    assert not (tmp_path / "padding.csv").exists()
    fake_avb.instead = {6: lambda argv: 1}
    report = carried_out(study, fake_avb, tmp_path, (1,))
    assert not report.is_complete
    assert len(fake_avb.calls) == 5 + 8
    assert carried_out(study, fake_avb, tmp_path, (1,)).is_complete
    assert len(fake_avb.calls) == 14


def test_a_corpus_without_speakers_is_refused_before_anything_runs(corpus_dir):
    data = DataArguments(data_dir=str(corpus_dir), task="two")
    with pytest.raises(ValueError, match="the study compares speakers"):
        PaddingStudy(data, TASKS["two"], "some/backbone", ())


@pytest.fixture
def corpus_with(with_speakers, tmp_path):
    """Give a function that copies the corpus with speakers with its label table changed by another function."""

    def make(change):
        folder = tmp_path / "changed"
        shutil.copytree(with_speakers, folder)
        path = folder / "labels" / "two_info.csv"
        change(pd.read_csv(path, dtype={"File_ID": str})).to_csv(path, index=False)
        return DataArguments(data_dir=str(folder), task="two")

    return make


def test_a_corpus_without_a_test_split_is_compared_on_validation(corpus_with, fake_avb, tmp_path):
    data = corpus_with(lambda table: table[table["Split"] != "Test"])
    study = PaddingStudy(data, TASKS["two"], "some/backbone", ())
    report = carried_out(study, fake_avb, tmp_path, (1,))
    assert report.is_complete
    assert {row["split"] for row in read(tmp_path)} == {"val"}
    assert "## Validation" in report.text
    assert "## Test" not in report.text


def test_a_corpus_of_training_clips_alone_is_refused(corpus_with):
    data = corpus_with(lambda table: table[table["Split"] == "Train"])
    with pytest.raises(ValueError, match="the corpus has neither split"):
        PaddingStudy(data, TASKS["two"], "some/backbone", ())


@pytest.mark.parametrize(("word", "split"), [("Val", "validation"), ("Test", "test")])
def test_a_split_of_one_speaker_is_refused_by_name(word, split, corpus_with):
    data = corpus_with(lambda table: table.assign(Speaker=table["Speaker"].where(table["Split"] != word, "Ann")))
    with pytest.raises(ValueError, match=rf"the {split} split needs two or more .* got clips by speaker {{'Ann': 9}}"):
        PaddingStudy(data, TASKS["two"], "some/backbone", ())


def test_speakers_are_counted_among_the_clips_that_are_drawn(with_speakers):
    data = DataArguments(data_dir=str(with_speakers), task="two", max_eval_samples=2)
    with pytest.raises(ValueError, match="the validation split needs two or more with 2 clips or more each"):
        PaddingStudy(data, TASKS["two"], "some/backbone", ())


@pytest.mark.slow
def test_a_seed_that_failed_in_one_system_is_no_part_of_its_differences(study, fake_avb, tmp_path):
    """The second seed of `last` without RNN fails: its differences are those of the first seed alone."""
    alone = tmp_path / "alone"
    failing = [run.label for run in study.runs].index("padding-two-none-last") + 1 + len(study.runs)
    fake_avb.instead = {failing: lambda argv: 1}
    report = carried_out(study, fake_avb, tmp_path)
    assert not report.is_complete
    carried_out(study, type(fake_avb)(), alone, (1,))

    def with_last(root):
        return [row for row in read(root) if row["rnn"] == "none" and row["system"] == "last"]

    assert {row["seeds"] for row in with_last(tmp_path)} == {"1"}
    assert with_last(tmp_path) == with_last(alone)
    assert {row["seeds"] for row in read(tmp_path) if row["system"] == "max masked"} == {"2"}


def test_nothing_to_compare_is_an_error(study, fake_avb, tmp_path):
    fake_avb.leave = lambda argv: 1
    with pytest.raises(ValueError, match="no run of the study is finished"):
        carried_out(study, fake_avb, tmp_path)
