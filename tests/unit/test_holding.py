"""Messages in hand, on a queue that drops what was delivered too often, as RabbitMQ does."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import pika
import pytest

from bridge.broker.holding import GIVEN_BACK_MAX, UNREADABLE, Held, Holding
from bridge.broker.properties import ReadableProperties


@dataclass(frozen=True)
class Waiting:
    """A message in the queue, its properties as they are written, and how often it came back."""

    body: bytes
    properties: bytes
    count: int = 0

    def read(self) -> ReadableProperties:
        """As a client reads them, with RabbitMQ's count."""
        found = ReadableProperties()
        found.decode(self.properties, 0)
        if found.unreadable is None and self.count:
            found.headers = {**(found.headers or {}), "x-delivery-count": self.count}
        return found


@dataclass(frozen=True)
class Method:
    """How a message is delivered."""

    delivery_tag: int
    redelivered: bool


class QuorumQueue:
    """One queue, and a channel to it; what came back more often than `limit` times is gone."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self.ready: list[Waiting] = []
        self._out: dict[int, Waiting] = {}
        self._tags = 0

    def basic_qos(self, **_: int) -> None:
        """As many as there are."""

    def consume(self, _queue: str, **_: float) -> Iterator[tuple[Any, Any, Any]]:
        while self.ready:
            message = self.ready.pop(0)
            self._tags += 1
            self._out[self._tags] = message
            yield Method(self._tags, message.count > 0), message.read(), message.body

    def basic_ack(self, tag: int) -> None:
        del self._out[tag]

    def basic_nack(self, _tag: int, *, multiple: bool, requeue: bool) -> None:
        assert multiple
        assert requeue
        back = [replace(one, count=one.count + 1) for one in self._out.values()]
        self.ready += [one for one in back if one.count <= self._limit]
        self._out.clear()

    def basic_publish(
        self, _exchange: str, _key: str, body: bytes, properties: Any, *, mandatory: bool
    ) -> None:
        assert mandatory
        self.ready.append(Waiting(body, written(properties)))

    def cancel(self) -> None:
        """Nothing more comes."""

    def close(self) -> None:
        """What is out was given back before."""


def written(properties: Any) -> bytes:
    return b"".join(properties.encode())


def late() -> bytes:
    """Properties with a time in a year that Python does not know."""
    odd = pika.BasicProperties(headers={"at": 1_700_000_000_000}, correlation_id="token")
    return written(odd).replace(b"l\0\0\x01\x8b", b"T\0\0\x01\x8b")


def look(queue: QuorumQueue) -> list[Held]:
    """Take every message in hand once, and keep it."""
    holding = Holding(queue, lambda: queue, "parked", len(queue.ready))
    seen = []
    for held in holding.messages():
        seen.append(held)
        holding.keep(held)
    holding.give_back()
    return seen


@pytest.fixture
def queue() -> QuorumQueue:
    return QuorumQueue(GIVEN_BACK_MAX)


def test_looking_uses_no_message_up(queue: QuorumQueue) -> None:
    """A copy takes its place before RabbitMQ drops it."""
    properties = pika.BasicProperties(headers={"reason": "bad-json"}, correlation_id="token")
    queue.ready.append(Waiting(b"{bad", written(properties)))

    seen = [look(queue) for _ in range(4 * GIVEN_BACK_MAX)]

    assert [len(one) for one in seen] == [1] * len(seen)
    assert {one[0].delivery.correlation_id for one in seen} == {"token"}
    assert {one[0].delivery.headers["reason"] for one in seen} == {"bad-json"}


def test_looking_uses_no_unreadable_message_up(queue: QuorumQueue) -> None:
    """RabbitMQ's count stands in the headers that cannot be read: the body is kept in time."""
    queue.ready.append(Waiting(b"{odd", late()))

    seen = [look(queue) for _ in range(4 * GIVEN_BACK_MAX)]

    assert [[held.delivery.body for held in one] for one in seen] == [[b"{odd"]] * len(seen)
    assert seen[0][0].unreadable is not None
    last = seen[-1][0]
    assert last.unreadable is None
    assert last.delivery.headers["reason"] == UNREADABLE
    assert "could not be read" in last.delivery.headers["reasonDetail"]


def test_an_unreadable_message_is_left_as_it_is_at_the_first_look(queue: QuorumQueue) -> None:
    """Other tools may read what ours cannot."""
    message = Waiting(b"{odd", late())
    queue.ready.append(message)

    look(queue)

    assert queue.ready == [replace(message, count=1)]
