"""The consumer's bound in bytes against a real RabbitMQ: large results are held a few at a time."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field

from bridge.broker import Consumer
from bridge.messages import Delivery
from tests.support.amqp import Amqp
from tests.support.roles import Carried, nobody_repairs
from tests.support.waiting import eventually, throughout

KIB = 1024
LIMIT = 400 * KIB
QUORUM = {"x-queue-type": "quorum", "x-delivery-limit": 3}


@dataclass
class Held:
    """What was delivered, and the most bytes that were unacknowledged at any time."""

    open: dict[tuple[int, int], Delivery] = field(default_factory=dict)
    seen: list[Delivery] = field(default_factory=list)
    most: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def deliver(self, delivery: Delivery) -> None:
        with self.lock:
            self.seen.append(delivery)
            self.open[delivery.generation, delivery.tag] = delivery
            self.most = max(self.most, sum(len(d.body) for d in self.open.values()))

    def take_one(self) -> Delivery | None:
        with self.lock:
            return self.open.pop(next(iter(self.open)), None) if self.open else None


class Bounded(Carried):
    """A running consumer of one queue with a small limit."""

    def __init__(self, url: str, queue: str, prefetch: int) -> None:
        self.held = Held()
        self.consumer = Consumer([queue], prefetch, self.held.deliver, nobody_repairs, LIMIT)
        super().__init__(self.consumer, url)
        self.consumer.attach(self.connection)

    def finish(self, count: int) -> list[Delivery]:
        """Acknowledge one after the other until so many are done; what was delivered."""
        done: list[Delivery] = []
        while len(done) < count:
            delivery = eventually(self.held.take_one, what=f"delivery {len(done)} of {count}")
            assert delivery is not None
            self.consumer.ack(delivery)
            done.append(delivery)
        return done


def fill(url: str, queue: str, *sizes: int) -> None:
    """A quorum queue with messages of these sizes; each begins with its number."""
    with Amqp(url) as amqp:
        amqp.channel.queue_declare(queue, durable=True, arguments=QUORUM)
        amqp.channel.confirm_delivery()  # else a queue that elects its leader may miss some
        for number, size in enumerate(sizes):
            amqp.send("", queue, str(number).encode().ljust(size))


def numbers(deliveries: list[Delivery]) -> set[int]:
    return {int(delivery.body) for delivery in deliveries}


def test_large_results_are_held_a_few_at_a_time(amqp_url: str) -> None:
    """The prefetch alone would allow two hundred of sixteen MiB; none may be lost for it, nor go
    round so often that the delivery limit takes it.
    """
    fill(amqp_url, "q", *[100 * KIB] * 60)

    with Bounded(amqp_url, "q", 50) as bounded:
        done = bounded.finish(60)

        assert numbers(done) == set(range(60))
        assert bounded.held.most <= LIMIT
        with Amqp(amqp_url) as amqp:
            eventually(lambda: amqp.count("q") == 0)
    with Amqp(amqp_url) as amqp:
        assert amqp.count("q") == 0, "every one of them was acknowledged"


def test_what_is_not_held_is_there_for_peers(amqp_url: str) -> None:
    """A replica that can take no more keeps nothing back."""
    fill(amqp_url, "q", *[100 * KIB] * 20)

    with Bounded(amqp_url, "q", 50) as full, Amqp(amqp_url) as amqp:
        eventually(lambda: len(full.held.seen) == 4)
        eventually(lambda: amqp.count("q") == 16)
        throughout(lambda: len(full.held.seen) == 4, 0.3)
        with Bounded(amqp_url, "q", 50) as peer:
            peer.finish(16)
        full.finish(4)

        eventually(lambda: amqp.count("q") == 0)


def test_a_message_larger_than_the_limit_comes_alone(amqp_url: str) -> None:
    """It has to be parked by somebody."""
    fill(amqp_url, "q", 10, LIMIT + 1, 10)

    with Bounded(amqp_url, "q", 50) as bounded:
        assert numbers(bounded.finish(3)) == {0, 1, 2}


def test_small_results_after_large_ones_come_at_full_width(amqp_url: str) -> None:
    """A burst of large ones must not slow the topic down for good."""
    fill(amqp_url, "q", *[100 * KIB] * 10, *[10] * 40)

    with Bounded(amqp_url, "q", 10) as bounded, Amqp(amqp_url) as amqp:
        bounded.finish(50)
        for number in range(50, 70):
            amqp.send("", "q", str(number).encode())

        eventually(lambda: len(bounded.held.open) == 10, what="the whole prefetch is in hand")
        bounded.finish(20)


def test_results_held_over_a_reconnect_still_count(amqp_url: str) -> None:
    """They come again while the first ones are still being worked on."""
    fill(amqp_url, "q", *[200 * KIB] * 2)

    with Bounded(amqp_url, "q", 50) as bounded, Amqp(amqp_url) as amqp:
        old = eventually(lambda: bounded.held.seen[:2] if len(bounded.held.seen) == 2 else [])
        amqp.channel.queue_delete("q")
        eventually(bounded.consumer.problems)
        fill(amqp_url, "q", *[200 * KIB] * 4)
        eventually(lambda: not bounded.consumer.problems() and not amqp.consumers("q"))
        throughout(lambda: len(bounded.held.seen) == 2, 0.3)
        for delivery in old:
            bounded.held.open.pop((delivery.generation, delivery.tag))
            bounded.consumer.ack(delivery)

        assert numbers(bounded.finish(4)) == {0, 1, 2, 3}
        assert bounded.held.most <= LIMIT
