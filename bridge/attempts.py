"""Acts on one attempt of a task: fail, release, keep alive, raise an incident.  Read before write.

The worker id is the engine's only fence and every replica shares it, so the record is read first:
other retries than the attempt's mean that the act is stale.  The write follows within a second, or
the task is read again.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import structlog

from bridge.clock import monotonic
from bridge.engine import EngineClient
from bridge.errors import EngineError, EngineUnavailable, LockExpired, TaskSuspended
from bridge.ledger import Ledger
from bridge.messages import ExternalTask
from bridge.metrics import Event, Metrics
from bridge.protocol import RetryPolicy, release_pause, same_attempt
from bridge.retry_model import policy_for
from bridge.tokens import Token
from bridge.topics import Topic

log = structlog.get_logger(__name__)

WRITE_WITHIN_SECONDS = 1.0
READ_TRIES = 3
MESSAGE_MAX = 666  # what the engine keeps of an errorMessage
AT_ONCE = 0.001
CACHED_POLICIES = 1000

Typed = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class Report:
    """A failure to report; `retries` and `pause` (seconds) None: by the topic's policy."""

    message: str
    details: str = ""
    retries: int | None = None
    pause: float | None = None
    variables: Typed = field(default_factory=dict)
    local_variables: Typed = field(default_factory=dict)


class Attempts:
    """What is told to the engine about attempts that did not succeed.  Raises EngineError.

    Every method returns False where the act is stale, and has settled the task in the ledger where
    it returns True (but for `keep_alive`, which takes it over).
    """

    def __init__(self, engine: EngineClient, ledger: Ledger, metrics: Metrics) -> None:
        self._engine = engine
        self._ledger = ledger
        self._metrics = metrics
        self._policies: dict[tuple[str, str, RetryPolicy], RetryPolicy] = {}
        self._lock = threading.Lock()

    def fail(self, topic: Topic, token: Token, report: Report, event: Event = "failed") -> bool:
        """Report a failure; by the topic's policy where the report names no retries or pause."""
        task = self._read(token)
        if task is None:
            return False
        policy = self._policy(topic, task)
        retries, pause = policy.after_failure(token.retries, report.retries, report.pause)
        pause = min(pause, topic.timing.deadline)
        self._write_failure(task, replace(report, retries=retries, pause=pause))
        self._settled(topic, task, event)
        if retries == 0:
            log.warning("incident raised, no attempt is left", task_id=task.id, topic=topic.name)
        else:
            told = {"retries": retries, "pause_seconds": pause}
            log.info("task failed", task_id=task.id, topic=topic.name, **told)
        return True

    def incident(self, topic: Topic, token: Token, message: str) -> bool:
        """Show an operator, in the engine, what no further attempt can mend."""
        task = self._read(token)
        if task is None:
            return False
        self._write_failure(task, Report(message, retries=0, pause=0.0))
        self._settled(topic, task, "incident")
        log.warning("incident raised", task_id=task.id, topic=topic.name)
        return True

    def release(self, topic: Topic, token: Token, pause: float = AT_ONCE) -> bool:
        """Give the task back; it is offered again after the pause (seconds), at most a third of a
        publish window.
        """
        task = self._read(token)
        if task is None:
            return False
        try:
            self._engine.extend_lock(task.id, release_pause(pause, topic.timing.publish_window))
        except LockExpired:
            log.debug("released already by its lock", task_id=task.id, topic=topic.name)
        self._settled(topic, task, "released")
        return True

    def give_back(self, token: Token) -> bool:
        """Unlock a task that was never published.  `unlock` checks no owner: a task whose older
        copy has failed meanwhile may be a peer's by now, and is left to it.
        """
        task = self._read(token)
        if task is None:
            return False
        self._engine.unlock(task.id)
        return True

    def keep_alive(self, topic: Topic, token: Token, duration: float, variables: Typed) -> bool:
        """The worker is busy: lease the task for the longer of `duration` (seconds, at most the
        deadline) and the lease, and answer for it from now on, with a fresh deadline.
        """
        task = self._read(token)
        if task is not None and variables:
            # First, and read again after it: where this is refused, nothing is kept alive.
            self._engine.set_variables(task.process_instance_id, variables)
            task = self._read(token)
        if task is None:
            return False
        timing = topic.timing
        lease, began = max(min(duration, timing.deadline), timing.lease), monotonic()
        try:
            expiry = self._engine.extend_lock(task.id, lease)
        except (TaskSuspended, LockExpired):
            # The attempt is still the engine's own: `lock` takes what extendLock refuses.
            expiry = self._engine.lock(task.id, lease)
        self._ledger.take_over(
            task.id,
            topic.name,
            token.retries,
            expiry=expiry,
            lock_ends=began + lease,
            due=began + lease - timing.lease / 2,
            deadline=began + timing.deadline,
            now=began,
        )
        self._metrics.count(topic.name, "progress")
        return True

    def _read(self, token: Token) -> ExternalTask | None:
        """The task, read less than a second ago, if it still is the attempt of the token."""
        for _ in range(READ_TRIES):
            asked = monotonic()
            task = self._engine.task(token.task_id)
            if not same_attempt(task, token.retries, self._engine.worker_id):
                return None
            if monotonic() - asked < WRITE_WITHIN_SECONDS:
                return task
        raise EngineUnavailable("the engine answers too slowly to read before writing")

    def _write_failure(self, task: ExternalTask, report: Report) -> None:
        if task.suspended:
            raise TaskSuspended("the process instance is suspended")
        self._engine.failure(
            task.id,
            message=report.message[:MESSAGE_MAX],
            details=report.details or report.message,
            retries=report.retries or 0,
            pause=report.pause or 0.0,
            variables=report.variables,
            local_variables=report.local_variables,
        )

    def _settled(self, topic: Topic, task: ExternalTask, event: Event) -> None:
        self._ledger.settle(task.id)
        self._metrics.count(topic.name, event)

    def _policy(self, topic: Topic, task: ExternalTask) -> RetryPolicy:
        definition, activity = task.process_definition_id, task.activity_id
        if not topic.model_retries or definition is None or activity is None:
            return topic.retries
        wanted = (definition, activity, topic.retries)
        with self._lock:
            known = self._policies.get(wanted)
        if known is None:
            try:
                known = policy_for(self._engine.process_xml(definition), activity, topic.retries)
            except EngineError as error:
                log.warning("process model not readable", topic=topic.name, reason=error.brief)
                return topic.retries
            with self._lock:
                if len(self._policies) >= CACHED_POLICIES:
                    self._policies.clear()
                self._policies[wanted] = known
        return known
