"""How a replica applies results: complete at once, everything else by a read and a write, two moves
so that a peer, an operator or a frozen process can come in between.
"""

from __future__ import annotations

from collections.abc import Iterator

from tests.model import properties
from tests.model.actor import Actor, spent, with_replica
from tests.model.properties import Cause, copies, credited
from tests.model.world import (
    DEADLINE,
    LEASE,
    NO_ENTRY,
    NO_JOB,
    WINDOW,
    Entry,
    Fault,
    Job,
    Kind,
    Move,
    Phase,
    Replica,
    Result,
    State,
    Status,
    expiry,
    freed,
)


def moves(actor: Actor, state: State, index: int, replica: Replica) -> Iterator[Move]:
    """What a running replica may do about results."""
    if replica.job.kind:
        yield from _write(actor, state, index, replica)
    elif not replica.check.act:  # locks come first
        for result in dict.fromkeys(state.results):
            if result.kind is Kind.OK:
                yield from _complete(state, index)
            elif not _taken(state, index, result):
                yield from _read(actor, state, index, replica, result)


def _complete(state: State, index: int) -> Iterator[Move]:
    engine = state.engine
    if not engine.owned:
        relocked = state._replace(engine=engine._replace(owned=True, left=WINDOW))
        yield Move("locks again what was unlocked", relocked, index)
    elif not engine.suspended:
        yield Move("completes it", None, index)


def _taken(state: State, index: int, result: Result) -> bool:
    """RabbitMQ has given it to the peer; a frozen one's deliveries come again."""
    peer = state.replicas[1 - index]
    same = (peer.job.kind, peer.job.attempt) == result
    lost = peer.status is Status.FROZEN and peer.job.age > 0
    return same and not lost and state.results.count(result) == 1


def _read(
    actor: Actor, state: State, index: int, replica: Replica, result: Result
) -> Iterator[Move]:
    kind, attempt = result
    if not actor.decisions.same_attempt(state.engine, attempt):
        label = f"reads: {kind.name} is stale, acknowledges it"
        after = _acknowledged(state, result)
        if attempt == state.engine.retries and not copies(after, attempt):
            after = after._replace(out=False)
        yield Move(label, after, index)
    elif kind is Kind.PROGRESS or not state.engine.suspended:
        reading = replica._replace(job=Job(kind, attempt))
        yield actor.alone(f"reads: {kind.name} is of this attempt", state, index, reading)


def _write(actor: Actor, state: State, index: int, replica: Replica) -> Iterator[Move]:
    job = replica.job
    late = bool(replica.check.act)
    idle = replica._replace(job=NO_JOB, check=replica.check._replace(overtaken=late))
    if job.age and actor.on.writes_soon_after_reading:
        yield actor.alone("reads again: too long ago", state, index, idle)
        return
    match job.kind:
        case Kind.FAILURE | Kind.DEADLINE:
            yield from _fail(actor, state, index, idle, job)
        case Kind.RELEASE:
            yield from _release(actor, state, index, idle, job)
        case Kind.PROGRESS:
            yield _keep_alive(state, index, idle, job)


def _fail(actor: Actor, state: State, index: int, idle: Replica, job: Job) -> Iterator[Move]:
    engine, settled = state.engine, idle._replace(entry=NO_ENTRY)
    acknowledged = _acknowledged(state, Result(job.kind, job.attempt))
    if engine.suspended:
        yield actor.alone("may not report it: suspended", state, index, idle)
        return
    if not engine.owned:
        relocked = with_replica(state, index, idle, engine._replace(owned=True, left=WINDOW))
        yield Move("locks again what was unlocked", relocked, index)
        return
    named = (None,) if job.kind is Kind.DEADLINE else actor.world.named_retries
    hasty = job.kind is Kind.DEADLINE and not job.excused
    late = properties.deadline_report(state) if hasty else ""
    for asked in named:
        for retries, pause in actor.decisions.after_failure(job.attempt, asked):
            breach = late or properties.failure(engine, job.attempt, retries, excused=job.excused)
            failed = engine._replace(retries=retries, left=pause)
            acknowledged, state = _came_between(acknowledged), _came_between(state)
            label = f"reports {job.kind.name}: retries {retries}, pause {pause}"
            after = _failed(with_replica(acknowledged, index, settled, failed), state)
            yield Move(label, after, index, breach=breach)
            if state.faults[Fault.LOST_ANSWER]:
                unsure = spent(with_replica(state, index, idle, failed), Fault.LOST_ANSWER)
                lost = f"{label}, and the answer is lost"
                yield Move(lost, _failed(unsure, state), index, fault=True, breach=breach)


def _failed(after: State, before: State) -> State:
    """A new attempt begins, without copies and without anything to excuse them."""
    if after.engine.retries == before.engine.retries:
        return after
    return after._replace(out=False, quiet=0)


def _came_between(state: State) -> State:
    return excused(overtaken(state))


def overtaken(state: State) -> State:
    """What a replica has asked before is no longer so."""
    first, second = (
        replica._replace(check=replica.check._replace(overtaken=True))
        if replica.check.act
        else replica
        for replica in state.replicas
    )
    return state._replace(replicas=(first, second))


def excused(state: State) -> State:
    """What was read before may still be reported, within the second: it was true of an attempt or
    of a copy that is no more.
    """
    first, second = (
        replica._replace(job=replica.job._replace(excused=True)) if replica.job.kind else replica
        for replica in state.replicas
    )
    return state._replace(replicas=(first, second))


def _release(actor: Actor, state: State, index: int, idle: Replica, job: Job) -> Iterator[Move]:
    engine, attempt, settled = state.engine, job.attempt, idle._replace(entry=NO_ENTRY)
    state = _came_between(state)
    acknowledged = _acknowledged(state, Result(job.kind, attempt))
    if engine.suspended:
        yield actor.alone("may not release it: suspended", state, index, idle)
    elif not engine.owned or engine.left == 0:
        yield actor.alone("finds it released", acknowledged, index, settled)
    else:
        for asked in actor.world.release_pauses:
            pause = actor.on.release_pause(asked)
            released = freed(engine, pause)
            out = copies(acknowledged, attempt) > 0
            after = with_replica(acknowledged, index, settled, released)._replace(out=out)
            yield Move(f"releases it: pause {pause}", after, index)
            if state.faults[Fault.LOST_ANSWER]:
                unsure = spent(state, Fault.LOST_ANSWER)._replace(out=out)
                unsure = credited(unsure, attempt, Cause.RELEASED_TWICE)
                lost = with_replica(unsure, index, idle, released)
                yield Move("releases it, the answer is lost", lost, index, fault=True)


def _keep_alive(state: State, index: int, idle: Replica, job: Job) -> Move:
    # Extended, or locked where it is suspended or has lapsed.
    locked = freed(state.engine, LEASE)._replace(owned=True)
    entry = Entry(Phase.CONFIRMED, job.attempt, (expiry(locked),), 0, DEADLINE)
    after = excused(overtaken(_acknowledged(state, Result(Kind.PROGRESS, job.attempt))))
    after = with_replica(after._replace(quiet=0), index, idle._replace(entry=entry), locked)
    return Move("keeps it alive", after, index)


def _acknowledged(state: State, result: Result) -> State:
    if result not in state.results:
        return state
    results = list(state.results)
    results.remove(result)
    return state._replace(results=tuple(results))
