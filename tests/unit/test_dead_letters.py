"""Why a task message came back: a worker's refusal is a failure, the broker's return is not."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.dead_letters import DeadLetter, note, read_dead_letter
from bridge.errors import ResultRefused
from bridge.messages import Delivery
from bridge.topics import Topic
from tests.support.rooms import make_topic

QUEUE = "bridge.dead-letters"
TOPICS: dict[str, Topic] = {"pay": make_topic("pay")}


def delivery(
    deaths: Any, type_: str | None = "pay", headers: Mapping[str, str] | None = None
) -> Delivery:
    found = {"x-death": deaths, **(headers or {})}
    return Delivery(QUEUE, b"{}", found, generation=1, tag=1, type=type_)


def death(reason: str, queue: str = "pay", *keys: str) -> dict[str, Any]:
    return {"reason": reason, "queue": queue, "count": 1, "routing-keys": list(keys or (queue,))}


def read(
    deaths: Any, type_: str | None = "pay", headers: Mapping[str, str] | None = None
) -> DeadLetter:
    return read_dead_letter(delivery(deaths, type_, headers), TOPICS)


@pytest.mark.parametrize(
    ("reason", "is_failure"),
    [("rejected", True), ("delivery_limit", True), ("expired", False), ("maxlen", False)],
)
def test_only_what_a_worker_refused_is_a_failure(reason: str, is_failure: bool) -> None:
    """Infrastructure never costs a business retry; a worker's rejection does."""
    letter = read([death(reason)])

    assert (letter.reason, letter.is_failure, letter.queue) == (reason, is_failure, "pay")
    assert letter.topic is TOPICS["pay"]


@pytest.mark.parametrize(
    ("reason", "text"),
    [
        ("rejected", "a consumer of queue pay rejected the message without requeueing it"),
        ("delivery_limit", "queue pay gave up: its delivery limit was reached"),
    ],
)
def test_the_failure_tells_the_operator_what_happened(reason: str, text: str) -> None:
    """It becomes the errorMessage in the engine."""
    assert read([death(reason)]).text == text


def test_the_latest_death_counts() -> None:
    """RabbitMQ puts it first."""
    assert read([death("delivery_limit"), death("expired", "old")]).reason == "delivery_limit"


def test_the_task_queue_counts_before_queues_on_the_way_here() -> None:
    """A queue of its owner's may delay it: expired there, it was still rejected by a worker."""
    letter = read([death("expired", "rest"), death("rejected", "pay")])

    assert (letter.reason, letter.queue) == ("rejected", "pay")
    assert read([death("expired", "pay"), death("rejected", "rest")]).reason == "expired"


def test_the_latest_death_in_the_task_queue_counts() -> None:
    """Rejected, tried again after a delay of its owner's, and then dropped for want of room."""
    letter = read([death("maxlen", "pay"), death("expired", "rest"), death("rejected", "pay")])

    assert letter.reason == "maxlen"


def test_the_reason_survives_the_waiting_room() -> None:
    """A dead letter of a suspended task waits there and comes back marked as expired by it."""
    noted = note(read([death("rejected")]))

    assert read([death("expired", "bridge.wait", QUEUE)], headers=noted).reason == "rejected"


def test_an_unknown_reason_is_passed_over() -> None:
    """A shovel or a newer broker may add entries of its own."""
    assert read([death("moved"), "nonsense", death("maxlen")]).reason == "maxlen"


@pytest.mark.parametrize("type_", ["other", "", None])
def test_a_letter_of_no_known_topic_is_parked(type_: str | None) -> None:
    """Without the topic its token cannot be verified."""
    with pytest.raises(ResultRefused) as refused:
        read([death("rejected")], type_)

    assert refused.value.reason == "unknown-topic"


@pytest.mark.parametrize("deaths", [None, [], "rejected", [death("unknown")], [{}], [1, None]])
def test_a_letter_without_a_known_reason_is_parked(deaths: Any) -> None:
    """Somebody published into the dead-letter exchange by hand."""
    with pytest.raises(ResultRefused) as refused:
        read(deaths)

    assert refused.value.reason == "no-reason"


scalars = st.none() | st.integers() | st.text() | st.sampled_from(["expired", "reason", QUEUE])
junk = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner)
        | st.dictionaries(st.sampled_from(["reason", "queue", "routing-keys"]), inner)
    ),
)


@given(junk)
def test_whatever_the_header_holds_is_read_or_refused(deaths: Any) -> None:
    """One forged message must not stop the others."""
    try:
        letter = read(deaths)
    except ResultRefused:
        return
    assert letter.topic is TOPICS["pay"]
