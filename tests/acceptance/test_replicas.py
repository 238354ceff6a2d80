"""Several replicas with one worker id, and replicas that die: no database, nothing twice."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from tests.support.amqp import Amqp, Message, Reply, Worker
from tests.support.bridge import Bridge, settings
from tests.support.engine import EngineRest, unique
from tests.support.waiting import eventually, throughout

PUBLISH_WINDOW = 13.0
LEASE = 130.0


class Replicas:
    """A topic, its process, and bridges with the same settings."""

    def __init__(self, engine: EngineRest, amqp_url: str, **topic: Any) -> None:
        self.engine, self.url = engine, amqp_url
        self.topic = unique("shared")
        self.key = engine.deploy_topics(self.topic)
        self._settings = settings(engine.url, amqp_url, {self.topic: topic})

    def bridge(self) -> Bridge:
        return Bridge(self._settings)

    def count(self, bridge: Bridge, event: str) -> int:
        return bridge.count(self.topic, event)

    def completed_by(self, bridge: Bridge) -> set[str]:
        return {line["task_id"] for line in bridge.events("task completed")}

    def locks_left(self) -> list[float]:
        """How many seconds each task's lock still runs."""
        now = datetime.now(UTC)
        return [
            (datetime.fromisoformat(task["lockExpirationTime"]) - now).total_seconds()
            for task in self.engine.tasks(topicName=self.topic)
        ]


def task_ids(messages: list[Message]) -> set[str]:
    return {message.headers["taskId"] for message in messages}


def done(message: Message) -> Reply:
    return Reply({"n": message.json["variables"]["n"]})


def test_two_replicas_share_200_tasks(engine: EngineRest, amqp_url: str) -> None:
    """Every message is published once, each replica answers what the other published, and every
    instance ends.
    """
    replicas = Replicas(engine, amqp_url, max_in_flight=100)
    engine.start_many(replicas.key, 200)
    with replicas.bridge() as first, Amqp(amqp_url) as amqp:
        eventually(lambda: amqp.count(replicas.topic) == 100, what="the first is full")
        firsts = {task["id"] for task in engine.tasks(topicName=replicas.topic, locked=True)}
        with replicas.bridge() as second:
            eventually(lambda: amqp.count(replicas.topic) == 200, what="the second is full")

            with Worker(amqp_url, replicas.topic, done) as worker:
                eventually(lambda: engine.finished(replicas.key) == 200, 60)

            tasks = task_ids(worker.seen)
            assert len(worker.seen) == len(tasks) == 200
            assert replicas.completed_by(second) & firsts
            assert replicas.completed_by(first) & (tasks - firsts)
            assert replicas.completed_by(first) | replicas.completed_by(second) == tasks
    assert engine.incidents(replicas.key) == []


def test_a_peer_answers_for_a_killed_replica(engine: EngineRest, amqp_url: str) -> None:
    """Its messages stay valid: workers go on as if nothing had happened, and none comes twice."""
    replicas = Replicas(engine, amqp_url)
    with replicas.bridge() as dying, replicas.bridge() as peer, Amqp(amqp_url) as amqp:
        engine.start_many(replicas.key, 30)
        eventually(lambda: amqp.count(replicas.topic) == 30)
        eventually(lambda: replicas.count(dying, "leased") + replicas.count(peer, "leased") == 30)

        dying.kill()

        throughout(lambda: amqp.count(replicas.topic) == 30, PUBLISH_WINDOW + 1)
        with Worker(amqp_url, replicas.topic, done) as worker:
            eventually(lambda: engine.finished(replicas.key) == 30)
        assert len(worker.seen) == len(task_ids(worker.seen)) == 30
        assert len(replicas.completed_by(peer)) == 30


def test_an_unpublished_task_of_a_killed_replica_comes_again(
    engine: EngineRest, amqp_url: str
) -> None:
    """What it had fetched and not published is fetchable after one publish window."""
    replicas = Replicas(engine, amqp_url)
    engine.start_many(replicas.key, 1)
    fetched = engine.call(
        "POST",
        "/external-task/fetchAndLock",
        {
            "workerId": "bridge",
            "maxTasks": 1,
            "topics": [{"topicName": replicas.topic, "lockDuration": 3000}],
        },
    )
    assert len(fetched) == 1

    with replicas.bridge() as bridge, Worker(amqp_url, replicas.topic, done):
        eventually(lambda: engine.finished(replicas.key) == 1)

        assert replicas.count(bridge, "adopted") == 0


def test_a_restarted_replica_adopts_what_is_in_flight(engine: EngineRest, amqp_url: str) -> None:
    """An empty memory and a sweep: leases that nobody renews are taken over before they lapse,
    nothing is published again, and the answers are applied.
    """
    replicas = Replicas(engine, amqp_url)
    engine.start_many(replicas.key, 10)
    with replicas.bridge() as bridge, Amqp(amqp_url) as amqp:
        eventually(lambda: replicas.count(bridge, "leased") == 10)
        bridge.kill()
        let_leases_run_down(replicas, seconds_left=40)

        bridge.start()

        eventually(lambda: replicas.count(bridge, "adopted") == 10, what="adopted")
        assert all(LEASE - 30 < left <= LEASE for left in replicas.locks_left())
        assert amqp.count(replicas.topic) == 10
        with Worker(amqp_url, replicas.topic, done) as worker:
            eventually(lambda: engine.finished(replicas.key) == 10)
        assert len(worker.seen) == 10


def test_a_young_lease_is_left_to_its_holder(engine: EngineRest, amqp_url: str) -> None:
    """A second replica does not take over what the first one still looks after."""
    replicas = Replicas(engine, amqp_url)
    engine.start_many(replicas.key, 10)
    with replicas.bridge() as holder:
        eventually(lambda: replicas.count(holder, "leased") == 10)

        with replicas.bridge() as other:
            throughout(lambda: replicas.count(other, "adopted") == 0, 3.0)
            assert replicas.count(other, "fetched") == 0
    engine.clean(replicas.key)


def let_leases_run_down(replicas: Replicas, seconds_left: int) -> None:
    """The state of the engine after a lease has run for a while, without the wait."""
    body: Mapping[str, Any] = {"workerId": "bridge", "newDuration": seconds_left * 1000}
    for task in replicas.engine.tasks(topicName=replicas.topic):
        replicas.engine.call("POST", f"/external-task/{task['id']}/extendLock", body)
