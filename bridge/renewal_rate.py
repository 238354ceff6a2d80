"""How many locks are set a second, and the lease that would make them fewer.  Only warns."""

from __future__ import annotations

import threading
from collections.abc import Mapping

import structlog

from bridge.topics import Topic

log = structlog.get_logger(__name__)

OVER_SECONDS = 10.0


class RenewalRate:
    """Counts locks set and warns above `limit` a second.  Safe to use from every thread."""

    def __init__(self, topics: Mapping[str, Topic], limit: float) -> None:
        self._topics = topics
        self._limit = limit
        self._lock = threading.Lock()
        self._counts: dict[str, int] = {}
        self._since: float | None = None

    def add(self, topic: str) -> None:
        """One lock was set."""
        with self._lock:
            self._counts[topic] = self._counts.get(topic, 0) + 1

    def warn(self, now: float) -> None:
        """Log the rate of the last ten seconds if it is above the limit; never skips a renewal."""
        with self._lock:
            if self._since is None:
                self._since = now
            seconds = now - self._since
            if seconds < OVER_SECONDS:
                return
            counts, self._counts, self._since = self._counts, {}, now
        rate = sum(counts.values()) / seconds
        if rate > self._limit:
            topic = max(counts, key=counts.__getitem__)
            better = f"{self._topics[topic].timing.lease * rate / self._limit:.0f}s"
            log.warning("many renewals", per_second=round(rate), topic=topic, better_lease=better)
