"""The consumer's queues change while it runs, against a real RabbitMQ: nothing lost, none stuck."""

from __future__ import annotations

import random

from bridge.messages import Delivery
from tests.support.amqp import Amqp
from tests.support.proxy import Proxy
from tests.support.roles import Consuming
from tests.support.waiting import eventually

QUORUM = {"x-queue-type": "quorum"}
LIMIT = 60.0


def fill(url: str, queue: str, count: int) -> None:
    """A durable quorum queue with so many messages more, their bodies counting from 0."""
    with Amqp(url) as amqp:
        amqp.channel.queue_declare(queue, durable=True, arguments=QUORUM)
        amqp.channel.confirm_delivery()  # else a queue that elects its leader may miss some
        for n in range(count):
            amqp.send("", queue, str(n).encode())


def of(consuming: Consuming, queue: str) -> list[Delivery]:
    return [delivery for delivery in list(consuming.seen) if delivery.queue == queue]


def acknowledge(consuming: Consuming, queue: str, count: int) -> list[Delivery]:
    """Once so many are there."""
    eventually(lambda: len(of(consuming, queue)) >= count, LIMIT)
    for delivery in of(consuming, queue):
        consuming.consumer.ack(delivery)
    return of(consuming, queue)


def test_a_queue_is_added_and_the_others_go_on(amqp_url: str) -> None:
    """On the channels that they have: nothing is delivered a second time."""
    fill(amqp_url, "first", 5)
    fill(amqp_url, "second", 5)
    with Consuming(["first"], amqp_url) as consuming:
        [held, *_] = consuming.deliveries(5)

        consuming.consumer.consume(["first", "second"])

        acknowledge(consuming, "second", 5)
        assert consuming.consumer.holds(held)
        acknowledge(consuming, "first", 5)
        fill(amqp_url, "first", 1)
        acknowledge(consuming, "first", 6)
        assert len({delivery.generation for delivery in of(consuming, "first")}) == 1


def test_what_a_queue_delivered_before_it_was_left_is_acknowledged(amqp_url: str) -> None:
    """Only the rest stays in it; then nobody consumes it."""
    fill(amqp_url, "q", 10)
    with Consuming(["q"], amqp_url, prefetch=4) as consuming, Amqp(amqp_url) as amqp:
        first = consuming.deliveries(4)

        consuming.consumer.consume([])

        assert all(map(consuming.consumer.holds, first))
        for delivery in first:
            consuming.consumer.ack(delivery)
        eventually(lambda: not any(map(consuming.consumer.holds, first)), LIMIT)
        eventually(lambda: amqp.consumers("q") == 0, LIMIT)
        assert amqp.count("q") == 6
        assert consuming.consumer.problems() == {}
        consuming.consumer.ack(first[0])  # again, and late: no harm

        consuming.consumer.consume(["q"])

        seen = [acknowledge(consuming, "q", count) for count in (8, 10)][-1]
        assert sorted(int(delivery.body) for delivery in seen) == list(range(10))
        eventually(lambda: amqp.count("q") == 0, LIMIT)
    assert consuming.missed == []


def test_queues_that_come_and_go_at_any_time_lose_nothing(amqp_url: str) -> None:
    """Whatever a change meets: a channel that opens, a consumer that is being cancelled, messages
    that are not acknowledged yet.
    """
    chance = random.Random(11)
    queues = ["a", "b", "c"]
    for queue in queues:
        fill(amqp_url, queue, 200)
    done: set[tuple[str, int, int]] = set()
    with Consuming(queues, amqp_url, prefetch=7) as consuming:

        def work() -> set[tuple[str, int, int]]:
            for delivery in list(consuming.seen):
                key = (delivery.queue, delivery.generation, delivery.tag)
                if key not in done and chance.random() < 0.5:
                    done.add(key)
                    consuming.consumer.ack(delivery)
            return done

        for _ in range(150):
            consuming.consumer.consume(chance.sample(queues, chance.randint(0, 3)))
            work()
        consuming.consumer.consume(queues)

        for queue in queues:
            bodies = set(range(200))
            eventually(
                lambda: work() and bodies <= {int(d.body) for d in of(consuming, queue)},  # noqa: B023
                LIMIT,
                what=f"all of {queue}",
            )
        with Amqp(amqp_url) as amqp:
            eventually(lambda: all(amqp.consumers(q) == 1 for q in queues), LIMIT)
            # What a queue that was left had not acknowledged comes again, also now.
            eventually(
                lambda: (
                    len(work()) == len(consuming.seen)
                    and not any(map(consuming.consumer.holds, list(consuming.seen)))
                    and [amqp.count(queue) for queue in queues] == [0, 0, 0]
                ),
                LIMIT,
            )
        assert consuming.consumer.problems() == {}
        assert consuming.missed == []


def test_queues_that_change_while_nobody_is_connected_are_followed_later(amqp_url: str) -> None:
    """As if it had begun with them."""
    for queue in ("left", "new"):
        fill(amqp_url, queue, 1)
    with Proxy(amqp_url) as proxy, Consuming(["left"], proxy.url) as consuming:
        consuming.deliveries(1)
        proxy.refuse()
        eventually(lambda: consuming.consumer.problems().keys() == {"left"}, LIMIT)

        consuming.consumer.consume(["new"])
        proxy.heal()

        acknowledge(consuming, "new", 1)
        consuming.ready()
        with Amqp(amqp_url) as amqp:
            eventually(lambda: amqp.count("left") == 1, LIMIT)
            assert amqp.consumers("left") == 0
