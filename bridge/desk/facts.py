"""What engine, broker and bridge say of one task, as facts in order of time.  Judges nothing."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal
from urllib.parse import urlsplit

from bridge.desk.asking import Replica, ReplicaSilent, told_problems
from bridge.desk.tasks import first_line, lasts
from bridge.engine.record_shapes import LogRecord, TaskRecord
from bridge.errors import BrokerUnavailable
from bridge.queue_counts import QueueCount
from bridge.settings import BrokerSettings, Settings

Count = Callable[[BrokerSettings, Sequence[str]], dict[str, QueueCount | None]]
Document = Mapping[str, Any]


@dataclass(frozen=True)
class Fact:
    """What somebody says; `at` in the engine's seconds since the epoch, None: it is so now."""

    at: float | None
    source: Literal["engine", "broker", "bridge"]
    text: str

    def as_json(self) -> dict[str, Any]:
        return {"at": iso(self.at), "source": self.source, "text": self.text}


@dataclass(frozen=True)
class Around:
    """What stands around the tasks at the engine's time `now`.

    `status` and `entries` (the bridge's memory) are None with a reason in `silent`, `counts` of
    queues with one in `broker_problem`.
    """

    settings: Settings
    now: float
    status: Document | None = None
    entries: Mapping[str, Document] | None = None
    silent: str | None = None
    counts: Mapping[str, QueueCount | None] = field(default_factory=dict)
    broker_problem: str | None = None

    def entry(self, task_id: str) -> Document | None:
        """The task in the bridge's memory."""
        return (self.entries or {}).get(task_id)

    def topic(self, name: str) -> Document:
        """What the bridge says of a topic; empty where it is silent."""
        topics = (self.status or {}).get("topics") or ()
        return next((topic for topic in topics if topic.get("name") == name), {})

    def problems(self) -> dict[str, str]:
        """What keeps the bridge from carrying tasks, by part."""
        return told_problems(self.status or {})


def look_around(
    settings: Settings, now: float, tasks: Sequence[TaskRecord], replica: Replica, count: Count
) -> Around:
    """Ask the bridge and the broker about these tasks.  A part that is silent is a fact too."""
    status, entries, silent = _asked(replica, [task.id for task in tasks])
    names = queue_names(settings, {task.topic_name for task in tasks})
    try:
        counts, broker_problem = count(settings.broker, names) if tasks else {}, None
    except BrokerUnavailable as error:
        address = urlsplit(settings.broker.amqp_urls()[0]).netloc.rpartition("@")[2]
        counts, broker_problem = {}, f"{address}: {error}"
    return Around(settings, now, status, entries, silent, counts, broker_problem)


def queue_names(settings: Settings, topics: set[str]) -> list[str]:
    """The queues that a task of these topics may be in."""
    found = [settings.broker.names.wait, settings.broker.names.parked]
    for name, topic in settings.topics.items():
        if name in topics:
            found += [] if topic.exchange else [topic.queue]
            found += [] if topic.reply == "none" else [topic.result_queue]
    return found


def of(task: TaskRecord, log: Sequence[LogRecord], around: Around) -> tuple[Fact, ...]:
    """All facts of a task that exists, in order of time; those that are so now come last."""
    dated = [*_created(task, log), *history(log), *_held(task, around)]
    timed = sorted((fact for fact in dated if fact.at is not None), key=lambda fact: fact.at or 0.0)
    now = [fact for fact in dated if fact.at is None]
    return (*timed, *now, *_engine_now(task, around), *_broker(task, around), *_bridge(around))


def history(log: Sequence[LogRecord]) -> list[Fact]:
    """What the external task log says."""
    return [Fact(row.at, "engine", _logged(row)) for row in log]


def iso(seconds: float | None) -> str | None:
    """Engine time such as 2026-01-02T03:04:05Z; None stays None."""
    if seconds is None or math.isinf(seconds):
        return None
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")[:19] + "Z"


