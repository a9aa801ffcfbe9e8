"""States on disk: what was written is read bit by bit, and what is stale or damaged is not found."""

import os
import pickle
import shutil
import threading

import pytest
import torch

from avb_hf.training.state_cache import ClipStamp, StateCache, clear_cache, list_caches, states_folder

FACTS = {"weights": "abc", "block": 2, "reading": {"trim_db": None}, "dtype": "float32"}


@pytest.fixture(autouse=True)
def empty_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("AVB_HF_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def paths(tmp_path):
    """Four files of unequal content; that they hold no audio does not matter here."""
    (tmp_path / "audio").mkdir()
    for name in "abcd":
        (tmp_path / "audio" / f"{name}.wav").write_bytes(name.encode() * 100)
    return [str(tmp_path / "audio" / f"{name}.wav") for name in "abcd"]


def make_states(paths, dtype=torch.float32):
    torch.manual_seed(6)
    return [(path, torch.randn(5 + number, 4).to(dtype)) for number, path in enumerate(paths)]


def stamp(states):
    return [(ClipStamp.of(path).with_digest(), tensor) for path, tensor in states]


@pytest.fixture
def shards(paths):
    """Two files of states, of the first two clips and of the others."""
    states = make_states(paths)
    cache = StateCache(FACTS)
    cache.write(stamp(states[:2]))
    (first,) = cache.folder.glob("*.safetensors")
    cache.write(stamp(states[2:]))
    (second,) = set(cache.folder.glob("*.safetensors")) - {first}
    return [first, second]


def read(paths):
    """Find and load anew, as another run would."""
    cache = StateCache(FACTS)
    return {path: cache.load(entry) for path, entry in cache.find(paths).items()}


def assert_found(found, expected):
    assert found.keys() == dict(expected).keys()
    for path, states in expected:
        assert found[path].dtype == states.dtype
        assert torch.equal(found[path], states)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
def test_what_is_written_is_read(paths, dtype):
    states = make_states(paths, dtype)
    # A state that compares unequal to itself, a negative zero and a slice of a larger tensor are bits as well.
    states[0][1][0, :2] = torch.tensor([torch.nan, -0.0])
    states[1] = (states[1][0], torch.randn(6, 8).to(dtype)[:, ::2])
    assert StateCache(FACTS).find(paths) == {}
    StateCache(FACTS).write(stamp(states))
    found = read(paths)
    assert found.keys() == set(paths)
    for path, expected in states:
        assert (found[path].dtype, found[path].shape) == (dtype, expected.shape)
        assert torch.equal(found[path].view(torch.uint8), expected.contiguous().view(torch.uint8))


def test_other_facts_are_another_cache(paths):
    StateCache(FACTS).write(stamp(make_states(paths)))
    for change in ({"weights": "abd"}, {"block": 3}, {"reading": {"trim_db": 30.0}}, {"dtype": "float16"}):
        other = StateCache(FACTS | change)
        assert other.folder != StateCache(FACTS).folder
        assert other.find(paths) == {}
    assert StateCache(dict(reversed(FACTS.items()))).folder == StateCache(FACTS).folder


def test_another_process_opens_files_of_its_own(paths):
    states = make_states(paths)
    cache = StateCache(FACTS)
    cache.write(stamp(states))
    entries = cache.find(paths)
    copied = pickle.loads(pickle.dumps(cache))
    assert_found({path: copied.load(entry) for path, entry in entries.items()}, states)


def test_a_file_with_other_content_is_not_found(paths):
    states = make_states(paths)
    StateCache(FACTS).write(stamp(states))
    with open(paths[0], "ab") as file:
        file.write(b"more")
    assert_found(read(paths), states[1:])


def test_a_file_with_other_content_of_the_same_size_is_not_found(paths):
    states = make_states(paths)
    StateCache(FACTS).write(stamp(states))
    size, changed = os.path.getsize(paths[1]), os.stat(paths[1]).st_mtime_ns + 1
    with open(paths[1], "wb") as file:
        file.write(b"x" * size)
    os.utime(paths[1], ns=(changed, changed))
    assert_found(read(paths), [states[0], *states[2:]])


def test_a_file_is_found_by_its_content(paths, tmp_path):
    states = make_states(paths)
    StateCache(FACTS).write(stamp(states))
    os.utime(paths[0], (1, 1))
    moved, copied = str(tmp_path / "moved.wav"), str(tmp_path / "copied.flac")
    os.rename(paths[1], moved)
    shutil.copy(paths[2], copied)
    found = read([paths[0], moved, copied])
    assert_found(found, [states[0], (moved, states[1][1]), (copied, states[2][1])])


def test_two_files_that_change_places_keep_their_states(paths, tmp_path):
    states = make_states(paths)
    StateCache(FACTS).write(stamp(states))
    os.rename(paths[0], tmp_path / "aside")
    os.rename(paths[1], paths[0])
    os.rename(tmp_path / "aside", paths[1])
    for path in paths[:2]:
        os.utime(path, (1, 1))
    assert_found(read(paths), [(paths[0], states[1][1]), (paths[1], states[0][1]), *states[2:]])


def test_files_of_the_same_content_share_their_states(paths, tmp_path):
    twin = str(tmp_path / "twin.wav")
    shutil.copy(paths[0], twin)
    ((_, states),) = make_states(paths[:1])
    StateCache(FACTS).write(stamp([(paths[0], states), (twin, states)]))
    assert_found(read([paths[0], twin]), [(paths[0], states), (twin, states)])


def test_the_stamp_is_that_of_the_file(paths):
    stamp = ClipStamp.of(paths[0])
    status = os.stat(paths[0])
    assert (stamp.path, stamp.size, stamp.mtime_ns, stamp.digest) == (paths[0], 100, status.st_mtime_ns, "")
    # sha256sum of a hundred letters a
    assert stamp.with_digest().digest == "2816597888e4a0d3a36b82b83316ab32680eb8f00f8cd3b904d681246d285a0e"
    assert ClipStamp.of(os.path.relpath(paths[0])) == stamp


def flip_last_byte(shard):
    content = bytearray(shard.read_bytes())
    content[-1] ^= 1
    shard.write_bytes(content)


def cut(shard):
    shard.write_bytes(shard.read_bytes()[:-8])


def empty(shard):
    shard.write_bytes(b"")


def fill_with_garbage(shard):
    shard.write_bytes(bytes(range(256)) * 8)


def rename_crc(shard):
    shard.write_bytes(shard.read_bytes().replace(b"crc", b"crb"))


# What is done to a file of two clips, and how many of them are lost.
DAMAGES = {
    "bit": (flip_last_byte, 1),
    "cut": (cut, 2),
    "empty": (empty, 2),
    "garbage": (fill_with_garbage, 2),
    "name": (rename_crc, 2),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_states_are_named_and_not_found(paths, shards, caplog, damage):
    states = make_states(paths)
    do, num_lost = DAMAGES[damage]
    do(shards[0])
    found = read(paths)
    assert found.keys() >= set(paths[2:])
    assert len(found) == 4 - num_lost
    assert_found(found, [(path, tensor) for path, tensor in states if path in found])
    assert any(str(shards[0]) in record.getMessage() for record in caplog.records)
    assert not any(str(shards[1]) in record.getMessage() for record in caplog.records)


def test_no_flipped_bit_anywhere_gives_wrong_states(paths, shards):
    """Flip one bit in every third byte of a file, its header included."""
    states = dict(make_states(paths))
    content = shards[0].read_bytes()
    losses = 0
    for place in range(0, len(content), 3):
        damaged = bytearray(content)
        damaged[place] ^= 1 << place % 8
        shards[0].write_bytes(damaged)
        found = read(paths)
        assert found.keys() >= set(paths[2:])
        assert all(torch.equal(tensor, states[path]) for path, tensor in found.items())
        losses += len(found) < 4
    assert losses > len(content) / 9


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_states_that_were_made_again_are_found(paths, shards, damage):
    """Whatever the new file is called: names are drawn, and either may come first."""
    states = make_states(paths)
    do, _ = DAMAGES[damage]
    do(shards[0])
    for name in ("0" * 32, "f" * 32):
        StateCache(FACTS).write(stamp(states[:2]))
        (new,) = set(shards[0].parent.glob("*.safetensors")) - set(shards)
        named = new.replace(new.with_name(f"{name}.safetensors"))
        assert_found(read(paths), states)
        named.unlink()


def test_a_file_that_was_not_completely_written_is_no_file(paths, shards):
    shards[0].rename(shards[0].with_suffix(".tmp"))
    assert_found(read(paths), make_states(paths)[2:])


def test_a_write_that_fails_leaves_nothing_to_be_found(paths, monkeypatch):
    def fail(tensors, path, metadata):
        path.write_bytes(b"half")
        raise OSError("no space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("avb_hf.training.state_cache.save_file", fail)
        with pytest.raises(ValueError, match=r"no space.*AVB_HF_CACHE.*--cache off"):
            StateCache(FACTS).write(stamp(make_states(paths)))
    assert read(paths) == {}
    StateCache(FACTS).write(stamp(make_states(paths)))
    assert_found(read(paths), make_states(paths))


def append(path):
    with open(path, "ab") as file:
        file.write(b"more")


@pytest.mark.parametrize(
    "change", [append, os.remove, lambda path: os.utime(path, (1, 1))], ids=["more", "gone", "time"]
)
def test_states_of_a_file_that_changed_while_it_was_read_are_not_kept(paths, change):
    states = make_states(paths)
    stamped = stamp(states)
    change(paths[1])
    with pytest.raises(ValueError, match=f"{paths[1]} has changed while it was read"):
        StateCache(FACTS).write(stamped)
    assert read([path for path in paths if os.path.exists(path)]) == {}
    StateCache(FACTS).write(stamped[2:])
    assert_found(read(paths[2:]), states[2:])


def test_several_writers_get_along(paths):
    states = make_states(paths)
    for attempt in range(20):
        facts = FACTS | {"attempt": attempt}
        start, problems = threading.Barrier(4), []

        def write(part, facts=facts, start=start, problems=problems):
            start.wait()
            try:
                StateCache(facts).write(stamp([part]))
            except Exception as problem:
                problems.append(problem)

        threads = [threading.Thread(target=write, args=(part,)) for part in states]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert problems == []
        assert StateCache(facts).find(paths).keys() == set(paths)


def test_caches_are_listed_with_what_they_hold(paths, shards):
    assert len(StateCache(FACTS | {"block": 0}).find(paths)) == 0  # asking makes no cache
    StateCache(FACTS | {"block": 1}).write(stamp(make_states(paths)[:1]))
    summaries = {summary.facts["block"]: summary for summary in list_caches()}
    assert summaries.keys() == {1, 2}
    assert {summary.folder.parent for summary in summaries.values()} == {states_folder()}
    assert (summaries[2].num_clips, summaries[1].num_clips) == (4, 1)
    assert summaries[2].facts == FACTS
    on_disk = sum(path.stat().st_size for path in shards[0].parent.rglob("*"))
    assert summaries[2].size == on_disk > 4 * 4 * (5 + 6 + 7 + 8)


def test_a_cache_is_cleared_and_no_other(paths, shards):
    StateCache(FACTS | {"block": 1}).write(stamp(make_states(paths)))
    size = sum(path.stat().st_size for path in shards[0].parent.rglob("*"))
    assert clear_cache(shards[0].parent.name) == size
    assert read(paths) == {}
    assert [summary.facts["block"] for summary in list_caches()] == [1]


@pytest.mark.parametrize("content", [b'{"blo', b"[1]", b"\xff", None], ids=["cut", "list", "bytes", "missing"])
def test_a_cache_whose_facts_are_damaged_is_listed_and_cleared(paths, shards, content):
    StateCache(FACTS | {"block": 1}).write(stamp(make_states(paths)[:1]))
    facts = shards[0].parent / "facts.json"
    facts.unlink() if content is None else facts.write_bytes(content)
    listed = {summary.folder: (summary.facts, summary.num_clips) for summary in list_caches()}
    other = FACTS | {"block": 1}
    assert listed == {shards[0].parent: (None, 4), StateCache(other).folder: (other, 1)}
    clear_cache(shards[0].parent.name)
    assert [summary.facts for summary in list_caches()] == [other]


@pytest.mark.parametrize("key", ["absent", "..", ""])
def test_no_such_cache(paths, shards, key):
    with pytest.raises(ValueError, match=shards[0].parent.name):
        clear_cache(key)
    assert len(read(paths)) == 4


def test_where_nothing_was_cached_there_is_nothing_to_list():
    assert list(list_caches()) == []
    with pytest.raises(ValueError, match="no cache is named"):
        clear_cache("absent")
