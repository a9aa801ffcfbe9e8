"""What the client of the Hub raises, told as one of two things: the Hub refused, or it could not be asked just now."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from json import JSONDecodeError

from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

# The first is the class of the errors of whatever HTTP library lies below; no JSON comes from proxies in between.
_NOT_REACHED: tuple[type[BaseException], ...] = (
    HfHubHTTPError.__bases__[0], LocalEntryNotFoundError, ConnectionError, TimeoutError, RuntimeError, JSONDecodeError,
)  # fmt: skip
_CAUGHT: tuple[type[BaseException], ...] = (*_NOT_REACHED, OSError)
# Refusals for now: too slow, another commit at the same time, too many requests.
_FOR_NOW = (408, 409, 412, 429)
# The Xet storage tells a status in words alone.
_STATUS_IN_WORDS = re.compile(r"HTTP status \w+ error \((\d{3})")
_XET = "hf_xet"
# Behind the question mark of an address may stand what lets its reader upload.
_ADDRESS = re.compile(r"(https?://[^\s'?]*)\?[^\s']*")
_LONGEST = 300


class HubRefusalError(OSError):
    """The Hub answered that it will not do what it was asked; to ask again is of no use."""


@contextmanager
def asking_the_hub(what: str) -> Iterator[None]:
    """Turn what the client raises into an OSError that says what was asked.

    Args:
        what: Completes "the Hub was asked".

    Raises:
        ConnectionError: If it may help to ask again: the Hub was not reached, or cannot answer for now.
        HubRefusalError: If the Hub refused.
        OSError: What this machine itself refused, as it is.
    """
    try:
        yield
    except _CAUGHT as error:
        source = _find_source(error)
        status = _find_status(source)
        told = shorten(": ".join(dict.fromkeys(map(_tell, (error, source)))))
        if status is None and type(source).__module__ != _XET:
            if isinstance(source, _NOT_REACHED):
                raise ConnectionError(f"the Hub was asked {what} and did not answer: {told}") from error
            raise source from source.__cause__
        if status is not None and (status >= 500 or status in _FOR_NOW):
            raise ConnectionError(f"the Hub was asked {what} and could not for now: {told}") from error
        raise HubRefusalError(f"the Hub was asked {what} and refused: {told}") from error


def shorten(text: str) -> str:
    """Put what the Hub says on one line of at most 300 characters, without what follows the paths of addresses."""
    return _ADDRESS.sub(r"\1", " ".join(text.split()))[:_LONGEST]


def _find_source(error: BaseException) -> BaseException:
    """Return what stopped an upload or kept a file from being found, which the client wraps."""
    while isinstance(error, RuntimeError | LocalEntryNotFoundError) and error.__cause__ is not None:
        error = error.__cause__
    return error


def _find_status(error: BaseException) -> int | None:
    """Return the HTTP status of an answer; None if there was none."""
    if isinstance(error, HfHubHTTPError):
        return error.response.status_code
    words = _STATUS_IN_WORDS.search(str(error))
    return None if words is None else int(words[1])


def _tell(error: BaseException) -> str:
    """Return what an answer says, else the first line of an error."""
    if isinstance(error, HfHubHTTPError):
        said = error.server_message or str(error)
        return f"{error.response.status_code} {error.response.reason_phrase}: {said}"
    return str(error).strip().split("\n")[0].rstrip(".") or type(error).__name__
