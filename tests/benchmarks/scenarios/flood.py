"""A flood of one topic on the real engine, and what another topic's tasks notice of it.

The flooded topic's worker does fifty tasks a second, so that the flood outlasts the measurement;
the other topic gets five a second.  The same without the flood comes before and after it.
"""

from __future__ import annotations

import time

from tests.benchmarks import programs
from tests.benchmarks.contenders import WorkerOptions, bridge, bridge_settings, worker
from tests.benchmarks.figures import Measured
from tests.benchmarks.parts import Parts
from tests.benchmarks.plan import WHOLE, Plan
from tests.benchmarks.receipts import receipts, waits
from tests.benchmarks.results import Outcome
from tests.benchmarks.scenarios.latency import RATE, SKIP, trickle
from tests.benchmarks.spread import percentile
from tests.benchmarks.turn import warm_up
from tests.support.engine import unique

PAUSE_MS = 20


def run(parts: Parts, plan: Plan) -> Outcome:
    """The p95 of the quiet topic, with the flood over that without."""
    warm_up(parts, plan.warm_up_tasks)
    tasks = plan.latency_tasks + SKIP
    before, _ = _quiet_topic(parts, tasks, flood=0)
    flooded, left = _quiet_topic(parts, tasks, flood=plan.flood)
    after, _ = _quiet_topic(parts, tasks, flood=0)
    without = before + after
    p95, p95_without = percentile(flooded, 95), percentile(without, 95)
    note = (
        f"{p95:.1f} ms against {p95_without:.1f} ms; flood of {plan.flood}, {left} of it left "
        f"at the end, its worker at {1000 // PAUSE_MS}/s"
    )
    print(f"  {note}", flush=True)
    details = {"flood": {"with": flooded, "without": without}}
    whole = plan.flood >= WHOLE.flood
    return Outcome([Measured("flood", (p95 / p95_without,), note, whole)], details)


def _quiet_topic(parts: Parts, tasks: int, *, flood: int) -> tuple[list[float], int]:
    """Milliseconds from creation to worker of the quiet topic's tasks, and what the flood left."""
    loud, quiet = unique("loud"), unique("quiet")
    keys = [parts.rest.deploy_topics(topic) for topic in (loud, quiet)]
    parts.start_instances(keys[0], flood)
    log = parts.directory / quiet
    with (
        parts.vhost() as amqp_url,
        worker(amqp_url, [loud], parts.directory / loud, WorkerOptions(1, 10, PAUSE_MS)) as busy,
        worker(amqp_url, [quiet], log, WorkerOptions(tell=True)) as telling,
        bridge(bridge_settings(parts.engine.url, amqp_url, {loud: {}, quiet: {}})),
    ):
        programs.wait_ready(busy)
        programs.wait_ready(telling)
        trickle(parts, keys[1], tasks, RATE)
        limit = time.monotonic() + 60
        while len(found := waits(receipts(log), quiet, skip=SKIP)) < tasks - SKIP:
            assert time.monotonic() < limit, f"{len(found)} of {tasks}"
            time.sleep(0.1)
        left = parts.rest.running(keys[0])
    for key in keys:
        parts.forget(key)
    return found, left
