"""The figures of the table: what each means, what a naive bridge reaches, what is asked of ours.

Data alone: scenarios measure them, `table` and `plot` show them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from tests.benchmarks.spread import median, spread

Better = Literal["more", "less"]


@dataclass(frozen=True)
class Figure:
    """One line of the table.  `must` and `aim` are bounds in the figure's own unit."""

    key: str
    title: str
    unit: str
    better: Better
    must: float
    aim: float
    naive: float | None = None

    def verdict(self, value: float) -> str:
        """How a value stands against the two bounds."""
        sign = 1 if self.better == "more" else -1
        if sign * value >= sign * self.aim:
            return "aim"
        return "must" if sign * value >= sign * self.must else "MISSED"


@dataclass(frozen=True)
class Measured:
    """The values of one figure in one run, a value a round; `note` says under what conditions.

    `whole` is False where less was done than the figure's title says: such a value is not judged.
    """

    key: str
    values: tuple[float, ...]
    note: str = ""
    whole: bool = True

    @property
    def median(self) -> float:
        return median(self.values)

    @property
    def spread(self) -> float:
        return spread(self.values)


FIGURES: Sequence[Figure] = (
    Figure("share", "tasks/s as a share of the raw ceiling", "", "more", 0.80, 0.90, 0.49),
    Figure("pinned", "the same, engine on one core, the rest on the other", "",
            "more", 0.95, 1.0, 0.87),
    Figure("javascript", "tasks/s against the JavaScript client", "x", "more", 1.05, 1.2, 0.64),
    Figure("java", "tasks/s against the Java client", "x", "more", 2.3, 2.6, 1.4),
    Figure("python", "tasks/s against the Python client", "x", "more", 1.0, 1.0),
    Figure("cpu", "bridge CPU a task, two variables", "ms", "less", 0.8, 0.5, 2.1),
    Figure("alone", "bridge alone, one replica, engine stand-in", "tasks/s",
            "more", 1200, 2000),
    Figure("latency_p50", "latency at low load against the JavaScript client, p50", "x",
            "less", 1.4, 1.1, 1.5),
    Figure("latency_p99", "the same, p99", "x", "less", 1.4, 1.1, 1.3),
    Figure("locks_one", "lock calls for tasks answered within lease_after, one replica", "calls",
            "less", 0, 0),
    Figure("locks_two", "the same, two replicas", "calls", "less", 0, 0),
    Figure("in_flight_rss", "50,000 tasks in flight, lease 1 h: memory", "MB", "less", 300, 300),
    Figure("in_flight_renewals", "the same: renewals", "/s", "less", 28, 28),
    Figure("in_flight_cpu", "the same: CPU", "% of a core", "less", 5, 5),
    Figure("replicas", "two replicas against one, engine not the limit", "x",
            "more", 1.8, 1.95),
    Figure("flood", "p95 of topic B in a flood of topic A, against no flood", "x",
            "less", 1.5, 1.1),
    Figure("start", "start to first task", "s", "less", 1.5, 0.5),
    Figure("idle_cpu", "100 topics, idle: CPU", "% of a core", "less", 1, 1),
    Figure("idle_polls", "100 topics, idle: polls waiting", "polls", "less", 1, 1),
)  # fmt: skip
