"""What travels: external tasks as the engine tells them, messages as RabbitMQ carries them,
results as workers mean them.  Shapes only: parsing and building live in `task_message` and
`results`; no I/O, no clock.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field
from pydantic.alias_generators import to_camel
from pydantic.json_schema import SkipJsonSchema

from bridge.errors import EngineMisconfigured

# Two nodes of an engine may differ by a second, and columns without milliseconds (MySQL) round.
SLACK_SECONDS = 1.0


def engine_seconds(date: str) -> float:
    """Seconds since the epoch of an engine's date such as `2026-01-02T03:04:05.678+0000`.

    Infinite after the year 9999, which a careless duration can reach.  Raises EngineMisconfigured
    for any other form: without dates no lock can be judged.
    """
    try:
        return datetime.fromisoformat(date).timestamp()
    except ValueError:
        if re.match(r"\+?\d{5,}-", date):
            return math.inf
        raise EngineMisconfigured(
            "the engine writes dates in a form of its own, not yyyy-MM-dd'T'HH:mm:ss.SSSZ"
        ) from None


@dataclass(frozen=True, slots=True)
class LockWindow:
    """Where a lock expiration that we set must lie, in the engine's seconds since the epoch."""

    earliest: float
    latest: float

    def holds(self, expiration: float) -> bool:
        """True if the expiration can be the one we set (within one second)."""
        return self.earliest - SLACK_SECONDS <= expiration <= self.latest + SLACK_SECONDS

    @classmethod
    def exactly(cls, expiration: float) -> LockWindow:
        return cls(expiration, expiration)


class Wire(BaseModel):
    """camelCase on the wire, snake_case in the code; members nobody asked for are ignored."""

    model_config = ConfigDict(
        frozen=True, alias_generator=to_camel, populate_by_name=True, hide_input_in_errors=True
    )


class ExternalTask(Wire):
    """One external task as `GET /external-task` tells it."""

    id: str
    topic_name: str
    worker_id: str | None = None
    lock_expiration_time: str | None = None
    create_time: str | None = None
    retries: int | None = None
    suspended: bool = False
    error_message: str | None = None
    process_instance_id: str
    process_definition_id: str | None = None
    process_definition_key: str | None = None
    execution_id: str | None = None
    activity_id: str | None = None
    tenant_id: str | None = None
    business_key: str | None = None
    priority: int = 0

    @property
    def lock_expires(self) -> float | None:
        """The lock expiration in the engine's seconds since the epoch; None: never locked."""
        return (
            None if self.lock_expiration_time is None else engine_seconds(self.lock_expiration_time)
        )

    @property
    def created(self) -> float | None:
        """The creation in the engine's seconds since the epoch; None before engine 7.21."""
        return None if self.create_time is None else engine_seconds(self.create_time)


class LockedTask(ExternalTask):
    """One external task as `fetchAndLock` hands it over."""

    variables: dict[str, dict[str, Any]] = Field(default_factory=dict)
    extension_properties: dict[str, str] = Field(default_factory=dict)


# A header without a value is left out: its schema knows no null.
_OrLeftOut = SkipJsonSchema[None]


class TaskHeaders(Wire):
    """The headers of every task message.  RabbitMQ adds its own, such as `x-delivery-count`."""

    task_id: str
    topic_name: str
    process_instance_id: str
    process_definition_key: str | _OrLeftOut = None
    activity_id: str | _OrLeftOut = None
    business_key: str | _OrLeftOut = None
    tenant_id: str | _OrLeftOut = None
    retries: int | _OrLeftOut = None
    schema_version: int
    traceparent: str | _OrLeftOut = None


class TaskBody(Wire):
    """The body of a task message in the shape `body = "task"` (the default)."""

    schema_version: int
    task_id: str
    topic_name: str
    process_instance_id: str
    process_definition_key: str | None
    activity_id: str | None
    business_key: str | None
    tenant_id: str | None
    retries: int | None
    priority: int
    create_time: str | None
    error_message: str | None
    extension_properties: dict[str, str]
    variables: dict[str, Any]
    variable_types: dict[str, str]


class GoneNotice(Wire):
    """A task that a replica held is gone: whoever is still busy with it may stop."""

    task_id: str


@dataclass(frozen=True, slots=True)
class Publication:
    """One message for RabbitMQ.  `lane` names the channel that carries it (a topic, mostly), so
    that a channel the broker closes takes only its own lane's messages with it.
    """

    lane: str
    exchange: str
    routing_key: str
    body: bytes
    headers: Mapping[str, Any] = field(default_factory=dict)
    message_id: str | None = None
    correlation_id: str | None = None
    reply_to: str | None = None
    type: str | None = None
    content_type: str | None = "application/json"
    content_encoding: str | None = "utf-8"
    timestamp: int | None = None
    expiration_ms: int | None = None
    priority: int | None = None
    app_id: str | None = None


@dataclass(frozen=True, slots=True)
class Delivery:
    """One message from RabbitMQ, until it is acknowledged.  `generation` and `tag` belong to the
    channel that delivered it; an acknowledgement for an older generation is dropped.
    """

    queue: str
    body: bytes
    headers: Mapping[str, Any]
    generation: int
    tag: int
    redelivered: bool = False
    message_id: str | None = None
    correlation_id: str | None = None
    reply_to: str | None = None
    type: str | None = None
    content_type: str | None = None
    content_encoding: str | None = None
    timestamp: int | None = None
    expiration: str | None = None
    priority: int | None = None
    user_id: str | None = None
    app_id: str | None = None


def _nothing_for_null(value: Any) -> Any:
    return {} if value is None else value


Variables = Annotated[dict[str, Any], BeforeValidator(_nothing_for_null)]


class Complete(Wire):
    """The work is done: `complete` with these variables."""

    variables: Variables = Field(default_factory=dict)
    local_variables: Variables = Field(default_factory=dict)


class Failure(Wire):
    """The work failed.  Where `retries` or `retryTimeout` (ms) is unset: the topic's policy."""

    error_message: str | None = None
    error_details: str | None = None
    retries: int | None = Field(default=None, ge=0, le=2**31 - 1)
    retry_timeout: int | None = Field(default=None, ge=0, le=2**53)
    variables: Variables = Field(default_factory=dict)
    local_variables: Variables = Field(default_factory=dict)


class BpmnError(Wire):
    """The work ended in a business error that a boundary event may catch."""

    error_code: str = Field(min_length=1)
    error_message: str | None = None
    variables: Variables = Field(default_factory=dict)


class ExtendLock(Wire):
    """The worker is still busy; `newDuration` in ms.  Variables go to the process instance."""

    new_duration: int = Field(default=1, gt=0, le=2**53)
    variables: Variables = Field(default_factory=dict)


class Unlock(Wire):
    """The worker gives the task back."""


class CeleryResult(Wire):
    """The result message of Celery's `rpc://` backend, as far as it is read."""

    status: str
    result: Any = None
    traceback: Any = None


Result = Complete | Failure | BpmnError | ExtendLock | Unlock
