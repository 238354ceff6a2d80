"""Consume queues, one channel each, and acknowledge.  Understands nothing of what it delivers.
Which queues may change at any time.

`deliver` is called on the connection's thread and must not block.  A queue that cannot be consumed
(deleted, permission withdrawn) is tried again with growing pauses; the others go on.  What is held
of a queue is bounded in messages by the prefetch and in bytes: the excess goes back to the queue,
for peers and for later.
"""

from __future__ import annotations

import itertools
import threading
from collections import deque
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import structlog

from bridge.broker.connection import MAX_PAUSE_SECONDS, ConnectionThread
from bridge.broker.hand import Hand
from bridge.broker.properties import delivery_of
from bridge.messages import Delivery

log = structlog.get_logger(__name__)

ACK_SECONDS = 0.02
# Of each queue: four results of the default max_result_bytes.
IN_HAND_BYTES = 64 * 1024 * 1024
NOT_YET = "not consumed yet"


class _Subscription:
    """One consumed queue: its channel, and which deliveries are still open on it."""

    def __init__(self, queue: str, hand: Hand) -> None:
        self.queue = queue
        self.hand = hand
        self.channel: Any = None
        self.generation = 0
        self.consumer_tag: str | None = None  # None: cancelled by us
        self.is_left = False  # no longer wanted
        self.waits_for_room = False
        # Delivered and not acknowledged at the broker, in order of delivery; True: done with.
        self.open_tags: dict[int, bool] = {}
        self.pause = 1.0
        self.problem: str | None = NOT_YET


