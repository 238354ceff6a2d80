"""What the bridge counts, in a registry of its own.  Labels are topics and events, never ids."""

from __future__ import annotations

from typing import Literal

from prometheus_client import CollectorRegistry, Counter

Event = Literal[
    "fetched",
    "confirmed",
    "returned",
    "nacked",
    "unconfirmed",
    "late",
    "completed",
    "failed",
    "bpmn_error",
    "progress",
    "released",
    "incident",
    "stale",
    "gone",
    "parked",
    "waiting",
    "leased",
    "held",
    "adopted",
    "dropped",
    "deadline_missed",
]


class Metrics:
    """Counts by topic.  Safe to use from every thread."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._tasks = Counter(
            "bridge_tasks",
            "External tasks by topic and by what happened to them",
            ("topic", "event"),
            registry=self.registry,
        )
        self._children: dict[tuple[str, Event], Counter] = {}

    def count(self, topic: str, event: Event, by: int = 1) -> None:
        """Add to a topic's count of an event."""
        child = self._children.get((topic, event))
        if child is None:
            child = self._children[topic, event] = self._tasks.labels(topic, event)
        child.inc(by)

    def value(self, topic: str, event: Event) -> float:
        """A topic's count of an event so far."""
        value = self.registry.get_sample_value(
            "bridge_tasks_total", {"topic": topic, "event": event}
        )
        return value or 0.0
