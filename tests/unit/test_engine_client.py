"""The engine's client over real HTTP: what is repeated, what never is, what each fault means."""

from __future__ import annotations

import base64
import math
import os
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from bridge.clock import monotonic
from bridge.engine import EngineClient, EngineClock
from bridge.engine.auth import Basic, BasicFile, Bearer, BearerFile
from bridge.engine.client import PAGE, QUERY_IDS, file_address
from bridge.engine.clock import lock_window
from bridge.engine.connection import HttpOptions
from bridge.engine.http import CONFLICT_TRIES, LOST_TRIES, EngineHttp
from bridge.errors import (
    EngineBroken,
    EngineConflict,
    EngineError,
    EngineMisconfigured,
    EngineUnauthorized,
    EngineUnavailable,
    LockExpired,
    LockLost,
    TaskGone,
    TaskSuspended,
)
from bridge.messages import engine_seconds
from bridge.simulated_engine import Answer, Drop, Hold, SimulatedEngine, linear_process
from tests.support.rooms import WORKER
from tests.support.waiting import eventually

AUTH = "Authorization"
TOPIC = {"topicName": "a", "lockDuration": 60_000}
CONFLICT = Answer(500, {"type": "OptimisticLockingException", "message": "x", "code": 1})


@pytest.fixture
def engine() -> Iterator[SimulatedEngine]:
    with SimulatedEngine() as engine:
        engine.deploy(linear_process("p", "a", error_codes=("E1",)))
        yield engine


@pytest.fixture
def stopping() -> threading.Event:
    return threading.Event()


@pytest.fixture
def client(engine: SimulatedEngine, stopping: threading.Event) -> EngineClient:
    options = HttpOptions(engine.url, connect_timeout=1, read_timeout=5)
    return EngineClient(options, WORKER, stopping=stopping)


@pytest.fixture
def task(engine: SimulatedEngine, client: EngineClient) -> str:
    """A task that this worker id has locked for a minute."""
    engine.start_process("p")
    [locked] = client.fetch_and_lock([TOPIC], 1).tasks
    engine.calls.clear()
    return locked.id


def fail(client: EngineClient, task: str) -> None:
    client.failure(
        task,
        message="m",
        details="d",
        retries=2,
        pause=5.0,
        variables={},
        local_variables={},
    )


Verb = Callable[[EngineClient, str], object]
REPEATED: list[tuple[str, Verb]] = [
    ("complete", lambda client, task: client.complete(task, {}, {})),
    ("bpmnError", lambda client, task: client.bpmn_error(task, "E1", "m", {})),
    ("extendLock", lambda client, task: client.extend_lock(task, 60)),
    ("lock", lambda client, task: client.lock(task, 60)),
    ("getTask", lambda client, task: client.task(task)),
    ("query", lambda client, task: client.tasks([task])),
]
NEVER_REPEATED: list[tuple[str, Verb]] = [
    ("failure", fail),
    ("fetchAndLock", lambda client, task: client.fetch_and_lock([TOPIC], 1)),
    ("unlock", lambda client, task: client.unlock(task)),
]
repeated = pytest.mark.parametrize(("verb", "call"), REPEATED, ids=[v for v, _ in REPEATED])
never = pytest.mark.parametrize(
    ("verb", "call"), NEVER_REPEATED, ids=[v for v, _ in NEVER_REPEATED]
)


# What is repeated


