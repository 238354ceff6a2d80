"""The bridge between a stand-in and a real broker: so many tasks, timed by the stand-in."""

from __future__ import annotations

import time
from dataclasses import dataclass

from tests.benchmarks.contenders import Place, WholeBridge
from tests.benchmarks.machine import cpu_seconds, rss_mb
from tests.benchmarks.parts import Parts
from tests.benchmarks.programs import wait_ready
from tests.benchmarks.stand_in import Report, StandIn
from tests.support.engine import unique

STALL_S = 60.0


@dataclass(frozen=True)
class Load:
    """The tasks of a drain, spread evenly over its topics; `size` in bytes of one variable more,
    `rate` a second (0: all at once).
    """

    tasks: int
    topics: int = 1
    size: int = 0
    rate: float = 0


@dataclass(frozen=True)
class Drained:
    """What came of it, all replicas together; from the first fetch to the last completion."""

    tasks: int
    report: Report
    cpu_ms: float
    worker_cpu_ms: float
    broker_cpu_ms: float
    stand_in_cpu_ms: float
    rss_mb: float

    @property
    def rate(self) -> float:
        return self.tasks / self.report.seconds

    def __str__(self) -> str:
        return (
            f"{self.rate:6.0f} tasks/s  CPU ms a task: bridge {self.cpu_ms:.2f}, worker "
            f"{self.worker_cpu_ms:.2f}, broker {self.broker_cpu_ms:.2f}, stand-in "
            f"{self.stand_in_cpu_ms:.2f}; {self.rss_mb:.0f} MB"
        )


def drain(parts: Parts, engine: StandIn, bridge: WholeBridge, load: Load) -> Drained:
    """Start bridge and worker, then make the tasks and wait until all are completed."""
    topics = tuple(unique("alone") for _ in range(load.topics))
    with bridge.running(Place(parts, engine.url, topics, parts.directory)) as started:
        assert started.worker is not None
        wait_ready(started.worker)
        engine.reset()
        pids = [started.pids, [started.worker.pid], parts.broker.pids, [engine.pid]]
        before = [cpu_seconds(*group) for group in pids]
        each = load.tasks // load.topics
        for topic in topics:
            engine.create(topic, each, size=load.size, rate=load.rate / load.topics)
        report = completed(engine, each * load.topics)
        used = [cpu_seconds(*group) - b for group, b in zip(pids, before, strict=True)]
        own, worker, broker, stand_in = (1000 * seconds / load.tasks for seconds in used)
        return Drained(
            each * load.topics, report, own, worker, broker, stand_in, rss_mb(*started.pids)
        )


def completed(engine: StandIn, tasks: int) -> Report:
    """Wait until so many tasks have been completed since the counts began; AssertionError when
    none is for a minute.
    """
    most, limit = 0, time.monotonic() + STALL_S
    while (report := engine.report()).completed < tasks:
        if report.completed > most:
            most, limit = report.completed, time.monotonic() + STALL_S
        assert time.monotonic() < limit, f"{report.completed} of {tasks}: {report}"
        time.sleep(0.02)
    return report
