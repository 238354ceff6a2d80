"""One turn: instances are started first, then one contender empties the topic.

Timed by the engine's access log, from the first fetch to the last completion; then the engine's
history must know every instance as ended.  Contenders take turns on one engine: A B A B.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from tests.benchmarks.contenders import Contender, Place, WholeBridge, raw
from tests.benchmarks.machine import cpu_seconds
from tests.benchmarks.parts import Parts
from tests.support.engine import unique

TURN_LIMIT_S = 600.0


@dataclass(frozen=True)
class Turn:
    """What one contender did with so many tasks; CPU in milliseconds a task, by process."""

    contender: str
    tasks: int
    seconds: float
    cpu_ms: float
    start_cpu_s: float
    worker_cpu_ms: float
    engine_cpu_ms: float
    broker_cpu_ms: float
    calls: dict[str, int]

    @property
    def rate(self) -> float:
        return self.tasks / self.seconds

    def as_json(self) -> dict[str, Any]:
        return {**asdict(self), "rate": self.rate}

    def __str__(self) -> str:
        return (
            f"{self.contender:<30} {self.rate:6.0f} tasks/s  CPU ms a task: own {self.cpu_ms:.2f}, "
            f"worker {self.worker_cpu_ms:.2f}, engine {self.engine_cpu_ms:.2f}, "
            f"broker {self.broker_cpu_ms:.2f}"
        )


def take_turn(parts: Parts, contender: Contender, tasks: int) -> Turn:
    """Start the instances, let the contender empty the topic, count, clean up."""
    topic = unique("bench")
    key = parts.rest.deploy_topics(topic)
    parts.start_instances(key, tasks)
    calls = parts.calls()
    place = Place(parts, parts.engine.url, (topic,), parts.directory)
    with contender.running(place) as started:
        helpers = [started.worker.pid] if started.worker else []
        pids = [started.pids, helpers, [parts.engine.pid], parts.broker.pids]
        before = [cpu_seconds(*group) for group in pids]
        limit = time.monotonic() + TURN_LIMIT_S
        while calls.read().completed < tasks:
            assert time.monotonic() < limit, f"{contender.name}: {calls.completed} of {tasks}"
            time.sleep(0.02)
        used = [cpu_seconds(*group) - b for group, b in zip(pids, before, strict=True)]
    assert parts.rest.finished(key) == tasks
    parts.forget(key)
    own, worker, engine, broker = (1000 * seconds / tasks for seconds in used)
    return Turn(
        contender=contender.name,
        tasks=tasks,
        seconds=calls.seconds,
        cpu_ms=own,
        start_cpu_s=before[0],
        worker_cpu_ms=worker,
        engine_cpu_ms=engine,
        broker_cpu_ms=broker,
        calls=dict(calls.counts),
    )


def rounds(
    parts: Parts, contenders: Sequence[Contender], tasks: int, count: int
) -> Iterator[list[Turn]]:
    """Each round has one turn of each contender, in order."""
    for _ in range(count):
        turns = []
        for contender in contenders:
            turns.append(take_turn(parts, contender, tasks))
            print(f"  {turns[-1]}", flush=True)
        yield turns


def warm_up(parts: Parts, tasks: int) -> None:
    """Have the engine's code compiled before anything is measured, that behind the bridge's
    requests too; once for each engine.
    """
    if parts.warm:
        return
    parts.warm = True
    for contender in (raw(8), WholeBridge(), raw(32)):
        print(f"  warm-up: {take_turn(parts, contender, tasks)}", flush=True)
