"""What `check` concludes from what it has read: its rules, without a network.

The looks themselves are proved in tests/acceptance/test_check.py.
"""

from __future__ import annotations

import json
import os
import pty
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any, ClassVar, Self

import pytest

from bridge.broker import Exchange, Queue
from bridge.broker.inspect import Inspector, QueueSize, Refusal
from bridge.check import advice, broker, differences, engine, rights
from bridge.check.findings import Finding, as_json, as_text, exit_code, ok, problem, warning
from bridge.check.rights import ToDo
from bridge.management import Management, ManagementDenied, ManagementUnavailable
from bridge.settings import Settings, load
from bridge.simulated_engine import Answer, SimulatedEngine
from tests.support.bridge import toml

TASKS = Queue(
    "pay",
    {
        "x-queue-type": "quorum",
        "x-overflow": "reject-publish",
        "x-delivery-limit": 20,
        "x-dead-letter-exchange": "bridge.dead",
        "x-dead-letter-strategy": "at-least-once",
    },
    lane="pay",
)


def given(tmp_path: Path, text: str = "[topics.pay]") -> Settings:
    """The settings of a file with this text, without a status server."""
    config = tmp_path / "bridge.toml"
    config.write_text(f"{text}\n[status]\nlisten = ''\n")
    return load(config, {})


def warnings(findings: Iterator[Finding]) -> dict[str, Finding]:
    """By key; nothing else but fine findings may be there."""
    found = list(findings)
    assert {finding.mark for finding in found} <= {"ok", "warning"}
    return {finding.key: finding for finding in found if finding.mark == "warning"}


# -- the settings alone ----------------------------------------------------------------------


def test_safe_settings_bring_no_warning(tmp_path: Path) -> None:
    """A warning that everybody gets is read by nobody."""
    key = tmp_path / "key"
    key.write_text("k" * 32)

    settings = given(tmp_path, f"token_key_file = '{key}'\n[topics.pay]")

    assert warnings(advice.look(settings)) == {}


def test_unsigned_correlation_ids_are_pointed_out(tmp_path: Path) -> None:
    """Without the key any worker can finish any task, and nobody sees it."""
    assert "openssl rand" in warnings(advice.look(given(tmp_path)))["token_key_file"].cure


@pytest.mark.parametrize(("host", "warned"), [("rabbit.shop", True), ("127.0.0.1", False)])
def test_guest_on_another_host_is_pointed_out(tmp_path: Path, host: str, warned: bool) -> None:
    """RabbitMQ refuses it by default, and where it does not, everybody knows the password."""
    text = f"[broker]\nurl = 'amqp://guest:guest@{host}/'\n[topics.pay]"

    assert ("broker.username" in warnings(advice.look(given(tmp_path, text)))) is warned


@pytest.mark.parametrize(
    ("url", "credentials", "warned"),
    [
        ("http://engine.shop/engine-rest", "username = 'u'\npassword = 'p'", True),
        ("http://engine.shop/engine-rest", "token = 't'", True),
        ("http://engine.shop/engine-rest", "[engine.headers]\nAuthorization = 'x'", True),
        ("http://engine.shop/engine-rest", "", False),
        ("https://engine.shop/engine-rest", "token = 't'", False),
        ("http://localhost:8080/engine-rest", "token = 't'", False),
        ("http://[::1]:8080/engine-rest", "token = 't'", False),
    ],
)
def test_credentials_in_the_clear_are_pointed_out(
    tmp_path: Path, url: str, credentials: str, warned: bool
) -> None:
    """Whoever sees them can finish every task of the engine."""
    text = f"[engine]\nurl = '{url}'\n{credentials}\n[topics.pay]"

    assert ("engine.url" in warnings(advice.look(given(tmp_path, text)))) is warned


def test_a_stop_shorter_than_a_poll_is_pointed_out(tmp_path: Path) -> None:
    """A stop that waits for a poll in vain ends with exit code 1."""
    text = "stop_grace = '5s'\n[engine]\npoll_timeout = '30s'\n[topics.pay]"

    assert '"1m"' in warnings(advice.look(given(tmp_path, text)))["stop_grace"].cure


