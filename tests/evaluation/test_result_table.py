from avb_hf.evaluation.result_table import result_table
from avb_hf.tasks import TASKS, TaskSpec

TASK = TaskSpec("mine", ("Calm", "Very loud"))


def test_a_regression_lists_label_score_and_n_with_the_headline_last():
    results = {
        "test_ccc_Calm": 0.51239,
        "test_ccc_Very loud": -0.25,
        "test_ccc": 0.131195,
        "test_n_Calm": 9,
        "test_n_Very loud": 120,
        "test_num_samples": 120,
        "eval_ccc": 0.9,
    }
    assert result_table(results, TASK, "test").splitlines() == [
        "label                            ccc    n",
        "-----------------------------------------",
        "Calm                          0.5124    9",
        "Very loud                    -0.2500  120",
        "-----------------------------------------",
        "test_ccc (mean of 2 labels)   0.1312  120",
    ]


def test_a_label_without_a_score_shows_a_dash_and_the_headline_says_so():
    results = {"eval_ccc_Calm": 0.5, "eval_ccc": 0.5, "eval_n_Calm": 7, "eval_n_Very loud": 0, "eval_num_samples": 8}
    lines = result_table(results, TASK, "eval").splitlines()
    assert lines[3].split() == ["Very", "loud", "-", "0"]
    assert lines[-1].split() == ["eval_ccc", "(mean", "of", "1", "of", "2", "labels)", "0.5000", "8"]


def test_a_classification_lists_recalls():
    results = {f"test_recall_{name}": index / 8 for index, name in enumerate(TASKS["type"].labels)} | {
        "test_uar": 0.4375,
        "test_num_samples": 80,
    }
    lines = result_table(results, TASKS["type"], "test").splitlines()
    assert lines[0].split() == ["label", "recall", "n"]
    assert [line.split()[:2] for line in lines[2:5]] == [["Gasp", "0.0000"], ["Laugh", "0.1250"], ["Cry", "0.2500"]]
    assert lines[-1].split() == ["test_uar", "(mean", "of", "8", "classes)", "0.4375", "80"]
    assert len({len(line) for line in lines}) == 1
