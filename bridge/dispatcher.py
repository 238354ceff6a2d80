"""Engine -> RabbitMQ: fetch what there is room for, publish it, remember it in the ledger.

Two loops.  The poller waits in one long poll for the first task of every topic that has room.
What it brings is published, and the drainer fetches the rest of those topics, one short fetch for
each in turn, so that a flood of one topic does not delay another's first task.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import structlog
from tenacity import RetryCallState, Retrying, retry_if_exception_type, wait_random_exponential
from tenacity.nap import sleep_using_event
from tenacity.stop import stop_when_event_set

from bridge.attempts import Attempts
from bridge.broker import Outcome, Publisher
from bridge.callers import Callers
from bridge.circuit import Circuit, State
from bridge.clock import monotonic
from bridge.engine import EngineClient, Fetched
from bridge.engine.client import file_address
from bridge.errors import (
    BrokerUnavailable,
    EngineBroken,
    EngineError,
    EngineRefused,
    TaskGone,
    TaskRefused,
)
from bridge.ledger import Entry, Ledger
from bridge.messages import LockedTask
from bridge.metrics import Event, Metrics
from bridge.task_message import build
from bridge.tokens import Token, TokenSigner
from bridge.topics import Topic
from bridge.variables import plain

log = structlog.get_logger(__name__)

BATCH = 200
# A poll that leaves a topic out is a short one: the topic must come back under its cover soon.
PARTIAL_POLL_SECONDS = 1.0
DRAIN_PATIENCE_SECONDS = 0.05
STARVED_SECONDS = 0.1
COUNT_CONSUMERS_SECONDS = 2.0
MAX_BACKLOG_BYTES = 64 * 1024 * 1024

_EVENTS: dict[Outcome, Event] = {
    Outcome.CONFIRMED: "confirmed",
    Outcome.RETURNED: "returned",
    Outcome.NACKED: "nacked",
    Outcome.UNKNOWN: "unconfirmed",
    Outcome.LATE: "late",
}


@dataclass(frozen=True)
class FetchOptions:
    """How to ask the engine for tasks; `poll_timeout` in seconds."""

    poll_timeout: float
    use_priority: bool
    sorting: Sequence[Mapping[str, str]] = ()


class Dispatcher:
    """Carries tasks to their queues.  `run_poller` and `run_drainer` are its loops."""

    def __init__(
        self,
        *,
        engine: EngineClient,
        ledger: Ledger,
        publisher: Publisher,
        callers: Callers,
        attempts: Attempts,
        signer: TokenSigner,
        topics: Mapping[str, Topic],
        metrics: Metrics,
        options: FetchOptions,
        repair: Callable[[str], bool],
        consumers: Callable[[str], int],
        complete_unanswered: Callable[[Topic, Token], None],
        stopping: threading.Event,
    ) -> None:
        self._engine = engine
        self._ledger = ledger
        self._publisher = publisher
        self._callers = callers
        self._attempts = attempts
        self._signer = signer
        self._topics = topics
        self._metrics = metrics
        self._options = options
        self._repair = repair
        self._consumers = consumers
        self._complete_unanswered = complete_unanswered
        self._stopping = stopping
        jitter = random.Random()  # noqa: S311 (jitter)
        self._circuits = {t: Circuit(partial(jitter.uniform, 0.75, 1.25)) for t in topics}
        self._consumed: dict[str, int] = {}
        self._count_at: dict[str, float] = {}
        self._changed = threading.Condition()
        self._draining: dict[str, float] = {}  # topic -> when it was last fetched
        self.problem: str | None = None

    # -- the poller ------------------------------------------------------------------------------

    def run_poller(self) -> None:
        """Poll until stopped; an engine that does not answer is tried again with growing pauses."""
        while not self._stopping.is_set():
            self._patiently(self._poll)

    def _poll(self) -> None:
        with self._changed:
            self._changed.wait_for(lambda: not self._draining, DRAIN_PATIENCE_SECONDS)
            covered = [t for t in self._topics if t not in self._draining and self._room(t) > 0]
            if not covered or self._stopping.is_set():
                self._changed.wait(DRAIN_PATIENCE_SECONDS)
                return
        wait = min(self._topics[t].timing.publish_window / 4 for t in covered)
        wait = min(wait, self._options.poll_timeout)
        if len(covered) < len(self._topics):
            wait = min(wait, PARTIAL_POLL_SECONDS)
        fetched = self._fetch(covered, min(BATCH, *map(self._room, covered)), wait)
        with self._changed:
            for task in fetched.tasks:
                self._draining.setdefault(task.topic_name, 0.0)
            self._changed.notify_all()

    # -- the drainer -----------------------------------------------------------------------------

    def run_drainer(self) -> None:
        """Fetch the rest of every topic that had something, until stopped."""
        while not self._stopping.is_set():
            self._patiently(self._drain)

    def _drain(self) -> None:
        self._look_at_queues()
        with self._changed:
            if not self._draining:
                self._changed.wait(STARVED_SECONDS)
            draining = list(self._draining)
        busy = [self._drain_topic(topic) for topic in draining if not self._stopping.is_set()]
        if draining and not any(busy):
            self._stopping.wait(DRAIN_PATIENCE_SECONDS / 2)

    def _drain_topic(self, topic: str) -> bool:
        """One short fetch, if there is enough room to make it worth a call; True if it was made."""
        room, capacity = self._room(topic), self._topics[topic].timing.capacity
        now = monotonic()
        if room == 0 and not self._may_flow(topic):
            self._drained(topic)
            return False
        if room == 0 or (room < capacity // 4 and now - self._draining[topic] < STARVED_SECONDS):
            return False
        wanted = min(BATCH, room)
        self._draining[topic] = now
        if len(self._fetch([topic], wanted, 0.0).tasks) < wanted:
            self._drained(topic)
        return True

    def _drained(self, topic: str) -> None:
        with self._changed:
            self._draining.pop(topic, None)
            self._changed.notify_all()

    # -- fetch -----------------------------------------------------------------------------------

    def _may_flow(self, topic: str) -> bool:
        if self._stopping.is_set() or not self._publisher.ready.is_set():
            return False
        if self._topics[topic].wait_for_consumer and not self._consumed.get(topic):
            return False
        return self._circuits[topic].state in (State.CLOSED, State.HALF_OPEN)

    def _room(self, topic: str) -> int:
        """How many tasks of the topic may be fetched now."""
        if not self._may_flow(topic) or self._publisher.backlog[1] > MAX_BACKLOG_BYTES:
            return 0
        room = self._ledger.room(topic)
        return room if self._circuits[topic].state is State.CLOSED else min(room, 1)

    def _fetch(self, topics: Sequence[str], max_tasks: int, wait: float) -> Fetched:
        try:
            fetched = self._engine.fetch_and_lock(
                [self._topics[topic].fetch for topic in topics],
                max_tasks,
                wait=wait,
                use_priority=self._options.use_priority,
                sorting=self._options.sorting,
            )
        except (EngineRefused, EngineBroken) as error:
            return self._isolate(topics, error)
        if self.problem is not None:
            self.problem = None
            log.info("engine answers again")
        for task in fetched.tasks:
            self._take(task, fetched.began)
        return fetched

    def _isolate(self, topics: Sequence[str], error: EngineError) -> Fetched:
        """One topic's filter can spoil the request for all: find it, and go on without."""
        if len(topics) == 1:
            self._trip(topics[0], f"the engine refuses to fetch it: {error}")
            return Fetched([], monotonic())
        found = [self._fetch([topic], BATCH, 0.0) for topic in topics]
        return Fetched([task for each in found for task in each.tasks], monotonic())

    # -- publish ---------------------------------------------------------------------------------

    def _take(self, task: LockedTask, began: float) -> None:
        topic, expires = self._topics.get(task.topic_name), task.lock_expires
        if topic is None or expires is None:
            return  # not asked for: the lock lapses
        self._metrics.count(topic.name, "fetched")
        entry = self._ledger.admit(task.id, topic.name, task.retries, expires, began)
        if self._stopping.is_set():
            self._give_back(topic, entry)
        elif topic.file_inline_max and _files(task):
            self._callers.submit(task.id, partial(self._send_with_files, topic, task, entry))
        else:
            self._send(topic, task, entry, {})

    def _send(
        self, topic: Topic, task: LockedTask, entry: Entry, files: Mapping[str, bytes]
    ) -> None:
        execution = task.execution_id or task.process_instance_id
        token = self._signer.make(task.id, task.retries, topic.name)
        try:
            values, types = plain(
                task.variables,
                file_address=lambda name: file_address(self._engine.url, execution, name),
                file_contents=files,
            )
            publication = build(
                task,
                topic.shape,
                token=token,
                values=values,
                types=types,
                timestamp=int(time.time()),
            )
        except TaskRefused as refused:
            self._refused(topic, entry, str(refused))
            return
        self._publisher.publish(
            publication,
            partial(self._published, topic, entry),
            publish_by=entry.since + topic.timing.publish_window / 2,
        )

    def _send_with_files(self, topic: Topic, task: LockedTask, entry: Entry) -> None:
        execution = task.execution_id or task.process_instance_id
        files: dict[str, bytes] = {}
        for name in _files(task):
            try:
                content = self._engine.file_contents(execution, name, topic.file_inline_max)
            except EngineError as error:
                log.warning("file not read", task_id=task.id, reason=str(error))
                continue
            if content is not None:
                files[name] = content
        self._send(topic, task, entry, files)

    def _published(self, topic: Topic, entry: Entry, outcome: Outcome, detail: str) -> None:
        """What became of a message.  On the publishing connection's thread."""
        if outcome in _EVENTS:
            self._metrics.count(topic.name, _EVENTS[outcome])
        match outcome:
            case Outcome.CONFIRMED:
                self._ledger.confirmed(entry, monotonic())
                if self._circuits[topic.name].close():
                    log.info("topic flows again", topic=topic.name)
                if not topic.answers:
                    self._complete_unanswered(topic, Token(entry.task_id, entry.retries))
            case Outcome.REFUSED:
                self._refused(topic, entry, f"the message cannot be written: {detail}")
            case Outcome.LATE if self._stopping.is_set():
                self._give_back(topic, entry)
            case _:
                # Not in a queue, or nobody knows: the lock lapses and the engine offers it again.
                self._ledger.forget(entry)
                if outcome is not Outcome.LATE and self._publisher.ready.is_set():
                    self._trip(topic.name, detail)

    def _refused(self, topic: Topic, entry: Entry, why: str) -> None:
        def incident() -> float | None:
            try:
                self._attempts.incident(topic, Token(entry.task_id, entry.retries), why)
            except EngineError as error:
                log.warning("incident not raised", task_id=entry.task_id, reason=str(error))
            self._ledger.forget(entry)
            return None

        self._callers.submit(entry.task_id, incident)

    def _give_back(self, topic: Topic, entry: Entry) -> None:
        """Unlock a task that was never given to the broker, while nobody else can hold it."""

        def unlock() -> None:
            left = entry.lock_ends - monotonic()
            if self._ledger.forget(entry) and left > topic.timing.publish_window / 3:
                try:
                    self._engine.unlock(entry.task_id)
                except EngineError as error:
                    log.debug("not unlocked, the lock lapses", reason=str(error))

        self._callers.submit(entry.task_id, unlock)

    # -- circuits --------------------------------------------------------------------------------

    def circuit(self, topic: str) -> tuple[State, str | None]:
        """The state of a topic's circuit and the reason for it."""
        circuit = self._circuits[topic]
        return circuit.state, circuit.reason

    def _trip(self, topic: str, reason: str) -> None:
        if self._circuits[topic].trip(monotonic(), reason):
            log.warning("topic paused", topic=topic, reason=reason)

    def _look_at_queues(self) -> None:
        """Have the queues of paused topics looked at, and what is missing declared."""
        now = monotonic()
        for name, topic in self._topics.items():
            if self._circuits[name].begin_try(now):
                self._callers.submit(f"circuit {name}", partial(self._try_circuit, name))
            if topic.wait_for_consumer and now >= self._count_at.get(name, 0.0):
                self._count_at[name] = now + COUNT_CONSUMERS_SECONDS
                self._callers.submit(f"consumers {name}", partial(self._count_consumers, topic))

    def _try_circuit(self, topic: str) -> None:
        circuit = self._circuits[topic]
        try:
            usable = self._repair(topic)
        except BrokerUnavailable as error:
            self._trip(topic, str(error))
            return
        if usable:
            circuit.half_open()
        else:
            self._trip(topic, circuit.reason or "its queue cannot be used")

    def _count_consumers(self, topic: Topic) -> None:
        try:
            self._consumed[topic.name] = self._consumers(topic.queue)
        except BrokerUnavailable as error:
            log.debug("consumers not counted", topic=topic.name, reason=str(error))

    # -- patience --------------------------------------------------------------------------------

    def _patiently(self, step: Callable[[], None]) -> None:
        Retrying(
            retry=retry_if_exception_type(EngineError),
            wait=wait_random_exponential(multiplier=0.5, max=30),
            stop=stop_when_event_set(self._stopping),
            sleep=sleep_using_event(self._stopping),
            before_sleep=self._tell,
            retry_error_callback=lambda _: None,
        )(step)

    def _tell(self, state: RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome else None
        if isinstance(error, TaskGone):  # a 404 without a task in question: not this API's address
            error = EngineError(f"{error} (is [engine] url right?)")
        if self.problem != str(error):
            self.problem = str(error)
            log.warning("engine does not answer as it should", reason=self.problem)


def _files(task: LockedTask) -> list[str]:
    return [name for name, value in task.variables.items() if value.get("type") == "File"]
