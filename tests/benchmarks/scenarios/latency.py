"""From a task's creation to its worker, at five tasks a second on the real engine.

The bridge and the JavaScript client's long poll in turns; fresh processes, whose first ten tasks
do not count.
"""

from __future__ import annotations

import subprocess
import time

from tests.benchmarks import programs
from tests.benchmarks.contenders import Contender, Place, WholeBridge, WorkerOptions
from tests.benchmarks.figures import Measured
from tests.benchmarks.parts import Parts
from tests.benchmarks.plan import Plan
from tests.benchmarks.receipts import receipts, waits
from tests.benchmarks.results import Outcome
from tests.benchmarks.scenarios.share import javascript
from tests.benchmarks.spread import percentile
from tests.benchmarks.turn import warm_up
from tests.support.engine import unique

RATE = 5
SKIP = 10


def run(parts: Parts, plan: Plan) -> Outcome:
    """The medians as a ratio of each block, the p99 as one of all blocks together."""
    contenders: list[Contender] = [
        javascript("tell", pause={"PEER_INTERVAL_MS": "0"}),
        WholeBridge(worker=WorkerOptions(tell=True)),
    ]
    warm_up(parts, plan.warm_up_tasks)
    blocks: list[dict[str, list[float]]] = []
    for _ in range(plan.latency_blocks):
        blocks.append({c.name: _block(parts, c, plan.latency_tasks + SKIP) for c in contenders})
        print(f"  {_told(blocks[-1])}", flush=True)
    p50 = [percentile(b["bridge"], 50) / percentile(b["javascript"], 50) for b in blocks]
    pooled = {name: [w for block in blocks for w in block[name]] for name in blocks[0]}
    p99 = percentile(pooled["bridge"], 99) / percentile(pooled["javascript"], 99)
    figures = [
        Measured("latency_p50", tuple(p50), f"{RATE} tasks/s; {_told(pooled)}"),
        Measured("latency_p99", (p99,), f"of {len(pooled['bridge'])} tasks each"),
    ]
    return Outcome(figures, {"latency": pooled})


def _block(parts: Parts, contender: Contender, tasks: int) -> list[float]:
    topic = unique("latency")
    key = parts.rest.deploy_topics(topic)
    with contender.running(Place(parts, parts.engine.url, (topic,), parts.directory)) as started:
        if started.worker is not None:
            programs.wait_ready(started.worker)
        trickle(parts, key, tasks, RATE)
        limit = time.monotonic() + 60
        while len(found := waits(receipts(started.told), topic, skip=SKIP)) < tasks - SKIP:
            assert time.monotonic() < limit, f"{contender.name}: {len(found)} of {tasks}"
            time.sleep(0.1)
    parts.forget(key)
    return found


def trickle(parts: Parts, key: str, tasks: int, rate: float) -> None:
    """Begin instances one by one at a rate; returns when all have begun."""
    words = [
        *programs.native(), "start", "-url", parts.engine.url, "-key", key, "-count", str(tasks),
        "-rate", str(rate), "-connections", "1",
    ]  # fmt: skip
    limit = 60 + 2 * tasks / rate
    subprocess.run(words, check=True, timeout=limit, stdout=subprocess.DEVNULL)


def _told(waits_of: dict[str, list[float]]) -> str:
    return "; ".join(
        f"{name} p50 {percentile(values, 50):.1f}, p95 {percentile(values, 95):.1f}, "
        f"p99 {percentile(values, 99):.1f} ms"
        for name, values in waits_of.items()
    )
