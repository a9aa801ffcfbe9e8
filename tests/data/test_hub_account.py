"""Whether a repository can be written to is known before the work begins, and no token goes there."""

import pytest
from huggingface_hub import constants

from avb_hf.data.hub_account import HubRepo, check_id, check_repo, make_repo, require_no_token
from avb_hf.data.hub_errors import HubRefusalError

TOKEN = "hf_" + "Xy7Qw3Er9Tz5" * 2


def test_a_bare_name_is_the_users_own(hub):
    assert check_repo(HubRepo("owls")) == HubRepo("tester/owls")
    assert check_repo(HubRepo("tester/owls", kind="dataset")) == HubRepo("tester/owls", kind="dataset")
    assert hub.repos == {}, "asking makes nothing"


def test_a_repository_is_private_unless_it_is_to_be_public(hub):
    make_repo(HubRepo("tester/hidden"))
    make_repo(HubRepo("tester/shown", is_private=False))
    make_repo(HubRepo("tester/clips", kind="dataset", revision="v2"))
    make_repo(HubRepo("tester/hidden", is_private=False))  # it is there: nobody makes it public in passing
    assert {name: repo.private for name, repo in hub.repos.items()} == {
        "tester/hidden": True, "tester/shown": False, "datasets/tester/clips": True,
    }  # fmt: skip
    assert set(hub.repos["datasets/tester/clips"].branches) == {"main", "v2"}


def forget_the_token(hub, monkeypatch):
    monkeypatch.delenv("HF_TOKEN")


def go_offline(hub, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)


def take_another_token(hub, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", TOKEN)


def may_only_read(hub, monkeypatch):
    hub.role = "read"


def make_it_public(hub, monkeypatch):
    hub.create("tester/owls", private=False)


def nothing(hub, monkeypatch):
    pass


@pytest.mark.parametrize(
    ("change", "name", "message"),
    [
        (forget_the_token, "owls", "nobody is logged in"),
        (go_offline, "owls", "offline"),
        (take_another_token, "owls", "refused.*401"),
        (may_only_read, "owls", "may only read"),
        (make_it_public, "owls", "public already"),
        (nothing, "o--wls", "no such names"),
        (nothing, "a/b/c", "no such names"),
        (nothing, "google/owls", r"owner must be one of \['tester'\]"),
    ],
)
def test_what_cannot_be_written_to_is_refused(hub, monkeypatch, change, name, message):
    change(hub, monkeypatch)
    with pytest.raises((ValueError, OSError), match=message) as refusal:
        check_repo(HubRepo(name))
    assert TOKEN not in str(refusal.value)


@pytest.mark.parametrize("name", ["owls", "tester/owls", "a/b/c", "./a/b", "o--wls", "tester/owls.git", ""])
def test_names_are_checked_by_one_rule_with_an_owner_or_without(name):
    for with_owner, allowed in ((False, ("owls", "tester/owls")), (True, ("tester/owls",))):
        if name in allowed:
            check_id(name, with_owner)
        else:
            with pytest.raises(ValueError, match=f"the Hub has no such names as {name!r}"):
                check_id(name, with_owner)


def test_a_private_repository_stays_so_and_is_called_so(hub, caplog):
    hub.create("tester/owls", private=True)
    assert check_repo(HubRepo("owls", is_private=False)).visibility == "private"
    assert "tester/owls exists and is private" in caplog.text


def test_a_public_repository_is_taken_by_who_says_so(hub):
    make_it_public(hub, None)
    assert not check_repo(HubRepo("owls", is_private=False)).is_private


def test_a_hub_that_is_not_there_is_named(hub, monkeypatch):
    hub.__exit__()
    with pytest.raises(ConnectionError, match="did not answer"):
        check_repo(HubRepo("owls"))


def test_a_token_for_other_places_is_refused_and_one_for_this_place_is_not(hub):
    hub.role = "fineGrained"
    assert check_repo(HubRepo("owls")) == HubRepo("tester/owls")
    hub.scopes = ["tester/owls"]
    assert check_repo(HubRepo("tester/owls")) == HubRepo("tester/owls")
    with pytest.raises(ValueError, match=r"may not write to tester/eagles, only to \['tester/owls'\]"):
        check_repo(HubRepo("tester/eagles"))


def test_organisations_that_are_only_read_are_no_owners(hub):
    hub.groups = {"readers": "read", "writers": "contributor"}
    assert check_repo(HubRepo("writers/owls")) == HubRepo("writers/owls")
    with pytest.raises(ValueError, match=r"must be one of \['tester', 'writers'\]"):
        check_repo(HubRepo("readers/owls"))


def test_what_the_hub_refuses_is_told_in_its_words(hub):
    hub.refuse("/repos/create", 403, "your storage is full")
    with pytest.raises(HubRefusalError, match="asked to make tester/owls and refused: 403 Forbidden: your storage is"):
        make_repo(HubRepo("tester/owls"))
    hub.refuse("/whoami", 429, "too many questions")
    with pytest.raises(ConnectionError, match="who is logged in and could not for now: 429"):
        check_repo(HubRepo("tester/owls"))


@pytest.mark.parametrize("token", ["own", "another"])
def test_a_file_with_a_token_is_not_handed_over(monkeypatch, tmp_path, token):
    secrets = {"own": "no-usual-token", "another": TOKEN}
    monkeypatch.setenv("HF_TOKEN", secrets["own"])
    (tmp_path / "good.json").write_text("{}")
    (tmp_path / "bad.json").write_text(f'{{"word": "{secrets[token]}"}}')
    require_no_token({"good.json": tmp_path / "good.json"})
    with pytest.raises(ValueError, match=r"bad\.json holds a token") as refusal:
        require_no_token({path.name: path for path in tmp_path.iterdir()})
    assert secrets[token] not in str(refusal.value)
