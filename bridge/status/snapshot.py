"""How the bridge stands, as JSON documents for its page and the operator's commands."""

from __future__ import annotations

import heapq
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit

from bridge.circuit import State
from bridge.clock import monotonic
from bridge.ledger import Entry, Ledger
from bridge.metrics import Metrics
from bridge.status.overview import Observatory, TopicView

SCHEMA_VERSION = 1
TASKS_MAX = 500

_CIRCUITS: Mapping[State, str] = {
    State.CLOSED: "closed",
    State.OPEN: "open",
    State.TRYING: "trying",
    State.HALF_OPEN: "half open",
}


class Snapshot:
    """Makes the documents.  Times are seconds, ages and margins with a fraction; null: not known,
    or nothing is in flight.
    """

    def __init__(
        self,
        observatory: Observatory,
        ledger: Ledger,
        metrics: Metrics,
        *,
        version: str,
        worker_id: str,
        engine_url: str,
    ) -> None:
        self._observatory = observatory
        self._ledger = ledger
        self._metrics = metrics
        self._about = {"version": version, "workerId": worker_id}
        self._engine_url = _bare(engine_url)
        self._began = monotonic()

    def status(self, _query: Mapping[str, str]) -> dict[str, Any]:
        """`/status.json`: every part and every topic."""
        overview = self._observatory.look()
        problems, events = overview.problems, self._metrics.events()
        return {
            "schemaVersion": SCHEMA_VERSION,
            **self._about,
            "now": f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}",
            "uptimeSeconds": _rounded(monotonic() - self._began),
            "ready": not problems,
            "problems": dict(problems),
            "engine": {"url": self._engine_url, "problem": problems.get("engine")},
            "publisher": {"problem": problems.get("publisher")},
            "consumer": {"problem": problems.get("consumer")},
            "parked": overview.parked,
            "waitingResults": overview.waiting_results,
            "topics": [_topic(view, events.get(view.name, {})) for view in overview.topics],
        }

    def tasks(self, query: Mapping[str, str]) -> dict[str, Any]:
        """`/tasks.json`: what is in flight, of one `topic` or all, oldest first; or one `task`."""
        task_id, topic = query.get("task"), query.get("topic")
        if task_id is not None:
            found = self._ledger.entry(task_id)
            entries = [] if found is None else [found]
        else:
            entries = [e for e in self._ledger.entries() if topic is None or e.topic == topic]
        oldest, now = heapq.nsmallest(TASKS_MAX, entries, key=lambda e: e.since), monotonic()
        return {
            "schemaVersion": SCHEMA_VERSION,
            "total": len(entries),
            "tasks": [_task(entry, now) for entry in oldest],
        }


def _topic(view: TopicView, events: Mapping[str, int]) -> dict[str, Any]:
    return {
        "name": view.name,
        "queue": view.queue,
        "resultQueue": view.result_queue,
        "circuit": _CIRCUITS[view.circuit],
        "problem": view.problem,
        "inFlight": view.in_flight,
        "capacity": view.capacity,
        "oldestSeconds": _rounded(view.oldest),
        "lockMarginSeconds": _rounded(view.lock_margin),
        "events": dict(events),
        "waiting": view.waiting,
        "stuck": view.stuck,
        "ready": view.ready,
        "unacked": view.unacked,
        "consumers": view.consumers,
    }


def _task(entry: Entry, now: float) -> dict[str, Any]:
    return {
        "taskId": entry.task_id,
        "topic": entry.topic,
        "retries": entry.retries,
        "seconds": _rounded(now - entry.since),
        "confirmed": entry.confirmed,
        "leased": entry.leased,
        "lockSecondsLeft": _rounded(entry.lock_ends - now),
        "deadlineSecondsLeft": _rounded(entry.deadline - now),
    }


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 3)


def _bare(url: str) -> str:
    """An address without credentials, which the settings do not let in anyway."""
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2], query="", fragment="").geturl()
