"""Every step that the world can make from a state.  Time, workers and operators are here; what the
replicas do is in `holding` (fetch to lease, renew, adopt), `stopping` and `reporting` (results).
"""

from __future__ import annotations

from collections.abc import Iterator

from tests.model import holding, reporting, stopping
from tests.model.actor import Actor, spent
from tests.model.properties import Cause, at_risk, copies, credited, lost_at_band_end
from tests.model.variants import Rules
from tests.model.world import (
    DEADLINE,
    HALF_WINDOW,
    HALVES,
    LEASE,
    NEVER_FAILED,
    Entry,
    Fault,
    Job,
    Kind,
    Message,
    Move,
    Phase,
    Replica,
    Result,
    State,
    Status,
    World,
    freed,
)

OLDEST = DEADLINE + LEASE


class Moves:
    """The moves of one world with these rules."""

    def __init__(self, world: World, rules: Rules) -> None:
        self._world = world
        self._actor = Actor(world, rules)

    def successors(self, state: State) -> Iterator[Move]:
        """Every step from the state."""
        for index, replica in enumerate(state.replicas):
            yield from self._replica(state, index, replica)
        yield from self._workers(state)
        yield from self._operators(state)
        if not self._must_act(state):
            yield Move("a tick passes", self._tick(state))

    def _replica(self, state: State, index: int, replica: Replica) -> Iterator[Move]:
        actor = self._actor
        match replica.status:
            case Status.DOWN:
                yield actor.alone("starts", state, index, Replica())
                return
            case Status.FROZEN:
                yield actor.alone("goes on", state, index, replica._replace(status=Status.UP))
            case _:
                if replica.status is Status.STOPPING:
                    yield from stopping.moves(actor, state, index, replica)
                yield from holding.moves(actor, state, index, replica)
                yield from reporting.moves(actor, state, index, replica)
                yield from self._signals(state, index, replica)
        if state.faults[Fault.CRASH]:
            after = spent(self._lost(state, replica), Fault.CRASH)
            yield actor.alone("crashes", after, index, Replica(Status.DOWN), fault=True)

    def _signals(self, state: State, index: int, replica: Replica) -> Iterator[Move]:
        if replica.status is Status.UP:
            if state.faults[Fault.FREEZE]:
                after = spent(self._lost(state, replica), Fault.FREEZE)
                frozen = replica._replace(status=Status.FROZEN)
                yield self._actor.alone("freezes", after, index, frozen, fault=True)
            if state.faults[Fault.SIGTERM]:
                after = spent(state, Fault.SIGTERM)
                stopping = replica._replace(status=Status.STOPPING)
                yield self._actor.alone("is told to stop", after, index, stopping, fault=True)

    def _lost(self, state: State, replica: Replica) -> State:
        cause = at_risk(replica.entry, state.engine)
        return credited(state, replica.entry.attempt, cause)

    # -- time ------------------------------------------------------------------------------------

    def _must_act(self, state: State) -> bool:
        """Whether a replica that runs has something to do first: it is never late by itself."""
        waiting = bool(state.results) and not state.engine.suspended
        for replica in state.replicas:
            if replica.status in (Status.FROZEN, Status.DOWN):
                continue
            if self._world.deadlines and (
                waiting or replica.entry.phase is Phase.QUEUED or holding.fetchable(state.engine)
            ):
                return True
            if replica.check.act or replica.job.kind or replica.status is Status.STOPPING:
                return True
            if self._actor.is_due(replica.entry) or self._actor.must_adopt(state, replica):
                return True
        return False

    def _tick(self, state: State) -> State:
        if copies(state, NEVER_FAILED):
            state = credited(state, NEVER_FAILED, lost_at_band_end(state))
        timed, engine = self._world.deadlines, state.engine
        engine = engine._replace(
            left=max(0, engine.left - 1),
            age=max(engine.age, min(DEADLINE, engine.age + 1)) if timed else engine.age,
        )
        first, second = (_aged(replica, timed=timed) for replica in state.replicas)
        messages = state.messages
        if timed and messages:
            messages = tuple(sorted(m._replace(ttl=max(0, m.ttl - 1)) for m in messages))
        quiet = min(LEASE, state.quiet + 1) if timed and state.out else state.quiet
        return state._replace(
            engine=engine, messages=messages, replicas=(first, second), quiet=quiet
        )

    # -- workers ---------------------------------------------------------------------------------

    def _workers(self, state: State) -> Iterator[Move]:
        for message in dict.fromkeys(state.messages):
            yield Move("a worker answers", _answered(state, message, Kind.OK))
            for label, fault, kind in (
                ("a worker reports a failure", Fault.WORKER_FAILS, Kind.FAILURE),
                ("a worker gives the task back", Fault.GIVEN_BACK, Kind.RELEASE),
                ("the message is lost, or its worker never answers", Fault.LOST_MESSAGE, Kind.NONE),
            ):
                if state.faults[fault]:
                    yield Move(label, spent(_answered(state, message, kind), fault), fault=True)
            yield from self._kept(state, message)

    def _kept(self, state: State, message: Message) -> Iterator[Move]:
        """What leaves the message with its worker, and its expiration."""
        if state.faults[Fault.EXPIRES] and message.ttl == 0:
            after = _answered(spent(state, Fault.EXPIRES), message, Kind.RELEASE)
            yield Move("the message expires", after, fault=True)
        if state.faults[Fault.ANSWERED_TWICE]:
            after = spent(state, Fault.ANSWERED_TWICE)
            after = credited(after, message.attempt, Cause.ANSWERED_TWICE)
            for kind in (Kind.OK, Kind.FAILURE):
                both = _with_result(after, Result(kind, message.attempt))
                yield Move(f"a worker reports {kind.name} and dies unacked", both, fault=True)
        if state.faults[Fault.PROGRESS]:
            after = spent(state, Fault.PROGRESS)
            told = _with_result(after, Result(Kind.PROGRESS, message.attempt))
            yield Move("a worker reports progress", told, fault=True)

    # -- operators -------------------------------------------------------------------------------

    def _operators(self, state: State) -> Iterator[Move]:
        engine = state.engine
        if engine.suspended:
            resumed = engine._replace(suspended=False)
            yield Move("an operator resumes the instance", state._replace(engine=resumed))
        elif state.faults[Fault.SUSPEND]:
            after = spent(state, Fault.SUSPEND)
            suspended = engine._replace(suspended=True)
            yield Move("an operator suspends it", after._replace(engine=suspended), fault=True)
        if state.faults[Fault.UNLOCK] and engine.owned:
            after = _interfered(spent(state, Fault.UNLOCK))
            unlocked = freed(engine, 0)._replace(owned=False)
            yield Move("an operator unlocks it", after._replace(engine=unlocked), fault=True)
        if state.faults[Fault.SET_RETRIES]:
            for retries in {1, 2} - {engine.retries}:
                after = _interfered(spent(state, Fault.SET_RETRIES))
                reset = engine._replace(retries=retries)
                out = copies(state, retries) > 0
                after = after._replace(engine=reset, out=out)
                after = credited(after, retries, Cause.OPERATOR)
                yield Move(f"an operator sets retries {retries}", after, fault=True)


