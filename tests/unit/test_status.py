"""The status server: who is answered, and how."""

from __future__ import annotations

import json
import re
import socket
import struct
import threading
from base64 import b64encode
from collections.abc import Iterator, Mapping
from hashlib import sha256
from http.client import HTTPConnection, HTTPResponse, RemoteDisconnected
from typing import Any

import pytest
from structlog.testing import capture_logs

import bridge.status.server
from bridge.metrics import Metrics
from bridge.status import Explained, NotAnswered, StatusServer
from bridge.status.page import page, with_policy
from tests.support.waiting import eventually

LIMIT = 30.0


class Status:
    """A server whose problems a test sets; `/echo.json` shows how it was asked."""

    def __init__(self, host: str = "127.0.0.1") -> None:
        self.problems: dict[str, str] = {}
        self.metrics = Metrics()
        self.host = host
        self.server = StatusServer(
            host,
            0,
            self.metrics.registry,
            lambda: self.problems,
            {"/echo.json": dict, "/refused.json": refuse, "/broken.json": lambda _: 1 / 0},
        )

    def get(self, path: str, method: str = "GET", **headers: str) -> tuple[HTTPResponse, str]:
        """`headers` with underscores for hyphens."""
        connection = HTTPConnection("127.0.0.1", self.server.port, timeout=LIMIT)
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        try:
            connection.request(method, path, headers=sent)
            response = connection.getresponse()
            return response, response.read().decode()
        finally:
            connection.close()


def refuse(_: Mapping[str, str]) -> Any:
    raise NotAnswered(503, "ask later")


@pytest.fixture(scope="module")
def served() -> Iterator[Status]:
    """One for the module: a stop takes half a second."""
    status = Status()
    status.server.start()
    yield status
    status.server.stop()


@pytest.fixture
def status(served: Status) -> Status:
    served.problems.clear()
    return served


def test_live_says_that_the_process_answers(status: Status) -> None:
    """It stays so while the engine is away: a restart would not help."""
    status.problems["engine"] = "away"

    response, body = status.get("/live")

    assert (response.status, body) == (200, "alive\n")


def test_ready_is_200_without_problems(status: Status) -> None:
    """An empty list of problems is the proof."""
    response, body = status.get("/ready?verbose=1")

    assert response.status == 200
    assert json.loads(body) == {"ready": True, "problems": {}}
    assert response.headers["Content-Type"] == "application/json"


def test_ready_is_503_with_the_problems_by_part(status: Status) -> None:
    """The operator's first question is answered where the probe looks."""
    status.problems["queue pay"] = "404 NOT_FOUND"

    response, body = status.get("/ready")

    assert response.status == 503
    assert json.loads(body) == {"ready": False, "problems": {"queue pay": "404 NOT_FOUND"}}


def test_metrics_are_counted_by_topic_and_event(status: Status) -> None:
    """Never by task: labels must stay few."""
    status.metrics.count("pay", "completed", 3)
    status.metrics.count("pay", "completed")

    response, body = status.get("/metrics")

    assert response.status == 200
    assert response.headers["Content-Type"].startswith("text/plain")
    assert 'bridge_tasks_total{event="completed",topic="pay"} 4.0' in body
    assert status.metrics.value("pay", "completed") == 4
    assert status.metrics.value("pay", "failed") == 0


def test_another_path_is_404_and_names_the_right_ones(status: Status) -> None:
    """Whoever mistypes it learns what there is."""
    response, body = status.get("/health")

    assert response.status == 404
    assert "/live, /ready, /metrics, /" in body


def test_other_methods_are_refused(status: Status) -> None:
    """Nothing can be changed here."""
    response, _ = status.get("/ready", "POST")

    assert response.status == 501


def test_a_client_that_hangs_up_leaves_no_trace(
    status: Status, capfd: pytest.CaptureFixture[str]
) -> None:
    """Standard error is the log, one line an event, and a port scan is none."""
    for request in (b"GET /metrics HTTP/1.0\r\n\r\n", b"\x16\x03\x01\x00\xff\xfe\r\n\r\n", b""):
        with socket.create_connection(("127.0.0.1", status.server.port), timeout=LIMIT) as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            client.sendall(request)

    response, _ = status.get("/live")

    assert response.status == 200
    assert response.headers["Server"].strip() == "external-task-bridge"
    assert "Traceback" not in capfd.readouterr().err


def test_a_taken_port_is_an_error_at_the_start(status: Status) -> None:
    """Found before anything runs, so that the settings can be corrected."""
    with pytest.raises(OSError, match="in use"):
        StatusServer("127.0.0.1", status.server.port, status.metrics.registry, dict)


