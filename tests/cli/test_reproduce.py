"""`avb reproduce`: what it plans, prints and leaves; the whole grid in earnest is slow."""

import csv
import json
import shlex
import subprocess
import sys
import time
from pathlib import Path

import pytest

from avb_hf.cli import reproduce, train
from avb_hf.cli.reproduce import main
from avb_hf.data.sources import infer_task, list_clips
from avb_hf.experiments import estimate, paper, runner
from avb_hf.experiments.experiment import Report
from avb_hf.experiments.jobs import Job
from avb_hf.experiments.paper import PaperTables

pytestmark = pytest.mark.slow

FEW = ["--max_train_samples", "48", "--max_eval_samples", "60"]


@pytest.fixture
def calls(monkeypatch):
    """What `avb` is called with where it should run; nothing runs."""
    seen = []
    monkeypatch.setattr(runner, "in_own_process", lambda argv, log: seen.append(argv) or 1)
    monkeypatch.setattr(reproduce, "_call", lambda argv: seen.append(argv) or 1)
    monkeypatch.setattr(paper, "draw", lambda *args: [])
    monkeypatch.setattr(estimate, "ask_in_own_process", lambda argv: seen.append(argv) or pytest.fail("no estimate"))
    return seen


def statuses(root):
    with (root / "tables.csv").open() as file:
        return [row["status"] for row in csv.DictReader(file)]


def test_commands_are_printed_a_line_each(corpus_dir, tmp_path, capsys, calls, monkeypatch):
    monkeypatch.chdir(tmp_path)
    flags = ["--data_dir", str(corpus_dir), "--output_dir", "out put", "--train_flags", "--bf16 --max_grad_norm 1"]
    assert main(["--tables", "III", *flags, "--print_commands"]) == 0
    lines = [shlex.split(line) for line in capsys.readouterr().out.splitlines()]
    assert len(lines) == 4 * 3
    assert calls == []
    for line in lines:
        assert line[:5] == [sys.executable, "-m", "avb_hf", "train", "paper"]
        assert "--bf16" in line
        assert line[line.index("--output_dir") + 1].startswith(str(tmp_path / "out put" / "runs" / "high-"))
    assert [line[line.index("--seed") + 1] for line in lines] == ["1"] * 4 + ["2"] * 4 + ["3"] * 4


@pytest.mark.parametrize("words", [["--train_flags", "--bf16"], ["--train_flags=--bf16"], ["--train-flags", "--bf16"]])
def test_a_single_flag_of_the_training_is_no_flag_of_this_command(words, corpus_dir, tmp_path, capsys, calls):
    flags = ["--data_dir", str(corpus_dir), "--output_dir", str(tmp_path), "--seeds", "1"]
    assert main(["--tables", "III", *words, *flags, "--print_commands"]) == 0
    lines = [shlex.split(line) for line in capsys.readouterr().out.splitlines()]
    assert [line.count("--bf16") for line in lines] == [1] * 4


def test_train_flags_without_a_value_are_a_mistake(tmp_path):
    with pytest.raises(ValueError, match=r"argument --train_flags.*: expected one argument"):
        main(["--tables", "III", "--output_dir", str(tmp_path), "--train_flags"])


def test_what_was_typed_wins_over_the_recipe_be_it_a_default(corpus_dir, tmp_path, capsys, calls):
    flags = ["--tables", "III", "--recipe", "released", "--data_dir", str(corpus_dir), "--output_dir", str(tmp_path)]
    channels = []
    for typed in ([], ["--channels", "mean"], ["--channels=mean"]):
        assert main([*flags, *typed, "--seeds", "1", "--print_commands"]) == 0
        lines = [shlex.split(line)[4:] for line in capsys.readouterr().out.splitlines()]
        channels.append({train.parse(line)[0].channels for line in lines})
    assert channels == [{"first"}, {"mean"}, {"mean"}]


def test_runs_are_processes_of_their_own(corpus_dir, tmp_path, calls, capsys):
    assert main(["--tables", "II", "--data_dir", str(corpus_dir), "--output_dir", str(tmp_path), "--seeds", "5"]) == 1
    assert len(calls) == 8
    assert statuses(tmp_path).count("failed: exit code 1") == 8 + 2 + 2 + 1  # Tables I, III and IV share some
    assert "Validation scores are those of the epoch that was best" in capsys.readouterr().out


