"""What a parked message says of itself, read without trust: anybody may have written it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from bridge.broker.holding import PASSING_HEADERS, UNREADABLE, Held
from bridge.messages import Delivery

_ID_LENGTH = 10


@dataclass(frozen=True)
class Parked:
    """A parked message as the list tells it: nothing of its content.

    `id` is the same as long as the message lies there.  `queue` is where it came from; `topic` and
    `task_id` None: nobody can tell.  `seconds`: since it was parked, or as old as it is.
    """

    id: str
    reason: str
    topic: str | None
    task_id: str | None
    queue: str | None
    seconds: float | None
    size: int


@dataclass(frozen=True)
class Shown:
    """A parked message with all that it holds; `properties` are those that are set."""

    parked: Parked
    detail: str | None
    properties: Mapping[str, Any]
    headers: Mapping[str, Any]
    body: bytes


def digest_of(held: Held) -> str:
    """The same at every look, and for a copy: of everything but what RabbitMQ adds.  Of a message
    that cannot be read, whose copy has nothing else, the body alone.
    """
    if is_unreadable(held):
        return _digest(UNREADABLE, held.delivery.body)
    told = {name: value for name, value in _properties(held.delivery).items() if name != "userId"}
    headers = {k: v for k, v in held.delivery.headers.items() if k not in PASSING_HEADERS}
    headers.setdefault("originalUserId", held.delivery.user_id)
    return _digest(json.dumps([told, headers], sort_keys=True, default=repr), held.delivery.body)


def is_unreadable(held: Held) -> bool:
    """Whether nobody can tell what task it is of: it cannot be read, or is the copy of such one."""
    return held.unreadable is not None or held.delivery.headers.get("reason") == UNREADABLE


def _digest(text: str, body: bytes) -> str:
    return hashlib.sha256(text.encode() + b"\n" + body).hexdigest()[:_ID_LENGTH]


def id_of(digest: str, ordinal: int) -> str:
    """Two messages that do not differ in anything are told apart by a number."""
    return digest if ordinal == 1 else f"{digest}-{ordinal}"


def _properties(delivery: Delivery) -> dict[str, Any]:
    named = {
        "messageId": delivery.message_id,
        "correlationId": delivery.correlation_id,
        "replyTo": delivery.reply_to,
        "type": delivery.type,
        "contentType": delivery.content_type,
        "contentEncoding": delivery.content_encoding,
        "timestamp": delivery.timestamp,
        "expiration": delivery.expiration,
        "priority": delivery.priority,
        "userId": delivery.user_id,
        "appId": delivery.app_id,
    }
    return {name: value for name, value in named.items() if value is not None}


def shown(held: Held, parked: Parked) -> Shown:
    headers = dict(held.delivery.headers)
    detail = held.unreadable or headers.get("reasonDetail")
    return Shown(
        parked=parked,
        detail=None if detail is None else str(detail),
        properties=_properties(held.delivery),
        headers=headers,
        body=held.delivery.body,
    )


def reason_of(delivery: Delivery) -> str:
    """Ours, or RabbitMQ's own for what it moved there without us."""
    return str(delivery.headers.get("reason") or _death(delivery).get("reason") or "unknown")


def source_of(delivery: Delivery) -> str | None:
    queue = delivery.headers.get("resultQueue") or _death(delivery).get("queue")
    return queue if isinstance(queue, str) else None


def parked_at(delivery: Delivery) -> float | None:
    """In seconds since the epoch: our note, RabbitMQ's, or else the message's own time."""
    for told in (delivery.headers.get("parkedAt"), _death(delivery).get("time")):
        if isinstance(told, datetime):
            return told.replace(tzinfo=told.tzinfo or UTC).timestamp()
        if isinstance(told, int):
            return float(told)
    return None if delivery.timestamp is None else float(delivery.timestamp)


def _death(delivery: Delivery) -> Mapping[str, Any]:
    deaths = delivery.headers.get("x-death")
    first = deaths[0] if isinstance(deaths, list) and deaths else None
    return first if isinstance(first, Mapping) else {}
