"""The consumer against a real RabbitMQ: nothing acknowledged twice, nothing forgotten."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from typing import Any

import pika
import pytest

from bridge.broker import Topology
from bridge.broker.topology import Queue
from bridge.messages import Delivery
from tests.support.amqp import Amqp
from tests.support.proxy import Proxy
from tests.support.roles import Consuming
from tests.support.waiting import eventually, throughout

QUORUM = {"x-queue-type": "quorum"}


def fill(url: str, queue: str, count: int, **arguments: Any) -> None:
    """A durable quorum queue with so many messages, their bodies counting from 0."""
    with Amqp(url) as amqp:
        amqp.channel.queue_declare(queue, durable=True, arguments={**QUORUM, **arguments})
        amqp.channel.confirm_delivery()  # else a queue that elects its leader may miss some
        for n in range(count):
            amqp.send("", queue, str(n).encode())


def numbers(deliveries: list[Delivery]) -> list[int]:
    return [int(delivery.body) for delivery in deliveries]


def left_in(url: str, queue: str) -> list[int]:
    """What is in the queue once nobody holds anything of it."""
    with Amqp(url) as amqp:
        return sorted(int(message.body) for message in amqp.drain(queue))


def test_no_more_than_the_prefetch_is_unacknowledged(amqp_url: str) -> None:
    """The prefetch bounds what this replica holds; the rest is for its peers."""
    fill(amqp_url, "q", 20)

    with Consuming(["q"], amqp_url, prefetch=5) as consuming:
        first = consuming.deliveries(5)
        throughout(lambda: len(consuming.seen) == 5, 0.3)
        consuming.consumer.ack(first[0])

        assert numbers(consuming.deliveries(6)) == list(range(6))
        throughout(lambda: len(consuming.seen) == 6, 0.3)


def in_order(deliveries: list[Delivery]) -> list[Delivery]:
    return deliveries


def backwards(deliveries: list[Delivery]) -> list[Delivery]:
    return deliveries[::-1]


def shuffled(deliveries: list[Delivery]) -> list[Delivery]:
    return random.Random(7).sample(deliveries, len(deliveries))


@pytest.mark.parametrize("order", [in_order, backwards, shuffled])
def test_every_message_is_acknowledged_once_whatever_the_order(
    amqp_url: str, order: Callable[[list[Delivery]], list[Delivery]]
) -> None:
    """A second ack of a tag closes the channel, a forgotten one keeps a result for ever."""
    fill(amqp_url, "q", 300)

    with Consuming(["q"], amqp_url, prefetch=100) as consuming:
        for batch in range(3):
            taken = consuming.deliveries(100 * (batch + 1))[100 * batch :]
            for delivery in order(taken):
                consuming.consumer.ack(delivery)
        with Amqp(amqp_url) as amqp:
            amqp.send("", "q", b"300")
        (last,) = consuming.deliveries(301)[300:]
        consuming.consumer.ack(last)

        assert numbers(consuming.seen) == list(range(301))
        assert {delivery.generation for delivery in consuming.seen} == {1}  # the first channel
    assert left_in(amqp_url, "q") == []


def test_a_second_acknowledgement_is_dropped(amqp_url: str) -> None:
    """RabbitMQ closes the channel on an unknown tag: everything unacknowledged would come again."""
    fill(amqp_url, "q", 12)

    with Consuming(["q"], amqp_url, prefetch=10) as consuming:
        for delivery in consuming.deliveries(10):
            consuming.consumer.ack(delivery)
        everything = consuming.deliveries(12)  # the prefetch let them come: the acks are made
        for delivery in everything:
            consuming.consumer.ack(delivery)
        with Amqp(amqp_url) as amqp:
            for n in range(12, 30):
                amqp.send("", "q", str(n).encode())
        for delivery in consuming.deliveries(22)[12:]:
            consuming.consumer.ack(delivery)

        assert numbers(consuming.deliveries(30)) == list(range(30))
        assert {delivery.generation for delivery in consuming.seen} == {1}


def test_acknowledgements_of_many_threads_are_all_made(amqp_url: str) -> None:
    """Engine callers finish in their own threads, at the same time."""
    fill(amqp_url, "q", 400)

    with Consuming(["q"], amqp_url, prefetch=400) as consuming:
        deliveries = consuming.deliveries(400)

        def ack(part: list[Delivery]) -> None:
            for delivery in part:
                consuming.consumer.ack(delivery)

        threads = [threading.Thread(target=ack, args=(deliveries[n::8],)) for n in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(10)
    assert left_in(amqp_url, "q") == []


def test_an_acknowledgement_for_a_lost_channel_is_dropped(amqp_url: str) -> None:
    """Its tag means another message on the new channel: acknowledging that would lose a result."""
    fill(amqp_url, "q", 10)

    with Proxy(amqp_url) as proxy, Consuming(["q"], proxy.url) as consuming:
        old = consuming.deliveries(10)
        proxy.cut()
        new = consuming.deliveries(20)[10:]
        for delivery in old:
            consuming.consumer.ack(delivery)
        consuming.consumer.ack(next(d for d in new if d.body == b"3"))
        consuming.ready()

        assert {d.generation for d in old}.isdisjoint(d.generation for d in new)
        assert sorted(numbers(new)) == list(range(10))
        assert all(delivery.redelivered for delivery in new)
    assert left_in(amqp_url, "q") == [0, 1, 2, 4, 5, 6, 7, 8, 9]


def test_what_is_held_is_what_can_still_be_acknowledged(amqp_url: str) -> None:
    """Whoever works on a delivery of a lost channel must know that it comes again."""
    fill(amqp_url, "q", 2)

    with Proxy(amqp_url) as proxy, Consuming(["q"], proxy.url) as consuming:
        holds = consuming.consumer.holds
        old = consuming.deliveries(2)
        assert all(map(holds, old))
        proxy.cut()
        new = consuming.deliveries(4)[2:]

        assert not any(map(holds, old)), "nor may the new channel's equal tags be taken for theirs"
        assert all(map(holds, new))
        consuming.consumer.ack(new[0])
        eventually(lambda: not holds(new[0]), what="acknowledged")
        assert holds(new[1])


def test_a_deleted_queue_is_reported_and_consumed_again_once_it_exists(amqp_url: str) -> None:
    """Nothing but a cancel tells of it, and the channel stays open: silence would be for ever."""
    fill(amqp_url, "q", 1)
    fill(amqp_url, "other", 0)

    with Consuming(["q", "other"], amqp_url) as consuming, Amqp(amqp_url) as amqp:
        consuming.ready().deliveries(1)
        amqp.channel.queue_delete("q")
        eventually(lambda: "q" in consuming.missed)
        eventually(lambda: "q" in consuming.consumer.problems())
        amqp.send("", "other", b"7")
        consuming.deliveries(2)
        fill(amqp_url, "q", 1)

        assert numbers(consuming.deliveries(3)) == [0, 7, 0]
        consuming.ready()
        assert "other" not in consuming.missed


def test_the_missing_callback_can_bring_the_queue_back(amqp_url: str) -> None:
    """`declare = "missing"` holds for a queue that somebody deletes while the bridge runs."""
    fill(amqp_url, "q", 0)
    consuming = Consuming(["q"], amqp_url)
    topology = Topology(consuming.options, "missing", [Queue("q", QUORUM)])
    consuming.repair = lambda queue: threading.Thread(
        target=topology.ensure_queue, args=(queue,)
    ).start()

    with consuming, Amqp(amqp_url) as amqp:
        consuming.ready()
        amqp.channel.queue_delete("q")
        eventually(lambda: amqp.consumers("q") == 1)
        amqp.send("", "q", b"5")

        assert numbers(consuming.deliveries(1)) == [5]


def test_a_queue_that_is_missing_at_the_start_does_not_stop_the_others(amqp_url: str) -> None:
    """One topic's queue is one topic's problem."""
    fill(amqp_url, "there", 3)

    with Consuming(["missing", "there"], amqp_url) as consuming:
        assert numbers(consuming.deliveries(3)) == [0, 1, 2]
        eventually(lambda: "404" in consuming.consumer.problems().get("missing", ""))
        assert set(consuming.consumer.problems()) == {"missing"}
        fill(amqp_url, "missing", 1)

        consuming.deliveries(4)
        consuming.ready()


def test_after_stop_deliveries_nothing_new_comes_and_acknowledgements_still_go_out(
    amqp_url: str,
) -> None:
    """A stopping replica finishes what is in its hands and leaves the rest to its peers."""
    fill(amqp_url, "q", 10)

    with Consuming(["q"], amqp_url, prefetch=5) as consuming:
        deliveries = consuming.deliveries(5)
        consuming.consumer.stop_deliveries()
        for delivery in deliveries[:3]:
            consuming.consumer.ack(delivery)
        throughout(lambda: len(consuming.seen) == 5, 0.3)
    assert left_in(amqp_url, "q") == list(range(3, 10))


def test_what_is_not_acknowledged_comes_back_when_the_consumer_stops(amqp_url: str) -> None:
    """Acknowledge last: until then the message belongs to the broker."""
    fill(amqp_url, "q", 10)

    with Consuming(["q"], amqp_url) as consuming:
        consuming.consumer.ack(consuming.deliveries(10)[4])

    assert left_in(amqp_url, "q") == [0, 1, 2, 3, 5, 6, 7, 8, 9]


class Milliseconds(pika.BasicProperties):  # type: ignore[misc]  # pika is untyped here
    """Properties with a header timestamp in milliseconds, a year that Python does not know."""

    def encode(self) -> Any:
        self.headers = {"outcome": "failure", "at": 1_700_000_000_000}
        return [piece.replace(b"l\0\0\x01\x8b", b"T\0\0\x01\x8b") for piece in super().encode()]


def nested(depth: int) -> dict[str, Any]:
    table: dict[str, Any] = {}
    for _ in range(depth):
        table = {"x": table}
    return table


def test_a_message_with_unreadable_headers_is_parked_whole_and_stops_no_other(
    amqp_url: str,
) -> None:
    """pika gives up the connection on it, at each delivery: one message would stop all results."""
    fill(amqp_url, "parked", 0)
    dead = {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": "parked"}
    fill(amqp_url, "q", 1, **dead)

    with Consuming(["q"], amqp_url) as consuming, Amqp(amqp_url) as amqp:
        consuming.ready()
        odd = Milliseconds(correlation_id="token", delivery_mode=2)
        amqp.channel.basic_publish("", "q", b'{"odd": true}', odd)
        amqp.send("", "q", b"1")

        assert numbers(consuming.deliveries(2)) == [0, 1]
        assert {delivery.generation for delivery in consuming.seen} == {1}
        eventually(lambda: amqp.count("parked") == 1)
        parked = amqp.get("parked")
        assert parked is not None
        assert parked.body == b'{"odd": true}'


def test_deeply_nested_headers_stop_nobody(amqp_url: str) -> None:
    """A table of a thousand levels is legal AMQP, and deeper than Python's stack."""
    fill(amqp_url, "q", 1)

    with Consuming(["q"], amqp_url) as consuming, Amqp(amqp_url) as amqp:
        consuming.ready()
        amqp.send("", "q", b"deep", headers=nested(400))
        for _ in range(10):
            amqp.channel.basic_publish("", "q", b"deeper", Deeper(delivery_mode=2))
        amqp.send("", "q", b"1")

        eventually(lambda: consuming.seen[-1:] and consuming.seen[-1].body == b"1")
        assert [d.body for d in consuming.seen] == [b"0", b"deep", b"1"]
        assert {delivery.generation for delivery in consuming.seen} == {1}


class Deeper(pika.BasicProperties):  # type: ignore[misc]  # pika is untyped here
    """Properties with a table of 3000 levels, written without recursion."""

    def encode(self) -> Any:
        self.headers = {"x": None}
        table = b"\0\0\0\0"
        for _ in range(3000):
            entry = b"\x01xF" + table
            table = len(entry).to_bytes(4, "big") + entry
        plain = b"".join(super().encode())
        return [plain.replace(b"\0\0\0\x03\x01xV", table)]
