"""What a worker has in hand, and from where.  Belongs to the connection's thread; does nothing."""

from __future__ import annotations

from time import monotonic
from typing import Any

from bridge.worker.functions import Handler

REMEMBERED = 10_000


class Job:
    """A task in hand: its message's `tags` on the lane's channel, none where that is lost or all
    are acknowledged; `early`: acknowledged before its answer; `since`: when it was taken.
    """

    def __init__(self, handler: Handler, key: str, method: Any, properties: Any) -> None:
        self.handler, self.key, self.properties = handler, key, properties
        self.consumer: str | None = method.consumer_tag  # None: no place in a consumer's window
        self.tags, self.early = [method.delivery_tag], False
        self.task_id = str((properties.headers or {}).get("taskId"))
        self.since, self.gone = monotonic(), False


class Lane:
    """A topic's channel: what RabbitMQ ends there, the other topics do not notice."""

    def __init__(self, handler: Handler) -> None:
        self.handler = handler
        self.channel: Any = None
        self.consumer: str | None = None
        self.try_at = 0.0
        self.answer_at = 0.0  # later than now: its answers are refused

    def is_whole(self) -> bool:
        known = self.channel.consumer_tags
        return bool(self.channel.is_open and (self.consumer is None or self.consumer in known))


def remember(known: dict[str, Any], key: str, value: Any) -> None:
    """Add it, and forget the oldest of too many."""
    known[key] = value
    if len(known) > REMEMBERED:
        known.pop(next(iter(known)))
