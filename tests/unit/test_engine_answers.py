"""One classifier for every answer of the engine: one row per row of its contract."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.engine.answers import MESSAGE_MAX, classify
from bridge.errors import (
    EngineBroken,
    EngineConflict,
    EngineError,
    EngineForbidden,
    EngineMisconfigured,
    EngineRefused,
    EngineUnauthorized,
    EngineUnavailable,
    LockExpired,
    LockLost,
    TaskGone,
    TaskSuspended,
)

HTML = b"<!doctype html><html><body>404 Not Found</body></html>"
TASK = "0a1b2c3d"


def rest(message: str, type_: str = "RestException", code: int | None = None) -> bytes:
    return json.dumps({"type": type_, "message": message, "code": code}).encode()


LOCKED = "External Task {} cannot be completed by worker 'bridge'. It is locked by worker '{}'."
EXPIRED = "Cannot extend a lock that expired: lockExpirationTime is not greater than or equal to 1"
CONTINUATION = (
    "The engine could not continue the process: Unknown property used in expression: ${x}"
)

ROWS: list[tuple[str, int, bytes, type[EngineError]]] = [
    ("gone", 404, rest(f"External task with id {TASK} does not exist"), TaskGone),
    ("gone, another exception", 404, rest("gone", "NotFound"), TaskGone),
    ("no such path", 404, rest("RESTEASY003210", "NotFoundException"), EngineMisconfigured),
    (
        "no such path, Spring's own page",
        404,
        json.dumps({"timestamp": 1, "status": 404, "error": "Not Found", "path": "/x"}).encode(),
        EngineMisconfigured,
    ),
    (
        "no such named engine",
        404,
        rest("Process engine two not available", "InvalidRequestException"),
        EngineMisconfigured,
    ),
    ("wrong address", 404, HTML, EngineMisconfigured),
    ("wrong method", 405, HTML, EngineMisconfigured),
    ("wrong method, JSON", 405, rest("Method Not Allowed"), EngineMisconfigured),
    ("a redirect", 302, b"", EngineMisconfigured),
    ("a redirect with JSON", 301, rest("moved"), EngineMisconfigured),
    ("too large for a proxy", 413, HTML, EngineRefused),
    ("JSON of a proxy", 404, b'{"error": "not found"}', EngineMisconfigured),
    ("a proxy's 500 in JSON", 500, b'{"message": "oops"}', EngineUnavailable),
    ("a request nobody can read", 400, HTML, EngineRefused),
    (
        "suspended",
        400,
        rest(f"ENGINE-03043 ExternalTask with id '{TASK}' is suspended."),
        TaskSuspended,
    ),
    ("another's lock", 400, rest(LOCKED.format(TASK, "other")), LockLost),
    ("nobody's lock", 400, rest(LOCKED.format(TASK, "null")), LockLost),
    ("an expired lock", 400, rest(EXPIRED), LockExpired),
    (
        "a bad request",
        400,
        rest("The number of retries cannot be negative", "InvalidRequestException"),
        EngineRefused,
    ),
    ("a process that cannot go on", 400, rest(CONTINUATION), EngineRefused),
    ("bad credentials, JSON", 401, rest("unauthorized"), EngineUnauthorized),
    ("bad credentials, HTML", 401, HTML, EngineUnauthorized),
    ("bad credentials, empty", 401, b"", EngineUnauthorized),
    ("missing rights", 403, rest("AuthorizationException"), EngineForbidden),
    ("refused by a proxy", 403, HTML, EngineForbidden),
    ("request time-out", 408, HTML, EngineUnavailable),
    ("throttled", 429, HTML, EngineUnavailable),
    ("throttled, JSON", 429, rest("slow down"), EngineUnavailable),
    ("bad gateway", 502, HTML, EngineUnavailable),
    ("away", 503, rest("starting"), EngineUnavailable),
    ("gateway time-out", 504, HTML, EngineUnavailable),
    ("a proxy's 500", 500, HTML, EngineUnavailable),
    ("an empty 500", 500, b"", EngineUnavailable),
    ("a conflict", 500, rest("ENGINE-03005 Optimistic", "OptimisticLocking", 1), EngineConflict),
    ("a deadlock", 500, rest("deadlock", "ProcessEngineException", 10000), EngineConflict),
    ("a foreign key", 500, rest("foreign key", "ProcessEngineException", 10001), EngineConflict),
    ("too long", 500, rest("value too long", "ProcessEngineException", 10002), EngineRefused),
    ("a listener", 500, rest("ENGINE-16004 exception", "ProcessEngineException", 0), EngineBroken),
    ("an expression", 500, rest("Unknown property", "RestException"), EngineBroken),
    ("a full poll queue", 500, rest("At the moment the server has to handle too many requests at "
     "the same time."), EngineUnavailable),
    ("shutting down", 500, rest("Request rejected due to shutdown of application server."),
     EngineUnavailable),
    ("501", 501, rest("not implemented"), EngineBroken),
]  # fmt: skip


@pytest.mark.parametrize(
    ("status", "body", "kind"), [row[1:] for row in ROWS], ids=[row[0] for row in ROWS]
)
def test_each_answer_has_one_meaning(status: int, body: bytes, kind: type[EngineError]) -> None:
    """This table drives every retry: a wrong row loses a task or repeats a call for ever."""
    assert type(classify(status, body)) is kind


@pytest.mark.parametrize("status", [200, 204, 299])
@pytest.mark.parametrize("body", [b"", b"[]", b' {"id": "t"}', rest("is suspended")])
def test_an_accepted_call_is_accepted(status: int, body: bytes) -> None:
    """The body of a success is not searched for words."""
    assert classify(status, body) is None


@pytest.mark.parametrize("body", [HTML, b"\n <html>", b"OK", b"true", b"\xff"])
def test_a_page_with_status_200_is_no_success(body: bytes) -> None:
    """A proxy's login page: taken for the engine's yes, it would lose the result."""
    assert isinstance(classify(200, body), EngineMisconfigured)


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize(
    ("header", "seconds"),
    [("7", 7.0), (None, 0.0), ("", 0.0), ("soon", 0.0), ("-1", 0.0), ("1e9", 0.0), ("1.5", 0.0)],
)
def test_who_asks_for_time_is_heard(status: int, header: str | None, seconds: float) -> None:
    """`Retry-After` in whole seconds; in any other form our own pauses have to do."""
    error = classify(status, b"", header)

    assert isinstance(error, EngineUnavailable)
    assert error.retry_after == seconds


def test_the_owner_of_a_foreign_lock_is_told() -> None:
    """A task that nobody holds can be locked again; one of another worker id cannot."""
    lost, free = (classify(400, rest(LOCKED.format(TASK, w))) for w in ("it's 'me'", "null"))

    assert isinstance(lost, LockLost)
    assert isinstance(free, LockLost)
    assert (lost.owner, free.owner) == ("it's 'me'", None)


def test_a_task_that_cannot_be_extended_is_suspended_even_where_it_is_locked() -> None:
    """The engine names the state last; suspension must not look like a lost lock."""
    text = f"ExternalTask with id '{TASK}' is suspended. It is locked by worker 'bridge'."

    assert isinstance(classify(400, rest(text)), TaskSuspended)


def test_a_message_of_the_engine_is_kept_but_cut() -> None:
    """An operator needs the engine's words; a log line must not hold a stack trace."""
    error = classify(500, rest("because " + "x" * 10_000, "ProcessEngineException", 0))

    assert str(error).startswith("500 ProcessEngineException: because x")
    assert len(str(error)) == MESSAGE_MAX


def test_a_wrong_address_names_its_cure() -> None:
    """The commonest mistake of the first start."""
    assert "/engine-rest" in str(classify(404, HTML))


json_values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=5,
)
answers = st.dictionaries(st.sampled_from(["type", "message", "code", "error"]), json_values)


@given(st.integers(100, 599), st.binary() | (json_values | answers).map(json.dumps).map(str.encode))
def test_whatever_comes_back_means_something(status: int, body: bytes) -> None:
    """Behind an address there may be anything; the bridge must not die of it."""
    error = classify(status, body)

    assert error is not None or 200 <= status < 300


def test_json_deeper_than_any_stack_is_no_answer_of_the_engine() -> None:
    """A recursion error is caught where it is made."""
    assert isinstance(classify(500, b"[" * 200_000), EngineUnavailable)