@pytest.mark.parametrize(
    ("verb", "call"),
    [*REPEATED, NEVER_REPEATED[0], NEVER_REPEATED[2]],
    ids=[v for v, _ in [*REPEATED, NEVER_REPEATED[0], NEVER_REPEATED[2]]],
)
def test_a_conflict_is_repeated(
    engine: SimulatedEngine, client: EngineClient, task: str, verb: str, call: Verb
) -> None:
    """The engine has rolled the loser back: even a failure can be told again."""
    engine.faults.add(verb, when="before", times=3, action=CONFLICT)

    call(client, task)

    assert [c.status // 100 for c in engine.calls.of(verb) if c.status] == [5, 5, 5, 2]


def test_a_conflict_is_repeated_a_limited_number_of_times(
    engine: SimulatedEngine, client: EngineClient, task: str
) -> None:
    """Two replicas must not fight for ever."""
    engine.faults.add("complete", when="before", times=None, action=CONFLICT)

    with pytest.raises(EngineConflict):
        client.complete(task, {}, {})

    # full jitter, within ten seconds in all: the tries may be fewer, never more
    assert 3 <= len(engine.calls.of("complete")) <= CONFLICT_TRIES


@repeated
def test_a_lost_answer_is_repeated(
    engine: SimulatedEngine, client: EngineClient, task: str, verb: str, call: Verb
) -> None:
    """The call may not have arrived at all."""
    engine.faults.add(verb, when="before", action=Drop())

    call(client, task)

    assert len(engine.calls.of(verb)) == 2


@never
def test_an_answer_that_is_lost_is_not_repeated_where_it_would_do_harm(
    engine: SimulatedEngine, client: EngineClient, task: str, verb: str, call: Verb
) -> None:
    """A second failure would end the next attempt's lock, a second fetch would lock more tasks, a
    second unlock could free what a peer has fetched meanwhile.
    """
    engine.faults.add(verb, when="after", action=Drop())

    with pytest.raises(EngineUnavailable):
        call(client, task)

    assert len(engine.calls.of(verb)) == 1


@never
def test_a_503_may_come_from_a_proxy_that_gave_up_on_a_call_under_way(
    engine: SimulatedEngine, client: EngineClient, task: str, verb: str, call: Verb
) -> None:
    """So it is a lost answer like any other."""
    engine.faults.add(verb, when="after", action=Answer(503))

    with pytest.raises(EngineUnavailable):
        call(client, task)

    assert len(engine.calls.of(verb)) == 1


def test_a_failure_that_was_dropped_unread_is_not_repeated_either(
    engine: SimulatedEngine, client: EngineClient, task: str
) -> None:
    """From here it looks the same as one that was carried out."""
    engine.faults.add("failure", when="before", action=Drop())

    with pytest.raises(EngineUnavailable):
        fail(client, task)

    assert len(engine.calls.of("failure")) == 1


def test_a_completion_whose_answer_was_lost_is_gone_at_the_second_call(
    engine: SimulatedEngine, client: EngineClient, task: str
) -> None:
    """Done, or gone: the caller lets go either way."""
    engine.faults.add("complete", when="after", action=Drop())

    with pytest.raises(TaskGone):
        client.complete(task, {}, {})


def test_a_completion_that_the_engine_took_and_stalls_on_is_found_done(
    engine: SimulatedEngine, task: str, stopping: threading.Event
) -> None:
    """The read time-out ends the wait; the call is made again and finds the task gone."""
    options = HttpOptions(engine.url, connect_timeout=1, read_timeout=0.3)
    stalled = engine.faults.add("complete", when="after", action=Hold())

    with pytest.raises(TaskGone):
        EngineClient(options, WORKER, stopping=stopping).complete(task, {}, {})

    stalled.release()
    assert engine.tasks() == []


def test_a_lost_answer_is_repeated_a_few_times_only(
    engine: SimulatedEngine, client: EngineClient, task: str
) -> None:
    """The caller has better to do: it holds the result and frees its thread."""
    engine.faults.add("complete", when="before", times=None, action=Answer(503))

    with pytest.raises(EngineUnavailable):
        client.complete(task, {}, {})

    assert len(engine.calls.of("complete")) == LOST_TRIES


@pytest.mark.parametrize("body", [{"type": "E", "message": "listener", "code": 0}, "<html>"])
def test_a_broken_process_is_not_repeated_here(
    engine: SimulatedEngine, client: EngineClient, task: str, body: Any
) -> None:
    """Its owner decides how often; a proxy's page means that the engine is away."""
    engine.faults.add("complete", when="before", action=Answer(500, body))

    if isinstance(body, dict):
        with pytest.raises(EngineBroken):
            client.complete(task, {}, {})
    else:
        client.complete(task, {}, {})

    assert len(engine.calls.of("complete")) == (1 if isinstance(body, dict) else 2)


def test_a_stop_ends_the_repeats_at_once(
    engine: SimulatedEngine, client: EngineClient, task: str, stopping: threading.Event
) -> None:
    """A stopping bridge has twenty seconds for everything."""
    engine.faults.add("complete", when="before", times=None, action=CONFLICT)

    with ThreadPoolExecutor(1) as pool:
        began = monotonic()
        call = pool.submit(client.complete, task, {}, {})
        eventually(lambda: engine.calls.of("complete"))
        stopping.set()
        with pytest.raises(EngineConflict):
            call.result(5)

    assert monotonic() - began < 2
    assert len(engine.calls.of("complete")) < CONFLICT_TRIES


def test_after_a_stop_every_call_is_tried_once(
    engine: SimulatedEngine, client: EngineClient, task: str, stopping: threading.Event
) -> None:
    """The last leases are still set, without patience."""
    stopping.set()
    engine.faults.add("extendLock", when="before", action=CONFLICT)

    with pytest.raises(EngineConflict):
        client.extend_lock(task, 600)
    client.extend_lock(task, 600)


# Connections


def test_nobody_listening_is_told_as_never_sent(stopping: threading.Event) -> None:
    """Nothing can have happened: even a failure may be told again."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    http = EngineHttp(HttpOptions(f"http://127.0.0.1:{port}"), EngineClock(), stopping)

    with pytest.raises(EngineUnavailable, match="Connection refused") as refused:
        http.once("GET", "/version")

    assert refused.value.sent is False


def test_an_engine_that_comes_back_is_used_again(
    engine: SimulatedEngine, client: EngineClient, task: str
) -> None:
    """The kept connection is dead; the next call opens another."""
    engine.stop()
    with pytest.raises(EngineUnavailable):
        client.task(task)

    engine.start()

    assert client.task(task).id == task


def test_an_idle_connection_that_was_cut_costs_nothing(
    engine: SimulatedEngine, client: EngineClient, task: str
) -> None:
    """Proxies close idle connections as they like."""
    engine.faults.add("getTask", when="idle", action=Drop())
    client.task(task)

    client.complete(task, {}, {})

    assert not engine.tasks()


def test_half_an_answer_is_no_answer(
    engine: SimulatedEngine, client: EngineClient, task: str
) -> None:
    """The engine has locked the tasks; they come again when the lock lapses."""
    engine.start_process("p")
    engine.faults.add("fetchAndLock", when="response", action=Drop())

    with pytest.raises(EngineUnavailable):
        client.fetch_and_lock([TOPIC], 1)


def test_no_answer_in_time_is_unknown(engine: SimulatedEngine, stopping: threading.Event) -> None:
    """Sent, and nobody knows: `sent` must not claim otherwise."""
    options = HttpOptions(engine.url, connect_timeout=1, read_timeout=0.1)
    http = EngineHttp(options, EngineClock(), stopping)
    hold = engine.faults.add("version", when="before", action=Hold())

    with pytest.raises(EngineUnavailable, match="no answer in time") as unknown:
        http.once("GET", "/version")
    hold.release()

    assert unknown.value.sent is True


def test_a_long_poll_may_take_longer_than_the_read_timeout(
    engine: SimulatedEngine, stopping: threading.Event
) -> None:
    """The engine waits on purpose: its time comes on top."""
    options = HttpOptions(engine.url, connect_timeout=1, read_timeout=0.3)
    client = EngineClient(options, WORKER, stopping=stopping)

    assert client.fetch_and_lock([TOPIC], 1, wait=0.6).tasks == []

    [poll] = engine.calls.of("fetchAndLock")
    assert poll.body["asyncResponseTimeout"] == 600


@pytest.mark.parametrize(
    ("url", "error"),
    [("http://", EngineMisconfigured), ("ftp://localhost/x", EngineMisconfigured)],
)
def test_an_address_that_is_none_is_told_as_such(
    url: str, error: type[EngineError], stopping: threading.Event
) -> None:
    """Waiting for it would be in vain."""
    with pytest.raises(error):
        EngineHttp(HttpOptions(url), EngineClock(), stopping).once("GET", "/version")


def test_an_address_that_is_no_engines_is_told_as_such(
    engine: SimulatedEngine, stopping: threading.Event
) -> None:
    """HTML behind the address: the cure is in the settings."""
    options = HttpOptions(engine.url.removesuffix("/engine-rest"))

    with pytest.raises(EngineMisconfigured, match="engine-rest"):
        EngineClient(options, WORKER, stopping=stopping).version()


def test_another_services_json_is_told_as_such(
    engine: SimulatedEngine, client: EngineClient
) -> None:
    """200 and JSON, but no external tasks."""
    engine.faults.add("fetchAndLock", when="before", action=Answer(200, {"hello": "world"}))

    with pytest.raises(EngineMisconfigured):
        client.fetch_and_lock([TOPIC], 1)


def test_what_is_wrong_with_an_answer_is_told_without_its_values(
    engine: SimulatedEngine, client: EngineClient
) -> None:
    """They may be variables, and this text ends in the log."""
    answer = Answer(200, [{"id": "s3cret-value", "topicName": 5}])
    engine.faults.add("fetchAndLock", when="before", action=answer)

    with pytest.raises(EngineMisconfigured, match="topicName") as refused:
        client.fetch_and_lock([TOPIC], 1)

    assert "s3cret" not in str(refused.value)


def test_a_named_engine_is_part_of_the_address(
    engine: SimulatedEngine, stopping: threading.Event
) -> None:
    """`/engine-rest/engine/{name}`; an unknown name is a mistake in the settings, no lost task."""

    def named(name: str) -> EngineClient:
        options = HttpOptions(f"{engine.url}/engine/{name}")
        return EngineClient(options, WORKER, stopping=stopping)

    assert named("default").tasks(["t"]).tasks == {}
    with pytest.raises(EngineMisconfigured):
        named("other").task("t")


# Who asks


class Listener:
    """An HTTP server that remembers requests and answers as a test says."""

    def __init__(self) -> None:
        self.requests: list[tuple[str, str, Message]] = []
        self.status = 200
        self.headers: dict[str, str] = {}
        self.body = b'{"version": "7.24.0"}'
        listener = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                listener.requests.append((self.command, self.path, self.headers))
                self.send_response(listener.status)
                for name, value in listener.headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(listener.body)))
                self.end_headers()
                self.wfile.write(listener.body)

            def log_message(self, *_: object) -> None:
                """The test sees the requests."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.02,), daemon=True
        )
        self._thread.start()

    def sent(self, header: str) -> list[str | None]:
        return [headers[header] for _, _, headers in self.requests]

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(5)