def test_too_many_renewals_name_a_lease_that_mends_it(tmp_path: Path) -> None:
    """The cure is taken at its word: with the lease it names, the warning is gone."""
    text = "[topic_defaults]\nmax_in_flight = 5000\n[topics.a]\n[topics.b]\n"
    found = warnings(advice.look(given(tmp_path, text)))["topic_defaults.lease"]
    assert "33 locks a second" in found.text  # 2 topics x 5000 / (600 s / 2)

    lease = re.search(r'lease = "(\w+)"', found.cure)
    assert lease is not None
    mended = given(tmp_path, text.replace("5000", f'5000\nlease = "{lease[1]}"'))

    assert "topic_defaults.lease" not in warnings(advice.look(mended))


def test_topics_that_await_no_answer_need_no_renewals(tmp_path: Path) -> None:
    """They are completed when the broker has the message."""
    text = "[topic_defaults]\nmax_in_flight = 50000\nreply = 'none'\n[topics.a]"

    assert set(warnings(advice.look(given(tmp_path, text)))) == {"token_key_file"}


def test_different_leases_grow_alike(tmp_path: Path) -> None:
    """Whoever chose a longer lease for one topic had a reason."""
    text = "[topics.a]\nlease = '10m'\n[topics.b]\nlease = '30m'"

    better = advice.better_leases(given(tmp_path, text).topics, 1.55)

    assert better == {"a": timedelta(minutes=16), "b": timedelta(minutes=47)}


def test_a_taken_status_port_is_a_warning_and_a_foreign_address_a_problem(tmp_path: Path) -> None:
    """The port may be this bridge's own; an address of another machine never is."""
    settings = given(tmp_path)
    with closing(socket.create_server(("127.0.0.1", 0))) as other:
        marks = {}
        for listen in (f"127.0.0.1:{other.getsockname()[1]}", "192.0.2.1:9464", "127.0.0.1:0"):
            status = settings.status.model_copy(update={"listen": listen})
            found = advice.look(settings.model_copy(update={"status": status}))
            marks[listen] = [f.mark for f in found if f.key == "status.listen"]

    assert list(marks.values()) == [["warning"], ["problem"], []]


class EmptyBroker(Inspector):
    """Lets everybody in, and has nothing."""

    vhost = "/"

    def __init__(self) -> None:
        pass

    def exchange(self, name: str) -> bool:
        return False

    def queue(self, name: str) -> None:
        return None


def test_what_is_to_be_declared_is_told_by_kind(tmp_path: Path) -> None:
    """An exchange may have the name of a queue, and one of them be there already."""
    settings = given(tmp_path, "[topics.pay]")

    first, *_ = broker._Look(settings, EmptyBroker(), None).everything()

    assert "at the start: exchanges bridge.results, " in first.text
    assert first.text.count("bridge.wait") == 2
    assert first.text.endswith(", pay, pay.results")
    assert "; queues bridge." in first.text


# -- rights ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pattern", "lacking"),
    [
        (".*", []),
        ("", ["bridge.wait", "pay"]),  # RabbitMQ reads nothing as ^$
        ("^$", ["bridge.wait", "pay"]),
        ("ridge", ["pay"]),  # patterns are not anchored
        ("^(bridge|pay$)", []),
    ],
)
def test_names_are_matched_as_rabbitmq_does(pattern: str, lacking: list[str]) -> None:
    """A pattern judged in another way is worse than one not judged."""
    assert rights.lacking_names({"pay", "bridge.wait"}, pattern) == lacking


def test_where_everything_exists_nothing_is_configured(tmp_path: Path) -> None:
    """Who declares the topology by other means gives the bridge no right to."""
    needs = rights.needed(given(tmp_path), ToDo())

    assert needs["configure"] == set()
    assert needs["write"] == {"amq.default", "bridge.wait", "bridge.gone"}
    assert needs["read"] == {"pay.results", "bridge.dead-letters"}


def test_declaring_and_binding_need_rights_on_both_sides(tmp_path: Path) -> None:
    """A dead-letter exchange needs write there and read here, a binding the same crosswise."""
    needs = rights.needed(
        given(tmp_path), ToDo([TASKS], [("pay.results", "bridge.results", "pay")])
    )

    assert needs["configure"] == {"pay"}
    assert {"bridge.dead", "pay.results"} <= needs["write"]
    assert {"pay", "bridge.results"} <= needs["read"]


