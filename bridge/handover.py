"""One fetched task on its way to its queue: admit, build, publish, and what became of it.

The ledger admits a task before it is published, because its result may beat the broker's confirm.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from functools import partial

import structlog

from bridge.attempts import Attempts
from bridge.broker import Outcome, Publisher
from bridge.callers import Callers
from bridge.circuits import Circuits
from bridge.clock import monotonic
from bridge.engine import EngineClient
from bridge.engine.client import file_address
from bridge.errors import EngineError, TaskRefused
from bridge.ledger import Entry, Ledger
from bridge.messages import LockedTask
from bridge.metrics import Event, Metrics
from bridge.task_message import build
from bridge.tokens import Token, TokenSigner
from bridge.topics import Topic, Topics
from bridge.variables import plain

log = structlog.get_logger(__name__)

_EVENTS: dict[Outcome, Event] = {
    Outcome.CONFIRMED: "confirmed",
    Outcome.RETURNED: "returned",
    Outcome.NACKED: "nacked",
    Outcome.UNKNOWN: "unconfirmed",
    Outcome.LATE: "late",
}


class Handover:
    """Hands fetched tasks to RabbitMQ.  `take` is for the fetching threads and does not block."""

    def __init__(
        self,
        *,
        engine: EngineClient,
        ledger: Ledger,
        publisher: Publisher,
        callers: Callers,
        attempts: Attempts,
        signer: TokenSigner,
        topics: Topics,
        circuits: Circuits,
        metrics: Metrics,
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
        self._circuits = circuits
        self._metrics = metrics
        self._complete_unanswered = complete_unanswered
        self._stopping = stopping

    def take(self, task: LockedTask, began: float) -> None:
        """Answer for a task that a fetch, begun at monotonic time `began`, has locked."""
        topic, expires = self._topics.known.get(task.topic_name), task.lock_expires
        if topic is None or expires is None:
            return  # not asked for: the lock lapses
        self._metrics.count(topic.name, "fetched")
        entry = self._ledger.admit(
            task.id, topic.name, task.retries, expires, began, now=monotonic()
        )
        # Asked after admitting: what is removed meanwhile is seen in flight, or given back here.
        if self._stopping.is_set() or topic.name not in self._topics:
            self._give_back(topic, entry)
        elif topic.file_inline_max and _files(task):
            send = partial(self._send_with_files, topic, task, entry)
            self._callers.submit(task.id, send, group=topic.name)
        else:
            self._send(topic, task, entry, {})

    def _send(
        self, topic: Topic, task: LockedTask, entry: Entry, files: Mapping[str, bytes]
    ) -> None:
        execution = task.execution_id or task.process_instance_id
        try:
            token = self._token(task, topic)
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
            publish_by=entry.lock_ends - topic.timing.publish_window / 2,
        )

    def _token(self, task: LockedTask, topic: Topic) -> str:
        try:
            return self._signer.make(task.id, task.retries, topic.name)
        except ValueError as error:
            raise TaskRefused(f"no token can be made for it: {error}") from error

    def _send_with_files(self, topic: Topic, task: LockedTask, entry: Entry) -> None:
        execution = task.execution_id or task.process_instance_id
        files: dict[str, bytes] = {}
        for name in _files(task):
            try:
                content = self._engine.file_contents(execution, name, topic.file_inline_max)
            except EngineError as error:
                log.warning("file not read", task_id=task.id, reason=error.brief)
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
                now = monotonic()
                self._ledger.confirmed(entry, now)
                self._metrics.took(topic.name, "confirm", now - entry.since)
                self._circuits.close(topic.name)
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
                    self._circuits.trip(topic.name, detail)

    def _refused(self, topic: Topic, entry: Entry, why: str) -> None:
        log.warning("task refused", task_id=entry.task_id, topic=topic.name, reason=why)

        def incident() -> float | None:
            try:
                self._attempts.incident(topic, Token(entry.task_id, entry.retries), why)
            except EngineError as error:
                again = "incident not raised, the task is fetched again when its lock lapses"
                log.warning(again, task_id=entry.task_id, reason=error.brief)
            self._ledger.forget(entry)
            return None

        self._callers.submit(entry.task_id, incident, group=topic.name)

    def _give_back(self, topic: Topic, entry: Entry) -> None:
        """Unlock a task that was never given to the broker, while nobody else can hold it."""

        def unlock() -> None:
            left = entry.lock_ends - monotonic()
            if self._ledger.forget(entry) and left > topic.timing.publish_window / 3:
                try:
                    self._attempts.give_back(Token(entry.task_id, entry.retries))
                except EngineError as error:
                    log.debug("not unlocked, the lock lapses", reason=error.brief)

        self._callers.submit(entry.task_id, unlock, group=topic.name)


def _files(task: LockedTask) -> list[str]:
    return [name for name, value in task.variables.items() if value.get("type") == "File"]