def test_nothing_runs_where_it_should_not(corpus_dir, tmp_path, calls, capsys):
    flags = ["--tables", "V", "--data_dir", str(corpus_dir), "--output_dir", str(tmp_path)]
    assert main([*flags, "--dry_run"]) == 0
    assert capsys.readouterr().out == "24 runs, 0 of them finished\n"
    assert not list(tmp_path.iterdir())
    assert main([*flags, "--collect"]) == 1
    assert set(statuses(tmp_path)) == {"not run"}
    assert calls == []


@pytest.fixture
def emogator(tmp_path):
    """Flags of the tables on six files that are named as EmoGator's, by three contributors."""
    folder = tmp_path / "EmoGator"
    (folder / "mp3").mkdir(parents=True)
    for contributor, split in (("000001", "train"), ("000002", "val"), ("000003", "test")):
        for category in ("01", "30"):
            (folder / "mp3" / f"{contributor}-{category}-1.mp3").touch()
        with (folder / "split.csv").open("a") as file:
            file.write(f"{contributor},{split}\n" if file.tell() else f"contributor,split\n{contributor},{split}\n")
    return ["--source", "emogator", "--data_dir", str(folder), "--model_name_or_path", "some/backbone"]


def test_the_tables_on_emogator(emogator, tmp_path, calls, capsys):
    flags = ["--tables", "III", "IV", *emogator, "--seeds", "1", "--output_dir", str(tmp_path / "out")]
    assert main([*flags, "--dry_run"]) == 0
    assert capsys.readouterr().out == "5 runs, 0 of them finished\n"
    assert not (tmp_path / "out").exists()
    assert main([*flags, "--print_commands"]) == 0
    lines = [shlex.split(line) for line in capsys.readouterr().out.splitlines()]
    assert len(lines) == 5
    for line in lines:
        data, model = train.parse(line[4:])[:2]
        task = infer_task(data)
        assert len(task.labels) == 30
        assert (model.loss == "cross_entropy") == task.is_classification
        assert len(list_clips(task, data, []).clips) == 6
        assert model.model_name_or_path == "some/backbone"
    assert calls == []
    assert main(flags) == 1
    assert [argv[1:] for argv in calls] == [line[4:] for line in lines]
    with (tmp_path / "out" / "tables.csv").open() as file:
        told = [row for row in csv.DictReader(file) if row["table"] in ("III", "IV")]
    assert {(row["split"], row["task"], row["backbone"]) for row in told} == {
        (split, task, "given") for split in ("val", "test") for task in ("classes", "indicators")
    }
    assert {row["status"] for row in told} == {"failed: exit code 1"}


def test_without_matplotlib_tables_are_refused_before_anything_runs_but_plans_are_not(
    corpus_dir, tmp_path, calls, monkeypatch, capsys
):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    flags = ["--tables", "III", "--data_dir", str(corpus_dir), "--output_dir", str(tmp_path)]
    for ending in ([], ["--collect"]):
        with pytest.raises(ImportError, match=r"pip install 'avb_hf\[reproduce\]'"):
            main([*flags, *ending])
    assert calls == []
    assert not list(tmp_path.iterdir())
    assert main([*flags, "--print_commands"]) == main([*flags, "--dry_run"]) == 0
    assert capsys.readouterr().out.endswith("12 runs, 0 of them finished\n")


