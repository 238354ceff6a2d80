"""`tasks`, `why`, `incidents`, `retry` and `release` on a real engine, RabbitMQ and bridge."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.support.amqp import Amqp, Message, Reply, Worker
from tests.support.bridge import Bridge, settings
from tests.support.engine import EngineRest, unique
from tests.support.stage import Case, Stage
from tests.support.waiting import eventually

ROOM = 3
LONG_PAUSE = {"retry_pauses": ["5m"]}
TOPICS: dict[str, dict[str, Any]] = {
    "look": {},
    "fails": LONG_PAUSE,
    "broken": LONG_PAUSE,
    "purged": {"max_in_flight": ROOM},
    "named": {},
    "done": {},
}


pytestmark = pytest.mark.timeout(300)  # many commands, one after the other


@dataclass(frozen=True)
class Said:
    """What one command said."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


class Desk:
    """The commands, with the settings of a bridge that runs."""

    def __init__(self, bridge: Bridge, config: Path) -> None:
        url = eventually(bridge.status_url, 60, what="the bridge has started")
        assert url is not None
        here = url.removeprefix("http://")
        config.write_text(bridge.config.read_text().replace("127.0.0.1:0", here))
        self.config = config

    def __call__(self, *arguments: str) -> Said:
        """Run a command to its end, without a terminal."""
        done = subprocess.run(
            [sys.executable, "-m", "bridge", *arguments, "--config", str(self.config)],
            capture_output=True,
            text=True,
            timeout=90,
            check=False,
            stdin=subprocess.DEVNULL,
            env={k: v for k, v in os.environ.items() if not k.startswith("BRIDGE_")},
        )
        assert "Traceback" not in done.stderr, done.stderr
        return Said(done.returncode, done.stdout, done.stderr)

    def why(self, key: str) -> dict[str, Any]:
        """The one task that is found by this name."""
        said = self("why", key, "--json")
        assert said.code == 0, said
        (task,) = said.json["tasks"]
        found: dict[str, Any] = task
        return found


@pytest.fixture(scope="module")
def stage(engine: EngineRest, shared_amqp_url: str) -> Iterator[Stage]:
    with Stage(engine, shared_amqp_url, TOPICS) as stage:
        yield stage


@pytest.fixture(scope="module")
def desk(stage: Stage, tmp_path_factory: pytest.TempPathFactory) -> Desk:
    return Desk(stage.bridge, tmp_path_factory.mktemp("desk") / "bridge.toml")


def task_id(case: Case) -> str:
    task = case.task()
    assert task is not None, "the task is gone"
    return str(task["id"])


def in_queue(stage: Stage, short: str, number: int = 1) -> None:
    """Wait until so many messages of the topic are in its queue and leased."""
    name = stage.names[short]
    eventually(lambda: stage.amqp.count(name) == number, 60, what="published")
    eventually(lambda: stage.count(short, "leased") >= number, 60, what="leased")


# -- tasks and why ---------------------------------------------------------------------------------


def test_a_message_without_a_consumer_is_explained(stage: Stage, desk: Desk) -> None:
    """The commonest question, by the only name that the people who ask have."""
    key = unique("order")
    case = stage.begin("look", business_key=key)
    in_queue(stage, "look")

    explained, listed = desk.why(key), desk("tasks", "--topic", case.topic, "--json")

    assert explained["taskId"] == task_id(case)
    assert (explained["businessKey"], explained["processInstanceId"]) == (key, case.instance)
    queue = f"queue {case.queue} has 1 ready and no consumer"
    assert (explained["state"], explained["waitsFor"]) == ("in flight", f"a consumer: {queue}")
    told = {(fact["source"], fact["text"]) for fact in explained["facts"]}
    assert ("bridge", "taken in hand; its message is in a queue, its lock is a lease") in told
    assert any(source == "broker" and case.queue in text for source, text in told)
    (row,) = listed.json["tasks"]
    assert (row["taskId"], row["businessKey"], row["state"]) == (task_id(case), key, "locked")
    assert row["words"].startswith("in flight, leased for ")
    assert listed.json["bridge"] == {"problem": None}
    case.message()


def test_why_says_it_in_words(stage: Stage, desk: Desk) -> None:
    """As a person reads it: what it waits for comes before the story."""
    case = stage.begin("look")
    eventually(lambda: stage.amqp.count(case.queue) == 1, 60, what="published")

    said = desk("why", case.instance)

    assert said.code == 0
    first, _, waits, *facts = said.out.splitlines()
    assert first == f"task {task_id(case)}: in flight"
    assert waits.startswith("  waits for a consumer: queue ")
    assert facts[0].split() == ["WHEN", "WHO", "SAYS", "WHAT"]
    assert any("now" in line and "broker" in line for line in facts)
    case.message()


