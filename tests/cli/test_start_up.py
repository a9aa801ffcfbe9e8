"""Starting is quick, and imports nothing that is not needed yet."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from avb_hf.cli import COMMANDS

ROOT = Path(__file__).resolve().parents[2]
HEAVY = {"torch", "datasets", "librosa", "pandas", "sklearn", "pyarrow", "scipy"}
# What is done in a fresh process, and the processor seconds that it may take, start of Python included: a multiple of
# what it takes.
STARTS = {
    "import avb_hf": ("import avb_hf", 1.0),
    "TASKS": ("from avb_hf import TASKS; assert 'high' in TASKS", 1.0),
    "avb --help": ("from avb_hf.cli import main; assert main(['--help']) == 0", 1.0),
    **{
        f"avb {command} --help": (f"from avb_hf.cli import main; assert main(['{command}', '--help']) == 0", 3.5)
        for command in COMMANDS
    },
}
TELL = """
import json, resource, sys
usage = resource.getrusage(resource.RUSAGE_SELF)
sys.stderr.write(json.dumps([usage.ru_utime + usage.ru_stime, sorted({name.split(".")[0] for name in sys.modules})]))
"""


def start(code):
    """Processor seconds and imported packages of a fresh process, and what it wrote."""
    command = [sys.executable, "-c", code + TELL]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    seconds, modules = json.loads(done.stderr)
    return seconds, set(modules), done.stdout


def starts():
    for name in STARTS:
        of_a_command = name.startswith("avb ") and name != "avb --help"
        yield pytest.param(name, marks=pytest.mark.slow if of_a_command else ())


@pytest.mark.parametrize("name", starts())
def test_a_start_is_quick_and_light(name):
    code, bound = STARTS[name]
    fastest = float("inf")
    for _ in range(3):  # a busy machine deserves another look
        seconds, modules, shown = start(code)
        assert modules & HEAVY == set()
        assert ("usage: " in shown) == name.startswith("avb ")
        fastest = min(fastest, seconds)
        if fastest < bound:
            return
    assert fastest < bound
