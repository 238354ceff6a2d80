"""The status server: what an orchestrator and Prometheus read."""

from __future__ import annotations

import json
import socket
import struct
from collections.abc import Iterator
from http.client import HTTPConnection, HTTPResponse

import pytest

from bridge.metrics import Metrics
from bridge.status import StatusServer


class Status:
    """A server whose problems a test sets."""

    def __init__(self) -> None:
        self.problems: dict[str, str] = {}
        self.metrics = Metrics()
        self.server = StatusServer("127.0.0.1", 0, self.metrics.registry, lambda: self.problems)

    def get(self, path: str, method: str = "GET") -> tuple[HTTPResponse, str]:
        connection = HTTPConnection("127.0.0.1", self.server.port, timeout=5)
        try:
            connection.request(method, path)
            response = connection.getresponse()
            return response, response.read().decode()
        finally:
            connection.close()


@pytest.fixture
def status() -> Iterator[Status]:
    status = Status()
    status.server.start()
    yield status
    status.server.stop()


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
    assert "/live, /ready and /metrics" in body


def test_other_methods_are_refused(status: Status) -> None:
    """Nothing can be changed here."""
    response, _ = status.get("/ready", "POST")

    assert response.status == 501


def test_a_client_that_hangs_up_leaves_no_trace(
    status: Status, capfd: pytest.CaptureFixture[str]
) -> None:
    """Standard error is the log, one line an event, and a port scan is none."""
    for request in (b"GET /metrics HTTP/1.0\r\n\r\n", b"\x16\x03\x01\x00\xff\xfe\r\n\r\n", b""):
        with socket.create_connection(("127.0.0.1", status.server.port), timeout=5) as client:
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
