"""The AMQP properties of a message: written from a publication, read whatever they hold.

Reading never raises.  A header that pika cannot decode (a timestamp in milliseconds, a table
nested a thousand deep) would otherwise end the connection at each delivery of the message.
"""

from __future__ import annotations

import struct
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