class Consumer:
    """The role of the consuming connection.  `ack`, `holds` and `problems` are for every thread."""

    def __init__(
        self,
        queues: Iterable[str],
        prefetch: int,
        deliver: Callable[[Delivery], None],
        missing: Callable[[str], None],
        max_bytes: int = IN_HAND_BYTES,
    ) -> None:
        self._deliver = deliver
        self._missing = missing
        self._thread: ConnectionThread | None = None
        self._lock = threading.Lock()
        self._acks: deque[Delivery] = deque()
        # Only the connection's thread touches these.
        self._connection: Any = None
        self._generations = itertools.count(1)
        # A queue once consumed stays here: what it delivered may be acknowledged late.
        self._subscriptions: dict[str, _Subscription] = {}
        self._new_hand = partial(Hand, prefetch, max_bytes)
        self._stopped = False
        self._followed: tuple[str, ...] = ()
        self._wanted = tuple(queues)
        self._follow()

    def attach(self, thread: ConnectionThread) -> None:
        """Tell which connection carries this role, before it runs."""
        self._thread = thread

    def consume(self, queues: Iterable[str]) -> None:
        """Consume these from now on, and no others.  What was delivered before can still be
        acknowledged; the rest stays in its queue.
        """
        self._wanted = tuple(queues)
        if self._thread is not None:
            self._thread.wake()

    def ack(self, delivery: Delivery) -> None:
        """Acknowledge a delivery soon; without effect once its channel is gone: it comes again.

        A quorum queue writes every acknowledgement to disk: those of a moment go as one, unless the
        broker waits for them to deliver more.
        """
        with self._lock:
            self._acks.append(delivery)
            waiting = len(self._acks)
        window = self._subscriptions[delivery.queue].hand.window
        if self._thread is not None:
            self._thread.wake(ACK_SECONDS if 4 * waiting < window else 0.0)

    def holds(self, delivery: Delivery) -> bool:
        """Whether an acknowledgement can still reach RabbitMQ; if not, the message comes again."""
        subscription = self._subscriptions[delivery.queue]
        # The tag first: numbers begin again with each channel, a generation never comes back.
        is_open = delivery.tag in subscription.open_tags
        return is_open and subscription.generation == delivery.generation

    def stop_deliveries(self) -> None:
        """Have no more messages delivered; acknowledgements still go out."""
        self._stopped = True
        if self._thread is not None:
            self._thread.wake()

    def problems(self) -> dict[str, str]:
        """The queues that are not being consumed, with the reason."""
        return {s.queue: s.problem for s in list(self._subscriptions.values()) if s.problem}

    # -- on the connection's thread --------------------------------------------------------------

    def opened(self, connection: Any) -> None:
        self._connection = connection
        for subscription in self._subscriptions.values():
            subscription.problem = None if subscription.is_left else NOT_YET
            self._open(subscription)
        self._follow()

    def lost(self, why: str, final: bool) -> None:
        self._connection = None
        for subscription in self._subscriptions.values():
            subscription.channel = None
            subscription.problem = None if subscription.is_left else why
            subscription.open_tags.clear()

    def blocked(self, blocked: bool) -> None:
        """Alarms stop publishers only; acknowledgements go on."""

    def work(self) -> None:
        with self._lock:
            acks, self._acks = self._acks, deque()
        if self._stopped:
            self._cancel_all()
        self._follow()
        touched: dict[str, _Subscription] = {}
        for delivery in acks:
            subscription = self._subscriptions[delivery.queue]
            subscription.hand.done((delivery.generation, delivery.tag))
            current = subscription.generation == delivery.generation
            if current and delivery.tag in subscription.open_tags:
                subscription.open_tags[delivery.tag] = True
                touched[delivery.queue] = subscription
        for subscription in touched.values():
            if subscription.channel.is_open:  # else it is closing: what it delivered comes again
                _send_acks(subscription)
        for queue in {delivery.queue for delivery in acks}:
            self._begin_again(self._subscriptions[queue])

    def _follow(self) -> None:
        """Begin with the queues that are wanted newly, leave those that are not any more."""
        if (wanted := self._wanted) is self._followed:
            return
        self._followed = wanted
        for queue in wanted:
            if queue not in self._subscriptions:
                self._subscriptions[queue] = _Subscription(queue, self._new_hand())
        for queue, subscription in self._subscriptions.items():
            was_left, subscription.is_left = subscription.is_left, queue not in wanted
            if subscription.is_left:
                subscription.problem = None
                self._cancel(subscription)
            elif was_left:
                subscription.problem = NOT_YET
            self._open(subscription)
            self._begin_again(subscription)

    def _open(self, subscription: _Subscription) -> None:
        if self._connection is None or not self._connection.is_open or self._stopped:
            return
        if subscription.is_left or subscription.channel is not None:
            return
        generation = next(self._generations)
        subscription.generation = generation
        subscription.open_tags.clear()
        subscription.consumer_tag, subscription.waits_for_room = None, False

        def opened(channel: Any) -> None:
            if self._stopped or generation != subscription.generation:
                return
            channel.add_on_close_callback(
                lambda _, reason: self._gone(subscription, generation, reason)
            )
            channel.add_on_cancel_callback(lambda _: _close(channel, "consumer cancelled"))
            if subscription.is_left:
                subscription.waits_for_room = True
                self._begin_again(subscription)
            else:
                self._consume(subscription, generation)

        subscription.channel = self._connection.channel(on_open_callback=opened)

    def _consume(self, subscription: _Subscription, generation: int) -> None:
        channel = subscription.channel
        channel.basic_qos(prefetch_count=subscription.hand.window)
        subscription.consumer_tag = channel.basic_consume(
            subscription.queue,
            lambda _, method, properties, body: self._on_message(
                subscription, generation, method, properties, body
            ),
            callback=lambda _: self._consuming(subscription),
        )

    def _consuming(self, subscription: _Subscription) -> None:
        subscription.problem, subscription.pause = None, 1.0

    def _on_message(
        self,
        subscription: _Subscription,
        generation: int,
        method: Any,
        properties: Any,
        body: bytes,
    ) -> None:
        if generation != subscription.generation:
            return
        unreadable = getattr(properties, "unreadable", None)
        if unreadable is not None:
            # Whatever it means, it cannot be applied: the broker parks it as it is.
            log.warning("message rejected", queue=subscription.queue, unreadable=unreadable)
            subscription.channel.basic_reject(method.delivery_tag, requeue=False)
            return
        hand = subscription.hand
        if not hand.take((generation, method.delivery_tag), len(body)):
            held = {"bytes": hand.used, "prefetch": hand.window}
            log.warning("deliveries pause, too many bytes", queue=subscription.queue, **held)
            self._cancel(subscription)
            subscription.channel.basic_nack(method.delivery_tag, requeue=True)
            return
        subscription.open_tags[method.delivery_tag] = False
        if hand.grows():
            self._cancel(subscription)
        self._deliver(delivery_of(subscription.queue, generation, method, properties, body))

    def _cancel(self, subscription: _Subscription) -> None:
        """Have nothing more delivered until there is room; pika gives back what is on its way."""
        generation, tag = subscription.generation, subscription.consumer_tag

        def cancelled(_: Any) -> None:
            if generation == subscription.generation:
                subscription.waits_for_room = True
                self._begin_again(subscription)

        subscription.consumer_tag = None
        if tag is not None and subscription.channel is not None and subscription.channel.is_open:
            subscription.channel.basic_cancel(tag, callback=cancelled)

    def _begin_again(self, subscription: _Subscription) -> None:
        channel, waits = subscription.channel, subscription.waits_for_room
        if not waits or channel is None or not channel.is_open or self._stopped:
            return
        if subscription.is_left:
            if not subscription.open_tags:
                subscription.channel, subscription.generation = None, next(self._generations)
                channel.close()
        elif subscription.hand.has_room:
            subscription.waits_for_room = False
            self._consume(subscription, subscription.generation)

    def _gone(self, subscription: _Subscription, generation: int, reason: Any) -> None:
        if generation != subscription.generation:
            return
        subscription.channel = None
        subscription.open_tags.clear()
        connection = self._connection
        if self._stopped or connection is None or not connection.is_open or subscription.is_left:
            return
        why = f"{getattr(reason, 'reply_code', '')} {getattr(reason, 'reply_text', reason)}".strip()
        if subscription.problem != why:
            log.warning("queue not consumed", queue=subscription.queue, reason=why)
        subscription.problem = why
        self._missing(subscription.queue)
        connection.ioloop.call_later(subscription.pause, lambda: self._open(subscription))
        subscription.pause = min(MAX_PAUSE_SECONDS, subscription.pause * 2)

    def _cancel_all(self) -> None:
        for subscription in self._subscriptions.values():
            channel = subscription.channel
            if channel is not None and channel.is_open:
                for consumer_tag in channel.consumer_tags:
                    channel.basic_cancel(consumer_tag)


def _send_acks(subscription: _Subscription) -> None:
    """One multiple ack for everything done in order, single ones for what overtook a slow one."""
    channel, tags = subscription.channel, subscription.open_tags
    in_order = list(itertools.takewhile(tags.__getitem__, tags))
    if in_order:
        channel.basic_ack(in_order[-1], multiple=True)
    for tag in in_order:
        del tags[tag]
    for tag in [tag for tag, done in tags.items() if done]:
        channel.basic_ack(tag)
        del tags[tag]


def _close(channel: Any, why: str) -> None:
    if channel.is_open:
        channel.close(404, why)
