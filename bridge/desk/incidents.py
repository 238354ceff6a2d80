"""`incidents` and `retry`: external tasks without retries, and new attempts for many at once.

A task without retries is offered to nobody.  Whoever else gives it retries makes an attempt of it,
so each is read again just before the act, and left alone where it has some.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bridge.clock import monotonic
from bridge.desk.choosing import CHANGED, GONE, Chosen, Done, named
from bridge.desk.tasks import first_line
from bridge.engine.record_shapes import IncidentRecord, TaskRecord
from bridge.engine.records import MANY, EngineRecords, batches
from bridge.errors import (
    EngineError,
    EngineForbidden,
    EngineRefused,
    LockExpired,
    LockLost,
    TaskGone,
    TaskSuspended,
)

AT_ONCE = 200  # tasks whose retries are set in one transaction of the engine
ACT_WITHIN_SECONDS = 1.0  # after the look, as everywhere in the bridge


@dataclass(frozen=True)
class Wanted:
    """Which incidents: every member that is not None must hold; `message` is a part of theirs."""

    topic: str | None = None
    process: str | None = None
    message: str | None = None

    def fits(self, task: TaskRecord, message: str | None) -> bool:
        return (
            self.topic in (None, task.topic_name)
            and self.process in (None, task.process_definition_key)
            and (self.message is None or self.message in (message or ""))
        )


@dataclass(frozen=True)
class Incident:
    """An incident with its task; `age` in seconds."""

    record: IncidentRecord
    task: TaskRecord
    age: float

    @property
    def message(self) -> str:
        """The first line of what went wrong."""
        return first_line(self.record.incident_message) or "without a message"

    def as_json(self) -> dict[str, Any]:
        task = self.task
        return {
            "incidentId": self.record.id,
            "taskId": task.id,
            "topic": task.topic_name,
            "businessKey": task.business_key,
            "process": task.process_definition_key,
            "processInstanceId": task.process_instance_id,
            "activityId": task.activity_id,
            "message": self.record.incident_message,
            "ageSeconds": round(self.age, 1),
        }


@dataclass(frozen=True)
class Incidents:
    """The open incidents of external tasks, oldest first; `more` where there are others: it looks
    at ten thousand.
    """

    found: tuple[Incident, ...]
    more: bool = False

    def groups(self) -> list[tuple[str, str, int]]:
        """(topic, message, how many), the most frequent first."""
        counted = Counter((i.task.topic_name, i.message) for i in self.found)
        most = sorted(counted.items(), key=lambda item: (-item[1], item[0]))
        return [(topic, message, count) for (topic, message), count in most]

    def as_json(self) -> dict[str, Any]:
        return {
            "schemaVersion": 1,
            "count": len(self.found),
            "more": self.more,
            "groups": [
                {"topic": topic, "message": message, "count": count}
                for topic, message, count in self.groups()
            ],
            "incidents": [incident.as_json() for incident in self.found],
        }


def look(records: EngineRecords, wanted: Wanted) -> Incidents:
    """The open incidents that are wanted.  Raises EngineError."""
    # The process goes by its key here; not every user may see every process definition.
    named = {} if wanted.process is None else {"processDefinitionKeyIn": wanted.process}
    rows = records.incidents(query=named)
    tasks = records.tasks_by_id([row.task_id for row in rows])
    now = records.now()
    found = (
        Incident(row, task, max(0.0, now - row.raised))
        for row in rows
        if (task := tasks.get(row.task_id)) is not None and wanted.fits(task, row.incident_message)
    )
    return Incidents(tuple(found), len(rows) == MANY)


def choose(records: EngineRecords, task_ids: Sequence[str], wanted: Wanted) -> Chosen:
    """The tasks to retry: the named ones, or else all without retries that are wanted.

    Only tasks without retries: setting those of any other would make a second attempt of what is
    under way.  Raises EngineError.
    """
    if task_ids:
        return named(records, task_ids, lambda task: _refusal(task, wanted))
    query: dict[str, Any] = {"noRetriesLeft": True}
    if wanted.topic is not None:
        query["topicName"] = wanted.topic
    if wanted.process is not None:
        query["processDefinitionKey"] = wanted.process
    found = (t for t in records.each_task(**query) if wanted.fits(t, t.error_message))
    return Chosen(tuple(found))


def retry(
    records: EngineRecords, tasks: Sequence[TaskRecord], retries: int, worker_id: str
) -> Done:
    """Give those of these tasks that still have none so many retries; they are offered again at
    once.

    Raises EngineError where nothing could be done at all; later faults are in the answer.
    """
    done: list[str] = []
    failed: list[tuple[str, str]] = []
    for some in batches(tasks, AT_ONCE):
        try:
            _end_pauses(records, [task.id for task in some], worker_id)
            _set_retries(records, [task.id for task in some], retries, done, failed)
        except EngineError as error:
            if not done:
                raise
            settled = {*done, *(task_id for task_id, _ in failed)}
            failed += [(task.id, error.brief) for task in tasks if task.id not in settled]
            break
    return Done(tuple(done), tuple(failed))


def _end_pauses(records: EngineRecords, task_ids: Sequence[str], worker_id: str) -> None:
    left, asked = list(task_ids), -ACT_WITHIN_SECONDS
    there: Mapping[str, TaskRecord] = {}
    while left:
        if monotonic() - asked >= ACT_WITHIN_SECONDS:
            asked, there = monotonic(), records.tasks_by_id(left)
        task = there.get(left.pop(0))
        if task is not None and task.retries == 0:
            _end_pause(records, task, records.now(), worker_id)


def _end_pause(records: EngineRecords, task: TaskRecord, now: float, worker_id: str) -> None:
    """Let the pause after the last failure end.  Before the retries are set: until then nobody
    can have fetched the task, so that the lock is no other than the one that was seen.
    """
    expires = task.lock_expires
    if expires is None or expires <= now or task.worker_id != worker_id:
        return
    try:
        records.release(task.id, worker_id)
    except (LockExpired, LockLost, TaskGone, TaskSuspended, EngineRefused):
        return  # it needs no more, or only waits a little longer


def _set_retries(
    records: EngineRecords,
    task_ids: list[str],
    retries: int,
    done: list[str],
    failed: list[tuple[str, str]],
) -> None:
    there = records.tasks_by_id(task_ids)
    ids = [i for i in task_ids if i in there and there[i].retries == 0]
    failed += [(i, CHANGED if i in there else GONE) for i in task_ids if i not in ids]
    if not ids:
        return
    try:
        records.set_retries(ids, retries)
    except (TaskGone, EngineForbidden, EngineRefused) as error:
        if len(ids) == 1:
            failed.append((ids[0], GONE if isinstance(error, TaskGone) else error.brief))
            return
        # All or none: each for itself.
        for task_id in ids:
            _set_retries(records, [task_id], retries, done, failed)
    else:
        done += ids


def _refusal(task: TaskRecord, wanted: Wanted) -> str | None:
    if task.retries != 0:
        left = "it has not failed" if task.retries is None else f"attempts left: {task.retries}"
        return f"it needs no retries ({left}); to have it published again now, release it"
    return None if wanted.fits(task, task.error_message) else "it does not fit the other options"
