"""Task messages that come back or never arrive: what costs a business retry, and what must not."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.amqp import Message
from tests.support.engine import EngineRest
from tests.support.stage import Case, Stage
from tests.support.waiting import eventually

TOPICS: dict[str, dict[str, Any]] = {
    "rejected": {},
    "limit": {},
    "expired": {},
    "dropped": {},
    "detour": {},
    "stale": {},
    "wait": {},
    "forged": {},
    "other": {},
    "full": {},
    "no-exchange": {"exchange": "missing"},
    "no-route": {"exchange": "unbound", "routing_key": "nobody"},
}


def odd_queues(stage: Stage) -> None:
    """Queues that somebody else declared, with arguments of their own."""
    channel, names = stage.amqp.channel, stage.names
    dead = {"x-dead-letter-exchange": "bridge.dead"}
    channel.queue_declare(names["expired"], durable=True, arguments={"x-message-ttl": 200, **dead})
    full = {"x-max-length": 1, "x-overflow": "reject-publish"}
    channel.queue_declare(names["full"], durable=True, arguments=full)
    channel.exchange_declare("unbound", "direct", durable=True)
    channel.exchange_declare("missing", "direct", durable=True)  # until the bridge is ready
    channel.queue_declare(names["dropped"], durable=True, arguments={"x-max-length": 1, **dead})
    # Rejected messages rest a while in a queue of their owner's before they come to the bridge.
    rest = {"x-message-ttl": 100, **dead}
    channel.exchange_declare("detour", "fanout", durable=True)
    channel.queue_declare("rest", durable=True, arguments=rest)
    channel.queue_bind("rest", "detour")
    detour = {"x-dead-letter-exchange": "detour"}
    channel.queue_declare(names["detour"], durable=True, arguments=detour)


@pytest.fixture(scope="module")
def stage(engine: EngineRest, shared_amqp_url: str) -> Iterator[Stage]:
    broker = {"delivery_limit": 2}
    with Stage(engine, shared_amqp_url, TOPICS, prepare=odd_queues, broker=broker) as stage:
        stage.amqp.channel.exchange_delete("missing")
        yield stage


def test_a_rejected_message_is_a_failed_attempt(stage: Stage) -> None:
    """A worker that rejects without requeueing has had its try."""
    case = stage.begin("rejected")

    eventually(lambda: stage.amqp.refuse(case.queue, requeue=False))

    second = case.message()
    assert second.headers["retries"] == 2
    assert "rejected" in second.json["errorMessage"]
    stage.answer(second)
    case.end()


def test_a_message_that_nobody_survives_is_a_failed_attempt(stage: Stage) -> None:
    """The delivery limit ends a poison message's round of crashing workers."""
    case = stage.begin("limit")

    def crash() -> bool:
        stage.amqp.refuse(case.queue, requeue=True)
        return stage.count("limit", "failed") == 1

    eventually(crash)
    assert "delivery limit" in case.message().json["errorMessage"]
    assert case.retries() == 2


def test_an_expired_message_is_released_and_costs_no_retry(stage: Stage) -> None:
    """No worker had it: the engine offers the same attempt again."""
    case = stage.begin("expired")
    eventually(lambda: stage.count("expired", "released") >= 1)

    message = case.message()

    assert message.properties.message_id.endswith(":-")
    assert case.retries() is None
    stage.answer(message)
    case.end()


def test_a_message_that_found_no_room_is_released_and_costs_no_retry(stage: Stage) -> None:
    """Somebody's queue drops its oldest message for each new one: the task comes again."""
    first = stage.begin("dropped")
    eventually(lambda: stage.count("dropped", "confirmed") == 1)
    second = stage.begin("dropped")
    eventually(lambda: stage.count("dropped", "released") >= 1)
    assert (first.retries(), second.retries()) == (None, None)

    unfinished = {first.instance, second.instance}

    def work() -> bool:
        message = stage.amqp.get(first.queue)
        if message is not None:
            assert message.properties.message_id.endswith(":-")
            stage.answer(message)
            unfinished.discard(message.headers["processInstanceId"])
        return not unfinished

    eventually(work, 40)
    assert first.end() == second.end() == "end"


def test_a_rejected_message_that_came_by_a_detour_is_a_failed_attempt(stage: Stage) -> None:
    """It expired last, in its owner's queue; but a worker had it and refused it."""
    case = stage.begin("detour")

    eventually(lambda: stage.amqp.refuse(case.queue, requeue=False))

    assert "rejected" in case.message().json["errorMessage"]
    assert case.retries() == 2


def test_a_dead_letter_of_an_older_attempt_changes_nothing(stage: Stage) -> None:
    """A worker that reports its failure and then rejects the message has failed once."""
    case = stage.begin("stale")
    method, properties, body = held_message(stage, case)
    later = {"errorMessage": "no", "retryTimeout": 3_600_000}

    stage.answer(Message(body, properties, method.redelivered), later, "failure")
    eventually(lambda: case.retries() == 2)
    stage.amqp.channel.basic_reject(method.delivery_tag, requeue=False)

    eventually(lambda: stage.count("stale", "stale") == 1)
    assert case.retries() == 2


