"""One topic's messages as AsyncAPI tells them: headers, body, AMQP properties.

The bodies are references into `bundle`; `x-amqp-properties` is the schema of what AsyncAPI has no
place for, `x-topic` how the topic is set up.
"""

from __future__ import annotations

from bridge.results import OUTCOME_HEADER, VERBS
from bridge.schema.models import Schema, ref
from bridge.task_message import APP_ID, MAX_PRIORITY, SHORT_STRING_BYTES, Shape
from bridge.topics import Topic

BINDING_VERSION = {"bindingVersion": "0.3.0"}
_CORRELATION: Schema = {"type": "string", "description": "That of the task message, unchanged."}


def task_message(topic: Topic, key: str) -> Schema:
    """What the bridge publishes for a task."""
    headers, body = ref("TaskHeaders"), topic.shape.body
    if (task := topic.shape.celery_task) is not None:
        names = {"task": {"const": task}, "lang": {"const": "py"}, "id": {"type": "string"}}
        headers, body = {"type": "object", "allOf": [headers, _headers(names)]}, "celery"
    return {
        "title": f"Task of topic {topic.name}",
        "headers": headers,
        "payload": ref(f"{key}.task"),
        "bindings": _bindings(topic.name),
        "x-amqp-properties": _properties(topic.shape),
        "x-topic": {"name": topic.name, "body": body, "reply": topic.replies.profile},
    }


def result_messages(topic: Topic, key: str) -> dict[str, Schema]:
    """What may answer it, by name; every answer is one of these."""
    profile = topic.replies.profile
    body = ref(f"{key}.result")
    if profile == "celery":
        return {"result": _result("Result of the Celery task", _headers(), body)}
    plain = {**_headers(), "properties": {OUTCOME_HEADER: {"type": "null"}}}
    results = {"result": _result("Answer", plain, body)}
    for outcome in VERBS:
        headers = _headers({OUTCOME_HEADER: {"const": outcome}})
        results[outcome] = _result(f"Answer: {outcome}", headers, ref(f"{key}.{outcome}"))
    return results | (_of_spring(topic, key) if profile == "spring" else {})


def gone_message() -> Schema:
    """That a task is gone."""
    return {
        "title": "A task is gone",
        "payload": ref("GoneNotice"),
        "bindings": _bindings("gone"),
    }


def _of_spring(topic: Topic, key: str) -> dict[str, Schema]:
    """What its listeners answer besides JSON of their own."""
    title = "An exception as the answer (returnExceptions)"
    found = {"exception": _result(title, _headers(), ref(f"{key}.exception"))}
    if topic.replies.result_variable is not None:
        title = "Text, from a listener without a JSON converter"
        text = _result(title, _headers(), {"type": "string"})
        found["text"] = {**text, "contentType": "text/plain"}
    return found


def _result(title: str, headers: Schema, payload: Schema) -> Schema:
    return {
        "title": title,
        "headers": headers,
        "payload": payload,
        "x-amqp-properties": {
            "type": "object",
            "required": ["correlation_id"],
            "properties": {"correlation_id": _CORRELATION},
        },
    }


def _headers(needed: Schema | None = None) -> Schema:
    if not needed:
        return {"type": "object"}
    return {"type": "object", "required": list(needed), "properties": needed}


def _bindings(kind: str) -> Schema:
    return {"amqp": {"contentEncoding": "utf-8", "messageType": kind, **BINDING_VERSION}}


def _properties(shape: Shape) -> Schema:
    known: dict[str, Schema] = {
        "message_id": {
            "type": "string",
            "pattern": "^[^:]+:(-|[0-9]+)$",
            "description": "Names one attempt: every copy of it has the same.",
        },
        "correlation_id": {
            "type": "string",
            "maxLength": SHORT_STRING_BYTES,
            "description": "To be given back unchanged; nothing in it is for workers to read.",
        },
        "reply_to": {"const": shape.reply_to},
        "type": {"const": shape.topic},
        "content_type": {"const": "application/json"},
        "content_encoding": {"const": "utf-8"},
        "delivery_mode": {"const": 2},
        "timestamp": {"type": "integer", "description": "Seconds since the epoch."},
        "app_id": {"const": APP_ID},
    }
    if shape.expiration_ms is not None:
        known["expiration"] = {"const": str(shape.expiration_ms)}
    if shape.priority:
        known["priority"] = {"type": "integer", "minimum": 0, "maximum": MAX_PRIORITY}
    return {"type": "object", "required": list(known), "properties": known}
