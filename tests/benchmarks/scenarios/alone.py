"""The bridge alone: a stand-in many times faster than it, a real broker, one cheap worker."""

from __future__ import annotations

from dataclasses import asdict

from tests.benchmarks.contenders import WholeBridge
from tests.benchmarks.drain import Load, drain
from tests.benchmarks.figures import Measured
from tests.benchmarks.parts import Parts
from tests.benchmarks.plan import Plan
from tests.benchmarks.results import Outcome
from tests.benchmarks.spread import median
from tests.benchmarks.stand_in import stand_in


def run(parts: Parts, plan: Plan) -> Outcome:
    """Fresh processes for each round."""
    taken = []
    for _ in range(plan.pinned_rounds):
        with stand_in(parts.directory) as engine:
            taken.append(drain(parts, engine, WholeBridge(), Load(plan.alone_tasks)))
        print(f"  {taken[-1]}", flush=True)
    cpu = median([one.cpu_ms for one in taken])
    note = f"{plan.alone_tasks} tasks; bridge CPU {cpu:.2f} ms a task"
    figure = Measured("alone", tuple(one.rate for one in taken), note)
    return Outcome([figure], {"alone": [asdict(one) for one in taken]})