def test_a_dead_letter_of_a_task_that_is_done_is_acknowledged(stage: Stage) -> None:
    """Answered first and rejected then: the answer counts."""
    case = stage.begin("stale")
    method, properties, body = held_message(stage, case)

    stage.answer(Message(body, properties, method.redelivered), {"done": True})
    assert case.end() == "end"
    stage.amqp.channel.basic_reject(method.delivery_tag, requeue=False)

    eventually(lambda: stage.count("stale", "gone") == 1)


def test_a_rejection_of_a_suspended_task_waits_with_its_reason(stage: Stage) -> None:
    """The waiting room adds a reason of its own, which is not taken for the message's."""
    case = stage.begin("wait")
    method, _, _ = held_message(stage, case)
    stage.engine.suspend(case.instance, True)

    stage.amqp.channel.basic_reject(method.delivery_tag, requeue=False)

    eventually(lambda: stage.count("wait", "waiting") >= 2, what="it came back and waits again")
    assert case.retries() is None
    stage.engine.suspend(case.instance, False)
    assert "rejected" in case.message(limit=40).json["errorMessage"]
    assert case.retries() == 2


FORGED = [{"reason": "rejected", "queue": "forged", "count": 1}]


@pytest.mark.parametrize(
    ("reason", "changes"),
    [
        ("unknown-topic", {"type": "nobody"}),
        ("bad-token", {"correlation_id": "0.b1e2.-.forged"}),
        ("bad-token", {"type": "other"}),
        ("no-reason", {"headers": {"x-death": [{"reason": "tired"}]}}),
        ("no-reason", {"headers": {"x-death": [1, None, {"queue": []}]}}),
        ("no-reason", {"headers": {}}),
    ],
)
def test_a_forged_dead_letter_is_parked_and_fails_no_task(
    stage: Stage, reason: str, changes: dict[str, Any]
) -> None:
    """Whoever may publish there says nothing about a task without its token, topic and reason."""
    case = stage.begin("forged")
    message = case.message()
    stage.amqp.drain("bridge.parked")
    genuine = {
        "type": case.topic,
        "correlation_id": message.properties.correlation_id,
        "headers": {"x-death": FORGED},
    }
    forged = {**genuine, **changes}
    forged["type"] = stage.names.get(forged["type"], forged["type"])

    stage.amqp.send("bridge.dead", "", b"{}", **forged)

    parked = stage.parked(forged["correlation_id"])
    assert parked.headers["reason"] == reason
    assert case.retries() is None
    stage.answer(message)
    assert case.end() == "end"


def test_a_queue_declared_by_others_is_used_as_it_is(stage: Stage) -> None:
    """Never redefined; the log names what differs, once."""
    for short in ("expired", "full"):
        said = stage.bridge.events("used as it is", name=stage.names[short])

        assert len(said) == 1
        assert "inequivalent arg" in said[0]["differs"]


def test_faults_of_the_infrastructure_cost_no_retry(stage: Stage) -> None:
    """A full queue, a missing exchange and an unroutable key pause the topic, with the reason;
    mended, the same attempts go out, and other topics never noticed.
    """
    blocker = stage.begin("full")
    eventually(lambda: stage.count("full", "confirmed") == 1)
    broken = {short: stage.begin(short) for short in ("full", "no-exchange", "no-route")}
    paused = {stage.names[short] for short in broken}
    eventually(lambda: paused <= {said["topic"] for said in stage.bridge.events("topic paused")})
    other = stage.begin("rejected")
    stage.answer(other.message(limit=5))
    other.end()
    assert [broken[short].retries() for short in broken] == [None, None, None]

    stage.answer(blocker.message())
    mend_exchanges(stage)

    messages = {
        "full": broken["full"].message(limit=40),
        **{s: broken[s].message(limit=40) for s in ("no-exchange", "no-route")},
    }
    for short, message in messages.items():
        assert message.properties.message_id.endswith(":-")
        stage.answer(message)
        assert broken[short].end() == "end"


def mend_exchanges(stage: Stage) -> None:
    channel = stage.amqp.channel
    for short, exchange, key in (
        ("no-exchange", "missing", stage.names["no-exchange"]),
        ("no-route", "unbound", "nobody"),
    ):
        queue = stage.names[short]
        channel.queue_declare(queue, durable=True)
        channel.exchange_declare(exchange, "direct", durable=True)
        channel.queue_bind(queue, exchange, key)


def held_message(stage: Stage, case: Case) -> tuple[Any, Any, bytes]:
    """A task's message in a worker's hands: method, properties, body; not acknowledged."""
    held = eventually(lambda: taken(stage, case))
    assert held is not None
    return held


def taken(stage: Stage, case: Case) -> tuple[Any, Any, bytes] | None:
    method, properties, body = stage.amqp.channel.basic_get(case.queue)
    return None if method is None else (method, properties, body)
