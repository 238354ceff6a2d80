"""Which scenarios there are, and a run of some of them."""

from __future__ import annotations

import difflib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tests.benchmarks.conditions import conditions
from tests.benchmarks.figures import Measured
from tests.benchmarks.parts import Parts
from tests.benchmarks.plan import Plan
from tests.benchmarks.results import Outcome, Point, Results
from tests.benchmarks.scenarios import (
    alone,
    flood,
    growth,
    idle,
    in_flight,
    latency,
    locks,
    replicas,
    share,
    start,
)


@dataclass(frozen=True)
class Scenario:
    """One measurement, and the figures that it gives."""

    name: str
    run: Callable[[Parts, Plan], Outcome]
    figures: tuple[str, ...] = ()


SCENARIOS: Sequence[Scenario] = (
    Scenario("share", share.run, ("share", "javascript", "java", "python", "cpu")),
    Scenario("pinned", share.run_pinned, ("pinned",)),
    Scenario("alone", alone.run, ("alone",)),
    Scenario("latency", latency.run, ("latency_p50", "latency_p99")),
    Scenario("locks", locks.run, ("locks_one", "locks_two")),
    Scenario("in_flight", in_flight.run, ("in_flight_rss", "in_flight_renewals", "in_flight_cpu")),
    Scenario("replicas", replicas.run, ("replicas",)),
    Scenario("flood", flood.run, ("flood",)),
    Scenario("start", start.run, ("start",)),
    Scenario("idle", idle.run, ("idle_cpu", "idle_polls")),
    Scenario("growth", growth.run),
)


def chosen(only: str) -> list[Scenario]:
    """The scenarios behind names of scenarios or figures, comma separated; all of them for none.

    ValueError with the names that are known.
    """
    names = [name.strip() for name in only.split(",") if name.strip()]
    known = [*dict.fromkeys(n for s in SCENARIOS for n in (s.name, *s.figures))]
    for name in names:
        if name not in known:
            near = difflib.get_close_matches(name, known, 1)
            hint = f", did you mean {near[0]}" if near else ""
            raise ValueError(f"ONLY={name}: no such figure{hint}; there are {', '.join(known)}")
    return [s for s in SCENARIOS if not names or {s.name, *s.figures} & set(names)]


def measure(parts: Parts, plan: Plan, scenarios: Sequence[Scenario]) -> Results:
    """Run the scenarios one after another, telling how it goes."""
    told = conditions(parts, plan)
    print("\n".join(f"{name}: {value}" for name, value in told.items()), flush=True)
    figures: list[Measured] = []
    details: dict[str, object] = {}
    growth: dict[str, Sequence[Point]] = {}
    for scenario in scenarios:
        print(f"\n{scenario.name}", flush=True)
        began = time.monotonic()
        outcome = scenario.run(parts, plan)
        figures += outcome.figures
        details.update(outcome.details)
        growth.update(outcome.growth)
        print(f"  ({time.monotonic() - began:.0f} s)", flush=True)
    return Results(told, figures, details, growth)
