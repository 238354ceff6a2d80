"""What the engine has on record, as its lists tell it.  Shapes only; asks nobody."""

from __future__ import annotations

from bridge.messages import ExternalTask, Wire, engine_seconds

TaskRecord = ExternalTask


class IncidentRecord(Wire):
    """One open incident of an external task, as `GET /incident` tells it."""

    id: str
    incident_timestamp: str
    incident_message: str | None = None
    configuration: str
    activity_id: str | None = None
    process_instance_id: str | None = None
    process_definition_id: str | None = None
    tenant_id: str | None = None

    @property
    def task_id(self) -> str:
        """The external task: the engine calls it the incident's configuration."""
        return self.configuration

    @property
    def raised(self) -> float:
        """When it was raised, in the engine's seconds since the epoch."""
        return engine_seconds(self.incident_timestamp)


class InstanceRecord(Wire):
    """A process instance: running as `GET /process-instance` tells it, or from the history.

    `state`, `start_time`, `end_time`, `delete_reason` and the key come from the history alone.
    """

    id: str
    business_key: str | None = None
    process_definition_key: str | None = None
    suspended: bool = False
    tenant_id: str | None = None
    state: str | None = None
    start_time: str | None = None
    end_time: str | None = None
    delete_reason: str | None = None


class ProcessRecord(Wire):
    """A deployed process in one version, as `GET /process-definition` tells it."""

    id: str
    key: str
    name: str | None = None
    version: int
    tenant_id: str | None = None


class LogRecord(Wire):
    """One row of the external task log, which an engine keeps at history level `full` only.

    `retries` of a failure are those that the task had before it.
    """

    external_task_id: str
    timestamp: str
    topic_name: str
    worker_id: str | None = None
    retries: int | None = None
    error_message: str | None = None
    process_instance_id: str | None = None
    process_definition_key: str | None = None
    creation_log: bool = False
    failure_log: bool = False
    success_log: bool = False
    deletion_log: bool = False

    @property
    def at(self) -> float:
        """When it happened, in the engine's seconds since the epoch."""
        return engine_seconds(self.timestamp)

    @property
    def order(self) -> tuple[float, int]:
        """By this the rows of a task are in order of time, also those of one moment."""
        return self.at, 0 if self.creation_log else 1 if self.failure_log else 2
