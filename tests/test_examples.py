"""The proof of exactness proves."""

import subprocess
import sys
from pathlib import Path

import pytest

PROOF = Path(__file__).resolve().parents[1] / "examples" / "prove_exactness.py"


@pytest.mark.slow
def test_everything_is_exact():
    done = subprocess.run([sys.executable, PROOF], capture_output=True, text=True, timeout=1_200)
    assert done.returncode == 0, done.stdout + done.stderr[-4000:]
    lines = done.stdout.splitlines()
    assert lines[-1] == "all is exact"
    assert "  24 CCCs equal in every printed digit: True" in lines
    assert sum(line.endswith("  same") for line in lines) == 16
    assert sum(line.endswith("same as plain") for line in lines) == 3
    assert sum(line.endswith("other than plain") for line in lines) == 1
    assert sum(" float64 " in line for line in lines) == sum(" float32 " in line for line in lines) == 12
