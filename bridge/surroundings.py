"""How things stand around the bridge: how full the queues are, what waits in the engine.

Looks only while somebody wants to know, in threads of its own, because broker and engine may hang.
Looks only: takes, locks and declares nothing.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import structlog

from bridge.clock import monotonic
from bridge.errors import BrokerUnavailable, EngineError
from bridge.queue_counts import QueueCount
from bridge.topics import Topic

log = structlog.get_logger(__name__)

FRESH_SECONDS = 5.0
# Looks at a hundred topics must not keep the engine busy.
FRESH_SECONDS_EACH = 0.2
STALE_SECONDS = 60.0
# What the engine would give to a fetch: unlocked, with retries left, not suspended.
FETCHABLE = {"notLocked": True, "withRetriesLeft": True, "active": True}
# What nobody gets until an operator gives it a retry: each has an incident.
STUCK = {"noRetriesLeft": True}

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class EngineCount:
    """A topic's tasks in the engine: those that can be fetched, and those with no retries left."""

    waiting: int
    stuck: int


class Look(Generic[T]):
    """The latest answer to one question.  `run` is the loop that asks it, whenever `latest` is
    wanted and the answer is older than `fresh` seconds; whoever builds us starts it.
    """

    def __init__(self, ask: Callable[[], T | None], fresh: Callable[[], float]) -> None:
        self._ask = ask
        self._fresh = fresh
        self._changed = threading.Condition()
        self._wanted = False
        self._stopping = False
        self._answer: T | None = None
        self._asked_at = float("-inf")

    def latest(self, wait: float = 0.0) -> T | None:
        """The answer, fresh if it comes within `wait` seconds; None where none is known that is
        younger than a minute.
        """
        with self._changed:
            if monotonic() - self._asked_at > self._fresh() and not self._stopping:
                self._wanted = True
                self._changed.notify_all()
                self._changed.wait_for(lambda: not self._wanted or self._stopping, wait)
            known = monotonic() - self._asked_at < STALE_SECONDS
            return self._answer if known else None

    def run(self) -> None:
        """Ask when somebody wants to know, until stopped."""
        while self._await_want():
            began, answer = monotonic(), self._asked()
            with self._changed:
                self._answer, self._asked_at, self._wanted = answer, began, False
                self._changed.notify_all()

    def stop(self) -> None:
        """Have `run` end, and nobody wait; a question under way is not waited for."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()

    def _asked(self) -> T | None:
        try:
            return self._ask()
        except Exception:
            # Whoever answers there, and whatever: what only shows must not end what works.
            log.exception("not to be looked at")
            return None

    def _await_want(self) -> bool:
        with self._changed:
            self._changed.wait_for(lambda: self._wanted or self._stopping)
            return not self._stopping


class Surroundings:
    """Queues and tasks of the topics, which may change at any time.

    `count_queues` raises BrokerUnavailable, `count_tasks` EngineError; `queues` are looked at
    beside those of the topics.
    """

    def __init__(
        self,
        topics: Mapping[str, Topic],
        queues: Iterable[str],
        count_queues: Callable[[Sequence[str]], Mapping[str, QueueCount | None]],
        count_tasks: Callable[..., int],
    ) -> None:
        self._topics = topics
        self._queues = tuple(queues)
        self._count_queues = count_queues
        self._count_tasks = count_tasks
        self._filled = Look(self._look_at_queues, self._fresh)
        self._engine = Look(self._look_at_engine, self._fresh)
        self.loops = (("queue looks", self._filled.run), ("engine looks", self._engine.run))

    def latest(
        self, wait: float
    ) -> tuple[Mapping[str, QueueCount | None] | None, Mapping[str, EngineCount] | None]:
        """The counts of queues by name, and of tasks by topic; None: not known.  Waits so many
        seconds for what is not fresh.
        """
        limit = monotonic() + wait
        self._engine.latest()  # both begin at once
        queues = self._filled.latest(wait)
        return queues, self._engine.latest(max(0.0, limit - monotonic()))

    def stop(self) -> None:
        """Have the loops end."""
        self._filled.stop()
        self._engine.stop()

    def _fresh(self) -> float:
        return max(FRESH_SECONDS, FRESH_SECONDS_EACH * len(self._topics))

    def _look_at_queues(self) -> Mapping[str, QueueCount | None] | None:
        # Where an exchange of somebody else's routes to is its owner's affair.
        own = (topic.queue for topic in list(self._topics.values()) if not topic.shape.exchange)
        try:
            return self._count_queues([*dict.fromkeys(own), *self._queues])
        except BrokerUnavailable as error:
            log.debug("queues not counted", reason=str(error))
            return None

    def _look_at_engine(self) -> Mapping[str, EngineCount] | None:
        count = self._count_tasks
        try:
            return {
                topic: EngineCount(
                    waiting=count(topicName=topic, **FETCHABLE),
                    stuck=count(topicName=topic, **STUCK),
                )
                for topic in list(self._topics)
            }
        except EngineError as error:
            log.debug("tasks not counted", reason=error.brief)
            return None
