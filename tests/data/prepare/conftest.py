import hashlib

import numpy as np
import pytest
import soundfile

from avb_hf.cli import run


@pytest.fixture
def raw(tmp_path):
    """Three recordings of other rates, a table and a text."""
    folder = tmp_path / "raw"
    (folder / "b").mkdir(parents=True)
    rng = np.random.default_rng(3)
    soundfile.write(folder / "one.flac", 0.2 * rng.standard_normal((24_000, 2)).clip(-3, 3), 48_000)
    soundfile.write(folder / "b" / "two.WAV", 0.1 * rng.standard_normal(4_000).clip(-3, 3), 16_000)
    soundfile.write(folder / "b" / "three.ogg", 0.2 * rng.standard_normal(22_050).clip(-3, 3), 44_100)
    (folder / "ids.csv").write_bytes(b'\xef\xbb\xbfid,"mood"\r\none,glad\r\n')
    (folder / "README").write_text("as it was")
    return folder


@pytest.fixture
def digests():
    """Give a function: digest of each file below a folder, by its path."""

    def digest_all(folder):
        paths = [path for path in folder.rglob("*") if path.is_file()]
        return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}

    return digest_all


@pytest.fixture
def labelled(make_corpus, tmp_path):
    """A corpus in the official layout, to be published."""
    return make_corpus(tmp_path / "raw", clips=16)


@pytest.fixture
def publish(labelled, tmp_path, capsys):
    """Give a function that prepares and publishes it, and returns exit code and what was said."""

    def call(*flags):
        code = run("prepare", [str(labelled), str(tmp_path / "out"), "--num_workers", "1", *flags])
        return code, "".join(capsys.readouterr())

    return call
