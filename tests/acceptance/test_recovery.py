"""The recovery protocol seen from outside: lost messages, operators, freezes, several replicas.

All on a real engine and a real RabbitMQ, with windows of seconds (`hasty_bridge`).
"""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

import pytest

from tests.support.amqp import Amqp, Message, Reply, Worker
from tests.support.bridge import Bridge, settings
from tests.support.engine import EngineRest, unique
from tests.support.hasty_bridge import HASTY
from tests.support.stage import Case, Stage
from tests.support.waiting import eventually, throughout

MODULE = "tests.support.hasty_bridge"
PUBLISH_WINDOW, LEASE, DEADLINE = 2.0, 20.0, 20.0


@dataclass(frozen=True)
class Scenes:
    """A bridge with a task whose message was lost at the very beginning."""

    stage: Stage
    lost: Case
    lost_message: Message


@pytest.fixture(scope="module")
def scenes(engine: EngineRest, shared_amqp_url: str) -> Iterator[Scenes]:
    topics = ("lost", "unlocked", "raised", "suspended", "cancelled")
    with Stage(
        engine,
        shared_amqp_url,
        {name: {"deadline": f"{DEADLINE if name == 'lost' else 600:g}s"} for name in topics},
        topic_defaults=HASTY,
        module=MODULE,
    ) as stage:
        case = stage.begin("lost")
        yield Scenes(stage, case, case.message())


def in_flight(scenes: Scenes, topic: str) -> tuple[Case, Message]:
    """A case whose message a worker holds and whose lock is a lease."""
    case = scenes.stage.begin(topic)
    message = case.message()
    eventually(lambda: scenes.stage.count(topic, "leased") > 0, what="leased")
    return case, message


def lock_left(case: Case) -> float:
    """How many seconds the lock still runs; negative if it has passed or there is none."""
    task = case.task()
    if task is None or task["lockExpirationTime"] is None:
        return -1.0
    ends = datetime.fromisoformat(task["lockExpirationTime"])
    return (ends - datetime.now(UTC)).total_seconds()


def test_a_task_unlocked_by_an_operator_is_offered_again_and_ends_once(scenes: Scenes) -> None:
    """Two copies of one attempt are out then, with one message_id; both answers are welcome and
    one counts.
    """
    case, first = in_flight(scenes, "unlocked")
    task = case.task()
    assert task is not None

    scenes.stage.engine.call("POST", f"/external-task/{task['id']}/unlock")

    second = case.message()
    assert second.properties.message_id == first.properties.message_id
    scenes.stage.answer(first, {"by": "first"})
    scenes.stage.answer(second, {"by": "second"})
    assert case.end() == "end"
    eventually(lambda: scenes.stage.count("unlocked", "gone") == 1, what="the other one is gone")
    assert scenes.stage.count("unlocked", "completed") == 1
    assert case.variables()["by"]["value"] == "first"


def test_retries_set_by_an_operator_make_a_new_attempt(scenes: Scenes) -> None:
    """The replica sees at its next check that this is no longer the attempt it published; the
    lease lapses, and the new attempt is published with its number.
    """
    case, first = in_flight(scenes, "raised")
    task = case.task()
    assert task is not None

    scenes.stage.engine.call("PUT", f"/external-task/{task['id']}/retries", {"retries": 7})

    second = case.message(limit=LEASE + 20)
    assert first.properties.message_id.endswith(":-")
    assert second.properties.message_id.endswith(":7")
    scenes.stage.answer(first, {"errorMessage": "too late"}, "failure")
    eventually(lambda: scenes.stage.count("raised", "stale") == 1, what="stale")
    assert case.retries() == 7
    scenes.stage.answer(second)
    assert case.end() == "end"


def test_a_suspended_task_keeps_its_lock_and_its_result(scenes: Scenes) -> None:
    """Suspended for longer than a lease: not published again, and what a worker answered
    meanwhile is applied after the resumption.
    """
    case, message = in_flight(scenes, "suspended")
    engine = scenes.stage.engine
    engine.suspend(case.instance, True)
    began = time.monotonic()
    scenes.stage.answer(message, {"kept": True})
    eventually(lambda: scenes.stage.count("suspended", "waiting") > 0, what="the result waits")

    throughout(lambda: lock_left(case) > 0, LEASE * 1.2 - (time.monotonic() - began))
    assert scenes.stage.amqp.count(case.queue) == 0
    engine.suspend(case.instance, False)

    assert case.end() == "end"
    assert case.variables()["kept"]["value"] is True
    assert scenes.stage.count("suspended", "confirmed") == 1


