"""The AMQP properties of a message: written from a publication, read whatever they hold.

Reading never raises.  A header that pika cannot decode (a timestamp in milliseconds, a table
nested a thousand deep) would otherwise end the connection at each delivery of the message.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Any

import pika
from pika.exceptions import AMQPError

from bridge.messages import Delivery, Publication

# What pika raises for a property or header that AMQP, or pika, cannot carry.
CODEC_ERRORS = (
    ValueError,
    TypeError,
    AssertionError,
    ArithmeticError,
    RecursionError,
    OSError,
    struct.error,
    AMQPError,
)
SHORT_TEXT_MAX = 255
_TEXTS = (
    "content_type",
    "content_encoding",
    "correlation_id",
    "reply_to",
    "expiration",
    "message_id",
    "type",
    "user_id",
    "app_id",
)


class ReadableProperties(pika.BasicProperties):  # type: ignore[misc]  # pika is untyped here
    """Properties as they arrive; `unreadable` says why nothing in them can be relied on."""

    unreadable: str | None = None

    def decode(self, encoded: bytes, offset: int = 0) -> ReadableProperties:
        try:
            super().decode(encoded, offset)
        except CODEC_ERRORS as error:
            self.unreadable = type(error).__name__
        return self


# The table from which pika takes the class of the properties that it decodes.
pika.spec.props[pika.BasicProperties.INDEX] = ReadableProperties


def properties_of(publication: Publication, number: int) -> Any:
    """Persistent properties that carry the publish number there and, in a return, back."""
    expiration = publication.expiration_ms
    return pika.BasicProperties(
        content_type=publication.content_type,
        content_encoding=publication.content_encoding,
        headers=dict(publication.headers),
        delivery_mode=2,
        priority=publication.priority,
        correlation_id=publication.correlation_id,
        reply_to=publication.reply_to,
        expiration=None if expiration is None else str(expiration),
        message_id=publication.message_id,
        timestamp=publication.timestamp,
        type=publication.type,
        app_id=publication.app_id,
        # A return names no publish number, and two copies of a message may be under way: this
        # property, reserved and unused in AMQP 0-9-1, carries it.
        cluster_id=str(number),
    )


def delivery_of(queue: str, generation: int, method: Any, properties: Any, body: bytes) -> Delivery:
    """What a consumer got, with the mark of the channel that it must be acknowledged on."""
    return Delivery(
        queue=queue,
        body=body,
        headers=properties.headers or {},
        generation=generation,
        tag=method.delivery_tag,
        redelivered=method.redelivered,
        timestamp=properties.timestamp,
        priority=properties.priority,
        **{name: _text(getattr(properties, name)) for name in _TEXTS},
    )


def _text(value: str | bytes | None) -> str | None:
    # pika leaves bytes that are not UTF-8 as they are; spelled out they fit a property again.
    if isinstance(value, bytes):
        return value.decode("ascii", errors="backslashreplace")[:SHORT_TEXT_MAX]
    return value


def writable(headers: Mapping[str, Any], room: int) -> dict[str, Any]:
    """The headers, in their order, that can be written again and together take at most `room`
    bytes.  RabbitMQ ends the connection on a message whose headers do not fit into one frame.
    """
    kept: dict[str, Any] = {}
    for name, value in headers.items():
        try:
            size = sum(map(len, pika.BasicProperties(headers={name: value}).encode()))
        except CODEC_ERRORS:
            continue
        if size <= room:
            kept[name] = value
            room -= size
    return kept
