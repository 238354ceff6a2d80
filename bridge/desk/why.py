"""`why`: finds a task by whatever name somebody has for it, and says what it waits for.

Asks engine, broker and bridge, each bounded in time; reads only.  A part that is silent is a fact
of the answer, not its end.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from bridge.desk import asking, facts
from bridge.desk.asking import Replica, unreachable
from bridge.desk.facts import Around, Count, Fact, iso
from bridge.desk.tasks import first_line
from bridge.desk.verdict import Verdict, judge
from bridge.engine.record_shapes import InstanceRecord, LogRecord, TaskRecord
from bridge.engine.records import EngineRecords
from bridge.errors import EngineError
from bridge.messages import engine_seconds
from bridge.queue_counts import count_queues
from bridge.settings import Settings

Found = Literal["task", "businessKey", "processInstance", "none"]

TASKS_MAX = 50
INSTANCES_MAX = 50


@dataclass(frozen=True)
class Explained:
    """One task, running or ended, with what it waits for."""

    task_id: str
    topic: str
    process: str | None
    process_instance_id: str | None
    business_key: str | None
    verdict: Verdict
    facts: tuple[Fact, ...]

    def as_json(self) -> dict[str, Any]:
        return {
            "taskId": self.task_id,
            "topic": self.topic,
            "process": self.process,
            "processInstanceId": self.process_instance_id,
            "businessKey": self.business_key,
            "state": self.verdict.state,
            "waitsFor": self.verdict.waits_for,
            "command": self.verdict.command,
            "facts": [fact.as_json() for fact in self.facts],
        }


@dataclass(frozen=True)
class Answer:
    """Everything that is known of a key.  `note` is a sentence about what the tasks do not show;
    `engine_problem` says why the engine could not be asked.
    """

    key: str
    found: Found
    tasks: tuple[Explained, ...] = ()
    note: str | None = None
    engine_problem: str | None = None

    def as_json(self) -> dict[str, Any]:
        return {
            "schemaVersion": 1,
            "key": self.key,
            "found": self.found,
            "note": self.note,
            "tasks": [task.as_json() for task in self.tasks],
        }


@dataclass(frozen=True)
class _Trace:
    """Where a key led to: tasks that exist, rows of the log, and instances; `cut` where there are
    more instances than were looked at.
    """

    found: Found
    tasks: Sequence[TaskRecord] = ()
    log: Sequence[LogRecord] = ()
    instances: Sequence[InstanceRecord] = ()
    cut: bool = False


def look(
    settings: Settings,
    key: str,
    *,
    records: EngineRecords | None = None,
    replica: Replica | None = None,
    count: Count = count_queues,
) -> Answer:
    """What is known of a task id, a process instance id or a business key.  Raises nothing."""
    records = records or asking.engine_records(settings)
    replica = replica or asking.replica(settings)
    try:
        trace = _trace(records, key)
        now = records.now()
    except EngineError as error:
        return _without_engine(settings, key, replica, unreachable(error, settings.engine))
    tasks = list(trace.tasks[:TASKS_MAX])
    around = facts.look_around(settings, now, tasks, replica, count)
    explained = [_explained(task, trace.log, around) for task in tasks]
    ended = _ended(trace.log, {task.id for task in trace.tasks})
    note = _note(trace, len(ended))
    return Answer(key, trace.found, (*explained, *ended[:TASKS_MAX]), note)


def _trace(records: EngineRecords, key: str) -> _Trace:
    if not key:  # which the engine's lists take for no filter
        return _Trace("none")
    task = records.tasks_by_id([key]).get(key)
    if task is not None:
        return _Trace("task", [task], records.task_log(externalTaskId=key))
    running = records.process_instance(key)
    if running is not None:
        return _of_instances(records, "processInstance", [running])
    by_key = records.process_instances(key)
    if by_key:
        return _of_instances(records, "businessKey", by_key)
    log = records.task_log(externalTaskId=key)
    if log:
        return _Trace("task", (), log)
    past = records.past_instance(key)
    if past is not None:
        return _of_instances(records, "processInstance", [past])
    ended = records.past_instances(key)
    return _of_instances(records, "businessKey", ended) if ended else _Trace("none")


def _of_instances(
    records: EngineRecords, found: Found, instances: Sequence[InstanceRecord]
) -> _Trace:
    """Their tasks, with those of the instances that they have called."""
    family = [*instances]
    for instance in family:  # grows while it is walked through
        if instance.end_time is None and len(family) <= INSTANCES_MAX:
            family += records.called_by(instance.id)
    ids = [instance.id for instance in family[:INSTANCES_MAX]]
    log = [row for instance_id in ids for row in records.task_log(processInstanceId=instance_id)]
    tasks = records.tasks(TASKS_MAX + 1, processInstanceIdIn=ids)
    # That a task is not among so many does not mean that it has ended.
    others = {row.external_task_id for row in log}.difference(task.id for task in tasks)
    waiting = records.tasks_by_id(sorted(others))
    log = [row for row in log if row.external_task_id not in waiting]
    return _Trace(found, tasks, log, instances, len(family) > INSTANCES_MAX)


def _explained(task: TaskRecord, log: Iterable[LogRecord], around: Around) -> Explained:
    own = [row for row in log if row.external_task_id == task.id]
    return Explained(
        task.id,
        task.topic_name,
        task.process_definition_key,
        task.process_instance_id,
        task.business_key,
        judge(task, around, sum(row.failure_log for row in own)),
        facts.of(task, own, around),
    )


def _ended(log: Sequence[LogRecord], running: set[str]) -> list[Explained]:
    """The tasks of which only the log is left, latest end first."""
    rows: dict[str, list[LogRecord]] = {}
    for row in log:
        if row.external_task_id not in running:
            rows.setdefault(row.external_task_id, []).append(row)
    latest = sorted(rows.values(), key=lambda own: own[-1].at, reverse=True)
    return [
        Explained(
            own[-1].external_task_id,
            own[-1].topic_name,
            own[-1].process_definition_key,
            own[-1].process_instance_id,
            None,
            _end(own[-1]),
            tuple(facts.history(own)),
        )
        for own in latest
    ]


def _end(last: LogRecord) -> Verdict:
    if last.success_log:
        return Verdict("completed", f"nothing: completed at {iso(last.at)}")
    if last.deletion_log:
        why = f"nothing: ended at {iso(last.at)} without completion (cancelled, or a BPMN error)"
        return Verdict("ended", why)
    return Verdict("ended", f"nothing: it is gone, last heard of at {iso(last.at)}")


def _note(trace: _Trace, ended: int) -> str | None:
    if trace.found == "none":
        return (
            "neither a task nor a process instance of this id or business key is known, or this "
            "user may not see it (READ_HISTORY for what has ended)"
        )
    notes = [
        *([_state(trace.instances)] if trace.instances and not trace.tasks else []),
        *([f"only the first {TASKS_MAX} tasks are shown"] if len(trace.tasks) > TASKS_MAX else []),
        *([f"only the last {TASKS_MAX} that ended are shown"] if ended > TASKS_MAX else []),
        *([f"only {INSTANCES_MAX} process instances are looked at"] if trace.cut else []),
    ]
    return "; ".join(notes) or None


def _state(instances: Sequence[InstanceRecord]) -> str:
    """What process instances without a task do."""
    running = [instance for instance in instances if instance.end_time is None]
    if running:
        suspended = " and is suspended" if running[0].suspended else ""
        return (
            f"process instance {running[0].id} runs{suspended}, but has no external task now: it "
            "waits for something else (a user task, a timer, a message), or its next task is "
            "about to be made"
        )
    last = instances[0]
    reason = f" ({first_line(last.delete_reason)})" if last.delete_reason else ""
    ended = iso(None if last.end_time is None else engine_seconds(last.end_time))
    return f"process instance {last.id} ended at {ended}: {last.state}{reason}"


def _without_engine(settings: Settings, key: str, replica: Replica, problem: str) -> Answer:
    """What the bridge alone knows, by the task's id."""
    try:
        entry = replica.task(key)
    except asking.ReplicaSilent as error:
        return Answer(key, "none", (), f"{problem}; {error}", problem)
    if entry is None:
        return Answer(key, "none", (), problem, problem)
    topic = str(entry.get("topic"))
    verdict = Verdict("in flight", f"the engine: {problem}", "external-task-bridge check")
    told = (
        Fact(None, "engine", problem),
        Fact(None, "bridge", facts.in_hand(entry)),
    )
    explained = Explained(key, topic, None, None, None, verdict, told)
    return Answer(key, "task", (explained,), None, problem)
