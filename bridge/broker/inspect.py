"""Looks at RabbitMQ for `check`.  Publishes nothing, consumes nothing, binds nothing.

The only declaration that is not passive is of what a passive look has just found: RabbitMQ then
compares it, refuses it with 406 where it differs, and changes nothing either way.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Literal, Self

import pika
from pika.adapters.utils.connection_workflow import AMQPConnectorException
from pika.exceptions import (
    AMQPError,
    ChannelClosedByBroker,
    ProbableAccessDeniedError,
    ProbableAuthenticationError,
)

from bridge import tls
from bridge.broker.options import NOT_REACHED, BrokerOptions, describe
from bridge.broker.topology import Exchange, Queue
from bridge.errors import BrokerUnavailable

CONNECT_SECONDS = 3.0
HANDSHAKE_SECONDS = 6.0
HEARTBEAT_SECONDS = 5

Why = Literal["address", "login", "vhost", "tls"]


class BrokerUnreachable(BrokerUnavailable):
    """No connection to one address; `why` is the kind of reason, `refusal` what TLS says."""

    def __init__(self, why: Why, text: str, refusal: tls.Refusal | None = None) -> None:
        super().__init__(text)
        self.why: Why = why
        self.refusal = refusal


@dataclass(frozen=True, slots=True)
class QueueSize:
    """What a passive look tells of a queue."""

    messages: int
    consumers: int


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a declaration was refused: 403 no right to ask, 406 it differs, 405 exclusive."""

    code: int
    text: str


class Inspector:
    """One short connection to one address.  Raises BrokerUnavailable where it breaks."""

    def __init__(self, parameters: pika.URLParameters) -> None:
        self.address = f"{parameters.host}:{parameters.port}"
        self.vhost: str = parameters.virtual_host
        self._parameters = parameters
        self._connection: Any = None
        self._channel: Any = None

    def open(self) -> Self:
        """Connect.  Raises BrokerUnreachable."""
        try:
            self._connection = pika.BlockingConnection(self._parameters)
        except NOT_REACHED as error:
            raise _unreachable(error) from error
        return self

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        if self._connection is not None and self._connection.is_open:
            with suppress(*NOT_REACHED):  # it breaks in this moment, and is closed all the same
                self._connection.close()

    def queue(self, name: str) -> QueueSize | Refusal | None:
        """How full a queue is; None where there is none."""
        answer = self._ask(lambda channel: channel.queue_declare(name, passive=True))
        if isinstance(answer, Refusal):
            return None if answer.code == 404 else answer
        return QueueSize(answer.method.message_count, answer.method.consumer_count)

    def exchange(self, name: str) -> bool:
        """Whether an exchange exists."""
        answer = self._ask(lambda channel: channel.exchange_declare(name, passive=True))
        return not isinstance(answer, Refusal)

    def compare(self, part: Exchange | Queue) -> Refusal | None:
        """Whether RabbitMQ takes the declaration of what exists.  Only after a look that found it:
        what is not there would be made.
        """
        if isinstance(part, Exchange):
            answer = self._ask(
                lambda channel: channel.exchange_declare(part.name, part.type, durable=True)
            )
        else:
            arguments = dict(part.arguments)
            answer = self._ask(
                lambda channel: channel.queue_declare(part.name, durable=True, arguments=arguments)
            )
        return answer if isinstance(answer, Refusal) else None

    def _ask(self, question: Callable[[Any], Any]) -> Any:
        try:
            if self._channel is None or not self._channel.is_open:
                self._channel = self._connection.channel()
            return question(self._channel)
        except ChannelClosedByBroker as error:
            return Refusal(error.reply_code, error.reply_text)
        except (AMQPError, OSError) as error:
            raise BrokerUnavailable(describe(error)) from error


def inspectors(options: BrokerOptions, name: str = "check") -> list[Inspector]:
    """One for each address, not connected yet.  Raises OSError for an unusable TLS file."""
    made = options.parameters(f"external-task-bridge {name}")
    for parameters in made:
        parameters.socket_timeout = CONNECT_SECONDS
        parameters.stack_timeout = HANDSHAKE_SECONDS
        parameters.heartbeat = HEARTBEAT_SECONDS
    return [Inspector(parameters) for parameters in made]


def _unreachable(error: Exception) -> BrokerUnreachable:
    if isinstance(error, ProbableAuthenticationError):
        return BrokerUnreachable("login", "RabbitMQ refuses the user name or the password")
    if isinstance(error, ProbableAccessDeniedError):
        refused = "not found" if "not found" in str(error) else "refused to this user"
        return BrokerUnreachable("vhost", f"the virtual host is {refused}")
    if refusal := tls.explain(repr(error)):
        return BrokerUnreachable("tls", f"TLS: {refusal.text}", refusal)
    if isinstance(error, AMQPConnectorException):
        return BrokerUnreachable("address", "no AMQP answer in time")
    return BrokerUnreachable("address", describe(error))
