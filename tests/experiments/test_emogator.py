import pytest

from avb_hf.data.arguments import DataArguments
from avb_hf.data.rows import read_labels
from avb_hf.data.sources import list_clips
from avb_hf.experiments.emogator import scores_on_emogator, tasks_on_emogator, write_indicators
from avb_hf.experiments.grid import END2YOU, Settings, runs_of
from avb_hf.experiments.published import read_published
from avb_hf.tasks import TASKS, load_task

CLIPS = ["000001-01-1", "000001-30-1", "000002-02-1", "000003-14-2", "000004-14-1", "000004-15-1"]


@pytest.fixture
def corpus(tmp_path):
    """Files named as EmoGator's, by four contributors."""
    for clip in CLIPS:
        (tmp_path / "emogator" / "mp3").mkdir(parents=True, exist_ok=True)
        (tmp_path / "emogator" / "mp3" / f"{clip}.mp3").touch()
    splits = "contributor,split\n000001,train\n000002,val\n000003,train\n000004,test\n"
    (tmp_path / "emogator" / "split.csv").write_text(splits)
    return DataArguments(source="emogator", data_dir=str(tmp_path / "emogator"))


def test_planning_writes_nothing_and_the_task_file_holds_what_was_planned(corpus, tmp_path):
    tasks, data = tasks_on_emogator(corpus, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    write_indicators(tasks["classes"], corpus, tmp_path / "out")
    assert load_task(data["indicators"].task) == tasks["indicators"]


def test_indicators_are_one_for_the_clips_own_category(corpus, tmp_path):
    tasks, data = tasks_on_emogator(corpus, tmp_path / "out")
    write_indicators(tasks["classes"], corpus, tmp_path / "out")
    task, findings = tasks["indicators"], []
    assert (task.problem_type, task.label_range, task.labels) == ("regression", (0.0, 1.0), TASKS["emogator"].labels)
    listing = list_clips(task, data["indicators"], findings)
    labels = read_labels(listing, task, data["indicators"], findings)
    assert findings == []
    assert {clip.file_id: (clip.speaker, clip.split) for clip in listing.clips} == {
        "000001-01-1": ("000001", "train"), "000001-30-1": ("000001", "train"),
        "000002-02-1": ("000002", "validation"), "000003-14-2": ("000003", "train"),
        "000004-14-1": ("000004", "test"), "000004-15-1": ("000004", "test"),
    }  # fmt: skip
    assert labels.sum(axis=1).tolist() == [1] * len(CLIPS)
    categories = labels.argmax(axis=1) + 1
    assert categories.tolist() == [int(clip.file_id.split("-")[1]) for clip in listing.clips]


def test_both_tasks_read_the_same_files(corpus, tmp_path):
    tasks, data = tasks_on_emogator(corpus, tmp_path / "out")
    write_indicators(tasks["classes"], corpus, tmp_path / "out")
    of_classes, of_indicators = (
        {clip.path for clip in list_clips(tasks[word], data[word], []).clips} for word in tasks
    )
    assert of_classes == of_indicators
    assert len(of_classes) == len(CLIPS)


def test_a_contributor_without_a_split_is_an_error(corpus, tmp_path):
    (tmp_path / "emogator" / "mp3" / "000009-01-1.mp3").touch()
    with pytest.raises(ValueError, match="contributor 000009 has clips and is not listed"):
        tasks_on_emogator(corpus, tmp_path / "out")


def test_the_tables_in_miniature(corpus, tmp_path):
    scores = scores_on_emogator(read_published(), END2YOU)
    assert {score.percent for score in scores} == {None}
    part = {(s.task, s.rnn, s.pooling, s.loss) for s in scores if s.table in ("II", "III", "IV") and s.split == "test"}
    assert part == {
        *(("indicators", "lstm", pooling, "ccc") for pooling in ("first", "max", "mean", "last")),
        ("indicators", "lstm", "last", "mse"), ("indicators", "none", "last", "ccc"),
        ("classes", "lstm", "last", "ce"), ("classes", "none", "last", "ce"),
    }  # fmt: skip
    settings = Settings(*tasks_on_emogator(corpus, tmp_path / "out"), "paper", {"given": "some/backbone"})
    tables = [score for score in scores if score.table in ("II", "III", "IV")]
    assert len(runs_of(tables, settings)) == 8
