"""One blocking connection for a short program: look, publish, take, delete.  Retries nothing, and
nothing in the service uses it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import pika
from pika.exceptions import AMQPError, ChannelClosedByBroker, NackError, UnroutableError

from bridge.broker.inspect import QueueSize
from bridge.broker.options import NOT_REACHED, BrokerOptions, describe
from bridge.broker.properties import delivery_of, properties_of
from bridge.errors import BrokerUnavailable
from bridge.messages import Delivery, Publication

NO_ROUTE, NO_ROOM = 312, 0


class BrokerRefused(BrokerUnavailable):
    """RabbitMQ answers, and refuses: `code` is 403 for a missing right, 404 for a missing queue or
    exchange, 312 for a message that no queue takes, 0 for one that a full queue refuses.
    """

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code


@dataclass(frozen=True, slots=True)
class Taken:
    """A message taken from a queue; `persistent`: it would have outlived a restart of a node."""

    delivery: Delivery
    persistent: bool


@dataclass(frozen=True, slots=True)
class Removed:
    """What was taken from a queue, and how many other messages were found there and put back."""

    mine: list[Delivery]
    others: int


class Client:
    """To be used in one thread.  Every method raises BrokerUnavailable where the connection breaks
    or RabbitMQ refuses what is asked; a refused look or binding, and an exchange that cannot be
    made or deleted, is an answer.
    """

    def __init__(self, options: BrokerOptions, name: str, heartbeat: int = 0) -> None:
        """Without a heartbeat (0) RabbitMQ waits for whoever waits for something else."""
        self._options, self._name, self._heartbeat = options, name, heartbeat
        self._connection: Any = None
        self._channel: Any = None

    def __enter__(self) -> Self:
        with broker_errors():
            addresses = self._options.parameters(self._name)
            for parameters in addresses:
                parameters.heartbeat = self._heartbeat
            self._connection = pika.BlockingConnection(addresses)
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        with suppress(*NOT_REACHED):
            self._connection.close()

    def look(self, queue: str) -> QueueSize | None:
        """How full a queue is; None where there is none."""
        with broker_errors():
            try:
                found = self._open().queue_declare(queue, passive=True).method
            except ChannelClosedByBroker as refused:
                if refused.reply_code == 404:
                    return None
                raise
            return QueueSize(found.message_count, found.consumer_count)

    def declare(self, queue: str, arguments: Mapping[str, Any]) -> None:
        """Make a durable queue."""
        with broker_errors():
            self._open().queue_declare(queue, durable=True, arguments=dict(arguments))

    def declare_own(self, queue: str) -> None:
        """Make a queue that goes with this connection, and that nobody else can read."""
        with broker_errors():
            self._open().queue_declare(queue, exclusive=True)

    def make_exchange(self, name: str, kind: str) -> bool:
        """Make a durable exchange where there is none; True where this call made it."""
        with broker_errors():
            try:
                self._open().exchange_declare(name, passive=True)
            except ChannelClosedByBroker as refused:
                if refused.reply_code != 404:
                    return False
            else:
                return False
            try:
                self._open().exchange_declare(name, kind, durable=True)
            except ChannelClosedByBroker:
                return False
            return True

    def delete_exchange(self, name: str) -> None:
        """Delete an exchange, but not one to which a queue is bound."""
        with broker_errors(), suppress(ChannelClosedByBroker):
            self._open().exchange_delete(name, if_unused=True)

    def bind(self, queue: str, exchange: str, key: str) -> bool:
        """Bind a queue to an exchange; False where RabbitMQ refuses or there is no exchange."""
        with broker_errors():
            try:
                self._open().queue_bind(queue, exchange, key)
            except ChannelClosedByBroker:
                return False
            return True

    def unbind(self, queue: str, exchange: str, key: str) -> None:
        """Remove a binding; there may be none."""
        with broker_errors(), suppress(ChannelClosedByBroker):
            self._open().queue_unbind(queue, exchange, key)

    def publish(self, publication: Publication) -> None:
        """Publish as the bridge does: when this returns, a queue holds the message."""
        with broker_errors():
            self._open().basic_publish(
                publication.exchange,
                publication.routing_key,
                publication.body,
                properties_of(publication, 0),
                mandatory=True,
            )

    def take(self, queue: str) -> Taken | None:
        """Take the next message, acknowledged; None where none is ready."""
        with broker_errors():
            method, properties, body = self._open().basic_get(queue, auto_ack=True)
            return None if method is None else _taken(queue, method, properties, body)

    def remove(self, queue: str, mine: Callable[[Delivery], bool]) -> Removed:
        """Take the ready messages that are `mine`; all others go back where they were, which counts
        as a delivery of each.
        """
        removed: list[Delivery] = []
        others: list[int] = []
        with broker_errors():
            channel = self._open()
            while (got := channel.basic_get(queue))[0] is not None:
                delivery = _taken(queue, *got).delivery
                if mine(delivery):
                    channel.basic_ack(delivery.tag)
                    removed.append(delivery)
                else:
                    others.append(delivery.tag)
            for tag in others:
                channel.basic_nack(tag, requeue=True)
        return Removed(removed, len(others))

    def intercept(
        self, queue: str, mine: Callable[[Delivery], bool], seconds: float
    ) -> list[Delivery]:
        """Take what of `mine` comes to the queue before any other consumer gets it, until there is
        nothing more for so many seconds.
        """
        taken: list[Delivery] = []
        with broker_errors():
            channel = self._open()
            first = {"x-priority": 10}
            for got in channel.consume(queue, arguments=first, inactivity_timeout=seconds):
                if got[0] is None:
                    break
                delivery = _taken(queue, *got).delivery
                if not mine(delivery):
                    break  # somebody works here: the queue gets it back
                channel.basic_ack(delivery.tag)
                taken.append(delivery)
            channel.cancel()
            channel.close()
        return taken

    def delete(self, queue: str) -> None:
        """Delete a queue with all that it holds."""
        with broker_errors():
            self._open().queue_delete(queue)

    def wait(self, seconds: float) -> None:
        """Let time pass, the connection being served."""
        with broker_errors():
            self._connection.sleep(seconds)

    def _open(self) -> Any:
        if self._channel is None or not self._channel.is_open:
            self._channel = self._connection.channel()
            self._channel.confirm_delivery()
        return self._channel


def _taken(queue: str, method: Any, properties: Any, body: bytes) -> Taken:
    return Taken(delivery_of(queue, 0, method, properties, body), properties.delivery_mode == 2)


@contextmanager
def broker_errors() -> Iterator[None]:
    try:
        yield
    except ChannelClosedByBroker as refused:
        raise BrokerRefused(
            refused.reply_code, f"{refused.reply_code} {refused.reply_text}"
        ) from refused
    except UnroutableError as error:
        raise BrokerRefused(NO_ROUTE, "no queue takes the message") from error
    except NackError as error:
        raise BrokerRefused(NO_ROOM, "the queue is full") from error
    except (*NOT_REACHED, AMQPError) as error:
        raise BrokerUnavailable(describe(error)) from error
