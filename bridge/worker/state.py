"""What a worker has in hand.  Belongs to the connection's thread; does nothing."""

from __future__ import annotations

import threading
from time import monotonic
from typing import Any

from bridge.worker.functions import Handler

REMEMBERED = 10_000
AGAIN_SECONDS = 2.0


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


class Hand:
    """All jobs in hand, by the key of their messages, whatever becomes of connections; once
    `stopping` is set, which any thread may do, there is no room for another one.
    """

    def __init__(self, prefetch: int) -> None:
        self.jobs: dict[str, Job] = {}
        self.stopping = threading.Event()
        self._prefetch = prefetch

    def of(self, handler: Handler) -> list[Job]:
        return [job for job in self.jobs.values() if job.handler is handler]

    def lose_deliveries(self, handler: Handler) -> None:
        """What was delivered by the handler's channel comes again."""
        for job in self.of(handler):
            job.consumer, job.tags = None, []

    def room(self, handler: Handler) -> int:
        return 0 if self.stopping.is_set() else self._prefetch - len(self.of(handler))


def remember(known: dict[str, Any], key: str, value: Any) -> None:
    """Add it, and forget the oldest of too many."""
    known[key] = value
    if len(known) > REMEMBERED:
        known.pop(next(iter(known)))
