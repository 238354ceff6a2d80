"""Where RabbitMQ is and how to reach it, and in one sentence why it cannot be reached.  No I/O but
reading certificates.
"""

from __future__ import annotations

import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pika
from pika.adapters.utils.connection_workflow import AMQPConnectorException
from pika.exceptions import (
    AMQPConnectionError,
    AMQPError,
    ConnectionClosedByBroker,
    IncompatibleProtocolError,
    ProbableAccessDeniedError,
    ProbableAuthenticationError,
)

from bridge import tls


@dataclass(frozen=True)
class BrokerOptions:
    """Where RabbitMQ is.  `urls` hold credentials: never log them.

    The files are read for each attempt to connect, `password_file` too, whose content replaces the
    password of `urls`: what is renewed holds from the next connection on.
    """

    urls: tuple[str, ...]
    heartbeat: int = 10
    ca_file: Path | None = None
    client_cert_file: Path | None = None
    client_key_file: Path | None = None
    blocked_timeout: float = 60.0
    password_file: Path | None = None

    def parameters(self, name: str) -> list[pika.URLParameters]:
        """One set of connection parameters for each address, in the order given."""
        return [self._parameters(url, name) for url in self.urls]

    def _parameters(self, url: str, name: str) -> pika.URLParameters:
        parameters = pika.URLParameters(url)
        if self.password_file is not None:
            password = self.password_file.read_bytes().decode(errors="replace")
            user = parameters.credentials.username
            parameters.credentials = pika.PlainCredentials(user, password.rstrip("\r\n"))
        parameters.heartbeat = self.heartbeat
        parameters.blocked_connection_timeout = self.blocked_timeout
        parameters.socket_timeout = 5.0
        parameters.stack_timeout = 15.0
        parameters.connection_attempts = 1
        parameters.tcp_options = {"TCP_KEEPIDLE": 30}
        parameters.client_properties = {"connection_name": name, "product": "external-task-bridge"}
        if url.startswith("amqps:"):
            parameters.ssl_options = pika.SSLOptions(self._tls(), parameters.host)
        return parameters

    def _tls(self) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=self.ca_file)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        if self.client_cert_file is not None:
            context.load_cert_chain(self.client_cert_file, self.client_key_file)
        return context


# What a connection attempt can end in: pika's connectors have a tree of exceptions of their own.
NOT_REACHED = (AMQPError, AMQPConnectorException, OSError)


def describe(error: BaseException | str) -> str:
    """One sentence on why the broker cannot be used; never credentials."""
    if isinstance(error, AMQPConnectorException | AMQPConnectionError):
        inner = _innermost(error)
        if inner is not error:
            return describe(inner)
    if isinstance(error, ProbableAuthenticationError):
        if "403" in _text(error):
            return "RabbitMQ refuses the user name or password of [broker] url"
        return "the connection was lost during the login; are user name and password right?"
    if isinstance(error, ProbableAccessDeniedError):
        return "RabbitMQ refuses access to the virtual host of [broker] url"
    if isinstance(error, ConnectionClosedByBroker):
        return f"closed by RabbitMQ: {error.reply_code} {error.reply_text}"
    if refusal := tls.explain(_text(error)):
        return refusal.sentence
    if isinstance(error, IncompatibleProtocolError):
        return f"not an AMQP 0-9-1 listener, or it wants amqps://: {_text(error)}"
    return _text(error)


def _innermost(error: BaseException) -> BaseException:
    causes: Sequence[Any] = getattr(error, "exceptions", None) or error.args
    for cause in reversed(list(causes)):
        if isinstance(cause, BaseException):
            return _innermost(cause)
    inner = getattr(error, "exception", None)
    return _innermost(inner) if isinstance(inner, BaseException) else error


def _text(error: BaseException | str) -> str:
    return error if isinstance(error, str) else (str(error) or repr(error))
