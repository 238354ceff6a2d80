"""Two replicas against one, where neither the engine nor this machine's cores are the limit.

Every call of the stand-in takes as long as one over a network to a busy engine, and any number of
them at once: then a replica is limited by the calls it makes at the same time.
"""

from __future__ import annotations

from tests.benchmarks.contenders import WholeBridge
from tests.benchmarks.drain import Drained, Load, drain
from tests.benchmarks.figures import Measured
from tests.benchmarks.parts import Parts
from tests.benchmarks.plan import Plan
from tests.benchmarks.results import Outcome
from tests.benchmarks.stand_in import stand_in

DELAY_MS = 30
# What one replica works off well within `lease_after`: it would spend its calls on leases.
IN_FLIGHT = 300


def run(parts: Parts, plan: Plan) -> Outcome:
    """One and two in turns."""
    ratios, told = [], ""
    for _ in range(plan.pinned_rounds):
        one, two = (slowed(parts, plan.replica_tasks, n) for n in (1, 2))
        ratios.append(two.rate / one.rate)
        told = f"{DELAY_MS} ms a call; last {one.rate:.0f}/s and {two.rate:.0f}/s"
    return Outcome([Measured("replicas", tuple(ratios), told)])


def slowed(parts: Parts, tasks: int, replicas: int) -> Drained:
    """So many replicas against a stand-in whose calls take their time."""
    with stand_in(parts.directory, delay_ms=DELAY_MS) as engine:
        bridge = WholeBridge(replicas=replicas, topic={"max_in_flight": IN_FLIGHT})
        drained = drain(parts, engine, bridge, Load(tasks))
    print(f"  {replicas} replicas: {drained}", flush=True)
    return drained
