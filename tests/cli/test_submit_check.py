"""`avb submit-check`: exit code, and every problem with its place."""

import numpy as np
import pytest

from avb_hf.cli.submit_check import main
from avb_hf.evaluation.contest import write_contest_file
from avb_hf.tasks import TASKS


@pytest.fixture
def contest_file(tmp_path):
    scores = np.random.default_rng(0).random((3, 10))
    return write_contest_file(tmp_path, "owls", 1, ["00001", "00002", "00003"], scores, TASKS["high"])


def test_a_fit_file(contest_file, capsys):
    assert main([str(contest_file), "--task", "high"]) == 0
    assert capsys.readouterr().out == f"{contest_file}: a fit file for A-VB High\n"


def test_a_fit_file_and_a_template(contest_file, corpus_dir, tmp_path, capsys):
    template = tmp_path / "template.csv"
    template.write_text("File_ID\n[00001]\n[00002]\n[00003]\n")
    assert main([str(contest_file), "--task", "high", "--labels-template", str(template)]) == 0
    assert "with the 3 clips of the template" in capsys.readouterr().out
    labels = corpus_dir / "labels" / "high_info.csv"
    assert main([str(contest_file), "--task", "high", "--labels_template", str(labels)]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert "line 2, File_ID 00001: the template does not have this clip" in lines
    assert "File_ID 00004: the clip is missing, which the template has" in lines
    assert lines[-1] == f"{contest_file}: {len(lines) - 1} problems"


def test_problems_are_counted(contest_file, capsys):
    contest_file.write_text(contest_file.read_text().replace("[00002]", "00002").replace("[00003]", "x"))
    assert main([str(contest_file), "--task", "high"]) == 1
    assert capsys.readouterr().out.splitlines()[-1] == f"{contest_file}: 2 problems"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["{file}"], r"--task must be one of \['high', 'two', 'culture', 'type'\], got None"),
        (["{file}", "--task", "emogator"], "--task must be one of"),
        (["{file}.gone", "--task", "high"], "there is no file .*csv.gone"),
        (["--task", "high"], "the following arguments are required: FILE"),
    ],
)
def test_mistakes(words, message, contest_file):
    with pytest.raises(ValueError, match=message):
        main([word.format(file=contest_file) for word in words])
