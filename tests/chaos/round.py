"""One round: load, faults by plan, healing, and the evidence of what happened."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

from tests.chaos.checker import check
from tests.chaos.collect import collect
from tests.chaos.evidence import Evidence, Struck
from tests.chaos.load import TROUBLE, LockWatch, Starter
from tests.chaos.plan import TOPICS, WORKERS, Fault, Options, schedule
from tests.chaos.workers import CODE, Record, Worker
from tests.chaos.world import World, exit_code, usage
from tests.support.engine import EngineRest
from tests.support.loop import Loop

# What healing may take beyond the last lock: retries, waits, queues that empty.
HEAL_SECONDS = 90.0
REST_SECONDS = 1.0

Say = Callable[[str], None]


@dataclass(frozen=True)
class Result:
    """A round that is over.  `seconds`: of faults, and until everything had come to rest."""

    options: Options
    faults: tuple[Fault, ...]
    evidence: Evidence
    violations: dict[str, list[str]]
    faulty_seconds: float
    healing_seconds: float
    manners: Counter[str]

    @property
    def good(self) -> bool:
        return not any(self.violations.values())


def play(options: Options, directory: Path, say: Say = lambda _: None) -> Result:
    """Play a round on a broker and an engine of its own; ends everything it started."""
    faults, record = schedule(options), Record()
    with World(options, directory, TOPICS) as world, ExitStack() as stack:
        keys = tuple(world.rest.deploy_topics(t, key=t, error_codes=[CODE]) for t in TOPICS)
        starter, watch = Starter(world, keys), LockWatch(world)
        _let_go(stack, world, record, (Loop("locks", watch.step), Loop("starter", starter.step)))
        began = time.monotonic()
        struck = [_strike(world, fault, began, say) for fault in faults]
        faulty = time.monotonic()
        healed = _heal(world, starter, keys, say)
        rested = time.monotonic()
        struck += [died for number in range(options.replicas) if (died := _died(number, world))]
        after = tuple(usage(bridge) for bridge in world.alive if exit_code(bridge) is None)
        evidence = collect(world, record, keys, stack)
    evidence = replace(
        evidence,
        healed=healed,
        started=frozenset(starter.started),
        overlong=watch.overlong,
        struck=(*struck, *evidence.struck),
        before=world.before,
        after=after,
    )
    seconds = (faulty - began, rested - faulty)
    return Result(
        options, faults, evidence, check(evidence), *seconds, manners=Counter(record.manners)
    )


def _let_go(stack: ExitStack, world: World, record: Record, loops: tuple[Loop, ...]) -> None:
    """Start the workers, and then what watches them and gives them work."""
    for topic in TOPICS * (WORKERS // len(TOPICS)):
        stack.enter_context(Worker(world.broker.url, topic, world.options, record))
    for loop in loops:
        stack.enter_context(loop)


def _strike(world: World, fault: Fault, began: float, say: Say) -> Struck:
    time.sleep(max(0.0, began + fault.at - time.monotonic()))
    struck = world.strike(fault)
    costs = f"{struck.exposed} exposed, {struck.purged} purged"
    say(f"{time.monotonic() - began:6.1f} s  {struck.kind}: {costs}")
    return struck


def _died(number: int, world: World) -> Struck | None:
    """A replica that ended by itself."""
    code = exit_code(world.alive[number])
    if code is None:
        return None
    return Struck("replica", problem=f"{number} ended by itself with {code}")


def _heal(world: World, starter: Starter, keys: tuple[str, ...], say: Say) -> bool:
    """Wait until every instance has ended or has an incident, and the queues are empty."""
    limit = time.monotonic() + world.options.heals_within + HEAL_SECONDS
    told = 0.0
    while time.monotonic() < limit:
        try:
            rest = EngineRest(world.engine.url)
            running = sum(rest.running(key) for key in keys)
            stopped = len({i["processInstanceId"] for key in keys for i in rest.incidents(key)})
            busy = sum(ready + unacked for _, (ready, unacked) in _busy_queues(world).items())
        except TROUBLE:
            running, stopped, busy = -1, 0, -1
        if starter.done and running == stopped and busy == 0:
            return True
        if time.monotonic() - told > 15:
            told = time.monotonic()
            say(f"          healing: {running} run, {stopped} of them stopped, {busy} messages")
        time.sleep(REST_SECONDS)
    return False


def _busy_queues(world: World) -> dict[str, tuple[int, int]]:
    return {name: counts for name, counts in world.queues().items() if name != "bridge.parked"}
