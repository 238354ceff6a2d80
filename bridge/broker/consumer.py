"""Consume queues, one channel each, and acknowledge.  Understands nothing of what it delivers.

`deliver` is called on the connection's thread and must not block.  A queue that cannot be consumed
(deleted, permission withdrawn) is tried again with growing pauses; the others go on.
"""

from __future__ import annotations

import itertools
import threading
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any

import structlog
from pika.exceptions import AMQPError

from bridge.broker.connection import MAX_PAUSE_SECONDS, ConnectionThread
from bridge.messages import Delivery

log = structlog.get_logger(__name__)


class _Subscription:
    """One consumed queue: its channel, and which deliveries are still open on it."""

    def __init__(self, queue: str) -> None:
        self.queue = queue
        self.channel: Any = None
        self.generation = 0
        self.open_tags: deque[int] = deque()
        self.acked: set[int] = set()
        self.pause = 1.0
        self.problem: str | None = "not consumed yet"


class Consumer:
    """The role of the consuming connection.  `ack`, `pause` and `problems` are for every thread."""

    def __init__(
        self,
        queues: Iterable[str],
        prefetch: int,
        deliver: Callable[[Delivery], None],
        missing: Callable[[str], None],
    ) -> None:
        self._prefetch = prefetch
        self._deliver = deliver
        self._missing = missing
        self._thread: ConnectionThread | None = None
        self._lock = threading.Lock()
        self._acks: deque[Delivery] = deque()
        # Only the connection's thread touches these.
        self._connection: Any = None
        self._generations = itertools.count(1)
        self._subscriptions = {queue: _Subscription(queue) for queue in queues}
        self._stopped = False

    def attach(self, thread: ConnectionThread) -> None:
        """Tell which connection carries this role, before it runs."""
        self._thread = thread

    def ack(self, delivery: Delivery) -> None:
        """Acknowledge a delivery; without effect once its channel is gone, it then comes again."""
        with self._lock:
            self._acks.append(delivery)
        if self._thread is not None:
            self._thread.wake()

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
            self._open(subscription)

    def lost(self, why: str) -> None:
        self._connection = None
        for subscription in self._subscriptions.values():
            subscription.channel, subscription.problem = None, why

    def blocked(self, blocked: bool) -> None:
        """Alarms stop publishers only; acknowledgements go on."""

    def work(self) -> None:
        with self._lock:
            acks, self._acks = self._acks, deque()
        if self._stopped:
            self._cancel_all()
        touched: dict[str, _Subscription] = {}
        for delivery in acks:
            subscription = self._subscriptions[delivery.queue]
            if subscription.generation == delivery.generation and subscription.channel is not None:
                subscription.acked.add(delivery.tag)
                touched[delivery.queue] = subscription
        for subscription in touched.values():
            _send_acks(subscription)

    def _open(self, subscription: _Subscription) -> None:
        if self._connection is None or not self._connection.is_open or self._stopped:
            return
        generation = next(self._generations)
        subscription.generation = generation
        subscription.open_tags.clear()
        subscription.acked.clear()

        def opened(channel: Any) -> None:
            channel.add_on_close_callback(
                lambda _, reason: self._gone(subscription, generation, reason)
            )
            channel.add_on_cancel_callback(lambda _: channel.close(404, "consumer cancelled"))
            channel.basic_qos(prefetch_count=self._prefetch)
            channel.basic_consume(
                subscription.queue,
                lambda _, method, properties, body: self._on_message(
                    subscription, generation, method, properties, body
                ),
                callback=lambda _: self._consuming(subscription),
            )

        subscription.channel = self._connection.channel(on_open_callback=opened)

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
        subscription.open_tags.append(method.delivery_tag)
        self._deliver(_delivery(subscription.queue, generation, method, properties, body))

    def _gone(self, subscription: _Subscription, generation: int, reason: Any) -> None:
        if generation != subscription.generation:
            return
        subscription.channel = None
        connection = self._connection
        if self._stopped or connection is None or not connection.is_open:
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
    channel, acked, tags = subscription.channel, subscription.acked, subscription.open_tags
    last = None
    while tags and tags[0] in acked:
        last = tags.popleft()
        acked.discard(last)
    try:
        if last is not None:
            channel.basic_ack(last, multiple=True)
        for tag in acked:
            channel.basic_ack(tag)
            tags.remove(tag)
    except AMQPError:
        return  # the channel is closing: what it delivered comes again
    acked.clear()


def _delivery(queue: str, generation: int, method: Any, properties: Any, body: bytes) -> Delivery:
    timestamp = properties.timestamp
    return Delivery(
        queue=queue,
        body=body,
        headers=properties.headers or {},
        generation=generation,
        tag=method.delivery_tag,
        redelivered=method.redelivered,
        message_id=properties.message_id,
        correlation_id=properties.correlation_id,
        reply_to=properties.reply_to,
        type=properties.type,
        content_type=properties.content_type,
        content_encoding=properties.content_encoding,
        timestamp=timestamp if isinstance(timestamp, int) else None,
        app_id=properties.app_id,
    )
