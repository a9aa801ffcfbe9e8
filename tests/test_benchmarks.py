"""The benchmarks run, and write a page with every row."""

import importlib
import json
import logging
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from sklearn.metrics import recall_score

from avb_hf.tasks import TASKS

SCRIPT = Path(__file__).resolve().parents[1] / "examples" / "benchmarks" / "run.py"
# Heading: how the rows of its tables begin, in order.
FINE_TUNING = [
    "stock (a)", "ours, fp32", "stock (b)", "ours, bf16", "ours, auto", "stock (c)", "ours, front end trained",
    "0", "4", "8", "12",
]  # fmt: skip
ROWS = {
    "## Fine-tuning LARGE": FINE_TUNING,
    "## Fine-tuning BASE": FINE_TUNING,
    "## Memory": ["stock (a)", "ours, fp32", "ours, fp32, --activation_checkpointing"],
    "## A frozen backbone": [],
    "## The loss of the whole effective batch": ["ours, --ccc_scope micro", "ours, --ccc_scope batch"],
    "## Prediction": ["pipeline, batch 1", "pipeline, batch 8", "predict, fp32", "predict, bf16"],
    "## Cost against size": [
        "60 clips, first start", "60 clips, second start", "120 clips, first start", "120 clips, second start",
    ],
    "### Demo corpus": [
        "none of them", "--cache auto", "--activation_checkpointing", "--optim adamw_torch_fused", "--precision bf16",
        "--length_pool 50", "all of them",
    ],
    "### Depth of freezing, demo corpus": ["0", "4", "8", "12"],
    "## GPU": [],
}  # fmt: skip


def benchmark(*flags):
    done = subprocess.run([sys.executable, SCRIPT, *flags], capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr[-3000:]


def rows_under(page, heading):
    """Cells of the table rows between a heading and the next one, without the tables' heads."""
    lines = page.split(f"\n{heading}\n")[1].split("\n#")[0].splitlines()
    tables = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("|")]
    heads = {index - 1 for index, row in enumerate(tables) if row[0] == "---"}
    return [row for index, row in enumerate(tables) if index not in heads and row[0] != "---"]


@pytest.fixture(scope="module")
def quick(tmp_path_factory):
    folder = tmp_path_factory.mktemp("benchmarks")
    benchmark("--quick", "--output", folder)
    return folder


@pytest.fixture
def load(monkeypatch):
    """Imports a module of the benchmarks by its name, for the time of the test."""
    monkeypatch.syspath_prepend(str(SCRIPT.parent))
    before = set(sys.modules)
    yield importlib.import_module
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", None)).startswith(str(SCRIPT.parent)):
            del sys.modules[name]


@pytest.mark.slow
@pytest.mark.parametrize("heading", ROWS)
def test_every_row_is_there(quick, heading):
    rows = rows_under((quick / "benchmarks.md").read_text(), heading)
    assert len(rows) == len(ROWS[heading])
    for row, begin in zip(rows, ROWS[heading], strict=True):
        assert row[0].startswith(begin)
        assert float(row[1]) >= 0  # what takes less than a tenth of a second is none


@pytest.mark.slow
def test_arms_did_the_same_work(quick):
    """Both see every clip in as many updates, and our states of block 12 are the stock model's."""
    found = json.loads((quick / "benchmarks.json").read_text())
    for size in ("large", "base"):
        arms, clips = found[size]["arms"], found[size]["corpus"]["clips"]
        (stock,), (ours,) = arms["stock (a): front end frozen, fp32"], arms["ours, fp32"]
        assert stock["updates"] == clips / stock["batch_size"] == clips / ours["batch_size"]
        assert ours["clips"]["train"] == clips
        assert len(ours["epochs"]) == 2
        assert ours["cache_runtime"] > 0
        errors = found[size]["state_errors"]
        assert max(errors["fp32"], errors["fp32, padded batch"]) < 1e-4 * errors["largest_state"] < errors["bf16"]
        assert 0 < found[size]["bf16_score_difference"] < 0.1