@pytest.fixture
def listener() -> Iterator[Listener]:
    listener = Listener()
    yield listener
    listener.close()


def http(listener: Listener, **options: Any) -> EngineHttp:
    return EngineHttp(HttpOptions(listener.url, **options), EngineClock(), threading.Event())


def test_basic_authentication_is_utf_8(listener: Listener) -> None:
    """Passwords have umlauts too."""
    http(listener, auth=Basic("demo", "geheimä")).once("GET", "/version")

    assert listener.sent("Authorization") == ["Basic ZGVtbzpnZWhlaW3DpA=="]


def test_the_engine_takes_the_credentials_or_says_401(stopping: threading.Event) -> None:
    """A wrong password pauses everything and is never repeated."""
    with SimulatedEngine(basic_auth=("demo", "demo")) as engine:

        def version(password: str) -> str:
            options = HttpOptions(engine.url, auth=Basic("demo", password))
            return EngineClient(options, WORKER, stopping=stopping).version()

        assert version("demo").startswith("7.")
        engine.calls.clear()
        with pytest.raises(EngineUnauthorized):
            version("wrong")
        assert len(engine.calls.of("version")) == 1


def test_a_fixed_token(listener: Listener) -> None:
    """As the settings have it."""
    http(listener, auth=Bearer("abc")).once("GET", "/version")

    assert listener.sent("Authorization") == ["Bearer abc"]


