"""`tasks`: what lies in the engine for the topics, each in one plain word or sentence.  Reads only.

The engine's record tells who holds a task and until when; what the message is doing is known to
the replica that published it, which is asked too and may be silent.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from bridge.desk.asking import Replica, ReplicaSilent
from bridge.engine.record_shapes import TaskRecord
from bridge.engine.records import EngineRecords, batches
from bridge.protocol import ADOPT_BELOW_LEASES, PROOF_WINDOWS
from bridge.settings import Settings, TopicSettings

State = Literal["waiting", "locked", "failed", "suspended"]
Filter = State | Literal["retried"]
Entry = Mapping[str, Any]

INSTANCES_AT_ONCE = 200
SLACK_SECONDS = 2.0  # the engine's time is a second coarse

# What the engine itself can sort out; the rest is looked at here.
_QUERIES: Mapping[Filter, Mapping[str, bool]] = {
    "waiting": {"notLocked": True, "withRetriesLeft": True, "active": True},
    "locked": {"locked": True, "withRetriesLeft": True, "active": True},
    "retried": {"withRetriesLeft": True, "active": True},
    "failed": {"noRetriesLeft": True, "active": True},
    "suspended": {"suspended": True},
}


@dataclass(frozen=True)
class Wanted:
    """Which tasks: every member that is not None must hold.  `state` is that of `Shown`, or
    `retried`: waiting or locked after an attempt that failed.
    """

    topic: str | None = None
    business_key: str | None = None
    process: str | None = None
    state: Filter | None = None
    limit: int = 100


@dataclass(frozen=True)
class Shown:
    """One task in plain words.  Seconds; `lock_left` None where nobody holds it, `age` None on an
    engine that does not tell when a task was created.  In JSON `failedBefore` says whether an
    attempt has failed.
    """

    task: TaskRecord
    state: State
    words: str
    lock_left: float | None
    age: float | None

    def as_json(self) -> dict[str, Any]:
        task = self.task
        return {
            "taskId": task.id,
            "topic": task.topic_name,
            "businessKey": task.business_key,
            "process": task.process_definition_key,
            "processInstanceId": task.process_instance_id,
            "activityId": task.activity_id,
            "state": self.state,
            "failedBefore": task.retries is not None,
            "words": self.words,
            "workerId": task.worker_id,
            "retries": task.retries,
            "lockSecondsLeft": _rounded(self.lock_left),
            "ageSeconds": _rounded(self.age),
            "errorMessage": task.error_message,
        }


@dataclass(frozen=True)
class TaskList:
    """The tasks, oldest first; `more` where the limit left some out; `silent` says why no bridge
    was asked for what it holds.
    """

    tasks: tuple[Shown, ...]
    more: bool
    silent: str | None

    def as_json(self) -> dict[str, Any]:
        return {
            "schemaVersion": 1,
            "tasks": [shown.as_json() for shown in self.tasks],
            "more": self.more,
            "bridge": {"problem": self.silent},
        }


def look(settings: Settings, records: EngineRecords, replica: Replica, wanted: Wanted) -> TaskList:
    """The tasks that are wanted.  Raises EngineError."""
    found = list(itertools.islice(_found(records, wanted), wanted.limit + 1))
    held, problems, silent = _asked(replica, wanted.topic)
    now = records.now()
    shown = (describe(settings, task, now, held, problems) for task in found[: wanted.limit])
    return TaskList(tuple(shown), len(found) > wanted.limit, silent)


def describe(
    settings: Settings,
    task: TaskRecord,
    now: float,
    held: Mapping[str, Entry],
    problems: Mapping[str, str],
) -> Shown:
    """One task at the engine's time `now`; `held` and `problems` are what a replica holds, and
    what keeps it from carrying tasks.
    """
    expires, created = task.lock_expires, task.created
    left = None if expires is None or expires <= now else expires - now
    age = None if created is None else max(0.0, now - created)
    return Shown(task, _state(task, left), _words(settings, task, left, held, problems), left, age)


def lasts(seconds: float) -> str:
    """A length of time with its two largest units at most: "34 s", "5 min 3 s", "2 h 10 min"."""
    if math.isinf(seconds):
        return "ever"
    whole = max(0, round(seconds))
    units = (("d", 86_400), ("h", 3600), ("min", 60), ("s", 1))
    parts = []
    for name, size in units:
        number, whole = divmod(whole, size)
        if number:
            parts.append(f"{number} {name}")
        elif parts:
            break
    return " ".join(parts[:2]) or "0 s"


def first_line(text: str | None) -> str:
    """The first line of a message, for a table."""
    return (text or "").strip().partition("\n")[0].strip()


def _found(records: EngineRecords, wanted: Wanted) -> Iterator[TaskRecord]:
    query: dict[str, Any] = dict(_QUERIES[wanted.state]) if wanted.state else {}
    if wanted.topic is not None:
        query["topicName"] = wanted.topic
    if wanted.process is not None:
        query["processDefinitionKey"] = wanted.process
    if wanted.business_key is None:
        queries = [query]
    else:  # a filter that the external tasks themselves do not have
        instances = [i.id for i in records.process_instances(wanted.business_key)]
        chunks = batches(instances, INSTANCES_AT_ONCE)
        queries = [{**query, "processInstanceIdIn": ids} for ids in chunks]
    for each in queries:
        # Tried here and not by the engine: it cannot tell "never failed" from "some are left".
        some = (t for t in records.each_task(**each) if _is(wanted.state, t))
        yield from some


def _is(state: Filter | None, task: TaskRecord) -> bool:
    return state != "retried" or task.retries is not None


def _asked(
    replica: Replica, topic: str | None
) -> tuple[dict[str, Entry], dict[str, str], str | None]:
    try:
        return replica.tasks(topic), replica.problems(), None
    except ReplicaSilent as error:
        return {}, {}, str(error)


def _state(task: TaskRecord, left: float | None) -> State:
    if task.suspended:
        return "suspended"
    if task.retries == 0:
        return "failed"
    return "waiting" if left is None else "locked"


def _words(
    settings: Settings,
    task: TaskRecord,
    left: float | None,
    held: Mapping[str, Entry],
    problems: Mapping[str, str],
) -> str:
    if task.suspended:
        return "suspended" if left is None else f"suspended; locked for {lasts(left)}"
    if task.retries == 0:
        return "incident: no retries left"
    before = "" if task.retries is None else f"failed, attempts left: {task.retries}; "
    if left is None:
        fetched = task.topic_name in settings.topics
        return before + ("waits to be fetched" if fetched else "its topic is configured nowhere")
    if task.worker_id != settings.worker_id:
        return f"{before}locked by worker id {task.worker_id} for {lasts(left)}"
    return before + _ours(settings, task, left, held.get(task.id), problems)


def _ours(
    settings: Settings,
    task: TaskRecord,
    left: float,
    entry: Entry | None,
    problems: Mapping[str, str],
) -> str:
    topic = settings.topics.get(task.topic_name)
    if entry is None and (problem := not_published(settings, task, left, problems)):
        return f"cannot be published, next fetch in {lasts(left)}: {problem}"
    if entry is not None and not entry.get("confirmed"):
        return f"being published, lock for {lasts(left)}"
    pause = None if entry is not None else pause_before(settings, task, left)
    if pause is not None:
        return f"the next in {lasts(left)}" + ("" if pause == "sure" else ", or in flight")
    window = 0.0 if topic is None else topic.publish_window.total_seconds()
    if topic is not None and left <= PROOF_WINDOWS * window:
        return f"published, lock for {lasts(left)}"
    return f"in flight, leased for {lasts(left)}"


def as_fetched(topic: TopicSettings, left: float) -> bool:
    """Whether a lock is as short as that of a fetch, before the message is confirmed."""
    return left <= topic.publish_window.total_seconds() + SLACK_SECONDS


def not_published(
    settings: Settings, task: TaskRecord, left: float, problems: Mapping[str, str]
) -> str | None:
    """What keeps the asked bridge from publishing a task that it does not hold, where its lock may
    be that of a fetch whose message no queue took; else None.
    """
    topic = settings.topics.get(task.topic_name)
    if topic is None or not as_fetched(topic, left):
        return None
    parts = ("publisher", f"queue {topic.queue}", f"topic {topic.name}")
    return next((f"{part}: {problems[part]}" for part in parts if part in problems), None)


def pause_before(
    settings: Settings, task: TaskRecord, left: float
) -> Literal["sure", "perhaps"] | None:
    """Whether the lock of a task that the asked bridge does not hold is the pause before its next
    attempt; None: it is not.

    In the engine both look alike.  A lease that is looked after has more than 0.4 of its length
    left, and a lock with more than a whole one is a long pause, or a worker that is busy for long.
    One of a publish window at most may be that of a fetch, by whichever replica.
    """
    topic = settings.topics.get(task.topic_name)
    if topic is None or task.retries is None:
        return None
    lease = topic.lease.total_seconds()
    if left <= ADOPT_BELOW_LEASES * lease:
        return "perhaps" if as_fetched(topic, left) else "sure"
    longest = max((pause.total_seconds() for pause in topic.retry_pauses), default=0.0)
    is_lease = longest + SLACK_SECONDS < left <= lease + SLACK_SECONDS
    return None if is_lease else "perhaps"


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None or math.isinf(seconds) else round(seconds, 1)