def test_a_pattern_that_cannot_be_read_is_not_judged() -> None:
    """Erlang knows patterns that Python does not."""
    needs = {"configure": {"pay"}}

    [found] = rights.findings(needs, {"configure": r"\Qpay\E"}, "bob")

    assert found.mark == "warning"
    assert "'pay'" in found.cure


# -- differences -----------------------------------------------------------------------------


def test_a_queue_as_the_bridge_would_declare_it_differs_in_nothing() -> None:
    """Otherwise every second start of `check` would warn."""
    found = {"arguments": dict(TASKS.arguments), "durable": True, "type": "quorum"}

    assert list(differences.of_queue(TASKS, found, "topics.pay.queue")) == []


def test_a_policy_counts_like_arguments() -> None:
    """Platform teams set dead-lettering by policy, not by declaration."""
    found = {
        "arguments": {"x-queue-type": "quorum"},
        "type": "quorum",
        "effective_policy_definition": {
            name.removeprefix("x-"): value for name, value in TASKS.arguments.items()
        },
    }

    assert list(differences.of_queue(TASKS, found, "topics.pay.queue")) == []


def test_a_classic_queue_says_what_it_lacks_and_what_that_means() -> None:
    """The operator decides by what happens, not by names of arguments."""
    found = {"arguments": {}, "durable": False, "auto_delete": True, "type": "classic"}

    [finding] = differences.of_queue(TASKS, found, "topics.pay.queue")

    assert (finding.mark, finding.key) == ("warning", "topics.pay.queue")
    for part in ("'classic', not 'quorum'", "vanishes", "durable: false", "auto_delete: true"):
        assert part in finding.text
    assert "x-dead-letter-strategy" not in finding.text  # nothing to have a strategy for


