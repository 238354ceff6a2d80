"""Workers and queues as a test uses them: plain pika, nothing of the bridge."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import pika
from pika.exceptions import ChannelClosedByBroker

from tests.support.loop import Loop


@dataclass(frozen=True)
class Message:
    """A message taken from a queue."""

    body: bytes
    properties: Any
    redelivered: bool

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def headers(self) -> dict[str, Any]:
        return dict(self.properties.headers or {})


@dataclass(frozen=True)
class Reply:
    """What a worker answers; `outcome` None: the body alone."""

    body: Any = None
    outcome: str | None = None

    def bytes(self) -> bytes:
        if isinstance(self.body, bytes):
            return self.body
        return b"" if self.body is None else json.dumps(self.body).encode()


class Amqp:
    """One connection for looking at queues and sending by hand.  Use it in one thread."""

    def __init__(self, url: str) -> None:
        parameters = pika.URLParameters(url)
        parameters.heartbeat = 0  # a test that waits for something else answers none
        self.connection = pika.BlockingConnection(parameters)
        self._channel = self.connection.channel()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        if self.connection.is_open:
            self.connection.close()

    @property
    def channel(self) -> Any:
        if not self._channel.is_open:
            self._channel = self.connection.channel()
        return self._channel

    def count(self, queue: str) -> int | None:
        """How many messages are ready; None where the queue does not exist."""
        try:
            return int(self.channel.queue_declare(queue, passive=True).method.message_count)
        except ChannelClosedByBroker:
            return None

    def consumers(self, queue: str) -> int:
        try:
            return int(self.channel.queue_declare(queue, passive=True).method.consumer_count)
        except ChannelClosedByBroker:
            return 0

    def get(self, queue: str) -> Message | None:
        """Take one message, acknowledged."""
        try:
            method, properties, body = self.channel.basic_get(queue, auto_ack=True)
        except ChannelClosedByBroker:
            return None
        return None if method is None else Message(body, properties, method.redelivered)

    def drain(self, queue: str) -> list[Message]:
        """Take every message that is ready."""
        taken = []
        while (message := self.get(queue)) is not None:
            taken.append(message)
        return taken

    def refuse(self, queue: str, *, requeue: bool) -> Message | None:
        """Take one message and reject it, as a worker that cannot do it."""
        method, properties, body = self.channel.basic_get(queue)
        if method is None:
            return None
        self.channel.basic_nack(method.delivery_tag, requeue=requeue)
        return Message(body, properties, method.redelivered)

    def answer(self, message: Message, reply: Reply) -> None:
        """Answer a task message as a worker does."""
        headers = {"outcome": reply.outcome} if reply.outcome else None
        self.send(
            "",
            message.properties.reply_to,
            reply.bytes(),
            correlation_id=message.properties.correlation_id,
            headers=headers,
        )

    def send(self, exchange: str, routing_key: str, body: bytes, **properties: Any) -> None:
        properties.setdefault("delivery_mode", 2)
        self.channel.basic_publish(
            exchange, routing_key, body, pika.BasicProperties(**properties), mandatory=False
        )


Handler = Callable[[Message], Reply | None]


class Worker:
    """A worker in a thread: answers each message of a queue by `handler` (None: no answer), then
    acknowledges.  `seen` has every message in order.
    """

    def __init__(self, url: str, queue: str, handler: Handler, prefetch: int = 50) -> None:
        self.seen: list[Message] = []
        self._url, self._queue, self._handler, self._prefetch = url, queue, handler, prefetch
        self._loop = Loop(f"worker {queue}", self._work, patience=10)

    def __enter__(self) -> Self:
        self._loop.__enter__()
        return self

    def __exit__(self, *_: Any) -> None:
        self._loop.__exit__()

    def _work(self) -> None:
        with Amqp(self._url) as amqp:
            self._consume(amqp)

    def _consume(self, amqp: Amqp) -> None:
        channel = amqp.channel
        channel.basic_qos(prefetch_count=self._prefetch)
        for method, properties, body in channel.consume(self._queue, inactivity_timeout=0.05):
            if self._loop.stopping.is_set():
                break
            if method is None:
                continue
            message = Message(body, properties, method.redelivered)
            self.seen.append(message)
            reply = self._handler(message)
            if reply is not None:
                amqp.answer(message, reply)
            channel.basic_ack(method.delivery_tag)
        channel.cancel()
