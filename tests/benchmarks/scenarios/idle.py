"""One replica with a hundred topics and nothing to do: CPU, and polls waiting at the engine."""

from __future__ import annotations

import time

from tests.benchmarks.contenders import bridge, bridge_settings
from tests.benchmarks.figures import Measured
from tests.benchmarks.machine import cpu_seconds, rss_mb
from tests.benchmarks.parts import Parts
from tests.benchmarks.plan import Plan
from tests.benchmarks.results import Outcome
from tests.benchmarks.stand_in import stand_in
from tests.support.engine import unique
from tests.support.waiting import eventually

TOPICS = 100


def run(parts: Parts, plan: Plan) -> Outcome:
    """From the first poll of a bridge that is ready on."""
    with stand_in(parts.directory) as engine, parts.vhost() as amqp_url:
        topics = {unique("idle"): dict[str, str]() for _ in range(TOPICS)}
        with bridge(bridge_settings(engine.url, amqp_url, topics)) as started:
            eventually(started.is_ready, 120, what="the bridge is ready")
            eventually(lambda: engine.report().polls_waiting, 60, what="a poll waits")
            engine.reset()
            before, began = cpu_seconds(started.pid), time.monotonic()
            time.sleep(plan.watch_seconds)
            cpu = (cpu_seconds(started.pid) - before) / (time.monotonic() - began)
            report, memory = engine.report(), rss_mb(started.pid)
    note = f"over {plan.watch_seconds:g} s: {dict(report.counts)}; {memory:.0f} MB"
    return Outcome(
        [
            Measured("idle_cpu", (100 * cpu,), note),
            Measured("idle_polls", (float(report.most_polls_waiting),)),
        ]
    )
