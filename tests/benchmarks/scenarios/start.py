"""From the start of the process to the first task in a worker's hands, one task waiting."""

from __future__ import annotations

import time

from tests.benchmarks import programs
from tests.benchmarks.contenders import WorkerOptions, bridge, bridge_settings, worker
from tests.benchmarks.figures import Measured
from tests.benchmarks.parts import Parts
from tests.benchmarks.plan import Plan
from tests.benchmarks.receipts import Receipt, receipts
from tests.benchmarks.results import Outcome
from tests.benchmarks.stand_in import stand_in
from tests.support.engine import unique

LIMIT_S = 60.0


def run(parts: Parts, plan: Plan) -> Outcome:
    """Of several starts; one before them declares the queues and does not count."""
    topic = unique("start")
    log = parts.directory / topic
    seconds: list[float] = []
    with (
        stand_in(parts.directory) as engine,
        parts.vhost() as amqp_url,
        worker(amqp_url, [topic], log, WorkerOptions(tell=True)) as telling,
    ):
        settings = bridge_settings(engine.url, amqp_url, {topic: {}})
        with bridge(settings):
            programs.wait_ready(telling)
        for number in range(plan.starts):
            engine.create(topic, 1)
            began = time.time()
            with bridge(settings):
                limit = time.monotonic() + LIMIT_S
                found: list[Receipt] = []
                while len(found := receipts(log)) <= number:
                    assert time.monotonic() < limit, "no first task"
                    time.sleep(0.02)
            seconds.append(found[number].at_ms / 1000 - began)
            print(f"  {seconds[-1]:.2f} s", flush=True)
    return Outcome([Measured("start", tuple(seconds), "queues there already, engine stand-in")])
