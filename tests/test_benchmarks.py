"""The benchmarks run, and write a page with every row."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[1] / "examples" / "benchmarks" / "run.py"
# Heading: how the rows of its tables begin, in order.
FINE_TUNING = [
    "stock (a)", "ours, fp32", "stock (b)", "ours, bf16", "ours, auto", "stock (c)", "ours, front end trained",
    "0", "4", "8", "12",
]  # fmt: skip
ROWS = {
    "### LARGE": FINE_TUNING,
    "### BASE": FINE_TUNING,
    "## Memory": ["stock (a)", "ours, fp32", "ours, fp32, --activation_checkpointing"],
    "## A frozen backbone": [],
    "## The loss of the whole effective batch": ["ours, --ccc_scope micro", "ours, --ccc_scope batch"],
    "## GPU": [],
}


def benchmark(*flags):
    done = subprocess.run([sys.executable, SCRIPT, *flags], capture_output=True, text=True, timeout=600)
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


@pytest.mark.slow
@pytest.mark.parametrize("heading", ROWS)
def test_every_row_is_there(quick, heading):
    rows = rows_under((quick / "benchmarks.md").read_text(), heading)
    assert len(rows) == len(ROWS[heading])
    for row, begin in zip(rows, ROWS[heading], strict=True):
        assert row[0].startswith(begin)
        assert float(row[1]) > 0


@pytest.mark.slow
def test_arms_did_the_same_work(quick):
    """Both see every clip in as many updates, and our states of block 12 are the stock model's."""
    found = json.loads((quick / "benchmarks.json").read_text())["finetune"]
    for size in ("LARGE", "BASE"):
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
def test_a_page_is_made_anew_from_the_results(quick, tmp_path):
    (tmp_path / "benchmarks.json").write_bytes((quick / "benchmarks.json").read_bytes())
    benchmark("--report_only", "--output", tmp_path)
    assert (tmp_path / "benchmarks.md").read_text() == (quick / "benchmarks.md").read_text()


@pytest.mark.slow
@pytest.mark.real_data
def test_the_frozen_recipe_has_three_arms_for_each_head(emogator_dir, whisper_dir, tmp_path):
    benchmark("--quick", "--only", "frozen", "--emogator", emogator_dir, "--whisper", whisper_dir, "--output", tmp_path)
    rows = rows_under((tmp_path / "benchmarks.md").read_text(), "## A frozen backbone")
    assert [row[1] for row in rows] == ["stock, 30 s", "ours, --cache off", "ours"] * 2
    assert all(float(row[2]) > 0 for row in rows)
    # A clip of 1 to 2 s against one padded to 30 s: any sane measurement shows it.
    assert all(float(row[6].removesuffix("x")) > 3 for row in rows if row[1] != "stock, 30 s")
