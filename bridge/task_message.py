"""From a locked task to the message that RabbitMQ carries.  Pure: no I/O, no clock.

Properties, headers and body shapes are the contract with workers (consumers/README.md).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from json import JSONEncoder
from typing import Any

from bridge.errors import TaskRefused
from bridge.messages import LockedTask, Publication, TaskBody

APP_ID = "external-task-bridge"
SCHEMA_VERSION = 1
TRACE_VARIABLE = "traceparent"
SHORT_STRING_BYTES = 255
MAX_PRIORITY = 255

_AS_IT_IS = JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"))
_ESCAPED = JSONEncoder(ensure_ascii=True, allow_nan=False, separators=(",", ":"))
_PLACEHOLDER = re.compile(r"\{(\w+)\}")


@dataclass(frozen=True, slots=True)
class Shape:
    """How one topic's messages look: where they go and what their body holds."""

    topic: str
    exchange: str
    routing_key: str
    reply_to: str
    body: str = "task"
    celery_task: str | None = None
    priority: bool = False
    expiration_ms: int | None = None
    max_bytes: int = 16 * 1024 * 1024


def message_id(task_id: str, retries: int | None) -> str:
    """Names one attempt of one task: every copy of its message has this id."""
    return f"{task_id}:{'-' if retries is None else retries}"


def build(
    task: LockedTask,
    shape: Shape,
    *,
    token: str,
    values: Mapping[str, Any],
    types: Mapping[str, str],
    timestamp: int,
) -> Publication:
    """The message for a task, with its variables as plain `values` and their engine `types`.

    Raises TaskRefused where the task cannot be carried: too large, or a value that no AMQP
    property can hold.
    """
    headers = _headers(task, values)
    body = _body(task, shape, values, types)
    if shape.celery_task is not None:
        headers |= _celery_headers(shape.celery_task, token)
    if len(body) > shape.max_bytes:
        raise TaskRefused(
            f"the message would have {len(body)} bytes, more than max_task_bytes "
            f"({shape.max_bytes}); ask for fewer variables"
        )
    return Publication(
        lane=shape.topic,
        exchange=shape.exchange,
        routing_key=_routing_key(shape, task),
        body=body,
        headers=headers,
        message_id=message_id(task.id, task.retries),
        correlation_id=token,
        reply_to=shape.reply_to,
        type=shape.topic,
        timestamp=timestamp,
        expiration_ms=shape.expiration_ms,
        priority=min(MAX_PRIORITY, max(0, task.priority)) if shape.priority else None,
        app_id=APP_ID,
    )


def _routing_key(shape: Shape, task: LockedTask) -> str:
    if "{" not in shape.routing_key:
        return shape.routing_key
    values = {
        "tenantId": task.tenant_id or "",
        "processDefinitionKey": task.process_definition_key or "",
        "topicName": task.topic_name,
    }
    key = _PLACEHOLDER.sub(lambda match: values[match[1]], shape.routing_key)
    if len(key.encode()) > SHORT_STRING_BYTES:
        raise TaskRefused("the routing key would be longer than 255 bytes")
    return key


def _headers(task: LockedTask, values: Mapping[str, Any]) -> dict[str, Any]:
    headers = {
        "taskId": task.id,
        "topicName": task.topic_name,
        "processInstanceId": task.process_instance_id,
        "processDefinitionKey": task.process_definition_key,
        "activityId": task.activity_id,
        "businessKey": task.business_key,
        "tenantId": task.tenant_id,
        "retries": task.retries,
        "schemaVersion": SCHEMA_VERSION,
        "traceparent": values.get(TRACE_VARIABLE),
    }
    if not isinstance(headers["traceparent"], str):
        del headers["traceparent"]
    return {name: value for name, value in headers.items() if value is not None}


def _body(
    task: LockedTask, shape: Shape, values: Mapping[str, Any], types: Mapping[str, str]
) -> bytes:
    if shape.celery_task is not None:
        embedded = {"callbacks": None, "errbacks": None, "chain": None, "chord": None}
        return _json([[], dict(values), embedded])
    if shape.body == "variables":
        return _json(values)
    kind, _, name = shape.body.partition(":")
    if kind == "variable":
        return _json(values.get(name))
    return _json(_task_body(task, values, types).model_dump(by_alias=True))


def _task_body(task: LockedTask, values: Mapping[str, Any], types: Mapping[str, str]) -> TaskBody:
    # Every value comes from a model that was validated already: nothing is checked twice.
    return TaskBody.model_construct(
        schema_version=SCHEMA_VERSION,
        task_id=task.id,
        topic_name=task.topic_name,
        process_instance_id=task.process_instance_id,
        process_definition_key=task.process_definition_key,
        activity_id=task.activity_id,
        business_key=task.business_key,
        tenant_id=task.tenant_id,
        retries=task.retries,
        priority=task.priority,
        create_time=task.create_time,
        error_message=task.error_message,
        extension_properties=task.extension_properties,
        variables=dict(values),
        variable_types=dict(types),
    )


def _celery_headers(name: str, token: str) -> dict[str, Any]:
    """Celery's task protocol, version 2.  A task that Celery itself tries again (`self.retry`) is
    answered with its id as the correlation id, whatever the first message had: both are the token.
    """
    return {
        "lang": "py",
        "task": name,
        "id": token,
        "root_id": token,
        "parent_id": None,
        "group": None,
        "retries": 0,
        "argsrepr": "()",
        "kwargsrepr": "{...}",
        "origin": APP_ID,
    }


def _json(value: Any) -> bytes:
    try:
        return _AS_IT_IS.encode(value).encode()
    except UnicodeEncodeError:
        # Half a character, which a database may hold: UTF-8 cannot carry it, an escape can.
        return _ESCAPED.encode(value).encode()
    except (ValueError, RecursionError) as error:
        raise TaskRefused(f"a variable cannot be written as JSON: {type(error).__name__}") from None
