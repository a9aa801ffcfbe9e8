import json
import os
import subprocess
import sys

import numpy as np
import pytest
from sklearn.metrics import balanced_accuracy_score

from avb_hf.evaluation.metrics import METRICS
from avb_hf.tasks import TaskSpec

pytestmark = pytest.mark.slow
# A fresh process, because evaluate reads its cache folders and the offline switch once, on import.
SCRIPT = """
import json, socket, sys
def refuse(*args, **kwargs): raise AssertionError("network used")
socket.getaddrinfo = socket.create_connection = refuse
import numpy as np
from avb_hf.evaluation.load_metric import load_metric
data = json.load(sys.stdin)
ccc, uar = load_metric("ccc"), load_metric("uar")
many = ccc.compute(predictions=data["scores"], references=data["labels"], label_names=["a", "b"])
one = load_metric("ccc").compute(predictions=[r[0] for r in data["scores"]], references=[r[0] for r in data["labels"]])
uar.add_batch(predictions=data["predicted"][:10], references=data["truth"][:10])
uar.add_batch(predictions=data["predicted"][10:], references=data["truth"][10:])
classes = uar.compute()
try:
    uar.compute(predictions=[2], references=[0], label_names=["x", "y"])
    error = ""
except ValueError as refused:
    error = str(refused)
print("RESULT" + json.dumps([many, one, classes, error]))
"""


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(8)
    labels = rng.random((30, 2))
    labels[3, 1] = np.nan
    scores = rng.random((30, 2))
    truth, predicted = np.arange(30) % 3, rng.integers(0, 3, 30)
    arrays = {"labels": labels, "scores": scores, "truth": truth, "predicted": predicted}
    return {name: array.tolist() for name, array in arrays.items()}


@pytest.fixture(scope="module")
def loaded(data, tmp_path_factory):
    cache = tmp_path_factory.mktemp("evaluate")
    settings = {"HF_HOME": str(cache), "HF_MODULES_CACHE": str(cache / "modules"), "HF_HUB_OFFLINE": "1"}
    environment = os.environ | settings | {"HF_EVALUATE_OFFLINE": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    run = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        input=json.dumps(data),
        env=environment,
        cwd=cache,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout.split("RESULT")[1])


def test_ccc_of_several_labels_is_our_own(loaded, data):
    expected = METRICS["ccc"](np.array(data["scores"]), np.array(data["labels"]), TaskSpec("t", ("a", "b")))
    assert loaded[0] == pytest.approx(expected, abs=1e-12)
    assert loaded[0]["n_b"] == 29


def test_ccc_of_plain_numbers_is_that_of_the_column(loaded):
    assert loaded[1]["ccc"] == loaded[1]["ccc_0"] == pytest.approx(loaded[0]["ccc_a"], abs=1e-12)


def test_uar_over_batches_agrees_with_scikit_learn(loaded, data):
    assert loaded[2]["uar"] == pytest.approx(balanced_accuracy_score(data["truth"], data["predicted"]), abs=1e-12)
    assert loaded[2]["num_samples"] == 30


def test_a_predicted_index_beyond_the_names_is_an_error(loaded):
    assert "class indices from 0 to 1, got [2]" in loaded[3]


def test_an_unknown_name_is_an_error_that_lists_the_known():
    from avb_hf.evaluation.load_metric import load_metric

    with pytest.raises(ValueError, match=r"metric must be one of \['ccc', 'uar'\], got 'cc'; did you mean 'ccc'"):
        load_metric("cc")
