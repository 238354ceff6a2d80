"""How throughput and memory grow: with tasks in flight, topics, sizes, workers and replicas.

One dimension at a time, on the stand-in; every point has fresh processes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tests.benchmarks.contenders import WholeBridge, WorkerOptions
from tests.benchmarks.drain import Drained, Load, drain
from tests.benchmarks.parts import Parts
from tests.benchmarks.plan import Plan
from tests.benchmarks.results import Outcome, Point
from tests.benchmarks.scenarios.backlog import backlog
from tests.benchmarks.scenarios.replicas import slowed
from tests.benchmarks.stand_in import stand_in

WORK_MS = 10
BYTES_IN_ALL = 100_000_000


def run(parts: Parts, plan: Plan) -> Outcome:
    """Every dimension; its points say what was measured at a number of something."""
    tasks = plan.growth_tasks

    def topics(count: int) -> Drained:
        return _drained(parts, WholeBridge(), Load(max(tasks, count), topics=count))

    def size(number: int) -> Drained:
        few = max(20, min(tasks, BYTES_IN_ALL // number))
        return _drained(parts, WholeBridge(), Load(few, size=number))

    def workers(count: int) -> Drained:
        options = WorkerOptions(consumers=count, prefetch=20, pause_ms=WORK_MS)
        return _drained(parts, WholeBridge(worker=options), Load(min(tasks, 300 * count)))

    def replicas(count: int) -> Drained:
        return slowed(parts, min(tasks, 1000 * count), count)

    return Outcome(
        growth={
            "tasks in flight": [backlog(parts, n, tasks) for n in plan.growth_in_flight],
            "topics": _points(plan.growth_topics, topics),
            "bytes of one variable": _points(plan.growth_bytes, size),
            f"workers of {WORK_MS} ms a task": _points(plan.growth_workers, workers),
            "replicas": _points(plan.growth_replicas, replicas),
        }
    )


def _drained(parts: Parts, bridge: WholeBridge, load: Load) -> Drained:
    with stand_in(parts.directory) as engine:
        return drain(parts, engine, bridge, load)


def _points(at: Sequence[int], measure: Callable[[int], Drained]) -> list[Point]:
    points: list[Point] = []
    for number in at:
        drained = measure(number)
        points.append(
            {
                "at": number,
                "tasks/s": drained.rate,
                "MB": drained.rss_mb,
                "CPU ms a task": drained.cpu_ms,
            }
        )
        print(f"  {number}: {drained}", flush=True)
    return points
