"""The rules of the recovery protocol as pure functions: whose lock is it, may it be adopted, what
follows a failure.  No state, no clock, no I/O.
"""

from __future__ import annotations

from dataclasses import dataclass

from bridge.ledger import Entry, Timing
from bridge.messages import ExternalTask

MIN_PAUSE_SECONDS = 1.0
# When a lock is renewed, as a share of its length: half of it on average, evenly spread.
RENEW_AT = (0.45, 0.55)
# A lock with more than two publish windows left was leased, so its message is out; with less than
# 0.4 leases left nobody renews it.
PROOF_WINDOWS = 2.0
ADOPT_BELOW_LEASES = 0.4


def still_ours(entry: Entry, task: ExternalTask | None, worker_id: str, engine_now: float) -> bool:
    """Whether the engine's record is the lock that this replica set, unexpired, same attempt.

    Only then may it be extended: anything else was settled, failed, unlocked, fetched again or
    taken over by a peer, and extending it would hide that for a whole lease.
    """
    if task is None or task.worker_id != worker_id or task.retries != entry.retries:
        return False
    expires = task.lock_expires
    if expires is None or expires <= engine_now:
        return False
    return any(window.holds(expires) for window in entry.expiries)


def adoptable(task: ExternalTask, timing: Timing, worker_id: str, engine_now: float) -> bool:
    """Whether a lock that nobody renews proves a message that is out.

    More than two publish windows left can only come from a lease, because a task that never
    failed has no retry pause; less than 0.4 leases left means its holder is gone.
    """
    expires, created = task.lock_expires, task.created
    if expires is None or created is None or task.suspended:
        return False
    if task.worker_id != worker_id or task.retries is not None:
        return False
    left = expires - engine_now
    young = engine_now - created < timing.deadline
    proven = left > PROOF_WINDOWS * timing.publish_window
    return young and proven and left < ADOPT_BELOW_LEASES * timing.lease


def same_attempt(task: ExternalTask, retries: int | None, worker_id: str) -> bool:
    """Whether the engine's record still shows the attempt that a result speaks of."""
    return task.retries == retries and task.worker_id == worker_id


def release_pause(asked: float, publish_window: float) -> float:
    """How long (seconds) the lock of a released task still runs.

    A third of a publish window at most: nobody may take it for a lease to adopt, nor its holder
    for the lock that the fetch set, which has at least half a window left when it is looked at.
    """
    return min(asked, publish_window / 3)


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """`attempts` in all; `pauses` (seconds) after the first, second ... failure, the last one
    for all that follow.
    """

    attempts: int
    pauses: tuple[float, ...]

    def after_failure(
        self, attempt: int | None, named: int | None = None, named_pause: float | None = None
    ) -> tuple[int, float]:
        """The retries and the pause (seconds) to report for a failed attempt.

        `attempt` is what the engine's record showed when it was fetched, `named` what the worker
        asks for.  Below the attempt's own number in every case, so that a failure always changes
        the record; the first failure of a task has no number to stay below.
        """
        if attempt is None:
            retries = self.attempts - 1 if named is None else named
        else:
            retries = max(0, attempt - 1 if named is None else min(named, attempt - 1))
        failures = max(1, self.attempts - retries)
        pause = self.pauses[min(failures, len(self.pauses)) - 1]
        return retries, max(MIN_PAUSE_SECONDS, pause if named_pause is None else named_pause)
