"""Puts one worker through the cases, one after the other.  Decides nothing about them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from difflib import get_close_matches

from bridge.broker.client import Client
from bridge.clock import monotonic
from bridge.conform.bench import Bench
from bridge.conform.cases import CASES, Case
from bridge.conform.setup import Setup
from bridge.conform.verdict import CannotRun, Failed, NotTried, Verdict
from bridge.errors import BrokerUnavailable

_NAME = "external-task-bridge conform"


def run(setup: Setup, tell: Callable[[Verdict], None]) -> list[Verdict]:
    """Every case's verdict, told as soon as it is known.  Leaves nothing behind: no process, no
    queue, no message.  Raises CannotRun where there is no broker or no worker to judge.
    """
    cases = _chosen(setup.cases)
    try:
        with Client(setup.broker, _NAME) as client, Bench(setup, client) as bench:
            return list(_verdicts(bench, cases, tell))
    except BrokerUnavailable as error:
        where = setup.broker.parameters(_NAME)[0]
        raise CannotRun(f"RabbitMQ at {where.host}:{where.port}: {error}; see --amqp-url") from None


def _verdicts(
    bench: Bench, cases: Iterable[Case], tell: Callable[[Verdict], None]
) -> Iterable[Verdict]:
    fresh = False
    for case in cases:
        verdict = _judge(bench, case, fresh=fresh)
        # Whatever a worker does after it has failed would be charged to the next case.
        fresh = verdict.mark == "failed"
        tell(verdict)
        yield verdict


def _judge(bench: Bench, case: Case, *, fresh: bool) -> Verdict:
    began = monotonic()
    try:
        bench.begin(fresh=fresh)
        case.judge(bench)
    except Failed as failed:
        advice = failed.advice or case.advice
        return Verdict(case.name, "failed", monotonic() - began, str(failed), advice)
    except NotTried as reason:
        return Verdict(case.name, "not tried", 0.0, str(reason))
    return Verdict(case.name, "passed", monotonic() - began)


def _chosen(names: Iterable[str]) -> list[Case]:
    known = {case.name: case for case in CASES}
    for name in names:
        if name not in known:
            near = get_close_matches(name, known, 1)
            cure = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(known)}"
            raise CannotRun(f"--case: there is no case {name!r}; {cure}")
    return [case for name, case in known.items() if name in set(names) or not names]
