"""`release`: gives tasks that this deployment holds back to the engine, to be published again.

For messages that are lost, as by a purge, which nobody can tell the bridge.  The lock is cut to a
millisecond by extendLock, which checks its owner; unlock would not.  A replica that holds the
task finds a lock that is not the one it set, and lets go of it.  A message that still lies in a
queue, or is at a worker, becomes a duplicate with the same `message_id`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bridge.clock import monotonic
from bridge.desk.asking import REPLICA_TASKS_MAX, Replica, ReplicaSilent
from bridge.desk.choosing import CHANGED, GONE, Chosen, Done, named
from bridge.desk.facts import Count
from bridge.desk.tasks import SLACK_SECONDS, pause_before
from bridge.engine.record_shapes import TaskRecord
from bridge.engine.records import EngineRecords, batches
from bridge.errors import (
    BrokerUnavailable,
    EngineError,
    EngineForbidden,
    EngineRefused,
    LockExpired,
    LockLost,
    TaskGone,
    TaskSuspended,
)
from bridge.protocol import PROOF_WINDOWS
from bridge.queue_counts import QueueCount, count_queues
from bridge.settings import Settings, TopicSettings

READ_AT_ONCE = 100
WRITE_WITHIN_SECONDS = 1.0  # after the look, as everywhere in the bridge
Entries = Mapping[str, Mapping[str, Any]]  # by task id

RENEWED = "its lock was renewed at the same moment; release it once more"


def choose(
    settings: Settings,
    records: EngineRecords,
    replica: Replica,
    *,
    task_ids: Sequence[str] = (),
    topic: str | None = None,
    older_than: float = 0.0,
) -> Chosen:
    """The tasks to release: the named ones, or those of a topic that this worker id has held for
    more than `older_than` seconds.

    Since when is known to the replica that holds it; for others the task's creation counts, which
    is earlier.  What only waits for its next attempt is left out.  Both are in the notes.  Raises
    EngineError.
    """
    now = records.now()
    if task_ids:
        return named(records, task_ids, lambda task: _refusal(settings, task, now))
    query: dict[str, Any] = {"workerId": settings.worker_id, "locked": True, "active": True}
    if topic is not None:
        query["topicName"] = topic
    held, silent = _held(replica, topic)
    found = records.each_task(**query, withRetriesLeft=True)
    old = [task for task in found if _for(task, now, held) >= older_than]
    pausing = {task.id for task in old if _pauses(settings, task, now, held)}
    chosen = tuple(task for task in old if task.id not in pausing)
    return Chosen(chosen, notes=_notes(chosen, held, silent, len(pausing)))


def release(settings: Settings, records: EngineRecords, tasks: Sequence[TaskRecord]) -> Done:
    """Let the locks of these tasks end now; the next fetch takes them.

    A task is read less than a second before, and is left alone where it is no more the one that
    was chosen.  Raises EngineError where nothing could be done at all; later faults are in the
    answer.
    """
    done: list[str] = []
    failed: dict[str, str] = {}
    for some in batches(tasks, READ_AT_ONCE):
        try:
            _release_some(settings, records, some, done, failed)
        except EngineError as error:
            if not done:
                raise
            left = (task.id for task in tasks if task.id not in done)
            failed.update((i, error.brief) for i in left if i not in failed)
            break
    return Done(tuple(i for i in done if i not in failed), tuple(failed.items()))


def _release_some(
    settings: Settings,
    records: EngineRecords,
    some: Sequence[TaskRecord],
    done: list[str],
    failed: dict[str, str],
) -> None:
    left, asked = list(some), -WRITE_WITHIN_SECONDS
    there: Mapping[str, TaskRecord] = {}
    first = len(done)
    while left:
        if monotonic() - asked >= WRITE_WITHIN_SECONDS:
            asked, there = monotonic(), records.tasks_by_id([task.id for task in left])
        chosen = left.pop(0)
        why = _release_one(settings, records, chosen, there.get(chosen.id))
        if why is None:
            done.append(chosen.id)
        else:
            failed[chosen.id] = why
    failed.update((i, RENEWED) for i in _renewed(settings, records, done[first:]))


def _release_one(
    settings: Settings, records: EngineRecords, chosen: TaskRecord, task: TaskRecord | None
) -> str | None:
    """None where its lock has ended, else why not."""
    if task is None:
        return GONE
    if (task.worker_id, task.retries) != (settings.worker_id, chosen.retries):
        return CHANGED
    if _fetched_again(settings, chosen, task, records.now()):
        return CHANGED
    try:
        records.release(task.id, settings.worker_id)
    except LockExpired:
        return None
    except TaskGone:
        return GONE
    except LockLost:
        return CHANGED
    except TaskSuspended:
        return "the process instance is suspended; resume it first"
    except (EngineForbidden, EngineRefused) as error:
        return error.brief
    return None


def _fetched_again(settings: Settings, chosen: TaskRecord, task: TaskRecord, now: float) -> bool:
    """Whether its lock is another one, and too short for a lease: its message is on its way."""
    expires, topic = task.lock_expires, settings.topics.get(task.topic_name)
    if expires is None or topic is None or expires == chosen.lock_expires:
        return False
    return SLACK_SECONDS < expires - now <= PROOF_WINDOWS * topic.publish_window.total_seconds()


def _renewed(settings: Settings, records: EngineRecords, task_ids: Sequence[str]) -> list[str]:
    """Those that a replica has leased again in between: it had asked just before the release."""
    now, found = records.now(), []
    for task in records.tasks_by_id(task_ids).values() if task_ids else ():
        topic, expires = settings.topics.get(task.topic_name), task.lock_expires
        if topic is None or expires is None or task.worker_id != settings.worker_id:
            continue
        # Fetched anew it has a publish window at most; only a lease has more than two.
        if expires - now > PROOF_WINDOWS * topic.publish_window.total_seconds():
            found.append(task.id)
    return found


def _refusal(settings: Settings, task: TaskRecord, now: float) -> str | None:
    if task.suspended:
        return "the process instance is suspended; resume it first"
    if task.retries == 0:
        return "it has no retries left; retry it"
    if (task.lock_expires or 0.0) <= now:
        return "nobody holds it: the next fetch takes it"
    if task.worker_id != settings.worker_id:
        return f"worker id {task.worker_id} holds it, and this is {settings.worker_id}"
    return None


def _held(replica: Replica, topic: str | None) -> tuple[Entries, str | None]:
    try:
        return replica.tasks(topic), None
    except ReplicaSilent as error:
        return {}, str(error)


def _pauses(settings: Settings, task: TaskRecord, now: float, held: Entries) -> bool:
    """Whether it certainly waits for its next attempt, so that no message of it is out."""
    left = (task.lock_expires or now) - now
    return task.id not in held and pause_before(settings, task, left) == "sure"


def _notes(
    chosen: Sequence[TaskRecord], held: Entries, silent: str | None, pausing: int
) -> tuple[str, ...]:
    notes, unheld = [], sum(task.id not in held for task in chosen)
    if pausing:
        notes.append(f"{pausing} that only wait for their next attempt are left out")
    if silent is not None and chosen:
        notes.append(f"{silent}: age from creation")
    elif unheld:
        held_by = "are not held by the bridge that was asked"
        if len(held) >= REPLICA_TASKS_MAX:
            held_by = f"are not among the {REPLICA_TASKS_MAX} that the bridge tells of"
        notes.append(f"{unheld} of them {held_by}: age from creation")
    return tuple(notes)


def _for(task: TaskRecord, now: float, held: Entries) -> float:
    """For how many seconds it is held, as far as anybody knows."""
    entry = held.get(task.id)
    if entry is not None:
        return float(entry.get("seconds") or 0.0)
    created = task.created
    age = float("inf") if created is None else max(0.0, now - created)
    # Where it tells of so many only, the others are younger than the youngest of these.
    youngest = min((float(e.get("seconds") or 0.0) for e in held.values()), default=age)
    return min(age, youngest) if len(held) >= REPLICA_TASKS_MAX else age


@dataclass(frozen=True)
class Held:
    """A queue that messages of the chosen tasks may still be in; `text` says what it holds.
    `empty` is True only where the queue is known to hold nothing.
    """

    topic: str
    text: str
    empty: bool

    def as_json(self) -> dict[str, Any]:
        return {"topic": self.topic, "text": self.text, "empty": self.empty}


def queues(settings: Settings, topics: Sequence[str], count: Count = count_queues) -> list[Held]:
    """What the topics' queues hold: a released task whose message is there comes twice."""
    known = {name: settings.topics[name] for name in topics if name in settings.topics}
    own = [topic.queue for topic in known.values() if not topic.exchange]
    try:
        counts, problem = count(settings.broker, own) if own else {}, None
    except BrokerUnavailable as error:
        counts, problem = {}, str(error)
    return [_held_by(name, known.get(name), counts, problem) for name in topics]


def _held_by(
    name: str,
    topic: TopicSettings | None,
    counts: Mapping[str, QueueCount | None],
    problem: str | None,
) -> Held:
    if topic is None:
        return Held(name, f"topic {name} is configured nowhere: nobody will fetch its tasks", False)
    if topic.exchange:
        return Held(name, f"exchange {topic.exchange} has queues that are not known here", False)
    if problem is not None:
        return Held(name, f"queue {topic.queue} cannot be looked at: {problem}", False)
    count = counts.get(topic.queue)
    if count is None:
        text = f"queue {topic.queue} does not exist, or must not be looked at"
        return Held(name, text, False)
    text = f"queue {topic.queue} holds {count.ready} message{'' if count.ready == 1 else 's'}"
    if count.unacked is None:
        if count.consumers:
            text += "; what its consumers have in hand is not known"
        return Held(name, text, count.ready == 0 and count.consumers == 0)
    text += f", and {count.unacked} are at its consumers"
    return Held(name, text, count.ready == 0 and count.unacked == 0)
