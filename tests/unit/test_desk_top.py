"""`top`: a running bridge's numbers and what is wrong by them, asked over its status server."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry
from typer.testing import CliRunner

from bridge.cli import app
from bridge.desk.top import BridgeSilent, ask, counts_known, read
from bridge.status import StatusServer

TOPIC: dict[str, Any] = {
    "name": "pay",
    "queue": "payments",
    "resultQueue": "pay.results",
    "circuit": "closed",
    "problem": None,
    "inFlight": 3,
    "capacity": 10,
    "oldestSeconds": 61.5,
    "lockMarginSeconds": 300.0,
    "events": {"completed": 10, "bpmn_error": 2, "failed": 1, "parked": 1},
    "waiting": 0,
    "stuck": 0,
    "ready": 2,
    "unacked": None,
    "consumers": 1,
}
FINE: dict[str, Any] = {
    "schemaVersion": 1,
    "version": "1.2.3",
    "workerId": "bridge",
    "now": "2026-01-02T03:04:05Z",
    "uptimeSeconds": 100.0,
    "ready": True,
    "problems": {},
    "engine": {"url": "http://engine/engine-rest", "problem": None},
    "publisher": {"problem": None},
    "consumer": {"problem": None},
    "parked": 0,
    "waitingResults": 0,
    "topics": [TOPIC],
}


def document(topic: dict[str, Any] | None = None, **changes: Any) -> dict[str, Any]:
    made = copy.deepcopy({**FINE, **changes})
    made["topics"][0].update(topic or {})
    return made


class Served:
    """A status server whose document a test sets."""

    def __init__(self) -> None:
        self.document: Any = document()
        self.asked = 0
        self.server = StatusServer(
            "127.0.0.1", 0, CollectorRegistry(), dict, {"/status.json": self._status}
        )
        self.url = f"http://127.0.0.1:{self.server.port}"

    def _status(self, _query: Any) -> Any:
        self.asked += 1
        made = self.document
        # Counts are known from the second look on, as of a bridge that was just asked.
        return made if self.asked > 1 else {**made, "parked": None}


@pytest.fixture
def served() -> Iterator[Served]:
    served = Served()
    served.server.start()
    yield served
    served.server.stop()


def test_nothing_is_wrong() -> None:
    """Then nothing is said."""
    now = read(document())

    assert now.troubles == ()
    assert now.parts == {"engine": None, "publisher": None, "consumer": None}


@pytest.mark.parametrize(
    ("topic", "changes", "words", "command"),
    [
        ({"consumers": 0, "ready": 12}, {}, "payments has 12 ready and no consumer", "topics"),
        (
            {"consumers": 0, "ready": 0, "waiting": 4, "inFlight": 0, "oldestSeconds": None},
            {},
            "4 waiting in the engine",
            "topics",
        ),
        (
            {"consumers": 0, "ready": 0},
            {},
            "3 in flight, but queue payments is empty",
            "release --topic pay --older-than 0s",
        ),
        (
            {"consumers": 0, "ready": 0, "unacked": 0},
            {},
            "An answer may never come",
            "release --topic pay --older-than 0s",
        ),
        ({"circuit": "open", "problem": "queue full"}, {}, "paused: queue full", "check"),
        ({"stuck": 1}, {}, "1 task of topic pay has no attempts", "incidents --topic pay"),
        ({"stuck": 3}, {}, "3 tasks of topic pay have no attempts", "incidents --topic pay"),
        ({"problem": "no queue"}, {}, "topic pay: no queue", "check"),
        ({"lockMarginSeconds": -1.0}, {}, "one has lapsed", "check"),
        ({}, {"parked": 1}, "1 message lies parked: nobody could apply it", "parked list"),
        ({}, {"parked": 2}, "2 messages lie parked: nobody could apply them", "parked list"),
        ({}, {"engine": {"url": "x", "problem": "503"}}, "engine cannot be used: 503", "check"),
        ({}, {"problems": {"queue bridge.wait": "404"}}, "queue bridge.wait: 404", "check"),
    ],
)
def test_what_is_wrong_is_said_with_the_command_that_helps(
    topic: dict[str, Any], changes: dict[str, Any], words: str, command: str
) -> None:
    """Once each, in the words of the page."""
    [trouble] = read(document(topic, **changes)).troubles

    assert words in trouble.text
    assert (trouble.command, trouble.bad) == (f"external-task-bridge {command}", True)


@pytest.mark.parametrize(
    ("topic", "changes", "words"),
    [
        ({"inFlight": 10, "waiting": 5}, {}, "is full"),
        ({"oldestSeconds": 4000.0}, {}, "over an hour"),
        ({}, {"waitingResults": 2}, "2 results wait"),
    ],
)
def test_what_is_only_worth_a_look_is_no_alarm(
    topic: dict[str, Any], changes: dict[str, Any], words: str
) -> None:
    """It may be as it should be."""
    [trouble] = read(document(topic, **changes)).troubles

    assert words in trouble.text
    assert not trouble.bad


@pytest.mark.parametrize(
    "topic",
    [
        {"consumers": 0, "ready": 0, "oldestSeconds": 2.0},
        {"consumers": 0, "ready": 0, "unacked": 3},
        {"consumers": 0, "ready": 0, "inFlight": 0, "oldestSeconds": None},
        {"consumers": None, "ready": None},
        {"consumers": 1, "ready": 0},
    ],
)
def test_what_may_still_be_answered_is_not_lost(topic: dict[str, Any]) -> None:
    """Just published, at a worker, or in queues that nobody here knows."""
    assert read(document(topic)).troubles == ()


def test_a_bad_answer_is_counted_once() -> None:
    """It lies parked, which is shown by itself."""
    assert read(document({"events": {"failed": 2, "parked": 2}})).topics[0].failed == 2


def test_a_topics_own_problem_is_told_once() -> None:
    """/ready names it as well."""
    told = document({"problem": "404"}, problems={"topic pay": "404"})

    assert len(read(told).troubles) == 1


def test_rates_are_those_between_two_looks() -> None:
    """Ten more in five seconds."""
    later = document({"events": {"completed": 19, "bpmn_error": 3}}, uptimeSeconds=105.0)

    assert read(later, document()).topics[0].done_per_second == 2.0
    assert read(document()).topics[0].done_per_second is None


def test_a_restarted_bridge_has_no_rate_yet() -> None:
    """It counts from zero again: the difference would be below it."""
    restarted = document({"events": {}}, uptimeSeconds=1.0)

    assert read(restarted, document()).topics[0].done_per_second is None


def test_counts_are_waited_for(served: Served) -> None:
    """A bridge that nobody has asked for a while has not looked at its queues."""
    first, second = ask(served.url), ask(served.url + "/")

    assert (counts_known(first), counts_known(second)) == (False, True)


def run(*arguments: str, config: str = "missing.toml") -> Any:
    named = ["--config", config] if config else []
    return CliRunner().invoke(app, ["top", *arguments, *named])


def test_without_a_terminal_it_prints_once(served: Served) -> None:
    """For a ticket, or for a program that reads it; `--url` needs no settings."""
    served.document = document({"consumers": 0, "ready": 12})

    done = run("--url", served.url)

    assert done.exit_code == 0
    assert "FAILED SINCE START" in done.stdout
    row = next(line for line in done.stdout.splitlines() if line.startswith("pay"))
    assert row.split() == ["pay", "0", "12", "-", "0", "3/10", "1", "min", "-", "1", "flows"]
    assert "12 ready and no consumer" in done.stdout


def test_as_json_it_is_the_snapshot_and_what_is_wrong(served: Served) -> None:
    """Stable keys for scripts."""
    served.document = document(parked=3)

    printed = json.loads(run("--url", served.url, "--json").stdout)

    assert {key: printed[key] for key in ("schemaVersion", "parked")} == {
        "schemaVersion": 1,
        "parked": 3,
    }
    assert printed["topics"][0]["inFlight"] == 3
    assert printed["wrong"][0]["command"] == "external-task-bridge parked list"


def test_a_bridge_that_is_away_is_exit_code_3(tmp_path: Path) -> None:
    """It says where it looked, and how to look elsewhere."""
    config = tmp_path / "bridge.toml"
    config.write_text('[status]\nlisten = "0.0.0.0:1"\n[topics.pay]\n')

    done = run("--once", config=str(config))

    assert done.exit_code == 3
    assert "http://127.0.0.1:1" in done.stderr
    assert "--url" in done.stderr


@pytest.mark.parametrize("listen", ["", "127.0.0.1:0"])
def test_no_fixed_address_is_said(tmp_path: Path, listen: str) -> None:
    """Guessing a port would ask somebody else."""
    config = tmp_path / "bridge.toml"
    config.write_text(f'[status]\nlisten = "{listen}"\n[topics.pay]\n')

    done = run("--once", config=str(config))

    assert (done.exit_code, "--url" in done.stderr) == (2, True)


@pytest.mark.parametrize("url", ["localhost:9464", "ftp://x", "http://", "http://h:port", "x"])
def test_an_address_that_is_none_is_said(url: str) -> None:
    """One sentence, not a traceback, and no exit code that says that a bridge is away."""
    done = run("--url", url)

    assert (done.exit_code, done.stderr.startswith("--url")) == (2, True)


def test_an_addresss_password_is_never_shown(served: Served) -> None:
    """A screen is shared, and a ticket is read by many."""
    guarded = served.url.replace("://", "://joe:s3cret@")

    shown = run("--url", guarded, "--once")
    refused = [
        run("--url", url) for url in ("ftp://joe:s3cret@x", "joe:s3cret@x", "http://joe:s3cret@[")
    ]

    assert (shown.exit_code, f"at {served.url}\n" in shown.stdout) == (0, True)
    for done in (shown, *refused):
        assert "s3cret" not in done.stdout + done.stderr
    assert [done.exit_code for done in refused] == [2] * 3


def test_what_a_bridge_says_of_itself_cannot_steer_a_terminal(served: Served) -> None:
    """Whatever answers at an address may say anything."""
    served.document = document(version="\x1b[2J", workerId="\x1b]0;x\x07")

    done = run("--url", served.url, "--once")

    assert "bridge \\x1b[2J, worker id \\x1b]0;x\\x07" in done.stdout
    assert "\x1b" not in done.stdout


@pytest.mark.parametrize("made", [[], {"schemaVersion": 2}, None])
def test_somebody_else_who_answers_is_told_from_a_bridge(served: Served, made: Any) -> None:
    """An old bridge, or another service on that port."""
    served.asked, served.document = 1, made

    with pytest.raises(BridgeSilent, match="no bridge of this version"):
        ask(served.url)


@pytest.mark.parametrize("interval", ["often", "0s", "10ms"])
def test_a_bad_interval_is_exit_code_2(interval: str) -> None:
    """Before anybody is asked, and also where one look is enough."""
    done = run("--interval", interval, "--once")

    assert (done.exit_code, "--interval" in done.stderr) == (2, True)