def test_a_cancelled_instance_is_announced_to_workers(scenes: Scenes) -> None:
    """So that a worker in the middle of long work can stop; its answer is counted."""
    amqp = scenes.stage.amqp
    notices = amqp.channel.queue_declare("", exclusive=True).method.queue
    topic = scenes.stage.names["cancelled"]
    amqp.channel.queue_bind(notices, "bridge.gone", topic)
    case, message = in_flight(scenes, "cancelled")

    scenes.stage.engine.delete(case.instance)

    notice = eventually(lambda: amqp.get(notices), LEASE, what="a notice")
    assert notice is not None
    assert notice.json == {"taskId": message.headers["taskId"]}
    scenes.stage.answer(message)
    eventually(lambda: scenes.stage.count("cancelled", "gone") == 1, what="counted")


def test_a_lost_message_is_missed_at_the_deadline(scenes: Scenes) -> None:
    """Nobody can tell the bridge that a queue was purged: unanswered, the attempt fails by the
    topic's policy, and the next one is published.
    """
    case, lost = scenes.lost, scenes.lost_message

    again = case.message(limit=DEADLINE + LEASE + 30)

    assert lost.properties.message_id.endswith(":-")
    assert again.properties.message_id.endswith(":2")
    assert again.json["errorMessage"].startswith("no answer within the deadline")
    scenes.stage.answer(again)
    assert case.end() == "end"
    assert scenes.stage.count("lost", "deadline_missed") == 1


# -- several replicas ------------------------------------------------------------------------------


def replicas(engine: EngineRest, amqp_url: str, count: int) -> tuple[str, str, list[Bridge]]:
    """A topic, its process, and so many bridges for it that are not started yet."""
    topic = unique("shared")
    made = settings(engine.url, amqp_url, {topic: {"deadline": "600s"}}, topic_defaults=HASTY)
    return topic, engine.deploy_topics(topic), [Bridge(made, module=MODULE) for _ in range(count)]


def done(_: Message) -> Reply:
    return Reply({"done": True})


def test_a_frozen_replica_that_wakes_doubles_nothing(engine: EngineRest, amqp_url: str) -> None:
    """Stopped for longer than its leases, it finds on waking that a peer looks after its tasks,
    and lets go of them.
    """
    topic, key, (frozen, peer) = replicas(engine, amqp_url, 2)
    with frozen, Amqp(amqp_url) as amqp:
        engine.start_many(key, 20)
        eventually(lambda: frozen.count(topic, "leased") == 20, what="leased")
        with peer:
            frozen.signal(signal.SIGSTOP)
            try:
                eventually(lambda: peer.count(topic, "adopted") == 20, LEASE * 1.5, what="adopted")
                throughout(lambda: amqp.count(topic) == 20, LEASE / 2)
            finally:
                frozen.signal(signal.SIGCONT)
            eventually(lambda: frozen.count(topic, "dropped") == 20, LEASE, what="let go")

            with Worker(amqp_url, topic, done) as worker:
                eventually(lambda: engine.finished(key) == 20)
            assert len(worker.seen) == 20
            assert peer.count(topic, "confirmed") == 0
            assert frozen.count(topic, "gone") + peer.count(topic, "gone") == 0


def test_of_three_replicas_the_last_one_answers_for_all(engine: EngineRest, amqp_url: str) -> None:
    """Two are killed with messages in flight: the third adopts them and nothing comes twice."""
    topic, key, (first, second, third) = replicas(engine, amqp_url, 3)
    with first, second, third, Amqp(amqp_url) as amqp:
        engine.start_many(key, 60)
        alive = [first, second, third]
        eventually(lambda: sum(b.count(topic, "leased") for b in alive) >= 60, what="leased")
        own = third.count(topic, "confirmed")

        first.kill()
        second.kill()

        eventually(lambda: third.count(topic, "adopted") == 60 - own, LEASE * 2, what="adopted")
        assert amqp.count(topic) == 60
        with Worker(amqp_url, topic, done) as worker:
            eventually(lambda: engine.finished(key) == 60)
        assert len(worker.seen) == len({m.headers["taskId"] for m in worker.seen}) == 60
