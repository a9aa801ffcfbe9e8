"""Links are followed as pathlib follows them, one file at a time."""

from pathlib import Path

import pytest

from avb_hf.data.locations import LinkFollower


@pytest.fixture
def tree(tmp_path, monkeypatch):
    """A folder with links of every kind; the current folder."""
    for folder in ("data", "data/deep", "data2"):
        (tmp_path / folder).mkdir()
    for name in ("data/a.wav", "data/deep/b.wav", "data2/c.wav"):
        (tmp_path / name).touch()
    links = {"data/to_a": "a.wav", "data/to_c": "../data2/c.wav", "data/twice": "to_c", "data/gone": "nothing"}
    links |= {"data/out": "../data2", "in": "data/deep", "data/loop": "loop"}
    for name, target in links.items():
        (tmp_path / name).symlink_to(target)
    monkeypatch.chdir(tmp_path)
    return tmp_path


NAMES = [
    "data/a.wav", "data/deep/b.wav", "data/to_a", "data/to_c", "data/twice", "data/gone", "data/missing/x", "data/x",
    "data/out/c.wav", "in/b.wav", "in/../a.wav", "data/..", "data/deep/..", "data/../data2/c.wav", ".", "data", "in",
    "data2/c.wav", "data/out",
]  # fmt: skip


@pytest.mark.parametrize("is_absolute", [True, False])
def test_links_are_followed_as_pathlib_does(tree, is_absolute):
    paths = [(tree if is_absolute else Path()) / name for name in NAMES]
    links = LinkFollower()
    for _ in range(2):
        assert [links.follow(path) for path in paths] == [str(path.resolve()) for path in paths]


def test_a_link_is_followed_that_its_folder_did_not_list(tree):
    links = LinkFollower()
    links.follow("data/a.wav")
    Path("data/late").symlink_to("to_a")
    assert links.follow("data/late") == str(tree / "data" / "a.wav")


@pytest.mark.parametrize("folder", ["data", "in", ".", "data/out", "missing", "/"])
def test_being_inside_is_what_pathlib_says(tree, folder):
    links = LinkFollower()
    for name in NAMES:
        expected = Path(name).resolve().is_relative_to(Path(folder).resolve())
        assert links.is_inside(Path(name), Path(folder)) == expected, name


def test_files_of_the_root_and_loops_have_a_path(tree):
    assert LinkFollower().follow(Path("/nothing")) == "/nothing"
    assert LinkFollower().follow(Path("data/loop")) == str(tree / "data" / "loop")
