"""Throughput on one real engine: the raw ceiling, the official clients and the bridge in turns.

Gives the share of the ceiling, the ratios to the clients and the bridge's CPU a task; and the share
once more with the engine on a core of its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tests.benchmarks import programs
from tests.benchmarks.contenders import Client, Contender, WholeBridge, raw
from tests.benchmarks.figures import Measured
from tests.benchmarks.machine import pinned
from tests.benchmarks.parts import Parts
from tests.benchmarks.plan import Plan
from tests.benchmarks.results import Outcome
from tests.benchmarks.spread import median
from tests.benchmarks.turn import Turn, rounds, warm_up

CEILING = ("raw 8", "raw 32")
PEERS = ("javascript", "java", "python")
# By default it pauses 300 ms after each poll, so it cannot do more than 100 tasks in that time.
# Its best has a short pause; without any it fetches more than it can complete.
SHORT_PAUSE = {"PEER_INTERVAL_MS": "20"}


def javascript(*more: str, pause: Mapping[str, str] = SHORT_PAUSE) -> Client:
    """The official JavaScript client at its best."""
    return Client("javascript", programs.javascript_peer(), more, pause)


def run(parts: Parts, plan: Plan) -> Outcome:
    """Interleaved rounds with every core for everyone."""
    contenders: list[Contender] = [
        raw(8),
        javascript(),
        WholeBridge(),
        Client("java", programs.java_peer()),
        raw(32),
        *([] if plan.quick else _more()),
    ]
    warm_up(parts, plan.warm_up_tasks)
    taken = list(rounds(parts, contenders, plan.tasks, plan.rounds))
    note = f"{plan.tasks} tasks a turn; {_medians(taken)}"
    names = {c.name for c in contenders}
    figures = [
        Measured("share", ratios(taken, CEILING), note),
        *(Measured(peer, ratios(taken, (peer,))) for peer in PEERS if peer in names),
        Measured("cpu", tuple(_of(turns, "bridge").cpu_ms for turns in taken), _start_cpu(taken)),
    ]
    return Outcome(figures, {"share": _json(taken)})


def _more() -> list[Contender]:
    """Whoever takes part only where there is time, and is compared by eye."""
    return [
        Client("python", programs.python_peer()),
        Client("javascript, its default pause", programs.javascript_peer()),
        raw(8, ahead=True),
    ]


def run_pinned(parts: Parts, plan: Plan) -> Outcome:
    """The engine on one core, everything else on another."""
    contenders: list[Contender] = [
        raw(8),
        javascript(),
        WholeBridge(),
        raw(32),
    ]
    warm_up(parts, plan.warm_up_tasks)
    with pinned(parts.engine.pid, parts.broker.pids):
        taken = list(rounds(parts, contenders, plan.pinned_tasks, plan.pinned_rounds))
    note = f"{plan.pinned_tasks} tasks a turn; {_medians(taken)}"
    return Outcome([Measured("pinned", ratios(taken, CEILING), note)], {"pinned": _json(taken)})


def ratios(taken: Sequence[Sequence[Turn]], against: Sequence[str]) -> tuple[float, ...]:
    """Of each round: the bridge's rate over the best rate of these contenders."""
    return tuple(
        _of(turns, "bridge").rate / max(_of(turns, name).rate for name in against)
        for turns in taken
    )


def _of(turns: Sequence[Turn], name: str) -> Turn:
    return next(turn for turn in turns if turn.contender == name)


def _medians(taken: Sequence[Sequence[Turn]]) -> str:
    names = [turn.contender for turn in taken[0]]
    rates = {name: median([_of(turns, name).rate for turns in taken]) for name in names}
    return ", ".join(f"{name} {rate:.0f}/s" for name, rate in rates.items())


def _start_cpu(taken: Sequence[Sequence[Turn]]) -> str:
    start = median([_of(turns, "bridge").start_cpu_s for turns in taken])
    return f"from the first fetch on; {start:.2f} s of CPU before it, for the start"


def _json(taken: Sequence[Sequence[Turn]]) -> list[list[dict[str, object]]]:
    return [[turn.as_json() for turn in turns] for turns in taken]