def test_whoever_holds_it_up_is_named(stage: Stage, desk: Desk) -> None:
    """Another client of the engine, a topic that nobody bridges, a suspended instance."""
    engine, topic = stage.engine, unique("unbridged")
    stage.names["unbridged"] = topic
    case = stage.begin("unbridged")

    unbridged = desk.why(case.instance)
    engine.suspend(case.instance, True)
    suspended = desk.why(case.instance)
    engine.suspend(case.instance, False)
    engine.call(
        "POST",
        "/external-task/fetchAndLock",
        {
            "workerId": "legacy",
            "maxTasks": 1,
            "topics": [{"topicName": topic, "lockDuration": 600_000}],
        },
    )
    elsewhere = desk.why(case.instance)

    assert "configured nowhere" in unbridged["waitsFor"]
    assert unbridged["command"] == "external-task-bridge topics"
    assert "suspended" in suspended["waitsFor"]
    assert elsewhere["waitsFor"].startswith("worker id legacy, which holds it for ")


def test_a_finished_task_is_told_from_the_history(stage: Stage, desk: Desk) -> None:
    """By its own id and its instance's names; an unknown name is exit code 1."""
    key = unique("order")
    case = stage.begin("done", business_key=key)
    message = case.message()
    stage.answer(message, {"paid": True})
    case.end()

    for name in (message.headers["taskId"], case.instance, key):
        assert desk.why(name)["state"] == "completed"
    assert desk("why", "nobody-knows-this").code == 1


def test_a_part_that_is_away_is_a_fact(stage: Stage, desk: Desk, tmp_path: Path) -> None:
    """Without RabbitMQ and without a bridge the engine still answers; without an engine it is
    exit code 3, and says where.
    """
    case = stage.begin("look")
    eventually(lambda: stage.amqp.count(case.queue) == 1, 60, what="published")
    text = desk.config.read_text()
    alone = tmp_path / "alone.toml"
    alone.write_text(text.replace(json.dumps(stage.url), '"amqp://guest:guest@127.0.0.1:1/%2F"'))
    away = tmp_path / "away.toml"
    away.write_text(text.replace(json.dumps(stage.engine.url), '"http://127.0.0.1:1/engine-rest"'))

    without_broker = _with(desk, alone)("why", case.instance, "--json")
    without_engine = [
        _with(desk, away)(*command)
        for command in (["tasks"], ["why", "x"], ["incidents"], ["retry", "x"], ["release", "x"])
    ]

    (task,) = without_broker.json["tasks"]
    assert without_broker.code == 0
    assert any(
        fact["source"] == "broker" and fact["text"].startswith("cannot be asked")
        for fact in task["facts"]
    )
    for said in without_engine:
        assert said.code == 3
        assert "the engine at http://127.0.0.1:1/engine-rest: no connection" in said.err
    case.message()


def _with(desk: Desk, config: Path) -> Desk:
    other = object.__new__(Desk)
    other.config = config
    return other


# -- incidents, retry, release ---------------------------------------------------------------------


def test_incidents_are_retried_at_once(stage: Stage, desk: Desk) -> None:
    """After a look at what would be done, and not without a yes; the pause after the last failure
    is five minutes, and nobody waits for it.
    """
    cases = [stage.begin("broken") for _ in range(2)]
    topic = cases[0].topic
    with Worker(stage.url, topic, broken):
        eventually(lambda: stage.count("broken", "failed") == 2, 60, what="failed")

    found = desk("incidents", "--topic", topic)
    looked = desk("retry", "--topic", topic, "--message", "no money", "--dry-run", "--json")
    unasked = desk("retry", "--topic", topic)
    before = [case.retries() for case in cases]
    done = desk("retry", "--topic", topic, "--message", "no money", "--yes", "--json")

    assert found.code == 1
    assert "no money" in found.out
    assert "stack" not in found.out
    assert (looked.code, looked.json["topics"]) == (0, [{"topic": topic, "count": 2}])
    assert (unasked.code, before) == (2, [0, 0])
    assert "--yes" in unasked.err
    assert done.code == 0, done
    assert set(done.json["done"]) == set(looked.json["chosen"])
    with Worker(stage.url, topic, paid) as worker:
        assert [case.end() for case in cases] == ["end", "end"]
    assert {m.properties.message_id.rpartition(":")[2] for m in worker.seen} == {"1"}
    assert desk("incidents", "--topic", topic).code == 0


