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
        ({"consumers": 0, "ready": 0, "waiting": 4}, {}, "4 waiting in the engine", "topics"),
        ({"circuit": "open", "problem": "queue full"}, {}, "paused: queue full", "check"),
        ({"problem": "no queue"}, {}, "topic pay: no queue", "check"),
        ({"lockMarginSeconds": -1.0}, {}, "one has lapsed", "check"),
        ({}, {"parked": 1}, "1 message lies parked", "parked list"),
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
    row = next(line for line in done.stdout.splitlines() if line.startswith("pay"))
    assert row.split() == ["pay", "0", "12", "-", "0", "3/10", "1", "min", "-", "2", "flows"]
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

    assert (done.exit_code, "--url" in done.stderr) == (3, True)


@pytest.mark.parametrize("url", ["localhost:9464", "ftp://x", "http://", "http://h:port", "x"])
def test_an_address_that_is_none_is_said(url: str) -> None:
    """One sentence, not a traceback."""
    with pytest.raises(BridgeSilent, match="--url"):
        ask(url)


@pytest.mark.parametrize("made", [[], {"schemaVersion": 2}, None])
def test_somebody_else_who_answers_is_told_from_a_bridge(served: Served, made: Any) -> None:
    """An old bridge, or another service on that port."""
    served.asked, served.document = 1, made

    with pytest.raises(BridgeSilent, match="no bridge of this version"):
        ask(served.url)


def test_a_bad_interval_is_exit_code_2() -> None:
    """Before anybody is asked."""
    done = run("--interval", "often")

    assert (done.exit_code, "--interval" in done.stderr) == (2, True)
