"""How a replica fetches, publishes, leases, renews and adopts.  Asking the engine and acting
on its answer are two moves, so that everything else can happen in between.
"""

from __future__ import annotations

from collections.abc import Iterator

from tests.model import properties
from tests.model.actor import Actor, spent, with_replica
from tests.model.properties import Breach, Cause, credited
from tests.model.world import (
    DEADLINE,
    HALF_WINDOW,
    HALVES,
    LEASE,
    NEVER_FAILED,
    NO_CHECK,
    NO_ENTRY,
    WINDOW,
    Act,
    Check,
    Engine,
    Entry,
    Fault,
    Job,
    Kind,
    Message,
    Move,
    Phase,
    Replica,
    State,
    Status,
    expiry,
)

# The one known race that no later step mends before the deadline does.
RACE = "a release, an unlock or progress comes between check and act: leased until the deadline"


def moves(actor: Actor, state: State, index: int, replica: Replica) -> Iterator[Move]:
    """What a running replica may do about the task."""
    if replica.status is Status.UP:
        if fetchable(state.engine):
            yield from _fetch(actor, state, index, replica)
        if _may_sweep(replica) and actor.decisions.adoptable(state.engine):
            yield _ask_to_adopt(actor, state, index, replica)
    match replica.entry.phase:
        case Phase.FETCHED:
            yield from _publish(actor, state, index, replica)
        case Phase.SENT | Phase.QUEUED:
            yield from _in_the_air(state, index, replica)
    if replica.check.act is Act.RENEW:
        yield from _renew(actor, state, index, replica)
    elif replica.check.act is Act.ADOPT:
        yield from _adopt(actor, state, index, replica)
    elif replica.entry.phase > Phase.FETCHED and actor.is_due(replica.entry):
        yield _ask(actor, state, index, replica)


def fetchable(engine: Engine) -> bool:
    """Whether `fetchAndLock` hands the task out."""
    return engine.left == 0 and engine.retries != 0 and not engine.suspended


def _may_sweep(replica: Replica) -> bool:
    return not replica.check.act and not replica.entry.phase


# -- fetch to confirm ----------------------------------------------------------------------------


def _fetch(actor: Actor, state: State, index: int, replica: Replica) -> Iterator[Move]:
    window = WINDOW if actor.on.fetches_for_a_window_only else LEASE
    engine = state.engine._replace(owned=True, left=window)
    entry = Entry(Phase.FETCHED, engine.retries, (expiry(engine),))
    after = with_replica(state, index, replica._replace(entry=entry, check=NO_CHECK), engine)
    yield Move("fetches", after, index)
    if state.faults[Fault.LOST_ANSWER]:
        lost = spent(state, Fault.LOST_ANSWER)._replace(engine=engine)
        yield Move("fetches, and the answer is lost", lost, index, fault=True)


def _publish(actor: Actor, state: State, index: int, replica: Replica) -> Iterator[Move]:
    entry, in_time = replica.entry, replica.entry.since <= HALF_WINDOW
    dropped = replica._replace(entry=NO_ENTRY)
    if not in_time and actor.on.publishes_within_half_a_window:
        yield actor.alone("drops it: too late to publish", state, index, dropped)
        return
    if replica.status is Status.STOPPING:
        return  # given back, see `stopping`
    if not state.faults[Fault.CONNECTION]:
        yield _reach_queue(state, index, replica, "publishes")
        return
    sent = replica._replace(entry=entry._replace(phase=Phase.SENT, since=0))
    yield actor.alone("sends the message", state, index, sent)
    refused = spent(state, Fault.CONNECTION)
    yield actor.alone("has it returned or nacked", refused, index, dropped, fault=True)


def _in_the_air(state: State, index: int, replica: Replica) -> Iterator[Move]:
    entry = replica.entry
    if entry.phase is Phase.SENT:
        yield _reach_queue(state, index, replica, "has its message reach the queue")
    else:
        confirmed = entry._replace(phase=Phase.CONFIRMED, deadline=DEADLINE)
        after = with_replica(state, index, replica._replace(entry=confirmed))
        yield Move("gets the confirm", after, index)
    if state.faults[Fault.CONNECTION]:
        after = spent(state, Fault.CONNECTION)
        if entry.phase is Phase.QUEUED:
            after = credited(after, entry.attempt, Cause.CONNECTION)
        dropped = with_replica(after, index, replica._replace(entry=NO_ENTRY))
        yield Move("loses its connection to the broker", dropped, index, fault=True)


def _reach_queue(state: State, index: int, replica: Replica, label: str) -> Move:
    entry = replica.entry._replace(phase=Phase.QUEUED, since=0)
    attempt, breach = entry.attempt, properties.publication(state, replica.entry.attempt)
    ttl = DEADLINE if state.faults[Fault.EXPIRES] else 0
    messages = tuple(sorted((*state.messages, Message(attempt, ttl))))
    after = with_replica(state, index, replica._replace(entry=entry))._replace(messages=messages)
    if attempt == state.engine.retries:
        after = after._replace(out=True, quiet=0)
    return Move(label, after, index, breach=breach)


# -- lease, renew, hold, deadline ----------------------------------------------------------------


def _ask(actor: Actor, state: State, index: int, replica: Replica) -> Move:
    entry, engine = replica.entry, state.engine
    if not actor.on.remembers_retries_as_fetched and min(entry.expiries) <= HALVES * WINDOW:
        entry = entry._replace(attempt=engine.retries)
        replica = replica._replace(entry=entry)
    if actor.decisions.still_ours(entry, engine):
        check = Check(Act.RENEW, 0, engine.suspended and actor.on.locks_suspended)
        asked = replica._replace(check=check)
        return actor.alone("asks the engine: still ours", state, index, asked)
    dropped = replica._replace(entry=NO_ENTRY)
    return actor.alone("asks the engine: not ours, drops it", state, index, dropped)


