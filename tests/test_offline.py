"""A run on local files asks the network nothing and never touches torchcodec, be it broken or absent."""

import json
import os
import subprocess
import sys

import pytest

TELLS_OFFLINE = ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_HUB_DISABLE_TELEMETRY")
TELLS_OFFLINE += ("DISABLE_SAFETENSORS_CONVERSION", "HF_UPDATE_DOWNLOAD_COUNTS", "DISABLE_TELEMETRY", "DO_NOT_TRACK")
# Notes, from the interpreter's own events, whatever wants to reach a host or to look up its name, and forbids it.
SCRIPT = """
import json, socket, sys
attempts = []
def forbid(event, args):
    if event in {"socket.connect", "socket.sendto", "socket.sendmsg", "socket.getaddrinfo", "socket.gethostbyname",
                 "socket.gethostbyaddr", "socket.getnameinfo"}:
        attempts.append(event)
        raise OSError(f"no network here: {event} {args[1:]}")
sys.addaudithook(forbid)
absent, first, second = json.loads(sys.argv[1])
if absent:
    sys.modules["torchcodec"] = None
from avb_hf.cli import run
codes = [run("train", first), run("train", second)]
of_runs = list(attempts)
for probe in (lambda: socket.socket().connect(("192.0.2.1", 9)), lambda: socket.getaddrinfo("huggingface.co", 443)):
    try:
        probe()
    except OSError:
        pass
loaded = [name for name, module in sys.modules.items() if name.startswith("torchcodec") and module is not None]
sys.stdout.write("\\n" + json.dumps({"codes": codes, "of_runs": of_runs, "of_probes": attempts[len(of_runs):],
                                     "loaded": loaded}))
"""


def break_torchcodec(folder, marker):
    """Install a torchcodec whose import fails as one does that lacks a library of the system."""
    package, described = folder / "torchcodec", folder / "torchcodec-0.17.0.dist-info"
    package.mkdir(parents=True)
    described.mkdir()
    (package / "__init__.py").write_text(f"open({str(marker)!r}, 'w').close()\nraise OSError('libnvrtc.so.13')\n")
    (described / "METADATA").write_text("Metadata-Version: 2.1\nName: torchcodec\nVersion: 0.17.0\n")


@pytest.mark.slow
@pytest.mark.parametrize("torchcodec", ["broken", "absent"])
def test_a_run_needs_neither_network_nor_torchcodec(torchcodec, corpus_dir, tiny_backbone_dir, tmp_path):
    break_torchcodec(tmp_path / "site", tmp_path / "touched")
    data = ["--data_dir", str(corpus_dir), "--task", "two", "--model_name_or_path"]
    head = ["--rnn_hidden_size", "8", "--num_train_epochs", "1", "--output_dir", str(tmp_path / "run")]
    again = ["--do_eval", "--output_dir", str(tmp_path / "again")]
    flags = [torchcodec == "absent", [*data, str(tiny_backbone_dir), *head], [*data, str(tmp_path / "run"), *again]]
    environment = {name: value for name, value in os.environ.items() if name not in TELLS_OFFLINE}
    environment |= {"PYTHONPATH": os.pathsep.join([str(tmp_path / "site"), *sys.path]), "HF_HOME": str(tmp_path / "hf")}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, json.dumps(flags)],
        capture_output=True, text=True, timeout=300, env=environment,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    told = json.loads(done.stdout.splitlines()[-1])
    assert told["codes"] == [0, 0], done.stderr[-3000:]
    assert told["of_probes"] == ["socket.connect", "socket.getaddrinfo"], "the watch would not have noticed"
    assert told["of_runs"] == []
    assert told["loaded"] == []
    assert not (tmp_path / "touched").exists()
    assert (tmp_path / "run" / "predictions.csv").is_file()
    assert (tmp_path / "again" / "eval_results.json").is_file()


@pytest.mark.slow
def test_the_broken_torchcodec_is_noticed(tmp_path):
    break_torchcodec(tmp_path / "site", tmp_path / "touched")
    code = "import datasets.config as c; assert c.TORCHCODEC_AVAILABLE; import torchcodec"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path / "site"), *sys.path])}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, env=environment)
    assert "OSError: libnvrtc" in done.stderr
    assert (tmp_path / "touched").exists()
