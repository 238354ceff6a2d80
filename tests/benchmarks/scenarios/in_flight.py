"""Many tasks in flight and no answer: memory, renewals and CPU under a lease of one hour.

Nobody waits half an hour for the first renewal.  Memory and the CPU between renewals are measured
with all of them; the time between two renewals, as a share of the lease, and the CPU of one are
measured with a thousand under the shortest lease there is.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from tests.benchmarks.contenders import bridge, bridge_settings
from tests.benchmarks.figures import Measured
from tests.benchmarks.machine import cpu_seconds, rss_mb
from tests.benchmarks.parts import Parts
from tests.benchmarks.plan import WHOLE, Plan
from tests.benchmarks.results import Outcome
from tests.benchmarks.stand_in import StandIn, stand_in
from tests.support.bridge import Bridge
from tests.support.engine import unique

LEASE_S = 3600
SHORT_LEASE_S = 130
SAMPLE = 1000
LIMIT_S = 900.0


def run(parts: Parts, plan: Plan) -> Outcome:
    """Without `renewal_seconds` in the plan only memory and the CPU between renewals."""
    count = plan.in_flight
    with _leased(parts, count, {"lease": f"{LEASE_S}s"}) as (started, engine):
        memory = rss_mb(started.pid)
        between = _cpu_share(started, plan.watch_seconds)
        locks = engine.report().lock_calls - count
    print(f"  {count} leased: {memory:.0f} MB, {between:.2%} of a core", flush=True)
    whole = count >= WHOLE.in_flight
    figures = [Measured("in_flight_rss", (memory,), f"{count} in flight", whole)]
    note, cpu = f"{locks} locks in {plan.watch_seconds:g} s without a renewal due", between
    if plan.renewal_seconds:
        share, each = _renewal(parts, plan)
        rate = count / (LEASE_S * share)
        cpu = between + rate * each
        note = f"{between:.2%} between renewals, {each * 1000:.2f} ms each"
        told = f"a lock is renewed after {share:.3f} leases, of {SAMPLE} tasks under 130 s"
        figures.append(Measured("in_flight_renewals", (rate,), told, whole))
    complete = whole and bool(plan.renewal_seconds)
    figures.append(Measured("in_flight_cpu", (100 * cpu,), note, complete))
    return Outcome(figures)


@contextmanager
def _leased(
    parts: Parts, count: int, topic: Mapping[str, Any], **broker: str
) -> Iterator[tuple[Bridge, StandIn]]:
    name = unique("flight")
    with stand_in(parts.directory) as engine, parts.vhost() as amqp_url:
        engine.create(name, count)
        # A topic without room has all its entries looked at, now and then: that is another figure.
        room = {"max_in_flight": 2 * count}
        settings = bridge_settings(engine.url, amqp_url, {name: {**room, **topic}})
        settings["broker"].update(broker)
        settings["renew_warn"] = 100_000
        with bridge(settings) as started:
            limit = time.monotonic() + LIMIT_S
            while engine.report().lock_calls < count:
                assert time.monotonic() < limit, engine.report()
                time.sleep(0.1)
            yield started, engine


def _cpu_share(started: Bridge, seconds: float) -> float:
    before, began = cpu_seconds(started.pid), time.monotonic()
    time.sleep(seconds)
    return (cpu_seconds(started.pid) - before) / (time.monotonic() - began)


def _renewal(parts: Parts, plan: Plan) -> tuple[float, float]:
    """The time between two renewals as a share of the lease, and the CPU seconds of one."""
    short = {"publish_window": "13s", "lease": f"{SHORT_LEASE_S}s"}
    with _leased(parts, SAMPLE, short, heartbeat="1s") as (started, engine):
        before = cpu_seconds(started.pid)
        time.sleep(plan.renewal_seconds)
        used, report = cpu_seconds(started.pid) - before, engine.report()
    print(f"  {report.renewals} renewals, {report.between_renewals:.1f} s apart", flush=True)
    assert report.renewals >= SAMPLE, report
    return report.between_renewals / SHORT_LEASE_S, used / report.renewals