def test_a_token_file_is_read_again_when_it_changes(listener: Listener, tmp_path: Path) -> None:
    """Tokens live for minutes; a sidecar writes the next one."""
    path = tmp_path / "token"
    calls = http(listener, auth=BearerFile(path))

    for second, token in enumerate(("first\n", "second", "")):
        if token:
            path.write_text(token, encoding="utf-8")
            os.utime(path, (second, second))
        else:
            path.unlink()
        calls.once("GET", "/version")

    assert listener.sent("Authorization") == ["Bearer first", "Bearer second", "Bearer second"]


def test_a_password_file_is_read_again_when_it_changes(listener: Listener, tmp_path: Path) -> None:
    """A rotated secret needs no restart; an empty file is one that is being written."""
    path = tmp_path / "password"
    calls = http(listener, auth=BasicFile("demo", path))

    for second, password in enumerate(("old one\n", "new:ä\r\n", "")):
        path.write_text(password, encoding="utf-8", newline="")
        os.utime(path, (second, second))
        calls.once("GET", "/version")

    sent = [base64.b64decode(str(value).removeprefix("Basic ")) for value in listener.sent(AUTH)]
    assert sent == [b"demo:old one", *["demo:new:ä".encode()] * 2]


def test_a_password_file_that_never_was_there_is_told(listener: Listener, tmp_path: Path) -> None:
    """Without any password nothing is asked."""
    with pytest.raises(EngineMisconfigured, match="password_file"):
        http(listener, auth=BasicFile("demo", tmp_path / "missing")).once("GET", "/version")

    assert listener.requests == []


