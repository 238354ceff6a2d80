"""Takes over what a dead replica, or this one before its restart, has left in flight.

A restart needs no special case: it is an empty memory and a sweep.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import partial

import structlog

from bridge.callers import Callers
from bridge.clock import monotonic
from bridge.engine import EngineClient
from bridge.errors import EngineError
from bridge.ledger import Ledger
from bridge.messages import ExternalTask
from bridge.metrics import Metrics
from bridge.protocol import ADOPT_BELOW_LEASES, PROOF_WINDOWS, RENEW_AT, adoptable
from bridge.renewal_rate import RenewalRate
from bridge.tokens import Token
from bridge.topics import Topic, Topics

log = structlog.get_logger(__name__)


class Adoption:
    """`sweep` is called often and asks the engine about every tenth of a lease."""

    def __init__(
        self,
        *,
        engine: EngineClient,
        ledger: Ledger,
        callers: Callers,
        topics: Topics,
        metrics: Metrics,
        rate: RenewalRate,
        complete_unanswered: Callable[[Topic, Token], None],
    ) -> None:
        self._engine = engine
        self._ledger = ledger
        self._callers = callers
        self._topics = topics
        self._metrics = metrics
        self._rate = rate
        self._complete_unanswered = complete_unanswered
        self._random = random.Random()  # noqa: S311 (jitter)
        self._next = self._times()

    def sweep(self) -> None:
        """Adopt what is due for it.  Raises EngineError where the engine does not say."""
        self._next = {times: self._next.get(times, 0.0) for times in self._times()}
        for (window, lease), at in self._next.items():
            now = monotonic()
            if now >= at:
                self._ask(PROOF_WINDOWS * window, ADOPT_BELOW_LEASES * lease)
                self._next[window, lease] = now + lease / 10 * self._random.uniform(0.8, 1.2)

    def _times(self) -> dict[tuple[float, float], float]:
        """Topics with the same times share a query: (publish window, lease) -> when to ask next."""
        timings = (topic.timing for topic in self._topics.values())
        return {(timing.publish_window, timing.lease): 0.0 for timing in timings}

    def _ask(self, shortest: float, longest: float) -> None:
        engine_now = self._engine.now()
        observed = self._engine.locked_between(engine_now + shortest, engine_now + longest)
        engine_then = self._engine.clock.now(observed.asked)
        for task in observed.tasks.values():
            topic = self._topics.get(task.topic_name)
            if topic is None or task.id in self._ledger:
                continue
            if adoptable(task, topic.timing, self._engine.worker_id, engine_then):
                adopt = partial(self._adopt, topic, task, observed.asked)
                self._callers.submit(task.id, adopt, group=topic.name, urgent=True)

    def _adopt(self, topic: Topic, task: ExternalTask, asked: float) -> None:
        timing, now = topic.timing, monotonic()
        if task.id in self._ledger or now - asked > timing.publish_window / 2:
            return
        try:
            window = self._engine.extend_lock(task.id, timing.lease)
        except EngineError as error:
            log.debug("not adopted", task_id=task.id, topic=topic.name, reason=error.brief)
            return
        age = self._engine.clock.now(now) - (task.created or 0.0)
        self._ledger.take_over(
            task.id,
            topic.name,
            task.retries,
            expiry=window,
            lock_ends=now + timing.lease,
            due=now + timing.lease * self._random.uniform(*RENEW_AT),
            deadline=now + timing.deadline - age,
            now=now,
        )
        self._metrics.count(topic.name, "adopted")
        self._metrics.renewed(topic.name)
        self._rate.add(topic.name)
        log.info("task adopted", task_id=task.id, topic=topic.name)
        if not topic.answers:  # the lock proves that the message is out: nothing more is needed
            self._complete_unanswered(topic, Token(task.id, task.retries))
