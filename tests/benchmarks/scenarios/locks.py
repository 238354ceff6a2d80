"""Lock calls for tasks that are answered within `lease_after`: there must be none."""

from __future__ import annotations

from tests.benchmarks.contenders import WholeBridge
from tests.benchmarks.drain import Load, drain
from tests.benchmarks.figures import Measured
from tests.benchmarks.parts import Parts
from tests.benchmarks.plan import Plan
from tests.benchmarks.results import Outcome
from tests.benchmarks.stand_in import stand_in

# Far below what the bridge can do, so that every answer is a matter of milliseconds.
RATE = 200


def run(parts: Parts, plan: Plan) -> Outcome:
    """The stand-in counts; one replica, then two."""
    figures, details = [], {}
    for key, replicas in (("locks_one", 1), ("locks_two", 2)):
        with stand_in(parts.directory) as engine:
            load = Load(plan.replica_tasks, rate=RATE)
            drained = drain(parts, engine, WholeBridge(replicas=replicas), load)
        calls = drained.report.counts
        print(f"  {replicas} replicas: {dict(calls)}", flush=True)
        note = f"{drained.tasks} tasks at {RATE}/s"
        figures.append(Measured(key, (float(drained.report.lock_calls),), note))
        details[key] = dict(calls)
    return Outcome(figures, details)
