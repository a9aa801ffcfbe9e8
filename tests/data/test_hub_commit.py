"""Commits to the stand-in for the Hub: made again where the connection is at fault, and nothing of others' is lost."""

import pytest

from avb_hf.card_marker import CARD_MARKER
from avb_hf.data.hub_account import HubRepo
from avb_hf.data.hub_commit import commit_files, find_head
from avb_hf.data.hub_errors import HubRefusalError

REPO = HubRepo("tester/owls")
CARD = f"---\nlicense: mit\n---\n{CARD_MARKER}\n"


@pytest.fixture
def files(tmp_path):
    """A large file, a small one and a card of ours."""
    (tmp_path / "model.safetensors").write_bytes(b"\x01" * 5_000)
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "README.md").write_text(CARD)
    return {name: tmp_path / name for name in ("model.safetensors", "config.json", "README.md")}


def contents(files):
    return {name: path.read_bytes() for name, path in files.items()}


def uploads(hub):
    return [path for method, path, _ in hub.calls if method == "PUT" or "/commit/" in path]


@pytest.mark.parametrize("repo", [REPO, HubRepo("tester/owls", kind="dataset", revision="try")])
def test_the_repository_is_made_by_the_first_commit(hub, files, repo):
    assert find_head(repo) is None
    commit = commit_files(repo, files, "first")
    key = "tester/owls" if repo.kind == "model" else "datasets/tester/owls"
    made = hub.commits(key, repo.revision or "main")[-1]
    assert (made.oid, made.title, made.files) == (commit.oid, "first", contents(files))
    assert hub.repos[key].private
    assert find_head(repo).commit == commit.oid
    assert set(find_head(repo).names) == set(files)


@pytest.mark.parametrize(("passing", "cuts"), [(0, 7), (1, 2)])  # the client itself sends a large file six times
def test_an_upload_that_is_cut_off_is_made_again(hub, files, passing, cuts, caplog):
    hub.fail_after(passing, times=cuts)
    commit_files(REPO, files, "first")
    assert hub.commits("tester/owls")[-1].files == contents(files)
    assert "did not answer" in caplog.text
    assert "trying again in 2 s" in caplog.text


def test_what_is_cut_off_again_and_again_is_told(hub, files, caplog):
    hub.fail_after(1)
    with pytest.raises(ConnectionError, match="asked to take 3 files for tester/owls and did not answer"):
        commit_files(REPO, files, "first")
    assert [commit.files for commit in hub.commits("tester/owls")] == [{}]
    assert caplog.text.count("trying again") == 2
    hub.fail_after(2)
    commit_files(REPO, files, "first")
    assert sum("_lfs" in path for path in uploads(hub)) == 1, "what was uploaded whole was uploaded again"


@pytest.mark.parametrize(
    ("part", "status"),
    [("/_lfs/", 413), ("objects/batch", 403), ("/preupload/", 401), ("/commit/", 403), ("/repos/create", 402)],
)
def test_a_refusal_is_told_and_not_asked_again(hub, files, part, status, caplog):
    hub.refuse(part, status, "not here")
    with pytest.raises(HubRefusalError, match=rf"refused: .*{status} .*: not here"):
        commit_files(REPO, files, "first")
    assert "trying again" not in caplog.text
    assert sum(part in path for _, path, _ in hub.calls) == 1


def test_a_refusal_of_one_file_or_of_the_card_is_told_too(hub, files):
    hub.largest = 4_000
    with pytest.raises(HubRefusalError, match=r"refused: .*the file is too large"):
        commit_files(REPO, files, "first")
    hub.largest = float("inf")
    files["README.md"].write_text("---\na: [\n---\n")
    with pytest.raises(HubRefusalError, match=r"refused: .*metadata in README\.md"):
        commit_files(REPO, files, "first")
    assert len(hub.commits("tester/owls")) == 1


def test_a_commit_of_somebody_else_that_comes_between_is_not_undone(hub, files, caplog):
    commit_files(REPO, files, "first")
    files["config.json"].write_text('{"a": 1}')
    asked = []

    def find_stale(head):
        if not asked:
            theirs = hub.commits("tester/owls")[-1].files | {"README.md": b"# Mine\n", "old": b"1", "notes": b"2"}
            hub.add_commit(hub.repos["tester/owls"], "main", "theirs", theirs)
        asked.append(head.names)
        return [name for name in head.names if name == "old"]

    commit_files(REPO, files, "second", find_stale)
    assert [commit.title for commit in hub.commits("tester/owls")][-2:] == ["theirs", "second"]
    expected = contents(files) | {"README.md": b"# Mine\n", "notes": b"2"}
    assert hub.commits("tester/owls")[-1].files == expected
    assert len(asked) == 2
    assert "could not for now: 412" in caplog.text
    assert "README.md of tester/owls was written by somebody else and stays" in caplog.text


def test_a_card_of_ours_is_replaced_and_an_edited_one_is_not(hub, files, caplog):
    commit_files(REPO, files, "first")
    files["README.md"].write_text(CARD + "more\n")
    commit_files(REPO, files, "second")
    assert hub.commits("tester/owls")[-1].files == contents(files)
    assert "stays" not in caplog.text

    edited = hub.commits("tester/owls")[-1].files | {"README.md": b"# Mine\n"}
    hub.add_commit(hub.repos["tester/owls"], "main", "theirs", edited)
    files["config.json"].write_text('{"a": 1}')
    commit_files(REPO, files, "third")
    assert hub.commits("tester/owls")[-1].files == contents(files) | {"README.md": b"# Mine\n"}
    assert CARD_MARKER in caplog.text

    caplog.clear()
    files["README.md"].write_bytes(b"# Mine\n")  # it is the same here
    commit_files(REPO, files, "fourth")
    assert "stays" not in caplog.text


def test_a_token_goes_nowhere(hub, files):
    files["config.json"].write_text(f'"{hub.token}"')
    with pytest.raises(ValueError, match=r"config\.json holds a token"):
        commit_files(REPO, files, "first")
    assert hub.repos == {}
    files["config.json"].unlink()  # what the tests leave is searched for tokens