def test_a_pause_between_attempts_is_cut_short(stage: Stage, desk: Desk) -> None:
    """The fault is mended, the next attempt five minutes away."""
    case = stage.begin("fails")
    stage.answer(case.message(60), {"errorMessage": "no money"}, "failure")
    eventually(lambda: case.retries() == 2, 60, what="failed")

    paused = desk.why(case.instance)
    done = desk("release", task_id(case), "--yes")

    assert paused["waitsFor"].startswith("its next attempt, in ")
    assert paused["command"] == f"external-task-bridge release {task_id(case)}"
    assert done.code == 0, done
    again = case.message(60)
    assert again.properties.message_id.endswith(":2")
    stage.answer(again)
    assert case.end() == "end"


def test_what_a_purge_lost_is_published_again(stage: Stage, desk: Desk) -> None:
    """Nobody can tell the bridge that a queue was purged, and the deadline is a day away. Its
    room is full of what is lost, so that one more task waits.
    """
    cases = [stage.begin("purged") for _ in range(ROOM)]
    in_queue(stage, "purged", ROOM)
    ids = {task_id(case) for case in cases}
    late = stage.begin("purged")
    room = eventually(lambda: _waits_for(desk, late, "room: 3 tasks"), 60, what="no room")
    stage.amqp.channel.queue_purge(cases[0].queue)

    looked = desk("release", "--topic", cases[0].topic, "--older-than", "0s", "--dry-run", "--json")
    lost = desk.why(cases[0].instance)
    done = desk("release", "--topic", cases[0].topic, "--older-than", "0s", "--yes", "--json")

    assert room
    assert set(looked.json["chosen"]) == ids
    (queue,) = looked.json["queues"]
    assert queue["text"].startswith(f"queue {cases[0].queue} holds 0 messages")
    assert "empty" in lost["waitsFor"] or "worker's answer" in lost["waitsFor"]
    assert done.code == 0, done
    assert set(done.json["done"]) == ids
    with Worker(stage.url, cases[0].queue, paid) as worker:
        ends = [eventually(partial(ended, case), 90, what="the end") for case in (*cases, late)]
    assert ends == ["end"] * (ROOM + 1)
    assert len(worker.seen) == len({m.headers["taskId"] for m in worker.seen}) == ROOM + 1
    assert stage.count("purged", "completed") == ROOM + 1
    assert stage.count("purged", "failed") == 0


def test_a_task_that_a_peer_fetches_after_a_release_is_let_go_of(
    engine: EngineRest, amqp_url: str, tmp_path: Path
) -> None:
    """The replica that held it sees a lock that it did not set: it neither extends nor publishes,
    and the peer alone answers for the task.
    """
    topic = unique("shared")
    made = settings(engine.url, amqp_url, {topic: {"max_in_flight": ROOM}})
    holder, peer = Bridge(made), Bridge(made)
    key = engine.deploy_topics(topic)
    with holder, Amqp(amqp_url) as amqp:
        engine.start_many(key, ROOM)
        eventually(lambda: holder.count(topic, "leased") >= ROOM, 60, what="leased")
        with peer:
            amqp.channel.queue_purge(topic)
            desk = Desk(peer, tmp_path / "bridge.toml")
            holder.signal(signal.SIGSTOP)
            try:
                released = desk(
                    "release", "--topic", topic, "--older-than", "0s", "--yes", "--json"
                )
                assert released.code == 0, released
                eventually(lambda: peer.count(topic, "confirmed") == ROOM, 60, what="by the peer")
            finally:
                holder.signal(signal.SIGCONT)
            eventually(lambda: holder.count(topic, "dropped") == ROOM, 60, what="let go of")

            with Worker(amqp_url, topic, paid) as worker:
                eventually(lambda: engine.finished(key) == ROOM, 60, what="finished")

        assert len(released.json["done"]) == ROOM
        assert len(worker.seen) == ROOM
        assert holder.count(topic, "confirmed") == ROOM
    engine.clean(key)


def broken(_: Message) -> Reply:
    return Reply({"errorMessage": "no money\nstack", "retries": 0}, "failure")


def paid(_: Message) -> Reply:
    return Reply({"paid": True})


def ended(case: Case) -> str | None:
    return case.stage.engine.ended_at(case.instance)


def _waits_for(desk: Desk, case: Case, text: str) -> bool:
    return str(desk.why(case.instance)["waitsFor"]).startswith(text)
