"""Each topic's bodies as JSON Schema 2020-12: what its task messages hold, what may answer them.

Knows nothing of queues and exchanges.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from pydantic import BaseModel

from bridge import plan
from bridge.results import OUTCOME_MEMBER, VERBS
from bridge.schema.models import VARIABLES, Schema, ref, shared
from bridge.settings import Settings
from bridge.task_message import SCHEMA_VERSION
from bridge.topics import Topic

_ABOUT = """\
Bodies of task and result messages. This document is a collection: validate against one of $defs. \
`<topic>.task` is the body of a task message, `<topic>.result` that of an answer without the \
header `outcome`, `<topic>.failure` that of an answer with `outcome: failure`, and so on. \
An empty body is an object without members. In a topic's name here, other characters than letters, \
digits, dots, hyphens and underscores are underscores."""


def json_schema(settings: Settings) -> Schema:
    """A document whose `$defs` has the bodies of every topic and what they share."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": f"urn:external-task-bridge:messages:{SCHEMA_VERSION}",
        "title": "Messages of the External Task Bridge",
        "description": _ABOUT,
        "$defs": definitions(settings),
    }


def definitions(settings: Settings) -> dict[str, Schema]:
    """Every definition by name: those of the topics in the order of the settings, then shared."""
    topics = plan.topics(settings)
    made: dict[str, Schema] = {}
    for name, key in keys(topics).items():
        made |= {f"{key}.{kind}": schema for kind, schema in _bodies(topics[name]).items()}
    return {**made, **shared()}


def keys(topics: Iterable[str]) -> dict[str, str]:
    """For each topic a name that may stand in a reference; two topics never share one."""
    found: dict[str, str] = {}
    for topic in topics:
        stem = key = re.sub(r"[^A-Za-z0-9._-]", "_", topic)
        number = 1
        while key in found.values():
            number += 1
            key = f"{stem}-{number}"
        found[topic] = key
    return found


def _bodies(topic: Topic) -> dict[str, Schema]:
    if not topic.answers:
        return {"task": _task(topic)}
    if topic.replies.profile == "celery":
        return {"task": _task(topic), "result": _celery_result(topic)}
    bodies = {"task": _task(topic), "result": _answer(topic)}
    if topic.replies.profile == "spring":
        bodies["result"]["not"] = _THROWN
        bodies["exception"] = _THROWN
    return bodies | {outcome: _request(topic, model) for outcome, model in VERBS.items()}


# -- to the worker ---------------------------------------------------------------------------------


def _task(topic: Topic) -> Schema:
    shape, names = topic.shape, _names(topic.fetch.get("variables") or None)
    if shape.celery_task is not None:
        return _celery_call(names)
    kind, _, name = shape.body.partition(":")
    if kind == "variable":
        return {"description": f"The variable {name}; null where the process has none."}
    if kind == "variables":
        return {"description": "The variables by name.", "type": "object", **names}
    of_topic: Schema = {"topicName": {"const": topic.name}}
    if names:
        of_topic |= {"variables": names, "variableTypes": names}
    return {"allOf": [ref("TaskBody"), {"properties": of_topic}]}


def _celery_call(names: Schema) -> Schema:
    return {
        "description": "Celery's task protocol, version 2: arguments (none), the variables as "
        "keyword arguments, and what else Celery sends.",
        "type": "array",
        "minItems": 3,
        "maxItems": 3,
        "prefixItems": [
            {"type": "array", "maxItems": 0},
            {"type": "object", **names},
            {"type": "object"},
        ],
    }


# -- from the worker -------------------------------------------------------------------------------

_THROWN: Schema = {
    "description": "An exception of a Spring listener, as the answer (returnExceptions).",
    "type": "object",
    "required": ["value", "exception"],
    "maxProperties": 2,
    "properties": {
        "exception": {
            "type": "object",
            "required": ["stackTrace"],
            "properties": {"stackTrace": {"type": "array"}},
        }
    },
}


def _request(topic: Topic, model: type[BaseModel]) -> Schema:
    """The body where the header `outcome` names the verb."""
    names = _names(topic.allowed_variables)
    fields = {field.alias for field in model.model_fields.values()}
    limited = {name: names for name in VARIABLES if name in fields}
    if not names or not limited:
        return ref(model.__name__)
    return {"allOf": [ref(model.__name__), {"properties": limited}]}


def _answer(topic: Topic) -> Schema:
    """The body where no header says what it is."""
    requests = [
        {"properties": {OUTCOME_MEMBER: {"const": outcome}}, "allOf": [_request(topic, model)]}
        for outcome, model in VERBS.items()
    ]
    return {
        "description": f"The variables, or the request that {OUTCOME_MEMBER} names; null is none.",
        "if": {
            "type": "object",
            "required": [OUTCOME_MEMBER],
            "not": {"properties": {OUTCOME_MEMBER: {"type": "null"}}},
        },
        "then": {"oneOf": requests},
        "else": _plain(topic),
    }


def _plain(topic: Topic) -> Schema:
    allowed, variable = topic.allowed_variables, topic.replies.result_variable
    # The member that names the request is no variable; where it is null the others are.
    names = None if allowed is None else [*allowed, OUTCOME_MEMBER]
    variables: Schema = {"type": "object", "allOf": [ref("Variables")], **_names(names)}
    if variable is None or (allowed is not None and variable not in allowed):
        return variables
    value = {
        "description": f"The variable {variable}.",
        "not": {"type": "object"},
        "allOf": [ref("Value")],
    }
    return {"anyOf": [variables, value]}


def _celery_result(topic: Topic) -> Schema:
    """Where the task succeeded its return value is read as another worker's body would be."""
    # What Kombu writes for a Decimal, a date, a UUID or bytes.
    kombu: Schema = {"type": "object", "required": ["__type__", "__value__"], "maxProperties": 2}
    return {
        "allOf": [ref("CeleryResult")],
        "if": {"properties": {"status": {"const": "SUCCESS"}}},
        "then": {"properties": {"result": {"anyOf": [{"type": "null"}, _answer(topic), kombu]}}},
    }


def _names(names: Iterable[str] | None) -> Schema:
    """Members of these names only; None: any."""
    if names is None:
        return {}
    listed = list(names)
    return {"propertyNames": {"enum": listed}} if listed else {"maxProperties": 0}
