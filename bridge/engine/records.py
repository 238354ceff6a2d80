"""What the engine has on record: tasks, incidents, process instances and their history.

For people who look, not for the bridge's own loops.  Reads, but for the retries of tasks and the
release of a lock; decides nothing about tasks.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeVar
from urllib.parse import quote, urlencode

from pydantic import TypeAdapter, ValidationError

from bridge.engine.clock import EngineClock
from bridge.engine.connection import HttpOptions
from bridge.engine.http import EngineHttp
from bridge.engine.record_shapes import (
    IncidentRecord,
    InstanceRecord,
    LogRecord,
    ProcessRecord,
    TaskRecord,
)
from bridge.errors import EngineMisconfigured, EngineRefused, TaskGone
from bridge.messages import Wire

PAGE = 500
IDS_AT_ONCE = 300
MANY = 10_000

Record = TypeVar("Record", bound=Wire)


class EngineRecords:
    """Questions to one engine.  Raises EngineError only; every call is bounded by the options.

    Without the right to see something an engine hides it instead of refusing: an empty list
    may mean that.  Filters go by the engine's own names, in camelCase.
    """

    def __init__(self, options: HttpOptions, stopping: threading.Event | None = None) -> None:
        self.url = options.url
        self._clock = EngineClock()
        self._http = EngineHttp(options, self._clock, stopping or threading.Event())

    def now(self) -> float:
        """The engine's time in seconds since the epoch, one second coarse."""
        if not self._clock.is_set:
            self._ask("GET", "/version")
        return self._clock.now()

    # -- tasks ---------------------------------------------------------------------------------

    def tasks(self, limit: int = MANY, **query: Any) -> list[TaskRecord]:
        """Up to `limit` external tasks by the filters of `POST /external-task`, oldest first.

        `processDefinitionKey` counts on every engine, also on those that do not know it.
        """
        return list(itertools.islice(self.each_task(**query), limit))

    def each_task(self, **query: Any) -> Iterator[TaskRecord]:
        """`tasks` without end, page by page as they are asked for."""
        # Unknown to older engines, which then answer with the tasks of every process.
        process = query.get("processDefinitionKey")
        by_time = [{"sortBy": by, "sortOrder": "asc"} for by in ("createTime", "id")]
        try:
            yield from self._sorted_tasks(query, by_time, process)
        except EngineRefused:  # no createTime before 7.21
            yield from self._sorted_tasks(query, by_time[1:], process)

    def tasks_by_id(self, task_ids: Sequence[str]) -> dict[str, TaskRecord]:
        """Those of the tasks that exist."""
        found: dict[str, TaskRecord] = {}
        for ids in batches(task_ids, IDS_AT_ONCE):
            rows = self._rows(
                TaskRecord, "POST", "/external-task", {"externalTaskIdIn": ids}, maxResults=len(ids)
            )
            found.update((task.id, task) for task in rows)
        return found

    def count_tasks(self, **query: Any) -> int:
        """How many external tasks the filters of `POST /external-task/count` match."""
        return int(self._object("POST", "/external-task/count", query)["count"])

    def topic_names(self) -> list[str]:
        """The topics of all tasks that there are."""
        return _parsed(TypeAdapter(list[str]), self._ask("GET", "/external-task/topic-names"))

    def set_retries(self, task_ids: Sequence[str], retries: int) -> None:
        """Set the retries of all these tasks, or of none: where one is gone, TaskGone or
        EngineRefused.  An incident ends by it.
        """
        body = {"externalTaskIds": list(task_ids), "retries": retries}
        self._act("PUT", "/external-task/retries", body)

    def release(self, task_id: str, worker_id: str) -> None:
        """Let the lock end in a millisecond.  Raises LockLost where it is not this worker id's,
        LockExpired where it has ended, TaskSuspended, TaskGone.

        Never repeated after a lost answer: meanwhile the task may have been fetched again.
        """
        path = f"/external-task/{quote(task_id, safe='')}/extendLock"
        body = {"workerId": worker_id, "newDuration": 1}
        self._act("POST", path, body, repeat_lost=False)

    # -- incidents, instances, history ---------------------------------------------------------

    def incidents(
        self, limit: int = MANY, query: Mapping[str, str] | None = None
    ) -> list[IncidentRecord]:
        """Up to `limit` open incidents of external tasks, oldest first, each at its own task: an
        engine repeats one at every process instance that called this one.

        `query`: more of the filters of `GET /incident`.
        """
        named = {**(query or {}), "incidentType": "failedExternalTask"}
        sort = {"sortBy": "incidentTimestamp", "sortOrder": "asc"}
        rows = (
            row
            for page in self._pages("GET", "/incident", None, {**named, **sort})
            for row in page
            if row.get("configuration") is not None
        )
        return [_record(IncidentRecord, row) for row in itertools.islice(rows, limit)]

    def process_instance(self, instance_id: str) -> InstanceRecord | None:
        """A running process instance; None where none of this id runs."""
        query = {"processInstanceIds": [instance_id]}
        found = self._rows(InstanceRecord, "POST", "/process-instance", query, maxResults=1)
        return found[0] if found else None

    def process_instances(self, business_key: str) -> list[InstanceRecord]:
        """The running process instances with exactly this business key."""
        query = {"businessKey": business_key}
        return self._rows(InstanceRecord, "POST", "/process-instance", query, maxResults=PAGE)

    def called_by(self, instance_id: str) -> list[InstanceRecord]:
        """The running process instances that this one has called, by its call activities."""
        query = {"superProcessInstance": instance_id}
        return self._rows(InstanceRecord, "POST", "/process-instance", query, maxResults=PAGE)

    def past_instance(self, instance_id: str) -> InstanceRecord | None:
        """A process instance, running or ended, from the history; None where it has none."""
        query, path = {"processInstanceId": instance_id}, "/history/process-instance"
        found = self._rows(InstanceRecord, "POST", path, query, maxResults=1)
        return found[0] if found else None

    def past_instances(self, business_key: str) -> list[InstanceRecord]:
        """The process instances, running or ended, with this business key, newest first."""
        query = {
            "processInstanceBusinessKey": business_key,
            "sorting": [{"sortBy": "startTime", "sortOrder": "desc"}],
        }
        path = "/history/process-instance"
        return self._rows(InstanceRecord, "POST", path, query, maxResults=PAGE)

    def task_log(self, **query: str) -> list[LogRecord]:
        """What happened to a task (`externalTaskId`) or to those of a process instance
        (`processInstanceId`), in order of time; the latest PAGE rows where there are more.  Empty
        at a history level below `full`.
        """
        body = {**query, "sorting": [{"sortBy": "timestamp", "sortOrder": "desc"}]}
        path = "/history/external-task-log"
        rows = self._rows(LogRecord, "POST", path, body, maxResults=PAGE)
        return sorted(rows, key=lambda row: row.order)

    # -- processes -----------------------------------------------------------------------------

    def latest_processes(self) -> list[ProcessRecord]:
        """Every deployed process, each tenant's own, in its latest version only."""
        query = {"latestVersion": "true", "sortBy": "key", "sortOrder": "asc"}
        pages = self._pages("GET", "/process-definition", None, query)
        return [_record(ProcessRecord, row) for page in pages for row in page]

    def process_xml(self, process_definition_id: str) -> str:
        """The BPMN of a process; empty where it is no longer deployed."""
        path = f"/process-definition/{quote(process_definition_id, safe='')}/xml"
        try:
            return str(self._object("GET", path).get("bpmn20Xml") or "")
        except TaskGone:
            return ""

    # -- helpers -------------------------------------------------------------------------------

    def _sorted_tasks(
        self, query: Mapping[str, Any], sorting: Sequence[Mapping[str, str]], process: str | None
    ) -> Iterator[TaskRecord]:
        body = {**query, "sorting": list(sorting)}
        for page in self._pages("POST", "/external-task", body, {}):
            tasks = (_record(TaskRecord, row) for row in page)
            yield from (t for t in tasks if process in (None, t.process_definition_key))

    def _pages(
        self, method: str, path: str, body: Any, query: Mapping[str, str]
    ) -> Iterator[list[dict[str, Any]]]:
        for first in itertools.count(0, PAGE):
            bounds = urlencode({**query, "firstResult": first, "maxResults": PAGE})
            page = _parsed(_ROWS, self._ask(method, f"{path}?{bounds}", body))
            yield page
            if len(page) < PAGE:
                return

    def _rows(
        self, kind: type[Record], method: str, path: str, body: Any, **query: str | int
    ) -> list[Record]:
        answer = self._ask(method, f"{path}?{urlencode(query)}", body)
        return [_record(kind, row) for row in _parsed(_ROWS, answer)]

    def _object(self, method: str, path: str, body: Any = None) -> dict[str, Any]:
        return _parsed(_OBJECT, self._ask(method, path, body))

    def _act(self, method: str, path: str, body: Any, *, repeat_lost: bool = True) -> None:
        # The engine says nothing of what it has done; a page of a proxy on the way would.
        if self._http.call(method, path, body, repeat_lost=repeat_lost).status != 204:
            raise _not_an_engine()

    def _ask(self, method: str, path: str, body: Any = None) -> bytes:
        return self._http.call(method, path, body).body


_ROWS = TypeAdapter(list[dict[str, Any]])
_OBJECT = TypeAdapter(dict[str, Any])
T = TypeVar("T")


def batches(values: Sequence[T], size: int) -> Iterator[list[T]]:
    """The values in lists of at most `size`."""
    for start in range(0, len(values), size):
        yield list(values[start : start + size])


def _record(kind: type[Record], row: Mapping[str, Any]) -> Record:
    try:
        return kind.model_validate(row)
    except ValidationError:  # whose text may quote what came
        raise _not_an_engine() from None


def _parsed(adapter: TypeAdapter[T], body: bytes) -> T:
    try:
        return adapter.validate_json(body)
    except ValidationError:  # whose text may quote what came
        raise _not_an_engine() from None


def _not_an_engine() -> EngineMisconfigured:
    return EngineMisconfigured("what answers there is not an engine's REST API")
