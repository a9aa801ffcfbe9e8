"""`avb cache` lists and clears frozen states and indexes of headers."""

import pytest
import torch

from avb_hf.cli import run
from avb_hf.data import header_index
from avb_hf.data.header_index import HeaderIndex
from avb_hf.training.state_cache import StateCache

FACTS = {"block": 2, "encoder": {"model_type": "wav2vec2"}, "precision": "float32", "dtype": "float16"}


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """A cache of the test's own, in which few headers are worth being kept."""
    monkeypatch.setenv("AVB_HF_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(header_index, "MIN_FRESH", 1)
    monkeypatch.setattr(header_index, "SETTLED_NS", 0)
    return tmp_path / "cache"


@pytest.fixture
def files(cache, corpus_dir):
    """Frozen states of two clips and the headers of three: what lies in the cache, by kind."""
    paths = sorted((corpus_dir / "audio" / "any").iterdir())
    states = StateCache(FACTS)
    states.write([(str(path), torch.rand(50_000, 2)) for path in paths[:2]])
    index = HeaderIndex(paths[:3])
    for path in paths[:3]:
        index.read_header(path, path.stem)
    index.save()
    return {"states": states.folder, "headers": index.file}


def told(capsys, *flags, code=0):
    assert run("cache", list(flags)) == code
    return "".join(capsys.readouterr())


def test_both_kinds_are_listed(files, cache, corpus_dir, capsys):
    first, states, headers = told(capsys).splitlines()
    assert first == str(cache)
    key, size, unit, content = states.split(maxsplit=3)
    on_disk = sum(path.stat().st_size for path in files["states"].iterdir())
    assert (key, unit) == (files["states"].name, "MB")
    assert float(size) == pytest.approx(on_disk / 1e6, abs=0.05) == pytest.approx(0.8, abs=0.05)
    assert content == "frozen states of 2 clips: wav2vec2, block 2, float32 stored as float16"
    key, _, _, content = headers.split(maxsplit=3)
    assert key == files["headers"].name
    assert content == f"headers of 3 files below {corpus_dir / 'audio' / 'any'}"


@pytest.mark.parametrize("kind", ["states", "headers"])
def test_one_is_cleared_and_the_other_stays(files, kind, capsys):
    assert told(capsys, "--clear", files[kind].name).startswith("deleted 1 of 2, ")
    assert {name for name, path in files.items() if path.exists()} == {"states", "headers"} - {kind}


def test_all_are_cleared(files, capsys):
    assert told(capsys, "--clear_all").startswith("deleted 2 of 2, 0.8 MB")
    assert not any(path.exists() for path in files.values())
    assert len(told(capsys).splitlines()) == 1


def test_a_key_that_is_not_there_deletes_nothing(files, capsys):
    message = told(capsys, "--clear", files["states"].name, "absent", code=2)
    assert files["headers"].name in message
    assert all(path.exists() for path in files.values())


def test_a_damaged_index_is_listed_and_cleared(files, capsys):
    files["headers"].write_bytes(files["headers"].read_bytes()[:100])
    assert told(capsys).splitlines()[-1].endswith("headers, damaged")
    assert told(capsys, "--clear", files["headers"].name).startswith("deleted 1 of 2")
    assert not files["headers"].exists()


def test_drafts_are_no_entries(files, capsys):
    (files["headers"].parent / f".{files['headers'].name}.{'0' * 32}.tmp").write_bytes(b"half")
    assert len(told(capsys).splitlines()) == 3


def test_an_empty_cache(capsys):
    assert len(told(capsys).splitlines()) == 1
    assert told(capsys, "--clear_all") == "deleted 0 of 0, 0.0 MB\n"
