"""What the simulated engine stores, and each thing's JSON as the REST API shows it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from bridge.simulated_engine.bpmn import Node, Process
from bridge.simulated_engine.clock import date_text, optional_date_text
from bridge.simulated_engine.values import Variable


@dataclass(frozen=True)
class Definition:
    """A deployed version of a process."""

    id: str
    version: int
    deployment_id: str
    resource: str
    tenant_id: str | None
    process: Process
    xml: str

    @property
    def key(self) -> str:
        """The process's id in its BPMN file."""
        return self.process.key

    def as_json(self) -> dict[str, Any]:
        """The process definition as answers carry it."""
        return {
            "id": self.id,
            "key": self.key,
            "category": self.process.category,
            "description": None,
            "name": self.process.name,
            "version": self.version,
            "resource": self.resource,
            "deploymentId": self.deployment_id,
            "diagram": None,
            "suspended": False,
            "tenantId": self.tenant_id,
            "versionTag": self.process.version_tag,
            "historyTimeToLive": self.process.history_days,
            "startableInTasklist": True,
        }


@dataclass(frozen=True)
class Instance:
    """A process instance, running or ended; `local` holds variables by execution id."""

    id: str
    definition: Definition
    business_key: str | None
    tenant_id: str | None
    start_ms: int
    variables: Mapping[str, Variable] = field(default_factory=dict)
    local: Mapping[str, Mapping[str, Variable]] = field(default_factory=dict)
    joined: Mapping[str, int] = field(default_factory=dict)
    suspended: bool = False
    end_ms: int | None = None
    end_state: str | None = None
    delete_reason: str | None = None

    def as_json(self) -> dict[str, Any]:
        """The running instance as answers carry it."""
        return {
            "links": [],
            "id": self.id,
            "definitionId": self.definition.id,
            "definitionKey": self.definition.key,
            "businessKey": self.business_key,
            "caseInstanceId": None,
            "ended": self.end_ms is not None,
            "suspended": self.suspended,
            "tenantId": self.tenant_id,
        }

    def as_history(self) -> dict[str, Any]:
        """The instance as the history shows it."""
        running = "SUSPENDED" if self.suspended else "ACTIVE"
        return {
            "id": self.id,
            "businessKey": self.business_key,
            "processDefinitionId": self.definition.id,
            "processDefinitionKey": self.definition.key,
            "processDefinitionName": self.definition.process.name,
            "processDefinitionVersion": self.definition.version,
            "startTime": date_text(self.start_ms),
            "endTime": optional_date_text(self.end_ms),
            "removalTime": None,
            "durationInMillis": None if self.end_ms is None else self.end_ms - self.start_ms,
            "startUserId": None,
            "startActivityId": self.definition.process.start,
            "deleteReason": self.delete_reason,
            "rootProcessInstanceId": self.id,
            "superProcessInstanceId": None,
            "superCaseInstanceId": None,
            "caseInstanceId": None,
            "restartedProcessInstanceId": None,
            "tenantId": self.tenant_id,
            "state": self.end_state or running,
        }


@dataclass(frozen=True)
class Task:
    """An external task; the lock is `worker_id` and `lock_expires_ms`."""

    id: str
    number: int
    instance_id: str
    definition: Definition
    node: Node
    topic: str
    priority: int
    execution_id: str
    activity_instance_id: str
    tenant_id: str | None
    business_key: str | None
    create_ms: int
    worker_id: str | None = None
    lock_expires_ms: int | None = None
    retries: int | None = None
    error_message: str | None = None
    error_details: str | None = None

    def locked(self, now_ms: int) -> bool:
        """Whether somebody holds the lock at this time of the engine."""
        return self.lock_expires_ms is not None and self.lock_expires_ms > now_ms

    def as_json(self, *, suspended: bool) -> dict[str, Any]:
        """The task as queries answer it."""
        return {
            "activityId": self.node.id,
            "activityInstanceId": self.activity_instance_id,
            "errorMessage": self.error_message,
            "executionId": self.execution_id,
            "id": self.id,
            "lockExpirationTime": optional_date_text(self.lock_expires_ms),
            "createTime": date_text(self.create_ms),
            "processDefinitionId": self.definition.id,
            "processDefinitionKey": self.definition.key,
            "processDefinitionVersionTag": self.definition.process.version_tag,
            "processInstanceId": self.instance_id,
            "retries": self.retries,
            "suspended": suspended,
            "workerId": self.worker_id,
            "topicName": self.topic,
            "tenantId": self.tenant_id,
            "priority": self.priority,
            "businessKey": self.business_key,
        }


@dataclass(frozen=True)
class Incident:
    """An open incident of an external task without retries."""

    id: str
    task: Task
    create_ms: int

    def as_json(self) -> dict[str, Any]:
        """The incident as answers carry it."""
        return {
            "id": self.id,
            "processDefinitionId": self.task.definition.id,
            "processInstanceId": self.task.instance_id,
            "executionId": self.task.execution_id,
            "incidentTimestamp": date_text(self.create_ms),
            "incidentType": "failedExternalTask",
            "activityId": self.task.node.id,
            "failedActivityId": None,
            "causeIncidentId": self.id,
            "rootCauseIncidentId": self.id,
            "configuration": self.task.id,
            "incidentMessage": self.task.error_message,
            "tenantId": self.task.tenant_id,
            "jobDefinitionId": None,
            "annotation": None,
        }


@dataclass(frozen=True)
class LogEntry:
    """One row of the external task log: `kind` is creation, failure, success or deletion."""

    id: str
    kind: str
    task: Task
    at_ms: int

    def as_json(self) -> dict[str, Any]:
        """The row as the history shows it."""
        task = self.task
        row = {
            "id": self.id,
            "timestamp": date_text(self.at_ms),
            "removalTime": None,
            "externalTaskId": task.id,
            "topicName": task.topic,
            "workerId": task.worker_id,
            "retries": task.retries,
            "priority": task.priority,
            "errorMessage": task.error_message,
            "activityId": task.node.id,
            "activityInstanceId": task.activity_instance_id,
            "executionId": task.execution_id,
            "processInstanceId": task.instance_id,
            "processDefinitionId": task.definition.id,
            "processDefinitionKey": task.definition.key,
            "tenantId": task.tenant_id,
            "rootProcessInstanceId": task.instance_id,
        }
        kinds = ("creation", "failure", "success", "deletion")
        return row | {f"{kind}Log": kind == self.kind for kind in kinds}


@dataclass(frozen=True)
class Visit:
    """An activity that an instance entered, for the history."""

    id: str
    node: Node
    instance: Instance
    start_ms: int
    end_ms: int | None = None
    canceled: bool = False

    def as_json(self) -> dict[str, Any]:
        """The activity instance as the history shows it."""
        return {
            "id": self.id,
            "activityId": self.node.id,
            "activityName": self.node.name,
            "activityType": self.node.history_type,
            "processInstanceId": self.instance.id,
            "processDefinitionId": self.instance.definition.id,
            "processDefinitionKey": self.instance.definition.key,
            "startTime": date_text(self.start_ms),
            "endTime": optional_date_text(self.end_ms),
            "canceled": self.canceled,
            "tenantId": self.instance.tenant_id,
        }
