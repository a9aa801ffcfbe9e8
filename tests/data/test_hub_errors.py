"""What the Hub refuses is told apart from what could not be asked, and both from this machine's own faults."""

import errno
import json
from importlib import import_module

import pytest
from huggingface_hub import HfApi
from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

from avb_hf.data.hub_errors import HubRefusalError, asking_the_hub

httpx = import_module(HfHubHTTPError.__bases__[0].__module__.partition(".")[0])  # its name differs by version
UPLOADING = "Error while uploading 'x' to the Hub."


def wrap(source, outer=None):
    """Give an error that was raised from another, as the client does."""
    outer = outer or RuntimeError(UPLOADING)
    outer.__cause__ = source
    return outer


def answer(status, said=None):
    """Give the client's error for an answer of the Hub."""
    response = httpx.Response(status, request=httpx.Request("PUT", "https://there/x?signature=secret"))
    return HfHubHTTPError(
        "Error for url 'https://there/x?signature=secret'\nmore", response=response, server_message=said
    )


MISTAKES = [ValueError("wrong"), TypeError("wrong"), OSError(errno.ENOSPC, "wrong"), PermissionError("wrong")]


@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda mistake: type(mistake).__name__)
def test_what_is_not_the_hubs_fault_stays_what_it_is(mistake):
    with pytest.raises(type(mistake)) as raised, asking_the_hub("nothing"):
        raise mistake
    assert raised.value is mistake
    with pytest.raises(type(mistake)) as raised, asking_the_hub("to take a file"):
        raise wrap(mistake)
    assert raised.value is mistake


@pytest.mark.parametrize("is_wrapped", [False, True])
@pytest.mark.parametrize("status", [400, 401, 402, 403, 404, 413, 422])
def test_a_refusal_is_told_as_one(status, is_wrapped):
    error = answer(status, "no\n  and never")
    told = rf"was asked for x and refused: .*{status} .*: no and never$"
    with pytest.raises(HubRefusalError, match=told) as raised, asking_the_hub("for x"):
        raise wrap(error) if is_wrapped else error
    assert not isinstance(raised.value, ConnectionError)


@pytest.mark.parametrize("status", [408, 409, 412, 429, 500, 502, 503])
def test_a_refusal_for_now_may_be_asked_again(status):
    for error in (answer(status, "later"), wrap(answer(status, "later"), LocalEntryNotFoundError("not in the cache"))):
        with pytest.raises(ConnectionError, match=f"could not for now: .*{status} .*: later"), asking_the_hub("for x"):
            raise error


def test_what_an_address_carries_is_not_repeated():
    told = r"403 Forbidden: Error for url 'https://there/x' more$"
    with pytest.raises(HubRefusalError, match=told), asking_the_hub("for x"):
        raise answer(403)


def test_an_upload_that_was_cut_off_is_the_connections_fault():
    not_json = json.JSONDecodeError("Expecting value", "<html>", 0)
    for error in (wrap(TimeoutError()), wrap(httpx.ReadError("reset")), RuntimeError("Internal error"), not_json):
        with pytest.raises(ConnectionError, match="asked for x and did not answer"), asking_the_hub("for x"):
            raise error


def test_the_xet_storage_refuses_in_words():
    hf_xet = pytest.importorskip("hf_xet")
    forbidden = ConnectionError("Network error: HTTP status client error (403 Forbidden), domain: https://cas")
    for error in (forbidden, hf_xet.XetAuthenticationError("Authentication error: the token is not valid")):
        told = r"refused: (Network error.*403|Authentication error)"
        with pytest.raises(HubRefusalError, match=told), asking_the_hub("for x"):
            raise error
    busy = ConnectionError("Server error: HTTP status server error (503 Service Unavailable), domain: https://cas")
    for error in (busy, ConnectionError("Network error: error sending request")):
        with pytest.raises(ConnectionError, match=r"could not for now|did not answer"), asking_the_hub("for x"):
            raise error


def test_a_hub_that_is_busy_is_not_said_to_refuse(hub):
    hub.refuse("/whoami", 503, "come back later")
    told = "could not for now: 503 Service Unavailable: come back later"
    with pytest.raises(ConnectionError, match=told), asking_the_hub("who is logged in"):
        HfApi().whoami()