@pytest.mark.slow
def test_predictions_are_those_of_the_pipeline(quick):
    arms = json.loads((quick / "benchmarks.json").read_text())["prediction"]["arms"]
    apart = [max(run["difference"] for run in runs) for runs in arms.values()]
    assert max(apart[:3]) < 1e-5
    assert 0 < apart[3] < 0.1


@pytest.mark.slow
def test_a_larger_corpus_takes_no_more_memory_and_sorting_saves_padding(quick):
    starts = json.loads((quick / "benchmarks.json").read_text())["data"]["starts"]
    peaks = [start["peak"] for start in starts]
    assert max(peaks) < 1.2 * min(peaks)
    for start in starts:
        # Of each 4 clips 2 are for training; the first batch is before the epoch's clock.
        assert start["epoch_clips"] == start["clips"] / 2 - 16
        assert 0 <= start["waste"]["50"] < start["waste"]["1"] < 1


@pytest.mark.slow
def test_speed_ups_that_claim_it_change_nothing_and_others_do(quick):
    results = json.loads((quick / "benchmarks.json").read_text())
    arms = results["scores"]["demo"]["arms"]
    for name in ("--cache auto", "--activation_checkpointing"):
        assert arms[name][0]["same_bytes"]
        assert arms[name][0]["difference"] == 0
        assert arms[name][0]["score"] == arms["none of them"][0]["score"]
    for name in ("--precision bf16", "--length_pool 50", "all of them"):
        assert arms[name][0]["difference"] > 0
    depths = results["scores"]["depths of demo"]["arms"]
    rows = rows_under((quick / "benchmarks.md").read_text(), "## Fine-tuning LARGE")[-4:]
    assert [row[-1] for row in rows] == [f"{depths[depth][0]['score']:.3f}" for depth in ("0", "4", "8", "12")]


@pytest.mark.slow
def test_a_page_is_made_anew_from_the_results(quick, tmp_path):
    (tmp_path / "benchmarks.json").write_bytes((quick / "benchmarks.json").read_bytes())
    benchmark("--report_only", "--output", tmp_path)
    assert (tmp_path / "benchmarks.md").read_text() == (quick / "benchmarks.md").read_text()


@pytest.mark.slow
def test_a_section_that_cannot_be_run_keeps_what_was_recorded(load, monkeypatch, tmp_path):
    run = load("run")
    options = run.parse(["--output", str(tmp_path), "--only", "frozen"])
    results = {"frozen": {"arms": "recorded"}}
    monkeypatch.setattr(run.report, "page", lambda results: "")
    run.run_sections(options, tmp_path / "benchmarks.json", results)
    assert results["frozen"] == {"arms": "recorded"}
    assert json.loads((tmp_path / "benchmarks.json").read_text()) == results


@pytest.mark.slow
@pytest.mark.real_data
def test_emogator_has_all_arms_of_the_frozen_recipe_and_of_the_scores(emogator_dir, whisper_dir, tmp_path):
    data = ["--emogator", emogator_dir, "--whisper", whisper_dir]
    benchmark("--quick", "--only", "scores", "frozen", *data, "--output", tmp_path)
    page = (tmp_path / "benchmarks.md").read_text()
    rows = rows_under(page, "## A frozen backbone")
    assert [row[1] for row in rows] == ["stock, 30 s", "ours, --cache off", "ours"] * 2
    assert all(float(row[2]) > 0 for row in rows)
    # A clip of 1 to 2 s against one padded to 30 s: any sane measurement shows it.
    assert all(float(row[6].removesuffix("x")) > 3 for row in rows if row[1] != "stock, 30 s")
    arms = ["our defaults", "--cache_dtype float16", "--cache_dtype bfloat16"]
    arms += ["--precision bf16", "--optim adamw_torch", "--length_pool 1"]
    assert [row[0] for row in rows_under(page, "### EmoGator")] == arms
    live = rows_under(page, "### EmoGator, states computed in every step")[1]
    assert live[0] == "--cache off"
    assert live[-2] == "yes"
    assert [row[0] for row in rows_under(page, "### Depth of freezing, EmoGator")] == ["0", "2", "4", "6"]