def _aged(replica: Replica, *, timed: bool) -> Replica:
    if replica.status is Status.DOWN:
        return replica
    status, entry, check, job = replica
    if entry.phase:
        expiries = tuple(sorted({max(0, e - HALVES) for e in entry.expiries}))
        since = min(HALF_WINDOW + 1, entry.since + 1) if entry.phase is Phase.FETCHED else 0
        deadline = max(-LEASE, entry.deadline - 1) if timed else entry.deadline
        entry = Entry(entry.phase, entry.attempt, expiries, since, deadline)
    if check.act:
        check = check._replace(age=min(HALF_WINDOW + 1, check.age + 1))
    if job.kind:
        job = Job(job.kind, job.attempt, 1, job.excused)
    return Replica(status, entry, check, job)


def _answered(state: State, message: Message, kind: Kind) -> State:
    messages = list(state.messages)
    messages.remove(message)
    after = state._replace(messages=tuple(messages))
    return _with_result(after, Result(kind, message.attempt)) if kind else after


def _with_result(state: State, result: Result) -> State:
    return state._replace(results=tuple(sorted((*state.results, result))))


def _interfered(state: State) -> State:
    """An operator came in between: one more copy is allowed, and one act that no longer fits."""
    state = reporting.excused(reporting.overtaken(state))
    return credited(state, state.engine.retries, Cause.OPERATOR)