def in_hand(entry: Document) -> str:
    """A task of the bridge's memory in words."""
    confirmed = "its message is in a queue" if entry.get("confirmed") else "not confirmed yet"
    return f"taken in hand; {confirmed}" + (", its lock is a lease" if entry.get("leased") else "")


def told(count: QueueCount) -> str:
    """A queue's count in words: "12 ready, 3 at consumers, no consumer"."""
    unacked = "" if count.unacked is None else f", {count.unacked} at consumers"
    consumers = {0: "no consumer", 1: "1 consumer"}.get(
        count.consumers, f"{count.consumers} consumers"
    )
    return f"{count.ready} ready{unacked}, {consumers}"


def _asked(
    replica: Replica, task_ids: Sequence[str]
) -> tuple[Document | None, Mapping[str, Document] | None, str | None]:
    try:
        found = {task_id: replica.task(task_id) for task_id in task_ids}
        entries = {task_id: entry for task_id, entry in found.items() if entry is not None}
        return replica.status(), entries, None
    except ReplicaSilent as error:
        return None, None, str(error)


def _created(task: TaskRecord, log: Sequence[LogRecord]) -> list[Fact]:
    where = f"activity {task.activity_id} of process {task.process_definition_key}"
    if any(row.creation_log for row in log):
        return []
    return [Fact(task.created, "engine", f"created at {where}")]


def _logged(row: LogRecord) -> str:
    if row.creation_log:
        return f"created for topic {row.topic_name} of process {row.process_definition_key}"
    if row.failure_log:
        said = first_line(row.error_message) or "without a message"
        return f"an attempt failed, reported by worker id {row.worker_id}: {said}"
    if row.success_log:
        return f"completed by worker id {row.worker_id}"
    return "ended without completion: cancelled, or by a BPMN error"


def _engine_now(task: TaskRecord, around: Around) -> list[Fact]:
    facts, expires = [], task.lock_expires
    if task.suspended:
        facts.append("the process instance is suspended")
    if task.retries == 0:
        said = first_line(task.error_message) or "without a message"
        facts.append(f"an incident, no retries left: {said}")
    elif task.retries is not None:
        said = first_line(task.error_message)
        facts.append(f"attempts left: {task.retries}" + (f"; last failure: {said}" if said else ""))
    if expires is None:
        facts.append("nobody has locked it")
    elif expires <= around.now:
        facts.append(f"the lock of worker id {task.worker_id} ended at {iso(expires)}")
    else:
        left = lasts(expires - around.now)
        facts.append(f"locked by worker id {task.worker_id} for {left} more")
    return [Fact(None, "engine", text) for text in facts]


def _held(task: TaskRecord, around: Around) -> list[Fact]:
    entry = around.entry(task.id)
    if entry is None:
        return []
    since = around.now - float(entry.get("seconds") or 0.0)
    return [Fact(since, "bridge", in_hand(entry))]


def _broker(task: TaskRecord, around: Around) -> list[Fact]:
    if around.broker_problem is not None:
        return [Fact(None, "broker", f"cannot be asked: {around.broker_problem}")]
    facts = []
    topic = around.settings.topics.get(task.topic_name)
    if topic is not None and topic.exchange:
        facts.append(f"its messages go to exchange {topic.exchange}, whose queues are not known")
    own = around.settings.broker.names
    for name in queue_names(around.settings, {task.topic_name}):
        count = around.counts.get(name)
        if count is None:
            facts.append(f"queue {name} does not exist, or must not be looked at")
        elif name not in own.queues or count.ready:
            facts.append(f"queue {name}: {told(count)}")
    return [Fact(None, "broker", text) for text in facts]


def _bridge(around: Around) -> list[Fact]:
    if around.silent is not None:
        return [Fact(None, "bridge", around.silent)]
    return [Fact(None, "bridge", f"{part}: {why}") for part, why in around.problems().items()]
