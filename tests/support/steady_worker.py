"""A worker that outlives its broker: it reconnects, and acknowledges only what it has answered."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Sequence
from typing import Any, Self

import pika
from pika.exceptions import AMQPError, ChannelError

from tests.support.amqp import Message, Reply
from tests.support.loop import Loop

RETRY_SECONDS = 0.2
# Whatever a broker in trouble can do to a worker; anything else is a fault of the test.
TROUBLE = (AMQPError, ChannelError, OSError)
Answer = Callable[[Message], Reply | None]


def done(_: Message) -> Reply:
    """The plainest answer."""
    return Reply({"done": True})


class SteadyWorker:
    """Consumes a queue at the first address that answers; reconnects until it is left.

    Its answers are confirmed before it acknowledges, so that no answer is lost with the broker.
    `seen` has every delivery in order.  `answering` may be cleared: it then stops consuming.
    """

    def __init__(
        self, urls: Sequence[str] | str, queue: str, answer: Answer = done, *, prefetch: int = 20
    ) -> None:
        self.seen: list[Message] = []
        self.answering = threading.Event()
        self.answering.set()
        self._urls = (urls,) if isinstance(urls, str) else tuple(urls)
        self._queue, self._answer, self._prefetch = queue, answer, prefetch
        self._attempts = itertools.count()
        self._loop = Loop(f"worker {queue}", self._step, patience=15)

    def __enter__(self) -> Self:
        self._loop.__enter__()
        return self

    def __exit__(self, *_: Any) -> None:
        self._loop.__exit__()

    @property
    def message_ids(self) -> set[str]:
        return {message.properties.message_id for message in list(self.seen)}

    @property
    def published(self) -> int:
        """How many messages it got, not counting what came to it a second time."""
        return sum(not message.redelivered for message in list(self.seen))

    def _step(self) -> float:
        self._session(self._urls[next(self._attempts) % len(self._urls)])
        return RETRY_SECONDS

    def _session(self, url: str) -> None:
        if not self.answering.wait(0.05):
            return
        parameters = pika.URLParameters(url)
        parameters.heartbeat, parameters.blocked_connection_timeout = 1, 60
        parameters.socket_timeout, parameters.stack_timeout = 2, 4
        try:
            connection = pika.BlockingConnection(parameters)
            try:
                self._consume(connection)
            finally:
                if connection.is_open:
                    connection.close()
        except TROUBLE:
            return

    def _consume(self, connection: Any) -> None:
        channel = connection.channel()
        channel.basic_qos(prefetch_count=self._prefetch)
        channel.confirm_delivery()
        for method, properties, body in channel.consume(self._queue, inactivity_timeout=0.05):
            if self._loop.stopping.is_set() or not self.answering.is_set():
                return
            if method is None:
                continue
            message = Message(body, properties, method.redelivered)
            self.seen.append(message)
            reply = self._answer(message)
            if reply is not None:
                self._send(channel, message, reply)
            channel.basic_ack(method.delivery_tag)

    @staticmethod
    def _send(channel: Any, message: Message, reply: Reply) -> None:
        channel.basic_publish(
            "",
            message.properties.reply_to,
            reply.bytes(),
            pika.BasicProperties(
                correlation_id=message.properties.correlation_id,
                headers={"outcome": reply.outcome} if reply.outcome else None,
                delivery_mode=2,
            ),
            mandatory=True,
        )
