"""What must never happen, and what is allowed to cause one more copy of a message.  Pure."""

from __future__ import annotations

import math
from enum import StrEnum

from bridge.protocol import PROOF_WINDOWS
from tests.model.world import (
    DEADLINE,
    HALVES,
    LEASE,
    MAX_CREDITS,
    NEVER_FAILED,
    WINDOW,
    Engine,
    Entry,
    Kind,
    Phase,
    Replica,
    State,
    Status,
    expiry,
)

# The last tick in which a sweep adopts a lock.
LAST_ADOPTION = math.floor(PROOF_WINDOWS * WINDOW) + 1


class Breach(StrEnum):
    """The properties, each named by what breaks it."""

    STUCK = "the task can never end"
    DUPLICATE = "a copy of the same attempt is published without an allowed cause"
    UNPROVEN = "a task is adopted whose message is not out"
    STOLEN = "a lock is adopted that a live replica renews"
    RAISED = "a failure raises the retries"
    STALE = "a failure of one attempt spends another"
    HASTY = "the deadline is reported of a message that is out for less than a lease"
    FOREIGN_UNLOCK = "a stopping replica unlocks a lock that is not its own"


class Cause(StrEnum):
    """What may put one more copy of an attempt in a queue: promise 3 and the accepted races."""

    UNLEASED = "a crash or a freeze of a holder that has not leased it yet"
    FAILED_BEFORE = "a crash, freeze or stop of the holder of an attempt that has failed before"
    OLD = "a crash, freeze or stop of the holder of a task older than the deadline"
    CONNECTION = "the connection is lost between the broker's accept and its confirm"
    NOBODY_ADOPTS = "no replica is up while the lock may be adopted"
    SUSPENDED = "the instance is suspended while the lock may be adopted"
    OPERATOR = "an operator unlocks the task or sets its retries"
    ANSWERED_TWICE = "a worker answers and gets its message again"
    RELEASED_TWICE = "the answer to a release is lost, so it is released again"
    OVERTAKEN = "a failure comes between the check and the act, which then takes the retry's lock"


# How many copies more than one each cause allows of one attempt.
ALLOWED = dict.fromkeys(Cause, 1)


def credited(state: State, attempt: int, cause: Cause | None) -> State:
    """The state with as many more copies of the attempt allowed as the cause allows."""
    if cause is None:
        return state
    allowed, at = list(state.credits), max(0, attempt)
    allowed[at] = min(MAX_CREDITS, allowed[at] + ALLOWED[cause])
    return state._replace(credits=tuple(allowed))


def at_risk(entry: Entry, engine: Engine) -> Cause | None:
    """Why what a replica holds is published again when that replica is lost; None: it is not."""
    if entry.phase <= Phase.FETCHED:
        return None
    if entry.attempt != NEVER_FAILED:
        return Cause.FAILED_BEFORE
    if engine.age >= DEADLINE:
        return Cause.OLD
    return Cause.UNLEASED if min(entry.expiries) <= HALVES * WINDOW else None


def lost_at_band_end(state: State) -> Cause | None:
    """Why nobody adopts a lock that nobody renews, at its last chance; None if somebody must."""
    engine = state.engine
    if engine.left != LAST_ADOPTION or engine.retries != NEVER_FAILED or not engine.owned:
        return None
    if any(r.status is Status.UP and expiry(engine) in r.entry.expiries for r in state.replicas):
        return None  # its holder must renew it
    if engine.suspended:
        return Cause.SUSPENDED
    if engine.age >= DEADLINE:
        return Cause.OLD
    if not any(replica.status is Status.UP for replica in state.replicas):
        return Cause.NOBODY_ADOPTS
    return None


def copies(state: State, attempt: int) -> int:
    """How many copies of an attempt are queued, worked on or answered."""
    queued = sum(message.attempt == attempt for message in state.messages)
    answers = (Kind.OK, Kind.FAILURE, Kind.RELEASE)
    return queued + sum(r.attempt == attempt and r.kind in answers for r in state.results)


def publication(state: State, attempt: int) -> str:
    """The breach, if any, of one more copy reaching the queue."""
    return Breach.DUPLICATE.value if copies(state, attempt) > state.credits[max(0, attempt)] else ""


def adoption_asked(replicas: tuple[Replica, ...], ours: list[bool]) -> str:
    """The breach of a sweep that wants a lock; `ours`: whose memory still matches it."""
    for replica, is_ours in zip(replicas, ours, strict=True):
        if replica.status is Status.UP and is_ours:
            return Breach.STOLEN.value
    return ""


def failure(engine: Engine, attempt: int, retries: int, *, excused: bool) -> str:
    """The breach of a `/failure` that sets these retries."""
    before = engine.retries
    if before != NEVER_FAILED and retries > before and not excused:
        return Breach.RAISED.value
    if before not in (attempt, retries) and not excused:
        return Breach.STALE.value
    return ""


def deadline_report(state: State) -> str:
    """The breach of reporting that nobody has answered."""
    return Breach.HASTY.value if state.out and state.quiet < LEASE else ""


def unlock(state: State, entry: Entry) -> str:
    """The breach of unlocking, unread, what this entry has locked; none where an allowed cause has
    already let somebody else have the task.
    """
    engine = state.engine
    excused = engine.retries != entry.attempt or state.credits[max(0, entry.attempt)] > 0
    is_own = not engine.owned or entry.expiries[0] == expiry(engine)
    return "" if excused or is_own else Breach.FOREIGN_UNLOCK.value