def test_a_token_file_that_never_was_there_is_told(listener: Listener, tmp_path: Path) -> None:
    """Without any token nothing is asked."""
    with pytest.raises(EngineMisconfigured, match="token_file"):
        http(listener, auth=BearerFile(tmp_path / "missing")).once("GET", "/version")

    assert listener.requests == []


@pytest.mark.parametrize("text", ["s3cret-one\ns3cret-two", "s3cret-\u2028-two", "s3cret-ä", "\n"])
def test_a_token_that_no_header_can_carry_is_told_and_not_quoted(
    listener: Listener, tmp_path: Path, text: str
) -> None:
    """An error that nobody expects would end the process at every start, the token in its log."""
    path = tmp_path / "token"
    path.write_text(text, encoding="utf-8")
    calls = http(listener, auth=BearerFile(path))

    for again in range(2):
        with pytest.raises(
            EngineMisconfigured, match=r"engine\.token_file is not one line"
        ) as told:
            calls.once("GET", f"/version?{again}")
        assert "s3cret" not in str(told.value)
    with pytest.raises(EngineMisconfigured, match=r"engine\.token is not one line"):
        http(listener, auth=Bearer(text)).once("GET", "/version")
    assert listener.requests == []


def test_a_rotated_token_that_no_header_can_carry_ends_with_the_next(
    listener: Listener, tmp_path: Path
) -> None:
    """Whoever corrects the file need not restart the bridge."""
    path = tmp_path / "token"
    calls = http(listener, auth=BearerFile(path))
    for second, (token, good) in enumerate((("one", True), ("a\nb", False), ("two", True))):
        path.write_text(token, encoding="utf-8")
        os.utime(path, (second, second))
        if good:
            calls.once("GET", "/version")
        else:
            with pytest.raises(EngineMisconfigured):
                calls.once("GET", "/version")

    assert listener.sent("Authorization") == ["Bearer one", "Bearer two"]


def test_extra_headers_are_sent_with_every_call(listener: Listener) -> None:
    """A gateway's key, for example."""
    calls = http(listener, headers={"X-Api-Key": "k"})
    calls.once("GET", "/version")
    calls.once("GET", "/version")

    assert listener.sent("X-Api-Key") == ["k", "k"]
    assert listener.sent("Accept") == ["application/json"] * 2