def test_no_module_but_that_of_pictures_needs_matplotlib():
    code = (
        "import sys; sys.modules['matplotlib'] = None; from avb_hf.experiments import padding, planning; "
        "from avb_hf.cli import reproduce"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_finished_runs_checkpoints_are_deleted_by_calls_that_do_something(corpus_dir, tmp_path, calls, monkeypatch):
    made = []
    monkeypatch.setattr(Job, "is_finished", lambda job: made.append(job) or True)
    monkeypatch.setattr(PaperTables, "report", lambda self, outcomes, folder: Report("", (), True))
    flags = ["--tables", "III", "--data_dir", str(corpus_dir), "--output_dir", str(tmp_path)]
    main([*flags, "--dry_run"])
    left = [job.folder / "checkpoint-7" for job in made]
    for ending, is_kept in (
        (["--dry_run"], True),
        (["--print_commands"], True),
        (["--estimate"], True),
        ([], False),
        (["--collect"], False),
    ):
        for folder in left:
            folder.mkdir(parents=True, exist_ok=True)
        assert main([*flags, *ending]) == 0
        assert {folder.exists() for folder in left} == {is_kept}
    assert calls == []


def test_tiny_runs_here_with_tiny_backbones_and_one_seed(tmp_path, calls):
    assert main(["--tables", "IV", "--source", "demo", "--tiny", "--output_dir", str(tmp_path)]) == 1
    assert len(calls) == 8
    for argv in calls:
        assert argv[argv.index("--seed") + 1] == "1"
        backbone = Path(argv[argv.index("--model_name_or_path") + 1])
        assert json.loads((backbone / "config.json").read_text())["hidden_size"] == 64


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], r"give one of --tables \(I II III IV V\) and --study"),
        (["--tables", "I", "--study", "padding"], "give one of --tables"),
        (["--tables", "VI"], r"--tables must be one of \['I', 'II', 'III', 'IV', 'V'\], got 'VI'"),
        (["--study", "paddings"], "invalid choice: 'paddings'"),
        (["--study", "padding", "--tiny"], "--recipe and --tiny belong to --tables"),
        (["--study", "padding"], "--model_name_or_path is the backbone of a study"),
        (["--tables", "I", "--model_name_or_path", "x"], "--model_name_or_path is the backbone of a study"),
        (["--tables", "I", "--source", "emogator"], "--model_name_or_path is the backbone of a study"),
        (["--tables", "I", "--source", "manifest"], r"--source \(of the tables\) must be one of"),
        (["--tables", "I", "--task", "high"], "leave out --task high"),
        (["--tables", "I", "--recipe", "papre"], "--recipe must be one of .* did you mean 'paper'"),
        (["--tables", "I", "--seeds", "1", "1"], "--seeds must be distinct"),
        (["--tables", "I", "--source", "demo", "--team_name", "a_b"], "team_name must consist of"),
        (["--tables", "I"], "--source avb needs --data_dir"),
        (["--tables", "I", "--data_dir", "/nowhere"], "data_dir /nowhere is not a folder"),
        (["--tabels", "I"], "there is no flag --tabels; did you mean --tables"),
    ],
)
def test_mistakes(words, message, tmp_path, calls):
    with pytest.raises(ValueError, match=message):
        main([*words, "--output_dir", str(tmp_path)])
    assert calls == []


def test_a_stop_ends_it_with_the_runs_code(corpus_dir, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(runner, "in_own_process", lambda argv, log: 138)
    assert main(["--tables", "I", "--data_dir", str(corpus_dir), "--output_dir", str(tmp_path)]) == 138
    assert capsys.readouterr().out == "stopped by SIGUSR1; the same call goes on\n"


def test_help_imports_no_torch():
    code = (
        "import sys; from avb_hf.cli import reproduce, submit_check; reproduce.main(['--help']); "
        "submit_check.main(['-h']); heavy = {'torch', 'datasets', 'pandas', 'matplotlib'} & set(sys.modules); "
        "sys.exit(' '.join(heavy) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "--print_commands" in done.stdout
    assert "--labels_template" in done.stdout


def test_the_whole_grid_from_an_empty_folder_after_a_kill(tmp_path, capsys):
    command = ["--tables", "I", "II", "III", "IV", "V", "--source", "demo", "--tiny", "--output_dir", str(tmp_path)]
    code = f"from avb_hf.cli.reproduce import main; import sys; sys.exit(main({[*command, *FEW]!r}))"
    with subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE) as child:
        while len(list(tmp_path.glob("runs/*/all_results.json"))) < 3:
            assert child.poll() is None, child.stderr.read()[-2000:]
            time.sleep(0.1)
        child.kill()
    assert main([*command, *FEW]) == 0
    assert statuses(tmp_path) == ["done"] * 52
    assert len(list((tmp_path / "submissions").iterdir())) == 8
    began = time.perf_counter()
    assert main([*command, *FEW]) == 0
    assert time.perf_counter() - began < 20
    assert "| End2You (Emo-18) |" in capsys.readouterr().out


def test_the_padding_study_in_earnest(tiny_backbone_dir, tmp_path, capsys):
    flags = ["--study", "padding", "--source", "demo", "--task", "two", "--model_name_or_path", str(tiny_backbone_dir)]
    few = "--num_train_epochs 1 --rnn_hidden_size 8"
    assert main([*flags, "--seeds", "1", "--output_dir", str(tmp_path), "--train_flags", few, *FEW]) == 0
    text = (tmp_path / "padding.md").read_text()
    assert text in capsys.readouterr().out
    assert text.count("| lstm | last − ") == 10
