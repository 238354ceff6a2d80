"""A topic's channels: consume, acknowledge, hear of gone tasks.  What RabbitMQ ends there, the
other topics do not notice: only an error of the connection is raised.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from time import monotonic
from typing import Any
from uuid import uuid4

from pika.exceptions import AMQPChannelError, ChannelClosedByBroker

from bridge.worker.functions import Handler
from bridge.worker.state import AGAIN_SECONDS, Hand, Job

log = logging.getLogger(__name__)

NOT_FOUND = 404
TAKEN_BACK = "queue deleted, or a message held for too long"


class Lane:
    """Consumes the topic's queue for as much as the hand has room for.  `take` gets what pika gives
    a consumer, after the handler.
    """

    def __init__(
        self, connection: Any, handler: Handler, hand: Hand, take: Callable[..., None]
    ) -> None:
        self.handler = handler
        self.answer_at = 0.0  # later than now: its answers are refused
        self._connection, self._hand, self._take = connection, hand, take
        self._channel: Any = None
        self._consumer: str | None = None
        self._try_at = 0.0

    def attend(self) -> None:
        """Consume, and begin again `AGAIN_SECONDS` after RabbitMQ has ended it."""
        if self._channel is not None:
            if not self._is_whole():
                self._close(TAKEN_BACK)
        elif monotonic() > self._try_at:
            self._channel = self._connection.channel()
            self._consume()

    def cancel(self) -> None:
        """Take no more; what is in hand may still be acknowledged."""
        if self._consumer is not None:
            consumer, self._consumer = self._consumer, None
            try:
                self._channel.basic_cancel(consumer)
            except AMQPChannelError as error:
                self._close(_why(error))

    def acknowledge(self, job: Job, *, done: bool) -> bool:
        """Have RabbitMQ forget the job's message, and with `done` the hand the job.  False where
        RabbitMQ has taken the message back: its copy is yet to come, to somebody.
        """
        makes_room = done and job.consumer is not None and job.consumer == self._consumer
        if not makes_room:  # RabbitMQ's window and ours differ: a new consumer has the right one
            self.cancel()
        try:
            for tag in job.tags:
                self._channel.basic_ack(tag)
        except AMQPChannelError as error:
            self._close(_why(error))
        acknowledged = bool(job.tags)
        job.tags, job.consumer, job.early = [], None, not done
        if done:
            del self._hand.jobs[job.key]
        if not makes_room:
            self._consume()
        return acknowledged

    def _is_whole(self) -> bool:
        known = self._channel.consumer_tags
        return bool(self._channel.is_open and (self._consumer is None or self._consumer in known))

    def _consume(self) -> None:
        # A message that is acknowledged early makes room at the broker, but none here.
        room = self._hand.room(self.handler)
        if self._channel is not None and room > 0:
            take = partial(self._take, self.handler)
            try:
                self._channel.basic_qos(prefetch_count=room)
                self._consumer = self._channel.basic_consume(self.handler.queue, take)
            except AMQPChannelError as error:
                self._close(_why(error))

    def _close(self, why: str) -> None:
        log.warning("%s: no longer consuming, trying again: %s", self.handler.queue, why)
        with suppress(AMQPChannelError):
            self._channel.close()
        self._hand.lose_deliveries(self.handler)
        # Not at once: RabbitMQ takes a consumer even for a queue that it is about to delete.
        self._channel, self._consumer, self._try_at = None, None, monotonic() + AGAIN_SECONDS


class Ear:
    """Hears of the topic's gone tasks, by a queue of its own at the bridge's exchange.  A courtesy:
    where it may not, it warns and leaves it; where the exchange is not there yet, it warns once
    and tries again.
    """

    def __init__(
        self, connection: Any, handler: Handler, exchange: str, note: Callable[..., None]
    ) -> None:
        self._connection, self._topic, self._exchange = connection, handler.topic, exchange
        # The same at each attempt: one that failed after the declaration leaves no other queue.
        self._queue, self._note = f"{handler.queue}.gone.{uuid4().hex}", note
        self._channel: Any = None
        self._try_at, self._warned = 0.0, False

    def attend(self) -> None:
        """Hear, and begin again `AGAIN_SECONDS` after it has ended."""
        if self._hears() or monotonic() < self._try_at:
            return
        self._channel = self._connection.channel()
        self._try_at = monotonic() + AGAIN_SECONDS
        try:
            self._channel.queue_declare(self._queue, exclusive=True, auto_delete=True)
            self._channel.queue_bind(self._queue, self._exchange, self._topic)
            self._channel.basic_consume(self._queue, self._note, auto_ack=True)
        except ChannelClosedByBroker as error:
            if error.reply_code != NOT_FOUND:  # RabbitMQ's log would have a line for each attempt
                self._try_at = float("inf")
            if not self._warned:
                log.warning("no notices of gone tasks of %s: %s", self._topic, error.reply_text)
            self._warned = True

    def _hears(self) -> bool:
        channel = self._channel
        return bool(channel is not None and channel.is_open and channel.consumer_tags)


def _why(error: AMQPChannelError) -> str:
    return str(getattr(error, "reply_text", TAKEN_BACK))