def test_a_result_queue_without_dead_letters_says_what_is_lost() -> None:
    """What the bridge cannot read at all it rejects: without a way to the parking queue, gone."""
    results = {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": "bridge.parked"}
    queue = Queue("pay.results", {**TASKS.arguments, **results}, lane="pay")
    found = {"arguments": {"x-queue-type": "quorum"}, "type": "quorum"}

    [finding] = differences.of_queue(queue, found, "topics.pay")

    assert finding.mark == "warning"
    assert "an unreadable message vanishes there instead of being parked" in finding.text
    assert "task waits" not in finding.text


@pytest.mark.parametrize(
    ("version", "found", "warned"),
    [
        ((3, 13), {"name": "bridge.parked"}, False),
        ((4, 0), {"name": "bridge.parked"}, True),
        ((4, 1), {"effective_policy_definition": {"delivery-limit": -1}}, False),
    ],
)
def test_a_parking_queue_that_loses_messages_is_pointed_out(
    version: tuple[int, ...], found: dict[str, Any], warned: bool
) -> None:
    """RabbitMQ 4 counts each look at a message; the policy that mends it is no difference."""
    parked = Queue("bridge.parked", {"x-queue-type": "quorum"})
    found = {**found, "type": "quorum"}

    findings = list(differences.of_limit(parked, found, version))

    assert [finding.mark for finding in findings] == ["warning"] * warned
    assert all("delivery-limit" in f.cure and r"^bridge\.parked$" in f.cure for f in findings)
    assert list(differences.of_queue(parked, found, "broker.prefix")) == []


def test_an_exchange_of_another_type_is_a_problem() -> None:
    """Unlike a queue it cannot be used as it is: it routes elsewhere."""
    part = Exchange("bridge.dead", "fanout")

    by_http = list(differences.of_exchange(part, {"type": "topic"}, "broker.prefix"))
    refusal = Refusal(406, "PRECONDITION_FAILED - inequivalent arg 'type' for exchange")
    by_amqp = list(differences.of_refusal(part, refusal, "broker.prefix"))

    assert [finding.mark for finding in by_http + by_amqp] == ["problem", "problem"]


def test_no_right_to_declare_what_exists_is_no_difference() -> None:
    """The bridge then uses it as it is."""
    refusal = Refusal(403, "ACCESS_REFUSED - access to queue 'pay' refused")

    assert list(differences.of_refusal(TASKS, refusal, "topics.pay.queue")) == []


# -- a queue of Celery's -----------------------------------------------------------------------


class Broker(Inspector):
    """A RabbitMQ with these classic queues, every exchange, and no management API."""

    def __init__(self, **queues: QueueSize) -> None:
        self.address, self.vhost, self._queues = "rabbit:5672", "/", queues

    def open(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing to close."""

    def queue(self, name: str) -> QueueSize | None:
        return self._queues.get(name)

    def exchange(self, name: str) -> bool:
        return True

    def compare(self, part: Exchange | Queue) -> Refusal | None:
        text = f"PRECONDITION_FAILED - inequivalent arg 'x-queue-type' for queue '{part.name}'"
        return Refusal(406, text) if isinstance(part, Queue) else None


def of_queue(
    patch: pytest.MonkeyPatch, directory: Path, keys: str, there: Broker
) -> list[tuple[str, str]]:
    """Mark, and text with cure, of all that is found on topic pay's queue."""
    patch.setattr(broker, "inspectors", lambda _: [there])
    found = broker.look(given(directory, keys))
    return [(f.mark, f"{f.text}; {f.cure}") for f in found if f.key == "topics.pay.queue"]


CELERY = "[topics.pay]\nqueue = 'charges'\nreply = 'celery'\ncelery_task = 'app.charge'\n"
BEFORE = "[broker]\ndeclare = '{}'\n"


def test_a_queue_that_celery_has_not_made_yet_is_pointed_out(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Once the bridge has declared it, Celery does not start, and says only PRECONDITION_FAILED."""
    [found] = of_queue(monkeypatch, tmp_path, CELERY, Broker())
    fixed = CELERY + "exchange = 'charges'\nrouting_key = 'charges'\n"

    assert found[0] == "warning"
    assert "Celery does not start" in found[1]
    assert 'set exchange and routing_key to "charges"' in found[1]
    assert of_queue(monkeypatch, tmp_path, fixed, Broker()) == []
    assert of_queue(monkeypatch, tmp_path, "[topics.pay]\nqueue = 'charges'", Broker()) == []


def test_where_the_bridge_declares_nothing_celery_has_to(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """`declare = "missing"` would be the wrong cure."""
    keys = BEFORE.format("passive") + CELERY

    [found] = of_queue(monkeypatch, tmp_path, keys, Broker())

    assert found[0] == "problem"
    assert "start Celery" in found[1]
    assert "declare" not in found[1]


def test_celerys_own_queue_is_left_as_it_is(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Deleted and declared anew by the bridge, as others should be, it would keep Celery out."""
    theirs = Broker(charges=QueueSize(messages=0, consumers=1))
    idle = Broker(charges=QueueSize(messages=0, consumers=0))

    [_, differs] = of_queue(monkeypatch, tmp_path, CELERY, theirs)
    [nobody, _] = of_queue(monkeypatch, tmp_path, CELERY, idle)
    [_, of_others] = of_queue(monkeypatch, tmp_path, "[topics.pay]\nqueue = 'charges'", theirs)

    assert "leave it" in differs[1]
    assert '"dead-letter-exchange": "bridge.dead"' in differs[1]
    assert "PRECONDITION_FAILED, delete the queue" in nobody[1]
    assert "delete it while the bridge is stopped" in of_others[1]


# -- the engine ------------------------------------------------------------------------------


@pytest.mark.parametrize(("version", "warned"), [("7.20.0", True), ("7.21.0", False)])
def test_an_engine_without_creation_times_is_pointed_out(
    tmp_path: Path, version: str, warned: bool
) -> None:
    """Nothing is adopted there after a crash, so everything in flight is published again."""
    with SimulatedEngine() as simulated:
        simulated.faults.add("version", when="before", action=Answer(200, {"version": version}))
        found = list(engine.look(given(tmp_path, f"[engine]\nurl='{simulated.url}'\n[topics.a]")))

    assert any(version in f.text and f.mark == "ok" for f in found)
    assert any("adopted" in f.text and f.mark == "warning" for f in found) is warned


def test_credentials_that_no_engine_asks_for_are_not_called_right(tmp_path: Path) -> None:
    """An engine without a login takes any: who reads "accepted" has mistyped a password."""
    with SimulatedEngine() as simulated:
        url = simulated.url
        text = f"[engine]\nurl='{url}'\nusername='joe'\npassword='x'\n[topics.a]"
        found = [finding.text for finding in engine.look(given(tmp_path, text))]

    assert any("accepted, or not asked for" in text for text in found), found


def test_an_unusable_token_file_is_not_blamed_on_the_address(tmp_path: Path) -> None:
    """Whoever corrects the address finds nothing."""
    token = tmp_path / "token"
    token.write_text("s3cret\nsecond line\n")
    text = f"[engine]\ntoken_file = '{token}'\n[topics.a]"

    [finding] = engine.look(given(tmp_path, text))

    assert (finding.mark, finding.key) == ("problem", "engine.token_file")
    assert "one line of printable ASCII" in finding.text
    assert "s3cret" not in finding.line


@pytest.mark.parametrize("body", ["<html>", [], {"version": 7}, {}])
def test_another_service_is_not_taken_for_an_engine(tmp_path: Path, body: Any) -> None:
    """A 200 of a web server must not pass for a version."""
    with SimulatedEngine() as simulated:
        simulated.faults.add("version", when="before", action=Answer(200, body))
        found = list(engine.look(given(tmp_path, f"[engine]\nurl='{simulated.url}'\n[topics.a]")))

    assert [(f.mark, f.key) for f in found] == [("problem", "engine.url")]


# -- the management API ----------------------------------------------------------------------


class _Other(BaseHTTPRequestHandler):
    """Answers every GET with the same status and body."""

    answer: ClassVar[tuple[int, bytes]] = (200, b"{}")

    def do_GET(self) -> None:
        status, body = self.answer
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Silent."""


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        ((401, b'{"error":"not_authorised"}'), ManagementDenied),
        ((404, b"<html>no such page</html>"), ManagementUnavailable),
        ((404, b"[]"), ManagementUnavailable),
        ((200, b"<html>welcome</html>"), ManagementUnavailable),
        ((200, b"[]"), ManagementUnavailable),
        ((302, b""), ManagementUnavailable),
    ],
)
def test_only_rabbitmq_says_that_a_queue_does_not_exist(
    answer: tuple[int, bytes], error: type[Exception]
) -> None:
    """A wrong address must not look like an empty broker."""
    handler = type("Handler", (_Other,), {"answer": answer})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        with pytest.raises(error):
            Management(f"http://127.0.0.1:{server.server_port}", "u", "p").queue("/", "pay")
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5)


# -- showing ---------------------------------------------------------------------------------


def test_the_exit_code_is_the_worst_of_all() -> None:
    """Scripts know nothing else."""
    fine, doubtful = ok("engine", "there"), warning("broker", "k", "t", "c")

    assert exit_code([fine, doubtful]) == 0
    assert exit_code([fine, problem("broker", "k", "t", "c")]) == 1
    assert exit_code([problem("broker", "k", "t", "c"), problem("settings", "k", "t", "")]) == 2


def test_a_finding_stays_one_line_whatever_was_answered() -> None:
    """An engine's text must not forge lines or drive the terminal."""
    found = problem("engine", "engine.url", "500 a\nok all is well\x1b[2J", "c")

    text = as_text([found], color=False)

    assert text.splitlines()[1:-1] == [
        "  problem  engine.url: 500 a ok all is well [2J; c",
    ]


def test_the_json_form_carries_everything() -> None:
    """For programs: marks, keys, texts and cures, and the exit code again."""
    report = json.loads(as_json([ok("engine", "there"), problem("broker", "k", "t", "c")]))

    assert (report["exitCode"], report["problems"], report["warnings"]) == (1, 1, 0)
    assert report["findings"][1] == {
        "group": "broker",
        "mark": "problem",
        "key": "k",
        "text": "t",
        "cure": "c",
    }


@pytest.mark.parametrize(("no_color", "colored"), [("", True), ("1", False)])
def test_colors_are_for_terminals_whose_user_wants_them(
    tmp_path: Path, no_color: str, colored: bool
) -> None:
    """https://no-color.org"""
    config = tmp_path / "bridge.toml"
    config.write_text(toml({"wurker_id": "x"}))
    ours, theirs = pty.openpty()
    environ = {**os.environ, "NO_COLOR": no_color, "TERM": "xterm"}

    command = [sys.executable, "-m", "bridge", "check", "--config", str(config)]
    done = subprocess.run(command, stdout=theirs, env=environ, timeout=30, check=False)
    os.close(theirs)
    with open(ours, "rb", buffering=0) as terminal:  # noqa: PTH123 (a descriptor)
        shown = terminal.read(65536)

    assert done.returncode == 2
    assert b'did you mean "worker_id"?' in shown
    assert (b"\x1b[31mproblem" in shown) is colored
