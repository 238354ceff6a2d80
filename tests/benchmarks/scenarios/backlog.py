"""A backlog in flight before its worker comes: memory, and the pace at which it is worked off."""

from __future__ import annotations

import time

from tests.benchmarks import programs
from tests.benchmarks.contenders import bridge, bridge_settings, worker
from tests.benchmarks.drain import completed
from tests.benchmarks.machine import cpu_seconds, rss_mb
from tests.benchmarks.parts import Parts
from tests.benchmarks.results import Point
from tests.benchmarks.stand_in import stand_in
from tests.support.amqp import Amqp
from tests.support.engine import unique
from tests.support.waiting import eventually


def backlog(parts: Parts, in_flight: int, more: int) -> Point:
    """So many tasks on the queue; then a worker, and `more` tasks behind them."""
    topic = unique("backlog")
    with stand_in(parts.directory) as engine, parts.vhost() as amqp_url:
        engine.create(topic, in_flight)
        settings = bridge_settings(engine.url, amqp_url, {topic: {"max_in_flight": in_flight}})
        with bridge(settings) as started, Amqp(amqp_url) as amqp:
            began = time.monotonic()
            eventually(lambda: amqp.count(topic) == in_flight, 600, what="the backlog is published")
            filled = in_flight / (time.monotonic() - began)
            memory, before = rss_mb(started.pid), cpu_seconds(started.pid)
            engine.create(topic, more)
            with worker(amqp_url, [topic], parts.directory / topic) as helper:
                programs.wait_ready(helper)
                began = time.monotonic()
                completed(engine, in_flight + more)
                seconds = time.monotonic() - began
            cpu = 1000 * (cpu_seconds(started.pid) - before) / (in_flight + more)
    rate = (in_flight + more) / seconds
    print(f"  {in_flight} in flight: {filled:.0f}/s out, {rate:.0f}/s done, {memory:.0f} MB")
    return {
        "at": in_flight, "tasks/s": rate, "MB": memory, "CPU ms a task": cpu, "published/s": filled
    }  # fmt: skip