def test_after_stop_nobody_listens() -> None:
    """A probe must fail at once, not hang."""
    status = Status()
    status.server.start()
    assert status.get("/live")[0].status == 200

    status.server.stop()

    with pytest.raises(ConnectionRefusedError):
        status.get("/live")


# -- documents and the page --------------------------------------------------------------------


def test_a_document_gets_the_fields_of_the_query(status: Status) -> None:
    """Percent-encoded, as a business key may be anything."""
    response, body = status.get("/echo.json?key=4%2F7%20%C3%A9&topic=")

    assert response.status == 200
    assert response.headers["Content-Type"] == "application/json"
    assert json.loads(body) == {"key": "4/7 \u00e9", "topic": ""}


def test_a_document_that_cannot_be_had_says_why(status: Status) -> None:
    """In JSON, since whoever asks for JSON reads JSON."""
    response, body = status.get("/refused.json")

    assert response.status == 503
    assert json.loads(body) == {"error": "ask later"}


def test_too_many_fields_are_no_query(status: Status) -> None:
    """Parsing is bounded."""
    response, body = status.get("/echo.json?" + "&".join(f"f{n}=1" for n in range(100)))

    assert response.status == 400
    assert "query" in json.loads(body)["error"]


def test_a_document_that_fails_is_said_in_the_log(status: Status) -> None:
    """A defect of ours is not taken for a client that hung up, and the next request is answered."""
    with capture_logs() as logged, pytest.raises(RemoteDisconnected):
        status.get("/broken.json")

    assert status.get("/live")[0].status == 200
    assert "status request failed" in [line["event"] for line in logged]


@pytest.mark.parametrize("path", ["/live", "/ready", "/metrics", "/", "/echo.json?a=1", "/none"])
def test_head_is_get_without_the_body(status: Status, path: str) -> None:
    """What a load balancer asks."""
    got, body = status.get(path)
    head, nothing = status.get(path, "HEAD")

    assert (head.status, nothing) == (got.status, "")
    assert head.headers["Content-Type"] == got.headers["Content-Type"]
    if path != "/metrics":  # whose numbers go on
        assert int(head.headers["Content-Length"]) == len(body.encode())


@pytest.mark.parametrize("path", ["/", "/ready", "/metrics", "/echo.json", "/none"])
def test_every_answer_is_for_this_moment_and_this_site_alone(status: Status, path: str) -> None:
    """Nobody keeps it, frames it, or reads a script into it."""
    headers = status.get(path)[0].headers

    assert headers["Cache-Control"] == "no-store"
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["X-Frame-Options"] == "DENY"
    assert headers["Cross-Origin-Resource-Policy"] == "same-origin"
    assert headers["Content-Security-Policy"].startswith("default-src 'none'")
    assert "Access-Control-Allow-Origin" not in headers


def test_the_page_runs_only_what_stands_in_it(status: Status) -> None:
    """A script that got in by a topic's name would not run, and nothing is fetched elsewhere."""
    response, body = status.get("/")

    assert response.status == 200
    assert response.headers["Content-Type"] == "text/html; charset=utf-8"
    policy = response.headers["Content-Security-Policy"]
    assert "unsafe" not in policy
    assert "connect-src 'self'" in policy
    inline = re.findall(r"<(?:script|style)>(.*?)</(?:script|style)>", body, re.DOTALL)
    assert len(inline) >= 2
    for text in inline:
        assert b64encode(sha256(text.encode()).digest()).decode() in policy
    assert "http://" not in body.replace("http://www.w3.org/", "")
    assert "https://" not in body


def test_the_policy_of_a_page_names_scripts_and_styles_apart() -> None:
    """A style may not run as a script."""
    made = with_policy(b"<style>a</style><script>b</script><script>c</script><p>d</p>")

    assert made.policy.count("'sha256-") == 3
    scripts = re.search(r"script-src ([^;]*);", made.policy)
    assert scripts is not None
    assert scripts[1].count("'sha256-") == 2
    assert "script-src 'none'; style-src 'none'" in with_policy(b"<p>plain</p>").policy


def test_the_page_is_part_of_the_package() -> None:
    """An installed bridge has it too."""
    assert page().body.lstrip().lower().startswith(b"<!doctype html>")


# -- who is answered ---------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["localhost", "localhost:9464", "127.0.0.1:1", "[::1]:9464"])
@pytest.mark.parametrize("path", ["/", "/echo.json"])
def test_a_loopback_name_is_answered(status: Status, host: str, path: str) -> None:
    """Also through a forwarded port, whatever its number."""
    assert status.get(path, Host=host)[0].status == 200


