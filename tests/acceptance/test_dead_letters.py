"""Task messages that come back or never arrive: what costs a business retry, and what must not."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.engine import EngineRest
from tests.support.stage import Stage
from tests.support.waiting import eventually

TOPICS: dict[str, dict[str, Any]] = {
    "rejected": {},
    "limit": {},
    "expired": {},
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


@pytest.fixture(scope="module")
def stage(engine: EngineRest, shared_amqp_url: str) -> Iterator[Stage]:
    broker = {"delivery_limit": 2}
    with Stage(engine, shared_amqp_url, TOPICS, prepare=odd_queues, broker=broker) as stage:
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
