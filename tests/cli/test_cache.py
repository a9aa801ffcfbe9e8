"""`avb cache` lists and clears frozen states and indexes of headers."""

from pathlib import Path

import pytest
import torch

from avb_hf.cli import run
from avb_hf.data import header_index
from avb_hf.data.header_index import HeaderIndex
from avb_hf.data.sources import demo
from avb_hf.experiments.tiny import tiny_extractors
from avb_hf.training.state_cache import ClipStamp, StateCache

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
    states.write([(ClipStamp.of(path).with_digest(), torch.rand(50_000, 2)) for path in paths[:2]])
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


@pytest.mark.parametrize("content", ["{", '{"block": 2, "encoder": "another version\'s"}'])
def test_states_that_nobody_can_tell_of_hide_no_others_and_are_cleared(files, content, capsys):
    (files["states"] / "facts.json").write_text(content)
    _, states, headers = told(capsys).splitlines()
    assert states.endswith("frozen states of 2 clips: damaged, or of another version")
    assert files["headers"].name in headers
    assert told(capsys, "--clear", files["states"].name).startswith("deleted 1 of 2")
    assert not files["states"].exists()


def test_what_is_written_on_first_use_is_listed_and_cleared(files, cache, capsys):
    backbones = {Path(folder).parent for folder in tiny_extractors().values()}
    demo.corpus_folder().mkdir()
    (demo.corpus_folder() / "clip.wav").write_bytes(b"x" * 2_000_000)
    assert {demo.corpus_folder().parent, *(folder.parent for folder in backbones)} == {cache}
    *_, corpus, tiny = told(capsys).splitlines()
    assert corpus.split(maxsplit=1) == [demo.corpus_folder().name, "2.0 MB  the demo corpus"]
    assert tiny.split()[0] in {folder.name for folder in backbones}
    assert told(capsys, "--clear", demo.corpus_folder().name).startswith("deleted 1 of 4, 2.0 MB")
    assert not demo.corpus_folder().exists()
    assert told(capsys, "--clear_all").startswith("deleted 3 of 3")
    assert not any(folder.exists() for folder in backbones)


def test_a_user_without_a_home_is_told_what_to_do(monkeypatch, capsys):
    def no_home():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("AVB_HF_CACHE")
    monkeypatch.setattr("pathlib.Path.home", no_home)
    assert "AVB_HF_CACHE" in told(capsys, code=2)


def test_drafts_are_no_entries(files, capsys):
    (files["headers"].parent / f".{files['headers'].name}.{'0' * 32}.tmp").write_bytes(b"half")
    assert len(told(capsys).splitlines()) == 3


def test_an_empty_cache(capsys):
    assert len(told(capsys).splitlines()) == 1
    assert told(capsys, "--clear_all") == "deleted 0 of 0, 0.0 MB\n"
