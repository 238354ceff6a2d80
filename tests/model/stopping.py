"""How a replica that was told to stop gives back what it never published, and leaves."""

from __future__ import annotations

from collections.abc import Iterator

from tests.model import properties
from tests.model.actor import Actor, with_replica
from tests.model.properties import Cause, at_risk, credited
from tests.model.world import (
    HALVES,
    NO_CHECK,
    NO_ENTRY,
    NO_JOB,
    WINDOW,
    Move,
    Phase,
    Replica,
    State,
    Status,
    freed,
)


def moves(actor: Actor, state: State, index: int, replica: Replica) -> Iterator[Move]:
    """What a stopping replica does beside what every running one does."""
    entry = replica.entry
    if entry.phase is Phase.FETCHED:
        if entry.expiries[0] > 0:
            yield _give_back(actor, state, index, replica)
        return
    leased = entry.phase is Phase.CONFIRMED and (
        entry.expiries[0] > HALVES * WINDOW or not actor.on.leases_at_sigterm
    )
    idle = replica.check == NO_CHECK and replica.job == NO_JOB
    if idle and (leased or not entry.phase):
        cause = at_risk(entry, state.engine)
        allowed = None if cause is Cause.UNLEASED else cause
        after = credited(state, entry.attempt, allowed)
        yield actor.alone("leaves", after, index, Replica(Status.DOWN))


def _give_back(actor: Actor, state: State, index: int, replica: Replica) -> Move:
    entry, engine = replica.entry, state.engine
    read = actor.on.reads_before_writing
    if read and not actor.decisions.same_attempt(engine, entry.attempt):
        after = with_replica(state, index, replica._replace(entry=NO_ENTRY), engine)
        return Move("finds that it is another attempt by now", after, index)
    breach = properties.unlock(state, entry)
    unlocked = freed(engine, 0)._replace(owned=False)
    after = with_replica(state, index, replica._replace(entry=NO_ENTRY), unlocked)
    return Move("unlocks what it never published", after, index, breach=breach)