def _renew(actor: Actor, state: State, index: int, replica: Replica) -> Iterator[Move]:
    entry, check = replica.entry, replica.check
    replica = replica._replace(check=NO_CHECK)
    if not entry.phase:
        yield actor.alone("has nothing to renew any more", state, index, replica)
    elif check.age > HALF_WINDOW and actor.on.acts_on_young_answers_only:
        yield actor.alone("finds the answer too old to act on", state, index, replica)
    elif actor.is_late(entry):
        yield _read_for_deadline(actor, state, index, replica, overtaken=check.overtaken)
    else:
        yield from _set_lock(actor, state, index, replica, check)


def _set_lock(
    actor: Actor, state: State, index: int, replica: Replica, check: Check
) -> Iterator[Move]:
    entry, engine = replica.entry, state.engine
    short = entry.phase < Phase.CONFIRMED and actor.on.holds_for_a_window_only
    ticks = WINDOW if short else LEASE
    locks = actor.on.locks_suspended and (check.suspended or engine.suspended)
    allowed = locks or (engine.owned and engine.left > 0 and not engine.suspended)
    if not allowed:
        dropped = replica._replace(entry=NO_ENTRY)
        yield actor.alone("may not extend it, drops it", state, index, dropped)
        return
    locked = engine._replace(owned=True, left=ticks)
    renewed = replica._replace(entry=entry._replace(expiries=(expiry(locked),)))
    label = "leases it" if ticks == LEASE else "holds it for a window"
    raced = _race(actor, state, entry, check)
    state = _raced(state, check)
    yield Move(label, with_replica(state, index, renewed, locked), index, accepted=raced)
    if state.faults[Fault.LOST_ANSWER]:
        for move in _lost(actor, spent(state, Fault.LOST_ANSWER), index, replica, locked):
            yield move._replace(accepted=raced)


def _race(actor: Actor, state: State, entry: Entry, check: Check) -> str:
    """The known race that this act is, if it is one."""
    same = check.overtaken and check.age <= HALF_WINDOW and state.engine.retries == entry.attempt
    return RACE if same and (actor.world.deadlines or not state.out) else ""


def _raced(state: State, check: Check) -> State:
    """A failure between the check and the act: the retry's lock is not what its holder has set."""
    raced = check.overtaken and check.age <= HALF_WINDOW
    return credited(state, state.engine.retries, Cause.OVERTAKEN if raced else None)


def _lost(
    actor: Actor, state: State, index: int, replica: Replica, locked: Engine
) -> Iterator[Move]:
    entry = replica.entry
    expiries = entry.expiries
    if actor.on.counts_both_expiries_after_a_lost_answer:
        expiries = tuple(sorted({*expiries, expiry(locked)}))
    replica = replica._replace(entry=entry._replace(expiries=expiries))
    for done, engine in (("and it was done", locked), ("and it was not", state.engine)):
        after = with_replica(state, index, replica, engine)
        yield Move(f"extends, the answer is lost, {done}", after, index, fault=True)


def _read_for_deadline(
    actor: Actor, state: State, index: int, replica: Replica, *, overtaken: bool
) -> Move:
    entry = replica.entry
    if actor.decisions.same_attempt(state.engine, entry.attempt):
        job = Job(Kind.DEADLINE, entry.attempt, excused=overtaken)
        return actor.alone("reads: deadline missed", state, index, replica._replace(job=job))
    dropped = replica._replace(entry=NO_ENTRY)
    return actor.alone("reads: another attempt, drops it", state, index, dropped)


# -- adopt ---------------------------------------------------------------------------------------


def _ask_to_adopt(actor: Actor, state: State, index: int, replica: Replica) -> Move:
    ours = [
        bool(other.entry.phase)
        and not actor.is_due(other.entry)
        and actor.decisions.still_ours(other.entry, state.engine)
        for other in state.replicas
    ]
    breach = properties.adoption_asked(state.replicas, ours)
    asked = with_replica(state, index, replica._replace(check=Check(Act.ADOPT)))
    return Move("finds it in its sweep", asked, index, breach=breach)


def _adopt(actor: Actor, state: State, index: int, replica: Replica) -> Iterator[Move]:
    engine, check = state.engine, replica.check
    replica = replica._replace(check=NO_CHECK)
    old = check.age > HALF_WINDOW and actor.on.acts_on_young_answers_only
    refused = not engine.owned or engine.left == 0 or engine.suspended
    if replica.entry.phase or old or refused:
        yield actor.alone("does not adopt it", state, index, replica)
        return
    locked = engine._replace(left=LEASE)
    entry = Entry(Phase.CONFIRMED, NEVER_FAILED, (expiry(locked),), 0, DEADLINE - engine.age)
    breach = "" if state.out or check.overtaken else Breach.UNPROVEN.value
    raced, state = _race(actor, state, entry, check), _raced(state, check)
    after = with_replica(state, index, replica._replace(entry=entry), locked)
    yield Move("adopts it", after, index, breach=breach, accepted=raced)
    if state.faults[Fault.LOST_ANSWER]:
        lost = with_replica(spent(state, Fault.LOST_ANSWER), index, replica, locked)
        yield Move("adopts it, and the answer is lost", lost, index, fault=True, accepted=raced)
