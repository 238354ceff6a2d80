"""Engine -> RabbitMQ: fetch what there is room for and hand it over.

Two loops.  The poller waits in one long poll for the first task of every topic that has room.
What it brings is handed over; where it brought as many as it asked for, the drainer fetches the
rest of those topics, one short fetch for each in turn, so that a flood of one topic does not delay
another's first task.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import structlog
from tenacity import RetryCallState, Retrying, retry_if_exception_type, wait_random_exponential
from tenacity.nap import sleep_using_event
from tenacity.stop import stop_when_event_set

from bridge.broker import Publisher
from bridge.callers import Callers
from bridge.circuits import Circuits
from bridge.clock import monotonic
from bridge.engine import MAX_RETRY_AFTER_SECONDS, EngineClient
from bridge.errors import (
    BrokerUnavailable,
    EngineBroken,
    EngineError,
    EngineRefused,
    EngineUnavailable,
)
from bridge.handover import Handover
from bridge.ledger import Ledger
from bridge.messages import LockedTask
from bridge.topics import Topic, Topics

log = structlog.get_logger(__name__)

BATCH = 200
# A poll that leaves a topic out is a short one: the topic must come back under its cover soon.
PARTIAL_POLL_SECONDS = 1.0
NEWCOMER_SECONDS = 0.3
DRAIN_PATIENCE_SECONDS = 0.05
ANSWER_SECONDS = 0.002
# A topic at its limit gets room one by one: fetch for it when a quarter is free, or this often.
STARVED_SECONDS = 0.1
COUNT_CONSUMERS_SECONDS = 2.0
MAX_BACKLOG_BYTES = 64 * 1024 * 1024
# An engine that is back after a short outage must not be left alone for much longer than it was.
MAX_PAUSE_SECONDS = 10.0


@dataclass(frozen=True)
class FetchOptions:
    """How to ask the engine for tasks; `poll_timeout` in seconds."""

    poll_timeout: float
    use_priority: bool
    sorting: Sequence[Mapping[str, str]] = ()


class Dispatcher:
    """Fetches tasks and hands them over.  `run_poller` and `run_drainer` are its loops."""

    def __init__(
        self,
        *,
        engine: EngineClient,
        ledger: Ledger,
        publisher: Publisher,
        handover: Handover,
        circuits: Circuits,
        chores: Callers,
        topics: Topics,
        options: FetchOptions,
        consumers: Callable[[str], int],
        stopping: threading.Event,
    ) -> None:
        self._engine = engine
        self._ledger = ledger
        self._publisher = publisher
        self._handover = handover
        self._circuits = circuits
        self._chores = chores
        self._topics = topics
        self._options = options
        self._consumers = consumers
        self._stopping = stopping
        self._consumed: dict[str, int] = {}
        self._count_at: dict[str, float] = {}
        self._changed = threading.Condition()
        self._draining: dict[str, float] = {}  # topic -> when it was last fetched
        self._polled = topics.served  # when the poll under way began
        self._newcomers_at = 0.0
        self._problem: str | None = None

    @property
    def problem(self) -> str | None:
        """Why the engine gives no tasks; None while it answers."""
        return self._problem

    # -- the poller ------------------------------------------------------------------------------

    def run_poller(self) -> None:
        """Poll until stopped; an engine that does not answer is tried again with growing pauses."""
        while not self._stopping.is_set():
            self._patiently(self._poll)

    def _poll(self) -> None:
        with self._changed:
            self._changed.wait_for(lambda: not self._draining, DRAIN_PATIENCE_SECONDS)
            served = self._polled = self._topics.served
            covered = [t for t in served if t not in self._draining and self._room(t) > 0]
            if not covered or self._stopping.is_set():
                self._changed.wait(DRAIN_PATIENCE_SECONDS)
                return
        windows = (served[topic].timing.publish_window for topic in covered)
        wait = min(self._options.poll_timeout, min(windows) / 4)
        if len(covered) < len(served):
            wait = min(wait, PARTIAL_POLL_SECONDS)
        wanted = min(BATCH, *map(self._room, covered))
        found = self._fetch(covered, wanted, wait)
        if len(found) < wanted:  # the engine had no more
            self._await_answers({task.topic_name for task in found})
            return
        with self._changed:
            for task in found:
                self._draining.setdefault(task.topic_name, 0.0)
            self._changed.notify_all()

    def _await_answers(self, topics: Collection[str]) -> None:
        """Let RabbitMQ answer before the next poll: it must not cover a topic whose queue is gone,
        or the tasks that it brings are locked in vain.
        """
        limit = monotonic() + DRAIN_PATIENCE_SECONDS
        while any(map(self._publisher.unsettled, topics)) and monotonic() < limit:
            if self._stopping.wait(ANSWER_SECONDS):
                return

    # -- the drainer -----------------------------------------------------------------------------

    def run_drainer(self) -> None:
        """Fetch the rest of every topic that had something, until stopped."""
        while not self._stopping.is_set():
            self._patiently(self._drain)

    def _drain(self) -> None:
        self._count_consumers()
        for topic in self._circuits.look():
            self._probe(topic)
        with self._changed:
            if not self._draining:
                self._changed.wait(STARVED_SECONDS)
            self._add_newcomers()
            draining = list(self._draining)
        busy = [self._drain_topic(topic) for topic in draining if not self._stopping.is_set()]
        if draining and not any(busy):
            self._stopping.wait(DRAIN_PATIENCE_SECONDS / 2)

    def _add_newcomers(self) -> None:
        """Topics that were added since the poll under way began must not wait for its end."""
        served, now = self._topics.served, monotonic()
        if served is not self._polled and now >= self._newcomers_at:
            self._newcomers_at = now + NEWCOMER_SECONDS
            for topic in served.keys() - self._polled.keys():
                self._draining.setdefault(topic, 0.0)

    def _drain_topic(self, topic: str) -> bool:
        """One short fetch, if there is enough room to make it worth a call; True if it was made."""
        if not self._may_flow(topic):
            self._drained(topic)
            return False
        room, now = self._room(topic), monotonic()
        little = room < self._topics.timings[topic].capacity // 4
        if room == 0 or (little and now - self._draining[topic] < STARVED_SECONDS):
            return False
        wanted = min(BATCH, room)
        self._draining[topic] = now
        if len(self._fetch([topic], wanted, 0.0)) < wanted:
            self._drained(topic)
        return True

    def _drained(self, topic: str) -> None:
        with self._changed:
            self._draining.pop(topic, None)
            self._changed.notify_all()

    def _probe(self, topic: str) -> None:
        """Try a paused topic with one task; without a task at hand, nothing speaks against it but
        what a message would meet, so it stays half open.
        """
        if self._publisher.ready.is_set() and self._ledger.room(topic) > 0:
            self._fetch([topic], 1, 0.0)

    # -- fetch -----------------------------------------------------------------------------------

    def _may_flow(self, topic: str) -> bool:
        if self._stopping.is_set() or not self._publisher.ready.is_set():
            return False
        settled = self._topics.get(topic)  # None: removed meanwhile
        if settled is None or (settled.wait_for_consumer and not self._consumed.get(topic)):
            return False
        return self._circuits.is_closed(topic)

    def _room(self, topic: str) -> int:
        """How many tasks of the topic may be fetched now."""
        if not self._may_flow(topic) or self._publisher.unsettled(topic) > MAX_BACKLOG_BYTES:
            return 0
        return self._ledger.room(topic)

    def _fetch(self, topics: Sequence[str], max_tasks: int, wait: float) -> list[LockedTask]:
        try:
            fetched = self._engine.fetch_and_lock(
                [self._topics.known[topic].fetch for topic in topics],
                max_tasks,
                wait=wait,
                use_priority=self._options.use_priority,
                sorting=self._options.sorting,
            )
        except (EngineRefused, EngineBroken) as error:
            return self._isolate(topics, error)
        if self._problem is not None:
            self._problem = None
            log.info("engine answers again")
        self._circuits.fetched(topics)
        for task in fetched.tasks:
            self._handover.take(task, fetched.began)
        return fetched.tasks

    def _isolate(self, topics: Sequence[str], error: EngineError) -> list[LockedTask]:
        """One topic's filter can spoil the request for all: find it, and go on without."""
        if len(topics) == 1:
            # A refusal is about our own request, and that has the settings' filters only.
            why = str(error) if isinstance(error, EngineRefused) else error.brief
            self._circuits.fetch_refused(topics[0], why)
            return []
        found: list[LockedTask] = []
        for topic in topics:
            if room := self._room(topic):
                found += self._fetch([topic], min(BATCH, room), 0.0)
        return found

    def _count_consumers(self) -> None:
        """Have the consumers counted of the topics that wait for one."""
        now = monotonic()
        for name, topic in self._topics.items():
            if not topic.wait_for_consumer or now < self._count_at.get(name, 0.0):
                continue
            self._count_at[name] = now + COUNT_CONSUMERS_SECONDS
            if (key := f"consumers {name}") not in self._chores:
                self._chores.submit(key, partial(self._count, topic))

    def _count(self, topic: Topic) -> None:
        try:
            self._consumed[topic.name] = self._consumers(topic.queue)
        except BrokerUnavailable as error:
            log.debug("consumers not counted", topic=topic.name, reason=str(error))

    # -- patience --------------------------------------------------------------------------------

    def _patiently(self, step: Callable[[], None]) -> None:
        Retrying(
            retry=retry_if_exception_type(EngineError),
            wait=_pause,
            stop=stop_when_event_set(self._stopping),
            sleep=sleep_using_event(self._stopping),
            before_sleep=self._tell,
            retry_error_callback=lambda _: None,
        )(step)

    def _tell(self, state: RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome else None
        why = error.brief if isinstance(error, EngineError) else str(error)
        if self._problem != why:
            self._problem = why
            log.warning("engine does not answer as it should", reason=self._problem)


def _pause(state: RetryCallState) -> float:
    """Growing, with full jitter; longer where the engine, or a proxy, asks for it."""
    error = state.outcome.exception() if state.outcome else None
    asked = error.retry_after if isinstance(error, EngineUnavailable) else 0.0
    growing = wait_random_exponential(multiplier=0.5, max=MAX_PAUSE_SECONDS)(state)
    return max(growing, min(asked, MAX_RETRY_AFTER_SECONDS))
