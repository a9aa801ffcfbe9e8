"""The memory of `avb predict` does not grow with what it reads."""

import os
import subprocess
import sys

import numpy as np
import pytest
import soundfile

RATE, SECONDS = 16_000, 2
FEW, MANY = 400, 4_000
# Of what each further clip's audio takes, in float32.
LEAST_KEPT = (MANY - FEW) * RATE * SECONDS * 4 / 2**20
PEAK = """
import sys
from avb_hf.cli import run
code = run("predict", sys.argv[1:])
(line,) = [line for line in open("/proc/self/status") if line.startswith("VmHWM")]
print(line.split()[1])
sys.exit(code)
"""


def peak_in_mib(checkpoint, folder, count):
    """Predict so many clips, all of them links to one, and return the largest resident memory."""
    clips = folder / "clips"
    clips.mkdir(parents=True)
    soundfile.write(folder / "clip.wav", 0.1 * np.random.default_rng(0).standard_normal(RATE * SECONDS), RATE)
    for number in range(count):
        os.link(folder / "clip.wav", clips / f"{number:05d}.wav")
    words = [checkpoint, clips, "--output", folder / "scores.csv", "--batch_size", "8", "--precision", "fp32"]
    command = [sys.executable, "-c", PEAK, *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=True)
    assert (folder / "scores.csv").read_text().count("\n") == count + 1
    return int(done.stdout.split()[-1]) / 1024


@pytest.mark.slow
@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="only Linux tells a process's peak memory")
def test_ten_times_the_clips_take_the_same_memory(checkpoint, tmp_path):
    few, many = (peak_in_mib(checkpoint, tmp_path / str(count), count) for count in (FEW, MANY))
    assert many - few < 0.1 * LEAST_KEPT
