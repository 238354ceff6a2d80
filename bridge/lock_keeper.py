"""Keeps the locks of what is in flight: lease, renew, hold, and the deadline.

A lock with more than two publish windows left is the proof that a message is out, so no lock is
extended before the engine has been asked whether it still is the one that this replica set.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from functools import partial

import structlog

from bridge.adoption import Adoption
from bridge.attempts import Attempts, Report
from bridge.callers import Callers
from bridge.clock import monotonic
from bridge.engine import EngineClient, Observed, lock_window
from bridge.errors import (
    EngineError,
    EngineForbidden,
    EngineUnavailable,
    LockExpired,
    LockLost,
    TaskGone,
    TaskSuspended,
)
from bridge.ledger import Entry, Ledger
from bridge.messages import ExternalTask, LockWindow
from bridge.metrics import Metrics
from bridge.protocol import RENEW_AT, still_ours
from bridge.renewal_rate import RenewalRate
from bridge.tokens import Token
from bridge.topics import Topic, Topics

log = structlog.get_logger(__name__)

AT_ONCE = 300  # entries that are looked at together: one bulk query
TICK_SECONDS = 0.25
AGAIN_SECONDS = 1.0
UNREPORTED_AGAIN_SECONDS = 60.0
ROOM_CHECK_MAX_SECONDS = 30.0


class LockKeeper:
    """Its loop is `run`; the callers do what is to be done to a task, in the task's own order."""

    def __init__(
        self,
        *,
        engine: EngineClient,
        ledger: Ledger,
        callers: Callers,
        attempts: Attempts,
        topics: Topics,
        metrics: Metrics,
        publishing: threading.Event,
        announce_gone: Callable[[str, str], None],
        complete_unanswered: Callable[[Topic, Token], None],
        renew_warn: float,
        stopping: threading.Event,
    ) -> None:
        self._engine = engine
        self._ledger = ledger
        self._callers = callers
        self._attempts = attempts
        self._topics = topics
        self._metrics = metrics
        self._publishing = publishing
        self._announce_gone = announce_gone
        self._stopping = stopping
        self._random = random.Random()  # noqa: S311 (jitter)
        self._room_checks: dict[str, tuple[float, float]] = {}
        self._rate = RenewalRate(topics.known, renew_warn)
        self._adoption = Adoption(
            engine=engine,
            ledger=ledger,
            callers=callers,
            topics=topics,
            metrics=metrics,
            rate=self._rate,
            complete_unanswered=complete_unanswered,
        )
        self._told: str | None = None

    def run(self) -> None:
        """Look after the locks until stopped."""
        while not self._stopping.is_set():
            # Each step on its own, the leases first: a query that fails must not stop the others.
            steps = (self._attend_due, self._check_full_topics, self._adoption.sweep)
            failed = [step for step in steps if not self._tried(step)]
            if not failed:
                self._told = None
            else:
                self._stopping.wait(AGAIN_SECONDS)
            self._rate.warn(monotonic())
            self._stopping.wait(TICK_SECONDS)

    def lease_all(self, seconds: float) -> bool:
        """Lease everything in flight, for peers to adopt; True if done within `seconds`."""
        limit = monotonic() + seconds
        pause = threading.Event()  # `stopping` is set by now and would not wait
        while unleased := self._ledger.unleased():
            if monotonic() > limit:
                return False
            for start in range(0, len(unleased), AT_ONCE):
                if monotonic() > limit:
                    return False
                try:
                    self._attend(unleased[start : start + AT_ONCE])
                except EngineError as error:
                    self._tell(error.brief)
            self._callers.wait_idle(max(0.0, limit - monotonic()))
            pause.wait(AGAIN_SECONDS / 10)
        return True

    def _tried(self, step: Callable[[], None]) -> bool:
        try:
            step()
        except EngineError as error:
            self._tell(error.brief)
            return False
        return True

    # -- lease, renew, hold ----------------------------------------------------------------------

    def _attend_due(self) -> None:
        self._attend(self._ledger.due(monotonic(), AT_ONCE))

    def _attend(self, entries: list[Entry]) -> None:
        """Ask the engine about them all at once; whatever still is ours is extended."""
        if not entries:
            return
        try:
            observed = self._engine.tasks([entry.task_id for entry in entries])
        except EngineError:
            for entry in entries:
                self._ledger.put_off(entry, monotonic() + AGAIN_SECONDS)
            raise
        for entry in entries:
            task = observed.tasks.get(entry.task_id)
            if task is not None and self._ours(entry, task, observed):
                extend = partial(self._extend, entry, task, observed.asked)
                self._callers.submit(entry.task_id, extend, group=entry.topic, urgent=True)
            else:
                self._let_go(entry, gone=task is None)

    def _ours(self, entry: Entry, task: ExternalTask, observed: Observed) -> bool:
        engine_now = self._engine.clock.now(observed.asked)
        return still_ours(entry, task, self._engine.worker_id, engine_now)

    def _extend(self, entry: Entry, task: ExternalTask, asked: float) -> None:
        current = self._ledger.current(entry)
        if current is None:
            return
        timing, now = self._topics.timings[current.topic], monotonic()
        if now - asked > timing.publish_window / 2:
            self._ledger.put_off(current, now)  # too old to act on: ask again
        elif now >= current.deadline + timing.lease:
            self._deadline_missed(current)
        elif current.confirmed:
            self._set_lock(current, task, timing.lease)
        elif self._publishing.is_set():
            self._set_lock(current, task, timing.publish_window)
        else:
            self._ledger.forget(current)  # unconfirmed, and the connection is gone

    def _set_lock(self, entry: Entry, task: ExternalTask, duration: float) -> None:
        began = monotonic()
        try:
            window = self._lock(task, duration)
        except TaskGone:
            self._let_go(entry, gone=True)
        except (LockExpired, LockLost):
            self._let_go(entry, gone=False)
        except EngineUnavailable:
            # Carried out or not, the old or the new expiration now counts as ours.
            maybe = lock_window(duration, self._engine.clock.now(), monotonic() - began)
            self._renewed(entry, (*entry.expiries, maybe), entry.lock_ends, began + AGAIN_SECONDS)
        except EngineError as error:
            self._tell(error.brief)
            self._ledger.put_off(entry, began + AGAIN_SECONDS)
        else:
            due = began + duration * self._random.uniform(*RENEW_AT)
            self._renewed(entry, (window,), began + duration, due, leased=entry.confirmed)
            self._metrics.count(entry.topic, "leased" if entry.confirmed else "held")
            self._metrics.renewed(entry.topic)
            self._rate.add(entry.topic)

    def _lock(self, task: ExternalTask, duration: float) -> LockWindow:
        if task.suspended:
            return self._engine.lock(task.id, duration)
        try:
            return self._engine.extend_lock(task.id, duration)
        except TaskSuspended:
            return self._engine.lock(task.id, duration)

    def _renewed(
        self,
        entry: Entry,
        expiries: tuple[LockWindow, ...],
        lock_ends: float,
        due: float,
        *,
        leased: bool = False,
    ) -> None:
        self._ledger.renewed(entry, expiries=expiries, lock_ends=lock_ends, due=due, leased=leased)

    def _let_go(self, entry: Entry, *, gone: bool) -> None:
        if self._ledger.drop(entry):
            self._metrics.count(entry.topic, "dropped")
            if gone:
                self._announce_gone(entry.topic, entry.task_id)

    def _deadline_missed(self, entry: Entry) -> None:
        topic, token = self._topics.known[entry.topic], Token(entry.task_id, entry.retries)
        hours = topic.timing.deadline / 3600
        try:
            report = Report(f"no answer within the deadline of {hours:g} h")
            self._attempts.fail(topic, token, report, "deadline_missed")
        except (TaskGone, LockLost):
            self._let_go(entry, gone=False)
        except (TaskSuspended, EngineForbidden) as error:
            told = {"task_id": entry.task_id, "topic": entry.topic, "reason": error.brief}
            log.warning("missed deadline not reported yet", **told)
            self._ledger.put_off(entry, monotonic() + UNREPORTED_AGAIN_SECONDS)
        except EngineError as error:
            self._tell(error.brief)
            self._ledger.put_off(entry, monotonic() + AGAIN_SECONDS)
        else:
            self._ledger.forget(entry)

    # -- room ------------------------------------------------------------------------------------

    def _check_full_topics(self) -> None:
        """A topic without room may be full of tasks that peers have settled: ask at once, then
        with growing pauses while less than a tenth is freed.
        """
        for topic, settled in self._topics.items():
            now = monotonic()
            at, pause = self._room_checks.get(topic, (0.0, 0.0))
            if self._ledger.room(topic) > 0 or now < at:
                continue
            freed = self._check(self._ledger.idle(topic))
            enough = freed * 10 >= settled.timing.capacity
            pause = 0.0 if enough else min(ROOM_CHECK_MAX_SECONDS, max(1.0, pause * 2))
            self._room_checks[topic] = (now + pause, pause)

    def _check(self, entries: list[Entry]) -> int:
        observed = self._engine.tasks([entry.task_id for entry in entries])
        freed = 0
        for entry in entries:
            task = observed.tasks.get(entry.task_id)
            if task is None or not self._ours(entry, task, observed):
                self._let_go(entry, gone=task is None)
                freed += 1
        return freed

    def _tell(self, why: str) -> None:
        if why != self._told:
            self._told = why
            log.warning("locks not looked after", reason=why)
