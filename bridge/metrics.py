"""What the bridge counts and measures, in a registry of its own.  Labels are topics, events, verbs
and outcomes, never ids; how things stand (what is in flight, how full queues are) is not kept here.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
)

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
# Whatever an alert or a rate begins with.
_EXPECTED: tuple[Event, ...] = (
    "fetched",
    "confirmed",
    "completed",
    "failed",
    "incident",
    "parked",
    "deadline_missed",
)
Stage = Literal["confirm", "reply", "engine"]

STAGE_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 5, 10, 30, 60, 300, 600)
CALL_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20)


class Metrics:
    """Counts and times.  Safe to use from every thread; a call costs about a microsecond."""

    def __init__(self) -> None:
        # A line more for every series, which says nothing that the start of the process does not.
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self.registry = CollectorRegistry()
        self._tasks = Counter(
            "bridge_tasks",
            "External tasks by topic and by what happened to them",
            ("topic", "event"),
            registry=self.registry,
        )
        self._renewals = Counter(
            "bridge_lock_renewals",
            "Locks that the engine has set anew: leases, renewals, holds and adoptions",
            ("topic",),
            registry=self.registry,
        )
        self._stages = Histogram(
            "bridge_stage_seconds",
            "Times of a task: fetch to confirm, confirm to reply, reply until the engine took it",
            ("topic", "stage"),
            buckets=STAGE_BUCKETS,
            registry=self.registry,
        )
        self._calls = Histogram(
            "bridge_engine_call_seconds",
            "Calls to the engine by verb and outcome; what a long poll may take is left out",
            ("verb", "outcome"),
            buckets=CALL_BUCKETS,
            registry=self.registry,
        )
        ProcessCollector(registry=self.registry)
        # Looking a child up by its labels costs more than what is done with it.
        self._event_children: dict[tuple[str, Event], Counter] = {}
        self._stage_children: dict[tuple[str, Stage], Histogram] = {}
        self._call_children: dict[tuple[str, str], Histogram] = {}

    def expect(self, topics: Iterable[str]) -> None:
        """Begin the counts of these topics at 0, so that the first event of a kind is a rise."""
        for topic in topics:
            self._renewals.labels(topic)
            for event in _EXPECTED:
                self.count(topic, event, 0)

    def count(self, topic: str, event: Event, by: int = 1) -> None:
        """Add to a topic's count of an event."""
        child = self._event_children.get((topic, event))
        if child is None:
            child = self._event_children[topic, event] = self._tasks.labels(topic, event)
        child.inc(by)

    def renewed(self, topic: str) -> None:
        """The engine has set a lock of the topic anew."""
        self._renewals.labels(topic).inc()

    def took(self, topic: str, stage: Stage, seconds: float) -> None:
        """A task of the topic has passed a stage in so many seconds; less than none count as 0."""
        child = self._stage_children.get((topic, stage))
        if child is None:
            child = self._stage_children[topic, stage] = self._stages.labels(topic, stage)
        child.observe(max(0.0, seconds))

    def called(self, verb: str, outcome: str, seconds: float) -> None:
        """A call to the engine has ended after so many seconds."""
        child = self._call_children.get((verb, outcome))
        if child is None:
            child = self._call_children[verb, outcome] = self._calls.labels(verb, outcome)
        child.observe(max(0.0, seconds))

    def value(self, topic: str, event: Event) -> float:
        """A topic's count of an event so far."""
        return self.events().get(topic, {}).get(event, 0)

    def events(self) -> dict[str, dict[str, int]]:
        """The counts of every topic by event, as far as there are any."""
        found: dict[str, dict[str, int]] = {}
        for family in self._tasks.collect():
            for sample in family.samples:
                if sample.value:
                    counts = found.setdefault(sample.labels["topic"], {})
                    counts[sample.labels["event"]] = int(sample.value)
        return found