def test_a_section_that_fails_leaves_the_others(load, monkeypatch, tmp_path):
    run = load("run")

    def fails(options, section, save):
        section["arms"] = {"ours, fp32": [{"peak": 2**30}]}
        raise KeyError("planted")

    def works(options, section, save):
        section["note"] = "measured all the same"

    monkeypatch.setattr(run, "SECTIONS", {"memory": fails, "gpu": works})
    monkeypatch.setattr(logging, "disable", lambda level: None)
    with warnings.catch_warnings(), pytest.raises(RuntimeError, match="sections failed: memory"):
        run.main(["--output", str(tmp_path)])
    page = (tmp_path / "benchmarks.md").read_text()
    assert "KeyError: 'planted'" in page
    assert rows_under(page, "## Memory") == [["ours, fp32", "1.00", ""]]
    assert "measured all the same" in page


def test_a_page_is_written_of_sections_that_failed_at_once(load):
    report = load("report")
    machine = {"cpu": "none", "cores": 1, "threads": 1, "load_before": 0, "gpu": None, "versions": {}, "date": "today"}
    results = {
        name: {"machine": machine, "quick": False, "rounds": 1, "error": f"E: {name}"} for name in report.WRITERS
    }
    page = report.page(results)
    assert all(f"**Failed: E: {name}**" in page for name in report.WRITERS)


def test_a_claim_that_does_not_hold_is_named(load):
    runs = [{"seed": seed, "claims_same_bytes": True, "same_bytes": seed == 1} for seed in (1, 2)]
    section = {"quick": False, "machine": {}, "demo": {"arms": {"first": [], "--cache auto": runs}}}
    assert load("comparison").broken_claims(section) == ["demo, --cache auto, seed 2"]


def test_differences_come_with_their_standard_error(load):
    values = {"first": [0.70, 0.73, 0.75], "second": [0.71, 0.72, 0.76]}
    arms = {
        name: [
            {
                "seed": seed, "metric": "ccc", "score": score, "difference": 0.02 * seed, "same_bytes": False,
                "claims_same_bytes": False, "train_runtime": 3.0, "cache_runtime": 0.0,
            }
            for seed, score in enumerate(scores, start=1)
        ]
        for name, scores in values.items()
    }  # fmt: skip
    section = {"demo": {"facts": {"epochs": 16}, "arms": arms}}
    first, second = rows_under(load("report.scores").scores({"scores": section}), "### Demo corpus")
    assert first[:5] == ["first", "3", f"{0.72667:.4f}", f"{stats.sem(values['first']):.4f}", ""]
    apart, _ = stats.ttest_ind(values["second"], values["first"], equal_var=False)
    by_seed, _ = stats.ttest_rel(values["second"], values["first"])
    assert second[4:] == [f"+0.0033 ({abs(apart):.1f}; {abs(by_seed):.1f})", "6.0e-02", "", "3.0"]


def test_recall_by_contributor_is_that_of_sklearn(load):
    random = np.random.default_rng(0)
    labels = np.array(TASKS["emogator"].labels)
    truth, contributor = random.integers(0, 5, 300), random.integers(0, 3, 300)
    predicted = np.where(random.random(300) < 0.5, truth, random.integers(0, 30, 300))
    names = [f"{12 * c:06d}-{t + 1:02d}-{i}" for i, (c, t) in enumerate(zip(contributor, truth, strict=True))]
    found = load("comparison").uar_by_contributor(pd.DataFrame({"file_id": names, "prediction": labels[predicted]}))
    for index in range(3):
        own = contributor == index
        expected = recall_score(truth[own], predicted[own], labels=range(5), average="macro")
        assert found[f"{12 * index:06d}"] == pytest.approx(expected)


@pytest.mark.slow
def test_peak_memory_is_not_that_of_the_process_that_started_this_one():
    held = bytearray(b"x" * 200 * 2**20)
    code = "import clock; print(clock.peak_memory())"
    peak = int(subprocess.check_output([sys.executable, "-c", code], cwd=SCRIPT.parent, text=True))
    assert 2**20 < peak < len(held)
