"""The messages of one queue in hand: looked at one by one, then let go or given back.

Giving back counts as a delivery, and RabbitMQ drops what was delivered too often (from 4.0 on after
20 times, whoever looked): a message near that is replaced by a fresh copy of itself; one whose
headers cannot be read, its count among them, at the second look, by a copy of its body.  Whatever
breaks, a message lies in its queue again; at worst it does so twice.  Gives back in no order.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import pika
from pika.exceptions import AMQPError, ChannelClosedByBroker, NackError, UnroutableError

from bridge.broker.client import Client, broker_errors
from bridge.broker.properties import CODEC_ERRORS, delivery_of
from bridge.clock import monotonic
from bridge.messages import Delivery

# How often a message is given back before a copy takes its place: a policy may say so few.
GIVEN_BACK_MAX = 3
# As many as AMQP can name; with more than these RabbitMQ sends what it has.
_PREFETCH_MAX = 65_535
_SILENCE_SECONDS = 3.0
_SETTLE_SECONDS = 5.0
_LOOK_AGAIN_SECONDS = 0.05
_LOCKED, _FORBIDDEN = 405, 403
# What RabbitMQ adds at each delivery, and where it would send copies of a copy.
PASSING_HEADERS = frozenset({"x-delivery-count", "x-acquired-count", "CC", "BCC"})

# The reason that stands in the copy of a message whose headers nobody could read.
UNREADABLE = "unreadable"


@dataclass(frozen=True, slots=True)
class Held:
    """A message in hand; `unreadable` says why its properties cannot be relied on."""

    delivery: Delivery
    unreadable: str | None = None
    properties: Any = field(default=None, repr=False, compare=False)


class HoldingClient(Client):
    """A connection that can also hold messages without taking them."""

    def claim(self, name: str, seconds: float) -> bool:
        """Keep out all others who claim this name, by a queue that goes with this connection.
        False where another has it and keeps it for so long; who may not make queues goes on.
        """
        until = monotonic() + seconds
        with broker_errors():
            while True:
                try:
                    self._open().queue_declare(name, exclusive=True)
                except ChannelClosedByBroker as refused:
                    if refused.reply_code != _LOCKED:
                        return bool(refused.reply_code == _FORBIDDEN)
                else:
                    return True
                if monotonic() > until:
                    return False
                self._connection.sleep(_LOOK_AGAIN_SECONDS)

    @contextmanager
    def holding(self, queue: str) -> Iterator[Holding]:
        """The messages that are ready now, in hand one after the other.  What is kept is back when
        this ends; where it breaks, RabbitMQ takes everything back by itself.  Raises BrokerRefused
        where there is no such queue or no right, before it has taken any message.
        """
        with broker_errors():
            # Without the right to publish copies, looking would use the messages up.
            with suppress(UnroutableError):
                self._open().basic_publish("", f"{queue}.nobody", b"", mandatory=True)
            held = Holding(self._connection.channel(), self._open, queue, self._ready(queue))
            yield held
            held.give_back()
            until = monotonic() + _SETTLE_SECONDS
            while self._ready(queue) < held.left and monotonic() < until:
                self._connection.sleep(_LOOK_AGAIN_SECONDS)

    def _ready(self, queue: str) -> int:
        return int(self._open().queue_declare(queue, passive=True).method.message_count)


class Holding:
    """Takes the messages of a queue on a channel of its own; `publishing` gives another one, with
    confirms.  `left` is how many of them are not let go.
    """

    def __init__(self, channel: Any, publishing: Callable[[], Any], queue: str, ready: int) -> None:
        self._channel = channel
        self._publishing = publishing
        self._queue = queue
        self._ready = ready
        self._in_hand = False
        self.left = ready

    def messages(self) -> Iterator[Held]:
        """The messages that were ready, each to be let go or kept before the next.  Ends early
        where somebody else has taken the rest meanwhile.
        """
        if self._ready == 0:
            return
        self._channel.basic_qos(prefetch_count=self._ready if self._ready <= _PREFETCH_MAX else 0)
        deliveries = self._channel.consume(self._queue, inactivity_timeout=_SILENCE_SECONDS)
        for _, (method, properties, body) in zip(range(self._ready), deliveries, strict=False):
            if method is None:
                return
            delivery = delivery_of(self._queue, 0, method, properties, body)
            yield Held(delivery, getattr(properties, "unreadable", None), properties)

    def let_go(self, held: Held) -> None:
        """Acknowledge it: it is gone."""
        self._channel.basic_ack(held.delivery.tag)
        self.left -= 1

    def keep(self, held: Held) -> None:
        """Leave it in the queue: given back at the end, or replaced by its copy now."""
        if _worn(held) and self._copied(held):
            self._channel.basic_ack(held.delivery.tag)  # the copy is confirmed
        else:
            self._in_hand = True

    def give_back(self) -> None:
        """Give back everything that is still in hand, and take no more."""
        self._channel.cancel()
        if self._in_hand:
            self._channel.basic_nack(0, multiple=True, requeue=True)
        self._channel.close()

    def _copied(self, held: Held) -> bool:
        body = held.delivery.body
        try:
            self._publishing().basic_publish("", self._queue, body, _fresh(held), mandatory=True)
        except (ChannelClosedByBroker, NackError, UnroutableError):
            return False
        except AMQPError:
            raise
        except CODEC_ERRORS:
            return False
        return True


def _worn(held: Held) -> bool:
    """Whether a copy must take its place."""
    if held.unreadable is not None:
        return held.delivery.redelivered
    count = held.delivery.headers.get("x-delivery-count", 0)
    return isinstance(count, int) and count >= GIVEN_BACK_MAX


def _fresh(held: Held) -> Any:
    """The properties of a copy.  A user id would be refused as another user's."""
    if held.unreadable is not None:
        detail = f"its properties could not be read ({held.unreadable}) and are not in this copy"
        headers = {"reason": UNREADABLE, "reasonDetail": detail}
        return pika.BasicProperties(headers=headers, delivery_mode=2)
    properties = copy.copy(held.properties)
    kept = {k: v for k, v in held.delivery.headers.items() if k not in PASSING_HEADERS}
    if held.delivery.user_id is not None:
        kept.setdefault("originalUserId", held.delivery.user_id)
    properties.headers, properties.user_id, properties.delivery_mode = kept, None, 2
    return properties
