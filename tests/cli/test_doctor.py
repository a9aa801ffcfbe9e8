"""`avb doctor`: exit codes, the text, the JSON report and what it never overwrites."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile

from avb_hf.cli import run
from avb_hf.data import findings


@pytest.fixture
def corpus(corpus_dir, tmp_path):
    """A copy of the corpus, to be damaged."""
    return shutil.copytree(corpus_dir, tmp_path / "corpus")


def doctor(*flags):
    return run("doctor", [str(word) for word in flags])


def test_a_clean_corpus_ends_with_0(corpus_dir, tmp_path, capsys):
    assert doctor("--task", "high", "--data_dir", corpus_dir, "--report", tmp_path / "report.json") == 0
    out = capsys.readouterr().out
    assert out.endswith("0 errors, 0 warnings\n")
    assert out.startswith(f"{corpus_dir}/labels/high_info.csv\n")
    report = json.loads((tmp_path / "report.json").read_text())
    assert (report["errors"], report["warnings"], report["findings"], report["kinds"]) == (0, 0, [], {})
    assert report["splits"]["validation"]["clips"] == 9


def test_warnings_end_with_0_and_errors_with_1(corpus, tmp_path, capsys):
    flags = ["--task", "two", "--data_dir", corpus, "--report", tmp_path / "report.json"]
    wave = corpus / "audio" / "any" / "00001.wav"
    soundfile.write(wave, np.zeros(8_000), 16_000)
    assert doctor(*flags) == 0
    assert "warning silent_audio, 1: " in capsys.readouterr().out
    wave.write_bytes(wave.read_bytes()[:10_000])
    assert doctor(*flags) == 1
    out = capsys.readouterr().out
    assert "error truncated_audio, 1: " in out
    assert out.endswith("1 errors, 0 warnings\n")
    (finding,) = json.loads((tmp_path / "report.json").read_text())["findings"]
    assert finding.pop("message").startswith("is cut off: ")
    assert finding == {
        "kind": "truncated_audio",
        "severity": "error",
        "file_id": "00001",
        "path": str(wave),
        "place": "two_info.csv, line 2",
    }


def test_the_report_has_its_stable_keys(corpus_dir, tmp_path):
    flags = ["--task", "two", "--data_dir", corpus_dir, "--headers_only", "--max_duration", "0.3"]
    assert doctor(*flags, "--report", tmp_path / "report.json") == 1
    report = json.loads((tmp_path / "report.json").read_text())
    assert list(report) == [
        "format", "version", "versions", "arguments", "corpus", "task", "searched", "errors", "warnings", "kinds",
        "splits", "findings",
    ]  # fmt: skip
    assert (report["format"], report["version"], report["task"]) == ("avb_hf doctor", 1, "two")
    assert report["arguments"]["headers_only"] is True
    assert report["kinds"] == {"too_long": report["errors"]}
    assert len(report["findings"]) == report["errors"] > 0
    assert {finding["kind"] for finding in report["findings"]} <= set(findings.KINDS)


def test_a_table_that_cannot_be_read_is_a_finding_too(corpus, tmp_path, capsys):
    (corpus / "labels" / "two_info.csv").unlink()
    assert doctor("--task", "two", "--data_dir", corpus, "--report", tmp_path / "report.json") == 1
    assert "the corpus cannot be read" in capsys.readouterr().out
    report = json.loads((tmp_path / "report.json").read_text())
    assert (report["corpus"], report["splits"], report["kinds"]) == (None, {}, {"unreadable_table": 1})


def test_only_a_report_is_overwritten(corpus_dir, tmp_path, capsys):
    report = tmp_path / "report.json"
    flags = ["--task", "two", "--data_dir", corpus_dir, "--report", report]
    for content in ("notes", "[]", '{"format": "other"}'):
        report.write_text(content)
        assert doctor(*flags) == 2
        assert "is no report of the doctor" in capsys.readouterr().err
        assert report.read_text() == content
    report.unlink()
    assert doctor(*flags) == doctor(*flags) == 0
    assert [path.name for path in tmp_path.iterdir()] == ["report.json"]
    assert doctor(*flags[:-1], tmp_path / "gone" / "report.json") == 2
    assert "gone does not exist" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--task", "two"], "needs --data_dir"),
        (["--task", "tow", "--data_dir", "."], "did you mean 'two'"),
        (["--learning_rate", "1"], "there is no flag --learning_rate"),
        (["--num_workers", "0"], "at least 1, got 0"),
    ],
)
def test_flags_that_do_not_fit_end_with_2(flags, message, capsys):
    assert doctor(*flags) == 2
    assert message in capsys.readouterr().err


def test_recipes_give_their_data_flags(tmp_path, monkeypatch, corpus_dir, capsys):
    recipe = tmp_path / "mine.yaml"
    recipe.write_text(f"task: high\nlearning_rate: 0.1\ndata_dir: {corpus_dir}\nfreeze: none\n")
    assert doctor(recipe, "--task", "type") == 0
    assert "type_info.csv" in capsys.readouterr().out


@pytest.mark.parametrize("spelling", ["max_duration", "max-duration"])
def test_a_recipe_may_spell_its_flags_with_hyphens(tmp_path, corpus_dir, spelling):
    recipe = tmp_path / "mine.yaml"
    recipe.write_text(f"task: two\nlearning-rate: 0.1\nbf16: true\ndata-dir: {corpus_dir}\n{spelling}: 0.3\n")
    assert doctor(recipe, "--headers_only") == 1
    assert doctor(recipe, "--headers_only", "--max_duration", "9") == 0


@pytest.mark.parametrize("key", ["max_durations", "max-durations", "rnn_hidden"])
def test_a_key_of_a_recipe_that_is_no_flag_is_refused(tmp_path, corpus_dir, capsys, key):
    recipe = tmp_path / "mine.yaml"
    recipe.write_text(f"task: two\ndata_dir: {corpus_dir}\nlearning_rate: 0.1\n{key}: 1\n")
    assert doctor(recipe) == 2
    assert f"there is no flag --{key}" in capsys.readouterr().err


def test_every_packaged_recipe_can_be_looked_at(tmp_path, capsys):
    names = [path.stem for path in (Path(findings.__file__).parents[1] / "recipes").iterdir()]
    assert "quickstart" in names
    for name in names:
        assert doctor(name, "--source", "manifest", "--manifest", tmp_path / "gone.csv", "--task", "two") == 1
        assert "the table does not exist" in capsys.readouterr().out


def test_a_report_that_cannot_be_written_is_an_error_before_the_scan(corpus_dir, capsys, monkeypatch):
    if not Path("/proc/self").exists():
        pytest.skip("there is no folder that nobody can write to")
    monkeypatch.setattr("avb_hf.data.doctor.diagnose", None)
    assert doctor("--task", "two", "--data_dir", corpus_dir, "--report", "/proc/report.json") == 2
    assert "--report /proc/report.json cannot be written" in capsys.readouterr().err


def test_what_was_found_is_shown_though_the_report_fails(corpus_dir, tmp_path, capsys, monkeypatch):
    def fail(report, path):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("avb_hf.data.doctor.write_report", fail)
    assert doctor("--task", "two", "--data_dir", corpus_dir, "--report", tmp_path / "report.json") == 2
    said = capsys.readouterr()
    assert said.out.endswith("0 errors, 0 warnings\n")
    assert "No space left" in said.err


def test_names_that_are_no_text_are_told(corpus, tmp_path, capsys):
    folder = os.fsencode(corpus / "audio" / "any")
    os.rename(folder + b"/00001.wav", folder + b"/\xe9.wav")
    report = tmp_path / "report.json"
    assert doctor("--task", "two", "--data_dir", corpus, "--report", report) == 1
    assert r"any/\udce9.wav: no row names this file" in capsys.readouterr().out.encode("utf-8").decode()
    (path,) = (found["path"] for found in json.loads(report.read_text())["findings"] if found["kind"] == "orphan_audio")
    assert os.fsencode(path) == folder + b"/\xe9.wav"


@pytest.mark.slow
def test_the_demo_corpus_is_clean(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("AVB_HF_CACHE", str(tmp_path))
    assert doctor("quickstart", "--num_workers", "1") == 0
    assert capsys.readouterr().out.endswith("0 errors, 0 warnings\n")


def test_a_manifest(corpus_dir, tmp_path, capsys):
    paths = sorted(str(path.relative_to(corpus_dir)) for path in corpus_dir.rglob("*.wav"))
    table = pd.DataFrame({"path": [*paths[:-1], "gone.wav"], "who": [f"s{i // 6}" for i in range(36)]})
    table["kind"] = ["sob", "sigh"] * 18
    table.to_csv(tmp_path / "clips.csv", index=False)
    flags = ["--source", "manifest", "--manifest", tmp_path / "clips.csv", "--label_columns", "kind"]
    assert doctor(*flags, "--data_dir", corpus_dir, "--speaker_column", "who") == 1
    out = capsys.readouterr().out
    assert "clips.csv, line 37, File_ID gone.wav" in out
    assert "warning orphan_audio, 1" in out
    assert out.endswith("1 errors, 1 warnings\n")
    assert "not searched for orphan audio" not in out


def test_what_was_not_searched_for_orphans_is_said(corpus_dir, tmp_path, capsys):
    paths = sorted(map(str, corpus_dir.rglob("*.wav")))[1:]
    pd.DataFrame({"path": paths, "joy": np.linspace(0, 1, 35)}).to_csv(tmp_path / "clips.csv", index=False)
    flags = ["--source", "manifest", "--manifest", tmp_path / "clips.csv", "--label_columns", "joy"]
    report = tmp_path / "report.json"
    assert doctor(*flags, "--report", report) == 0
    out = capsys.readouterr().out
    assert "\nnot searched for orphan audio: --data_dir names the folder" in out
    assert out.endswith("0 errors, 0 warnings\n")
    assert json.loads(report.read_text())["searched"] is None
    assert doctor(*flags, "--data_dir", corpus_dir, "--report", report) == 0
    assert capsys.readouterr().out.endswith("0 errors, 1 warnings\n")
    assert json.loads(report.read_text())["searched"] == str(corpus_dir)


def test_help_tells_the_flags(capsys):
    assert doctor("--help") == 0
    out = capsys.readouterr().out
    assert "--headers_only" in out
    assert "--data_dir" in out
    assert "whatever the model" in out


@pytest.mark.real_data
@pytest.mark.slow
def test_the_real_clips(emogator_dir, tmp_path, capsys):
    flags = ["--source", "emogator", "--data_dir", emogator_dir, "--report", tmp_path / "report.json"]
    assert doctor(*flags) == 0
    report = json.loads((tmp_path / "report.json").read_text())
    assert {name: split["clips"] for name, split in report["splits"].items()} == {
        "train": 2160, "validation": 540, "test": 540,
    }  # fmt: skip
    assert report["kinds"]["several_channels"] == 9
    twins = [finding["file_id"] for finding in report["findings"] if finding["kind"] == "duplicated_audio"]
    folder = emogator_dir / "data" / "mp3"
    for twin in twins:
        assert any(
            (folder / f"{twin[:-1]}{take}.mp3").read_bytes() == (folder / f"{twin}.mp3").read_bytes()
            for take in "123"
            if take != twin[-1]
        )


def test_a_table_of_one_class_is_an_error_that_is_listed(corpus_dir, tmp_path, capsys):
    table = pd.DataFrame({"path": sorted(map(str, corpus_dir.rglob("*.wav"))), "kind": "sob"})
    table.to_csv(tmp_path / "clips.csv", index=False)
    assert doctor("--source", "manifest", "--manifest", tmp_path / "clips.csv", "--label_columns", "kind") == 1
    out = capsys.readouterr().out
    assert "error too_few_classes, 1: " in out
    assert f"{tmp_path / 'clips.csv'}: column kind holds the classes ['sob']; a classification needs two or more" in out
