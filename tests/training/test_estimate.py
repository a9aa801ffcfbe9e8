import subprocess
import sys

import numpy as np
import pytest


@pytest.mark.slow
def test_peak_memory_is_not_that_of_the_process_that_started_this_one():
    held = np.ones(2**28)
    code = "import torch; from avb_hf.training.estimate import peak_memory; print(peak_memory(torch.device('cpu')))"
    peak = float(subprocess.check_output([sys.executable, "-c", code], text=True))
    assert 0.05 < peak < held.nbytes / 2**30
