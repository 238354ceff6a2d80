"""The product's own decisions, asked with the model's values.  Decides nothing itself."""

from __future__ import annotations

import math
from dataclasses import replace
from datetime import UTC, datetime

from bridge.ledger import Entry as LedgerEntry
from bridge.ledger import Timing
from bridge.messages import ExternalTask, LockWindow
from bridge.protocol import RetryPolicy, adoptable, same_attempt, still_ours
from tests.model.variants import Rules
from tests.model.world import (
    DEADLINE,
    HALVES,
    LEASE,
    NEVER_FAILED,
    TICK_SECONDS,
    WINDOW,
    Engine,
    Entry,
    World,
    expiry,
)

NOW = 1_800_000_000.0
WORKER_ID = "bridge"
TIMING = Timing(
    capacity=1,
    publish_window=WINDOW * TICK_SECONDS,
    lease_after=5.0,
    lease=LEASE * TICK_SECONDS,
    deadline=DEADLINE * TICK_SECONDS,
)
ANY_EXPIRY = LockWindow(-math.inf, math.inf)


class Decisions:
    """`bridge.protocol` for one world and set of rules; every answer is kept, as the same few
    thousand questions come again and again.
    """

    def __init__(self, world: World, rules: Rules) -> None:
        self._on = rules
        pauses = tuple(ticks * TICK_SECONDS for ticks in world.retry_pauses)
        self._policies = [RetryPolicy(world.attempts, (pause,)) for pause in pauses]
        self._failures: dict[tuple[int, int | None], list[tuple[int, int]]] = {}
        self._ours: dict[tuple[Entry, Engine], bool] = {}
        self._adoptable: dict[Engine, bool] = {}
        self._same: dict[tuple[Engine, int], bool] = {}

    def still_ours(self, entry: Entry, engine: Engine) -> bool:
        """Whether a replica with this memory may renew the lock that the engine shows."""
        key = (entry, engine)
        if key not in self._ours:
            self._ours[key] = self._ask_still_ours(entry, engine)
        return self._ours[key]

    def _ask_still_ours(self, entry: Entry, engine: Engine) -> bool:
        if not self._on.asks_before_renewing:
            return True
        expiries = tuple(
            LockWindow.exactly(NOW + e / HALVES * TICK_SECONDS) for e in entry.expiries
        )
        remembered = LedgerEntry(
            task_id="t",
            topic="a",
            retries=_retries(entry.attempt),
            serial=1,
            since=0.0,
            expiries=expiries if self._on.knows_its_expiry else (ANY_EXPIRY,),
            lock_ends=0.0,
            due=0.0,
            deadline=0.0,
        )
        return still_ours(remembered, _task(engine), WORKER_ID, NOW)

    def adoptable(self, engine: Engine) -> bool:
        """Whether a replica's sweep takes the task over."""
        if engine not in self._adoptable:
            self._adoptable[engine] = self._ask_adoptable(engine)
        return self._adoptable[engine]

    def _ask_adoptable(self, engine: Engine) -> bool:
        on, timing, task = self._on, TIMING, _task(engine)
        if not on.adopts or engine.left == 0:
            return False
        if not on.adopts_only_never_failed:
            task = task.model_copy(update={"retries": None})
        if not on.adopts_above_two_windows:
            timing = replace(timing, publish_window=0.0)
        if not on.adopts_below_renewal:
            timing = replace(timing, lease=math.inf)
        if not on.adopts_only_younger_than_deadline:
            timing = replace(timing, deadline=math.inf)
        return adoptable(task, timing, WORKER_ID, NOW)

    def same_attempt(self, engine: Engine, attempt: int) -> bool:
        """Whether the record still shows the attempt that a result speaks of."""
        if not self._on.reads_before_writing:
            return True
        key = (engine, attempt)
        if key not in self._same:
            self._same[key] = same_attempt(_task(engine), _retries(attempt), WORKER_ID)
        return self._same[key]

    def after_failure(self, attempt: int, named: int | None) -> list[tuple[int, int]]:
        """Retries and pauses (ticks) that may be reported for a failed attempt."""
        key = (attempt, named)
        if key not in self._failures:
            self._failures[key] = sorted(self._ask_after_failure(attempt, named))
        return self._failures[key]

    def _ask_after_failure(self, attempt: int, named: int | None) -> set[tuple[int, int]]:
        known = _retries(attempt)
        told = [policy.after_failure(known, named) for policy in self._policies]
        if not self._on.caps_retries and named is not None:
            told = [(named, pause) for _, pause in told]
        if not self._on.pauses_at_least_a_tick:
            told = [(retries, 0.0) for retries, _ in told]
        return {(retries, math.ceil(pause / TICK_SECONDS)) for retries, pause in told}


def _retries(attempt: int) -> int | None:
    return None if attempt == NEVER_FAILED else attempt


def _task(engine: Engine) -> ExternalTask:
    return ExternalTask(
        id="t",
        topic_name="a",
        process_instance_id="p",
        worker_id=WORKER_ID if engine.owned else None,
        lock_expiration_time=_date(expiry(engine) / HALVES) if engine.owned else None,
        create_time=_date(-engine.age),
        retries=_retries(engine.retries),
        suspended=engine.suspended,
    )


def _date(ticks: float) -> str:
    moment = datetime.fromtimestamp(NOW + ticks * TICK_SECONDS, UTC)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.000+0000"
