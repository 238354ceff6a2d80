"""JSON Schema of what every topic shares: the models of messages, and the values of variables.

Generated from the models and from the tables that refuse values.  A schema never refuses what the
bridge takes, but for odd spellings that it does not promise (the texts " 3", "3.0" and the value
true for a whole number); what a schema cannot say (an integer beyond 64 bits, the text of a date)
stands in words.
References read `#/$defs/<name>`.
"""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from bridge.messages import CeleryResult, GoneNotice, TaskBody, TaskHeaders
from bridge.results import VERBS
from bridge.task_message import SCHEMA_VERSION
from bridge.variables.to_engine import MAX_NAME, MAX_VARIABLES
from bridge.variables.types import INFO_KEYS, READERS

Schema = dict[str, Any]

STRING_MAX = 4000
VARIABLES = ("variables", "localVariables")
_SENT: tuple[type[BaseModel], ...] = (TaskBody, TaskHeaders, GoneNotice)
_READ: tuple[type[BaseModel], ...] = (*VERBS.values(), CeleryResult)

_WHOLE: Schema = {"type": ["integer", "string", "null"]}
_TEXT: Schema = {"type": ["string", "null"]}
_VALUES: dict[str, Schema] = {
    "Null": {"type": "null"},
    "File": {"type": "string", "contentEncoding": "base64"},
    "Boolean": {"enum": [True, False, "true", "false", None]},
    "Short": _WHOLE,
    "Integer": _WHOLE,
    "Long": _WHOLE,
    "Double": {"type": ["number", "string", "null"]},
    "String": {**_TEXT, "maxLength": STRING_MAX},
    "Date": _TEXT,
    "Bytes": {**_TEXT, "contentEncoding": "base64"},
    "Json": {},
    "Xml": _TEXT,
    "Object": _TEXT,
}


def ref(name: str) -> Schema:
    """A reference to a definition."""
    return {"$ref": f"#/$defs/{name}"}


def shared() -> dict[str, Schema]:
    """The definitions that every topic's schemas refer to, by name."""
    sent = models_json_schema([(model, "serialization") for model in _SENT])[1]
    read = models_json_schema([(model, "validation") for model in _READ])[1]
    made: dict[str, Schema] = {**sent["$defs"], **read["$defs"]}
    for definition in made.values():
        _polish(definition)
    made["TaskBody"]["properties"]["schemaVersion"] = {"const": SCHEMA_VERSION}
    made["TaskHeaders"]["properties"]["schemaVersion"] = {"const": SCHEMA_VERSION}
    for model in VERBS.values():
        fields = made[model.__name__].get("properties", {})
        fields.update({name: ref("Variables") for name in VARIABLES if name in fields})
        fields.update({name: _or_its_text(field) for name, field in fields.items()})
    return {**made, "Variables": _variables(), "Value": _value(), "TypedValue": _typed_value()}


def _polish(definition: Schema) -> None:
    """Without the titles that only repeat names, and without defaults that say nothing."""
    definition["description"] = " ".join(definition["description"].split())
    for field in definition.get("properties", {}).values():
        field.pop("title", None)
        if field.get("default", ...) is None:
            del field["default"]


def _or_its_text(field: Schema) -> Schema:
    """A whole number may come as a text of digits, which is taken for the number."""
    outer: Schema = {key: field[key] for key in ("default", "description") if key in field}
    inner: Schema = {key: value for key, value in field.items() if key not in outer}
    choices: list[Schema] = inner.get("anyOf", [inner])
    number = next((choice for choice in choices if choice.get("type") == "integer"), None)
    if number is None:
        return field
    digits = "^0*[1-9][0-9]*$" if "exclusiveMinimum" in number else "^[0-9]+$"
    return {"anyOf": [*choices, {"type": "string", "pattern": digits}], **outer}


def _variables() -> Schema:
    return {
        "description": "Variables by name. null is none.",
        "type": ["object", "null"],
        "propertyNames": {"minLength": 1, "maxLength": MAX_NAME},
        "maxProperties": MAX_VARIABLES,
        "additionalProperties": ref("Value"),
    }


def _value() -> Schema:
    return {
        "description": "Plain JSON, or an object of exactly value and type, optionally valueInfo. "
        "Integers of 64 bits; a number beyond, NaN, half a character or more than 100 levels is "
        "refused.",
        "if": {
            "type": "object",
            "required": ["value", "type"],
            "properties": {"type": {"enum": [s for name in READERS for s in _spellings(name)]}},
            "propertyNames": {"enum": ["value", "type", "valueInfo"]},
        },
        "then": ref("TypedValue"),
        "else": {"maxLength": STRING_MAX},
    }


def _typed_value() -> Schema:
    return {
        "description": "A value with a type of the engine. Whole numbers may be texts; Date reads "
        "2026-01-31T23:59:59.123+0000 or ISO 8601 with an offset; Bytes and File are Base64; Json, "
        "Xml and Object may be their text.",
        "type": "object",
        "oneOf": [_of_type(name) for name in READERS],
    }


def _of_type(name: str) -> Schema:
    needed = any(INFO_KEYS.get(name, {}).values())
    return {
        "title": name,
        "required": ["value", "type", *(["valueInfo"] if needed else [])],
        "properties": {
            "value": _VALUES[name],
            "type": {"enum": _spellings(name)},
            "valueInfo": _info(name),
        },
    }


def _info(name: str) -> Schema:
    """Another key may only be null, which says nothing and is dropped."""
    keys = INFO_KEYS.get(name, {})
    text = {"minLength": 1, "maxLength": STRING_MAX}
    known: Schema = {
        key: {"type": "string" if must else ["string", "null"], **text}
        for key, must in keys.items()
    }
    if name == "File":
        known["mimetype"] = known["mimeType"]
    required = [key for key, must in keys.items() if must]
    return {
        "type": "object" if required else ["object", "null"],
        "required": required,
        "properties": {"transient": {"type": ["boolean", "null"]}, **known},
        "additionalProperties": {"type": "null"},
    }


def _spellings(name: str) -> list[str]:
    return [name, name[:1].lower() + name[1:]]
