"""What each list of the REST API can be filtered and sorted by: tables only."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from bridge.simulated_engine.body import Body
from bridge.simulated_engine.errors import invalid_request
from bridge.simulated_engine.fetch import like
from bridge.simulated_engine.state import Definition, Incident, Instance, LogEntry, Task, Visit
from bridge.simulated_engine.values import Variable, untyped

Test = Callable[[Any, Any, int], bool]  # row, wanted value, the engine's now in ms


@dataclass(frozen=True)
class TaskRow:
    """An external task with its instance."""

    task: Task
    instance: Instance

    def as_json(self) -> dict[str, Any]:
        """The task as queries answer it."""
        return self.task.as_json(suspended=self.instance.suspended)


@dataclass(frozen=True)
class DefinitionRow:
    """A process definition, and whether it is the latest of its key and tenant."""

    definition: Definition
    latest: bool

    def as_json(self) -> dict[str, Any]:
        """The definition as queries answer it."""
        return self.definition.as_json()


@dataclass(frozen=True)
class Filter:
    """How one query parameter is read (`kind`) and what it lets through."""

    kind: str
    passes: Test


def _text(get: Callable[[Any], Any]) -> Filter:
    return Filter("text", lambda row, wanted, _: get(row) == wanted)


def _texts(get: Callable[[Any], Any]) -> Filter:
    return Filter("texts", lambda row, wanted, _: get(row) in wanted)


def _flag(holds: Callable[[Any, int], bool]) -> Filter:
    return Filter("flag", lambda row, _, now_ms: holds(row, now_ms))


def _expires(row: TaskRow) -> int | None:
    return row.task.lock_expires_ms


_NUMBERS = {"Short", "Integer", "Long", "Double"}


def _alike(one: Variable, other: Variable) -> bool:
    return one.type == other.type or {one.type, other.type} <= _NUMBERS


def _equal(one: Variable, other: Variable) -> bool:
    return _alike(one, other) and bool(one.value == other.value)


def _like(one: Variable, other: Variable) -> bool:
    return one.type == other.type == "String" and like(one.value, other.value)


_COMPARE: dict[str, Callable[[Variable, Variable], bool]] = {
    "eq": _equal,
    "neq": lambda one, other: not _equal(one, other),
    "gt": lambda one, other: _alike(one, other) and one.value > other.value,
    "gteq": lambda one, other: _alike(one, other) and one.value >= other.value,
    "lt": lambda one, other: _alike(one, other) and one.value < other.value,
    "lteq": lambda one, other: _alike(one, other) and one.value <= other.value,
    "like": _like,
    "notLike": lambda one, other: not _like(one, other),
}


def _variable_matches(row: TaskRow, wanted: list[Body], _now_ms: int) -> bool:
    for body in wanted:
        compare = _COMPARE.get(body.text("operator") or "")
        if compare is None:
            told = f"Invalid process variable comparator specified: {body.text('operator')}"
            raise invalid_request(told)
        found = row.instance.variables.get(body.text("name") or "")
        if found is None or not compare(found, untyped(body.members.get("value"))):
            return False
    return True


_TASK_FILTERS: Mapping[str, Filter] = {
    "externalTaskId": _text(lambda r: r.task.id),
    "externalTaskIdIn": _texts(lambda r: r.task.id),
    "activityId": _text(lambda r: r.task.node.id),
    "activityIdIn": _texts(lambda r: r.task.node.id),
    "topicName": _text(lambda r: r.task.topic),
    "workerId": _text(lambda r: r.task.worker_id),
    "executionId": _text(lambda r: r.task.execution_id),
    "processInstanceId": _text(lambda r: r.task.instance_id),
    "processInstanceIdIn": _texts(lambda r: r.task.instance_id),
    "processDefinitionId": _text(lambda r: r.task.definition.id),
    "processDefinitionKey": _text(lambda r: r.task.definition.key),
    "processDefinitionKeyIn": _texts(lambda r: r.task.definition.key),
    "processDefinitionName": _text(lambda r: r.task.definition.process.name),
    "processDefinitionNameLike": Filter(
        "text", lambda r, wanted, _: like(r.task.definition.process.name, wanted)
    ),
    "tenantIdIn": _texts(lambda r: r.task.tenant_id),
    "locked": _flag(lambda r, now_ms: r.task.locked(now_ms)),
    "notLocked": _flag(lambda r, now_ms: not r.task.locked(now_ms)),
    "lockExpirationBefore": Filter("date", lambda r, at, _: (_expires(r) or at) < at),
    "lockExpirationAfter": Filter("date", lambda r, at, _: (_expires(r) or at) > at),
    "withRetriesLeft": _flag(lambda r, _: r.task.retries != 0),
    "noRetriesLeft": _flag(lambda r, _: r.task.retries == 0),
    "active": _flag(lambda r, _: not r.instance.suspended),
    "suspended": _flag(lambda r, _: r.instance.suspended),
    "priorityHigherThanOrEquals": Filter("whole", lambda r, n, _: r.task.priority >= n),
    "priorityLowerThanOrEquals": Filter("whole", lambda r, n, _: r.task.priority <= n),
    "processVariables": Filter("variables", _variable_matches),
}
_TASK_SORTING: Mapping[str, Callable[[TaskRow], Any]] = {
    "id": lambda r: r.task.id,
    "lockExpirationTime": lambda r: r.task.lock_expires_ms or 0,
    "processInstanceId": lambda r: r.task.instance_id,
    "processDefinitionId": lambda r: r.task.definition.id,
    "processDefinitionKey": lambda r: r.task.definition.key,
    "tenantId": lambda r: r.task.tenant_id or "",
    "taskPriority": lambda r: r.task.priority,
    "createTime": lambda r: (r.task.create_ms, r.task.number),
}


def _log_kind(kind: str) -> Filter:
    return _flag(lambda entry, _: entry.kind == kind)


_LOG_FILTERS: Mapping[str, Filter] = {
    "logId": _text(lambda e: e.id),
    "externalTaskId": _text(lambda e: e.task.id),
    "topicName": _text(lambda e: e.task.topic),
    "workerId": _text(lambda e: e.task.worker_id),
    "errorMessage": _text(lambda e: e.task.error_message),
    "activityIdIn": _texts(lambda e: e.task.node.id),
    "executionIdIn": _texts(lambda e: e.task.execution_id),
    "processInstanceId": _text(lambda e: e.task.instance_id),
    "processDefinitionId": _text(lambda e: e.task.definition.id),
    "processDefinitionKey": _text(lambda e: e.task.definition.key),
    "tenantIdIn": _texts(lambda e: e.task.tenant_id),
    "creationLog": _log_kind("creation"),
    "failureLog": _log_kind("failure"),
    "successLog": _log_kind("success"),
    "deletionLog": _log_kind("deletion"),
    "priorityHigherThanOrEquals": Filter("whole", lambda e, n, _: e.task.priority >= n),
    "priorityLowerThanOrEquals": Filter("whole", lambda e, n, _: e.task.priority <= n),
}
_LOG_SORTING: Mapping[str, Callable[[LogEntry], Any]] = {
    "timestamp": lambda e: e.at_ms,
    "externalTaskId": lambda e: e.task.id,
    "topicName": lambda e: e.task.topic,
}
_INSTANCE_FILTERS: Mapping[str, Filter] = {
    "processInstanceId": _text(lambda i: i.id),
    "processInstanceIds": _texts(lambda i: i.id),
    "processDefinitionId": _text(lambda i: i.definition.id),
    "processDefinitionKey": _text(lambda i: i.definition.key),
    "processDefinitionKeyIn": _texts(lambda i: i.definition.key),
    "businessKey": _text(lambda i: i.business_key),
    "processInstanceBusinessKey": _text(lambda i: i.business_key),
    "tenantIdIn": _texts(lambda i: i.tenant_id),
    "finished": _flag(lambda i, _: i.end_ms is not None),
    "unfinished": _flag(lambda i, _: i.end_ms is None),
    "active": _flag(lambda i, _: i.end_ms is None and not i.suspended),
    "suspended": _flag(lambda i, _: i.end_ms is None and i.suspended),
    "completed": _flag(lambda i, _: i.end_state == "COMPLETED"),
    "externallyTerminated": _flag(lambda i, _: i.end_state == "EXTERNALLY_TERMINATED"),
    # There are no call activities here, so that no instance has called another.
    "superProcessInstance": Filter("text", lambda _row, _wanted, _now: False),
}
_INSTANCE_SORTING: Mapping[str, Callable[[Instance], Any]] = {
    "instanceId": lambda i: i.id,
    "definitionKey": lambda i: i.definition.key,
    "businessKey": lambda i: i.business_key or "",
    "startTime": lambda i: i.start_ms,
    "endTime": lambda i: i.end_ms or 0,
}
_VISIT_FILTERS: Mapping[str, Filter] = {
    "processInstanceId": _text(lambda v: v.instance.id),
    "processDefinitionId": _text(lambda v: v.instance.definition.id),
    "activityId": _text(lambda v: v.node.id),
    "activityType": _text(lambda v: v.node.history_type),
    "finished": _flag(lambda v, _: v.end_ms is not None),
    "unfinished": _flag(lambda v, _: v.end_ms is None),
    "canceled": _flag(lambda v, _: v.canceled),
}
_VISIT_SORTING: Mapping[str, Callable[[Visit], Any]] = {
    "startTime": lambda v: v.start_ms,
    "endTime": lambda v: v.end_ms or 0,
    "activityId": lambda v: v.node.id,
}
_INCIDENT_FILTERS: Mapping[str, Filter] = {
    "incidentId": _text(lambda i: i.id),
    "incidentType": _text(lambda _: "failedExternalTask"),
    "incidentMessage": _text(lambda i: i.task.error_message),
    "processDefinitionId": _text(lambda i: i.task.definition.id),
    "processDefinitionKeyIn": _texts(lambda i: i.task.definition.key),
    "processInstanceId": _text(lambda i: i.task.instance_id),
    "executionId": _text(lambda i: i.task.execution_id),
    "activityId": _text(lambda i: i.task.node.id),
    "configuration": _text(lambda i: i.task.id),
    "tenantIdIn": _texts(lambda i: i.task.tenant_id),
}
_INCIDENT_SORTING: Mapping[str, Callable[[Incident], Any]] = {
    "incidentTimestamp": lambda i: i.create_ms,
    "configuration": lambda i: i.task.id,
}
_DEFINITION_FILTERS: Mapping[str, Filter] = {
    "processDefinitionId": _text(lambda d: d.definition.id),
    "latestVersion": _flag(lambda d, _: d.latest),
    "key": _text(lambda d: d.definition.key),
    "keysIn": _texts(lambda d: d.definition.key),
    "versionTag": _text(lambda d: d.definition.process.version_tag),
    "deploymentId": _text(lambda d: d.definition.deployment_id),
    "tenantIdIn": _texts(lambda d: d.definition.tenant_id),
}
_DEFINITION_SORTING: Mapping[str, Callable[[DefinitionRow], Any]] = {
    "key": lambda d: d.definition.key,
    "version": lambda d: d.definition.version,
}


@dataclass(frozen=True)
class Listing:
    """What one list of the REST API can be filtered and sorted by."""

    filters: Mapping[str, Filter]
    sorting: Mapping[str, Callable[[Any], Any]]


TASKS = Listing(_TASK_FILTERS, _TASK_SORTING)
LOG = Listing(_LOG_FILTERS, _LOG_SORTING)
INSTANCES = Listing(_INSTANCE_FILTERS, _INSTANCE_SORTING)
VISITS = Listing(_VISIT_FILTERS, _VISIT_SORTING)
INCIDENTS = Listing(_INCIDENT_FILTERS, _INCIDENT_SORTING)
DEFINITIONS = Listing(_DEFINITION_FILTERS, _DEFINITION_SORTING)
