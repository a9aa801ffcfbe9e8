"""Which output folders are taken, emptied and resumed."""

import json

import pytest

from avb_hf.card_marker import CARD_MARKER
from avb_hf.data.arguments import DataArguments
from avb_hf.training import run_folder, run_record
from avb_hf.training.checkpoints import seal


@pytest.fixture
def used(tmp_path):
    folder = tmp_path / "run"
    (folder / "checkpoint-3").mkdir(parents=True)
    (folder / "checkpoint-12").mkdir()
    for name in ("config.json", "model.safetensors", "all_results.json", "predictions.csv", "A-VB-High_team_1.csv"):
        (folder / name).write_text("x")
    return folder


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_new_or_empty_folder_is_taken(tmp_path, overwrite):
    run_folder.check_output_dir(tmp_path / "absent", None, overwrite)
    run_folder.check_output_dir(tmp_path, None, overwrite)


def test_a_used_folder_is_refused(used):
    with pytest.raises(ValueError, match=r"not empty.*--resume auto.*--overwrite"):
        run_folder.check_output_dir(used, None, overwrite=False)


def test_overwrite_and_resume_let_a_used_folder_pass(used):
    run_folder.check_output_dir(used, None, overwrite=True)
    run_folder.check_output_dir(used, "auto", overwrite=False)
    with pytest.raises(ValueError, match="one of them"):
        run_folder.check_output_dir(used, "auto", overwrite=True)


def test_overwrite_refuses_a_folder_with_other_files(used):
    (used / "thesis.tex").write_text("years of work")
    with pytest.raises(ValueError, match=r"thesis\.tex"):
        run_folder.check_output_dir(used, None, overwrite=True)


def test_overwrite_refuses_a_model_that_no_run_left(tmp_path):
    for name in run_folder.MODEL_FILES:
        (tmp_path / name).write_text("of a friend")
    with pytest.raises(ValueError, match=r"neither resolved_config\.json nor a checkpoint"):
        run_folder.check_output_dir(tmp_path, None, overwrite=True)


def test_a_file_is_no_output_folder(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="is a file"):
        run_folder.check_output_dir(tmp_path / "file", None, overwrite=True)


def test_clearing_removes_what_a_run_left_and_nothing_else(used):
    (used / "thesis.tex").write_text("years of work")
    run_folder.clear_output_dir(used)
    assert [path.name for path in used.iterdir()] == ["thesis.tex"]


def test_a_card_that_a_person_has_taken_over_is_not_deleted(used):
    card = used / "README.md"
    card.write_text("# Mine\n")
    run_folder.check_output_dir(used, None, overwrite=True)
    run_folder.clear_output_dir(used)
    assert [path.name for path in used.iterdir()] == ["README.md"]
    card.write_text(f"{CARD_MARKER}\n# Ours\n")
    run_folder.clear_output_dir(used)
    assert not card.exists()


def test_auto_is_the_newest_whole_checkpoint(used, tmp_path):
    assert run_folder.find_checkpoint(used, None) is None
    seal(used / "checkpoint-3")
    assert run_folder.find_checkpoint(used, "auto") == str(used / "checkpoint-3")
    seal(used / "checkpoint-12")
    assert run_folder.find_checkpoint(used, "auto") == str(used / "checkpoint-12")
    assert run_folder.find_checkpoint(used, str(used / "checkpoint-3")) == str(used / "checkpoint-3")
    assert run_folder.find_checkpoint(tmp_path / "absent", "auto") is None


def test_a_checkpoint_that_is_not_there(used):
    with pytest.raises(ValueError, match=r"checkpoint-99.*does not exist"):
        run_folder.find_checkpoint(used, str(used / "checkpoint-99"))


def test_the_record_holds_flags_versions_and_facts(tmp_path):
    import torch

    record = run_record.make_record([DataArguments(split_seed=7)], {"audio": {"train": {"clips": 3}}}, 1e-5)
    run_folder.begin(tmp_path / "new", record, None, overwrite=False)
    record = json.loads((tmp_path / "new" / "resolved_config.json").read_text())
    assert record["flags"]["split_seed"] == 7
    assert record["flags"]["backbone_learning_rate"] == 1e-5
    assert record["audio"] == {"train": {"clips": 3}}
    assert record["versions"]["torch"] == torch.__version__
    assert record["machine"]["processes"] is None


def test_the_record_says_how_many_processes_one_machine_had(monkeypatch):
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "8")
    assert run_record.make_record([], {}, 1e-5)["machine"]["processes"] == 8