@pytest.mark.parametrize("host", ["evil.example", "localhost.evil.example:9464", "10.0.0.1", "[::"])
@pytest.mark.parametrize("path", ["/", "/echo.json"])
def test_a_foreign_name_for_loopback_is_refused(status: Status, host: str, path: str) -> None:
    """A site whose name was made to point here would read what this machine alone may see."""
    response, body = status.get(path, Host=host)

    assert response.status == 421
    assert "localhost" in json.loads(body)["error"]


@pytest.mark.parametrize("path", ["/live", "/ready", "/metrics"])
def test_probes_may_call_it_by_any_name(status: Status, path: str) -> None:
    """A probe or a scraper knows the bridge by the name that its network gave it."""
    assert status.get(path, Host="bridge.internal")[0].status == 200


def test_an_address_for_others_may_have_any_name() -> None:
    """In a container nobody can know by which name it is reached."""
    status = Status("0.0.0.0")
    status.server.start()
    try:
        assert status.get("/echo.json", Host="bridge.internal:9464")[0].status == 200
    finally:
        status.server.stop()


def test_a_page_of_another_site_is_refused_the_documents(status: Status) -> None:
    """It could not read them, but it could have the engine asked again and again."""
    assert status.get("/echo.json", Sec_Fetch_Site="cross-site")[0].status == 403
    assert status.get("/echo.json", Sec_Fetch_Site="same-origin")[0].status == 200
    assert status.get("/", Sec_Fetch_Site="cross-site")[0].status == 200  # a link leads here


def test_loopback_of_version_six_is_served() -> None:
    """`[::1]:9464` is an address as good as any."""
    try:
        server = StatusServer("::1", 0, Metrics().registry, dict)
    except OSError as error:
        pytest.skip(f"no IPv6 here: {error}")
    server.start()
    try:
        connection = HTTPConnection("::1", server.port, timeout=LIMIT)
        connection.request("GET", "/live")
        assert connection.getresponse().status == 200
        connection.close()
    finally:
        server.stop()


# -- who keeps it waiting ----------------------------------------------------------------------


def test_a_client_that_dribbles_is_cut_off(status: Status, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever sends a byte now and then is never silent, and must not hold a thread for ever."""
    monkeypatch.setattr(bridge.status.server, "REQUEST_SECONDS", 0.5)
    with socket.create_connection(("127.0.0.1", status.server.port), timeout=LIMIT) as client:
        client.sendall(b"GET /live HTTP/1.0\r\n")

        def cut() -> bool:
            try:
                client.sendall(b"X")
            except OSError:
                return True
            return False

        eventually(cut, LIMIT, what="cut off")


def test_many_idle_clients_do_not_pile_up(status: Status) -> None:
    """What is beyond the limit is hung up on at once; those that are in are not disturbed."""
    limit = bridge.status.server.CONNECTIONS_MAX
    idle = [
        socket.create_connection(("127.0.0.1", status.server.port), timeout=LIMIT)
        for _ in range(limit)
    ]

    def refused() -> bool:
        try:
            return status.get("/live")[0].status != 200
        except OSError:
            return True

    eventually(refused, LIMIT, what="one more is refused")
    for client in idle:
        client.close()
    eventually(lambda: not refused(), LIMIT, what="answered again")


# -- /why.json ---------------------------------------------------------------------------------


@pytest.mark.parametrize("query", [{}, {"key": ""}, {"key": "  "}, {"key": "x" * 256}])
def test_why_wants_a_key(query: dict[str, str]) -> None:
    """The engine is not asked about nothing."""
    explained = Explained(lambda _: pytest.fail("asked"))

    with pytest.raises(NotAnswered, match="wanted") as refused:
        explained.document(query)

    assert refused.value.status == 400


def test_one_key_at_a_time_is_looked_up() -> None:
    """However many ask, the engine has one of them to bear; the others are told to come again."""
    began, done = threading.Event(), threading.Event()

    def explain(key: str) -> dict[str, Any]:
        began.set()
        done.wait(LIMIT)
        return {"key": key}

    explained, answers = Explained(explain), []
    first = threading.Thread(target=lambda: answers.append(explained.document({"key": " a "})))
    first.start()
    assert began.wait(LIMIT)

    with pytest.raises(NotAnswered, match="in a moment") as refused:
        explained.document({"key": "b"})
    done.set()
    first.join(LIMIT)

    assert refused.value.status == 503
    assert answers == [{"key": "a"}]
    assert explained.document({"key": "b"}) == {"key": "b"}