def test_credentials_of_the_environment_are_not_used(
    listener: Listener, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither a `.netrc` nor a proxy: what is sent where is settled in the settings."""
    netrc = tmp_path / ".netrc"
    netrc.write_text("machine 127.0.0.1 login me password secret", encoding="utf-8")
    monkeypatch.setenv("NETRC", str(netrc))
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")

    http(listener).once("GET", "/version")

    assert listener.sent("Authorization") == [None]


def test_redirects_are_not_followed(listener: Listener) -> None:
    """Credentials must not travel to an address that is not in the settings."""
    listener.status, listener.headers = 302, {"Location": f"{listener.url}/elsewhere"}

    with pytest.raises(EngineMisconfigured):
        http(listener).once("GET", "/version")

    assert [path for _, path, _ in listener.requests] == ["/version"]


def test_a_task_id_cannot_change_the_path(engine: SimulatedEngine, client: EngineClient) -> None:
    """A token is unproven until it is verified; an id with a slash stays one segment."""
    with pytest.raises(EngineError):
        client.complete("../../version?x=", {}, {})

    assert all("%2F" in call.path for call in engine.calls.of())


# Errors that name what to do


def test_the_refusals_of_a_task_are_told_apart(
    engine: SimulatedEngine, client: EngineClient, task: str, stopping: threading.Event
) -> None:
    """The engine answers 400 to all of them but the first."""
    other = EngineClient(HttpOptions(engine.url), "other", stopping=stopping)
    with pytest.raises(TaskGone):
        client.task("nothing")
    with pytest.raises(LockLost) as lost:
        other.complete(task, {}, {})
    assert lost.value.owner == WORKER
    engine.clock.advance(61)
    with pytest.raises(LockExpired):
        client.extend_lock(task, 60)
    client.unlock(task)
    with pytest.raises(LockLost) as free:
        client.complete(task, {}, {})
    assert free.value.owner is None


def test_a_suspended_task_is_told(engine: SimulatedEngine, client: EngineClient, task: str) -> None:
    """It waits; `lock` is what the engine still takes."""
    suspend(engine, client, task)

    with pytest.raises(TaskSuspended):
        client.extend_lock(task, 600)
    assert client.task(task).suspended
    client.lock(task, 600)


def suspend(engine: SimulatedEngine, client: EngineClient, task: str) -> None:
    instance = client.task(task).process_instance_id
    calls = EngineHttp(HttpOptions(engine.url), client.clock, threading.Event())
    calls.once("PUT", f"/process-instance/{instance}/suspended", {"suspended": True})


# What is asked and what comes back


def test_the_fetch_request_is_the_engines_own(
    engine: SimulatedEngine, client: EngineClient
) -> None:
    """Worker id, limits, order and topics; no time-out where nobody shall wait."""
    client.fetch_and_lock(
        [TOPIC], 7, use_priority=False, sorting=[{"sortBy": "createTime", "sortOrder": "asc"}]
    )

    [call] = engine.calls.of("fetchAndLock")
    assert call.body == {
        "workerId": WORKER,
        "maxTasks": 7,
        "usePriority": False,
        "topics": [TOPIC],
        "sorting": [{"sortBy": "createTime", "sortOrder": "asc"}],
    }


def test_durations_are_milliseconds_on_the_wire(
    engine: SimulatedEngine, client: EngineClient, task: str
) -> None:
    """Seconds here, milliseconds there."""
    client.extend_lock(task, 1.5)
    client.lock(task, 600)
    fail(client, task)

    assert engine.calls.of("extendLock")[0].body == {"workerId": WORKER, "newDuration": 1500}
    assert engine.calls.of("lock")[0].body == {"workerId": WORKER, "lockDuration": 600_000}
    assert engine.calls.of("failure")[0].body == {
        "workerId": WORKER,
        "errorMessage": "m",
        "errorDetails": "d",
        "retries": 2,
        "retryTimeout": 5000,
        "variables": {},
        "localVariables": {},
    }


def test_tasks_are_asked_for_in_bulk(engine: SimulatedEngine, client: EngineClient) -> None:
    """Some hundred ids a call; without `maxResults` the engine's own limit would cut the answer."""
    for _ in range(3):
        engine.start_process("p")
    real = [task["id"] for task in engine.tasks()]
    began = monotonic()

    observed = client.tasks([*(f"x{n}" for n in range(QUERY_IDS)), *real])

    assert set(observed.tasks) == set(real)
    calls = engine.calls.of("query")
    assert [len(c.body["externalTaskIdIn"]) for c in calls] == [QUERY_IDS, 3]
    assert calls[0].path.endswith(f"maxResults={QUERY_IDS}")
    assert began <= observed.asked <= monotonic()


def test_asking_for_no_task_asks_nothing(engine: SimulatedEngine, client: EngineClient) -> None:
    """An empty list of ids would mean every task of the engine."""
    assert client.tasks([]).tasks == {}
    assert engine.calls.of() == ()


def test_locked_tasks_are_found_by_their_expiry_page_by_page(
    engine: SimulatedEngine, client: EngineClient, stopping: threading.Event
) -> None:
    """A dead replica may leave thousands."""
    for _ in range(PAGE + 1):
        engine.start_process("p")
    client.fetch_and_lock([TOPIC], PAGE + 1)
    engine.start_process("p")
    EngineClient(HttpOptions(engine.url), "other", stopping=stopping).fetch_and_lock([TOPIC], 1)
    now = client.now()

    found = client.locked_between(now + 30, now + 90)

    assert len(found.tasks) == PAGE + 1
    assert len(engine.calls.of("query")) == 2
    assert client.locked_between(now + 90, now + 120).tasks == {}
    assert client.locked_between(now, now + 30).tasks == {}


def test_the_process_model_and_variables_of_the_instance(
    engine: SimulatedEngine, client: EngineClient, task: str
) -> None:
    """What progress reports and retry policies need."""
    found = client.task(task)
    assert found.process_definition_id is not None

    assert "serviceTask" in client.process_xml(found.process_definition_id)
    client.set_variables(found.process_instance_id, {"done": {"value": 5, "type": "Integer"}})
    [written] = engine.calls.of("writeVariables")
    assert written.body == {"modifications": {"done": {"value": 5, "type": "Integer"}}}


# Files


@pytest.fixture
def file_owner(engine: SimulatedEngine) -> str:
    """The execution of a task with a File variable `scan` of three bytes."""
    info = {"filename": "scan.pdf", "mimeType": "application/pdf"}
    engine.start_process("p", {"scan": {"value": "YWJj", "type": "File", "valueInfo": info}})
    return str(engine.tasks()[-1]["executionId"])


def test_a_file_is_read_up_to_the_limit(client: EngineClient, file_owner: str) -> None:
    """Inline in the message where it is small, else by its address."""
    assert client.file_contents(file_owner, "scan", 3) == b"abc"
    assert client.file_contents(file_owner, "scan", 2) is None


def test_a_large_file_is_not_read_to_its_end(listener: Listener) -> None:
    """A gigabyte must not pass through the memory only to be left out."""
    listener.body = b"x" * 1_000_000

    assert http(listener).download("/data", 100) is None
    assert http(listener).download("/data", 1_000_000) == listener.body


def test_a_file_that_is_not_there_is_told(client: EngineClient, file_owner: str) -> None:
    """The caller sends the task without it."""
    with pytest.raises(EngineError):
        client.file_contents(file_owner, "other", 100)


def test_a_download_without_an_answer_is_told(
    engine: SimulatedEngine, client: EngineClient, file_owner: str
) -> None:
    """As every call's."""
    engine.faults.add("variableData", when="response", action=Drop())

    with pytest.raises(EngineUnavailable):
        client.file_contents(file_owner, "scan", 100)


def test_the_address_of_a_file_quotes_its_name() -> None:
    """Variable names may hold slashes and spaces."""
    assert file_address("http://e", "x1", "a/b c") == (
        "http://e/process-instance/x1/variables/a%2Fb%20c/data"
    )


# The engine's time


@pytest.mark.parametrize(
    ("date", "seconds"),
    [
        ("2026-01-01T00:00:00.678+0000", 1_767_225_600.678),
        ("2026-01-01T02:00:00.000+0200", 1_767_225_600.0),
        ("+10026-01-01T00:00:00.000+0000", math.inf),
        ("10026-01-01T00:00:00.000+0000", math.inf),
    ],
)
def test_the_engines_dates_are_read(date: str, seconds: float) -> None:
    """A careless duration can reach the year 10000, which Python has not."""
    assert engine_seconds(date) == pytest.approx(seconds)


@pytest.mark.parametrize("date", ["", "soon", "01/02/2026"])
def test_dates_in_another_form_are_told(date: str) -> None:
    """The engine can be configured to write its own: without dates no lock can be judged."""
    with pytest.raises(EngineMisconfigured, match="dates"):
        engine_seconds(date)


def test_the_engines_time_is_its_date_header_carried_on(
    engine: SimulatedEngine, client: EngineClient
) -> None:
    """The local wall clock may be wrong by years; only the engine's dates count."""
    engine.clock.set_offset(-365 * 86_400)

    now = client.now()

    assert 0 <= engine.clock.now_ms() / 1000 - now < 1.5
    assert client.clock.now(monotonic() + 60) - now == pytest.approx(60, abs=0.5)


def test_the_clock_follows_the_engine(engine: SimulatedEngine, client: EngineClient) -> None:
    """Each answer sets it anew: a step of the engine's clock is seen with the next call."""
    client.version()
    engine.clock.advance(3600)

    client.version()

    assert 0 <= engine.clock.now_ms() / 1000 - client.now() < 1.5


def test_the_window_of_a_lock_holds_what_the_engine_shows(
    engine: SimulatedEngine, client: EngineClient, task: str
) -> None:
    """The check before the next renewal compares these two, whatever the fraction of a second."""
    for seconds in (60, 61.3, 600):
        engine.clock.advance(0.37)
        window = client.extend_lock(task, seconds)
        expires = client.task(task).lock_expires

        assert expires is not None
        assert window.holds(expires)
        assert window.latest - window.earliest < 2


def test_a_window_is_as_wide_as_the_call_was_long() -> None:
    """Somewhere in it, the lock was set."""
    new_year = 1_767_225_600

    window = lock_window(60, dated=new_year, took=2.0)

    assert (window.earliest, window.latest) == (new_year - 2 + 60, new_year + 1 + 60)


def test_a_clock_that_nobody_set_refuses_to_guess() -> None:
    """Without the engine's time no lock can be judged."""
    clock = EngineClock()

    assert not clock.is_set
    with pytest.raises(EngineMisconfigured, match="Date"):
        clock.now()
    with pytest.raises(EngineMisconfigured, match="Date"):
        clock.observe(None, at=1.0)


def test_an_answer_without_a_date_leaves_the_clock_as_it_was() -> None:
    """A proxy may drop the header now and then."""
    clock = EngineClock()
    clock.observe("Thu, 01 Jan 2026 00:00:00 GMT", at=100.0)

    assert clock.observe(None, at=110.0) == 1_767_225_610


@pytest.mark.parametrize("date", ["", "soon", "2026-01-01T00:00:00Z"])
def test_a_date_that_is_none_counts_as_missing(date: str) -> None:
    """A broken proxy must not kill the loop that asked."""
    with pytest.raises(EngineMisconfigured):
        EngineClock().observe(date, at=1.0)


def test_the_name_of_the_engine_is_resolved_for_each_connection(
    monkeypatch: pytest.MonkeyPatch, stopping: threading.Event
) -> None:
    """After a failover the old address is dead: nobody has to restart the bridge."""
    with SimulatedEngine() as old, SimulatedEngine() as new:
        port = {"old": urlsplit(old.url).port, "new": urlsplit(new.url).port}
        points_to = ["old"]
        resolve = socket.getaddrinfo

        def getaddrinfo(host: str, asked: Any, *rest: Any, **more: Any) -> Any:
            here = host == "engine.test"
            found = resolve("127.0.0.1" if here else host, asked, *rest, **more)
            return [
                (*entry[:4], (entry[4][0], port[points_to[0]])) if here else entry
                for entry in found
            ]

        monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
        options = HttpOptions("http://engine.test/engine-rest", connect_timeout=1)
        client = EngineClient(options, WORKER, stopping=stopping)
        client.version()
        old.stop()
        points_to[0] = "new"

        assert client.version()
        assert (len(old.calls.of("version")), len(new.calls.of("version"))) == (1, 1)
