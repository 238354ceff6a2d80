"""Variables as they cross the REST API: read from requests, written to answers.

Follows the engine's type rules and refusal texts; stores nothing.  What the engine would keep as
a Java object (an untyped JSON object or array) is kept with the type and the valueInfo that the
engine reports, but its bytes are not Java's.
"""

import base64
import binascii
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from bridge.simulated_engine.clock import date_ms, date_text
from bridge.simulated_engine.errors import (
    RestError,
    engine_failure,
    invalid_request,
    null_pointer,
)

MAX_TEXT = 4000  # the engine's column TEXT_
_JAVA_FORMAT = "application/x-java-serialized-object"
_INTEGER_BITS = {"Short": 16, "Integer": 32, "Long": 64}
_JAVA_NAMES = {
    "Boolean": "java.lang.Boolean",
    "Short": "java.lang.Short",
    "Integer": "java.lang.Integer",
    "Long": "java.lang.Long",
    "Double": "java.lang.Double",
    "String": "java.lang.String",
    "Date": "java.util.Date",
    "Bytes": "[B",
}


@dataclass(frozen=True, slots=True)
class Variable:
    """A stored value: `value` as answers carry it; `content` holds the bytes of Bytes and File."""

    type: str
    value: Any = None
    value_info: Mapping[str, Any] = field(default_factory=dict)
    content: bytes | None = None
    transient: bool = False

    def as_json(self) -> dict[str, Any]:
        """The variable as answers carry it; a File comes without its content."""
        return {"type": self.type, "value": self.value, "valueInfo": dict(self.value_info)}


def read_variables(members: Mapping[str, Any] | None) -> dict[str, Variable]:
    """The variables of a request; raises the refusal that the engine would answer."""
    variables = {name: read_variable(entry) for name, entry in (members or {}).items()}
    for name, variable in variables.items():
        _check(name, variable, typed=bool((members or {})[name].get("type")))
    return variables


def read_variable(entry: Any) -> Variable:
    """One `{"value":…,"type":…,"valueInfo":…}`; without type the JSON value decides."""
    if entry is None:
        raise null_pointer()
    if not isinstance(entry, dict) or not isinstance(entry.get("valueInfo") or {}, dict):
        raise invalid_request("")
    value, given, info = entry.get("value"), entry.get("type"), entry.get("valueInfo") or {}
    if not isinstance(info.get("transient", False), bool) and given is not None:
        raise _inconvertible(value, str(given), _JAVA_NAMES.get(str(given), "null"))
    transient = info.get("transient") is True
    if given is None:
        return untyped(value, transient=transient)
    name = str(given)[:1].upper() + str(given)[1:]
    if name in _JAVA_NAMES:
        return _primitive(name, str(given), value, transient=transient)
    if name in {"Object", "Json", "Xml"}:
        return _serialized(name, str(given), value, info, transient=transient)
    if name == "File":
        if entry.get("valueInfo") is None:
            raise _bad_file("Cannot create file without valueInfo.")
        return _file(value, info, transient=transient)
    if name == "Null" and value is not None:
        raise _inconvertible(value, str(given), "javax.lang.model.type.NullType")
    if name == "Null":
        return Variable("Null", transient=transient)
    if name == "Number":
        raise engine_failure("Cannot serialize value of abstract type number")
    raise RestError(400, "RestException", f"Unsupported value type '{given}'")


def untyped(value: Any, *, transient: bool = False) -> Variable:
    """A bare JSON value, typed as Jackson maps it: dict and list become Java objects."""
    if value is None:
        return Variable("Null", transient=transient)
    if isinstance(value, bool):
        return Variable("Boolean", value, transient=transient)
    if isinstance(value, int) and -(2**63) <= value < 2**63:
        name = "Integer" if -(2**31) <= value < 2**31 else "Long"
        return Variable(name, value, transient=transient)
    if isinstance(value, float):
        return Variable("Double", value, transient=transient)
    if isinstance(value, str):
        return Variable("String", value, transient=transient)
    java: dict[type, str] = {dict: "java.util.LinkedHashMap", list: "java.util.ArrayList"}
    info = {
        "objectTypeName": java.get(type(value), "java.math.BigInteger"),
        "serializationDataFormat": _JAVA_FORMAT,
    }
    stream = b"\xac\xed\x00\x05" + json.dumps(value).encode()
    return Variable("Object", base64.b64encode(stream).decode(), info, transient=transient)


def java_text(value: Any) -> str:
    """A JSON value as Java prints it in messages."""
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "null"}[value]
    if isinstance(value, dict):
        return "{" + ", ".join(f"{k}={java_text(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(java_text, value)) + "]"
    return str(value)


def _primitive(name: str, given: str, value: Any, *, transient: bool) -> Variable:
    try:
        converted = None if value is None else _CONVERTERS[name](name, value)
    except (ValueError, binascii.Error) as error:
        raise _inconvertible(value, given, _JAVA_NAMES[name]) from error
    if converted is None and value is not None:
        return Variable(name, None, transient=transient)
    if name == "Bytes" and converted is not None:
        text = base64.b64encode(converted).decode()
        return Variable(name, text, content=converted, transient=transient)
    return Variable(name, converted, transient=transient)


def _inconvertible(value: Any, given: str, java_type: str) -> RestError:
    return invalid_request(
        f"Cannot convert value '{java_text(value)}' of type '{given}' to java type {java_type}"
    )


def _boolean(_name: str, value: Any) -> bool | None:
    if isinstance(value, bool):
        return value
    text = java_text(value).strip()
    known = {"": None, "true": True, "True": True, "TRUE": True}
    known |= {"false": False, "False": False, "FALSE": False}
    if text not in known:
        raise ValueError(text)
    return known[text]


def _integer(name: str, value: Any) -> int | None:
    text = java_text(value).strip()
    if not text:
        return None
    if "_" in text:
        raise ValueError(text)
    number = int(text)
    if not -(2 ** (_INTEGER_BITS[name] - 1)) <= number < 2 ** (_INTEGER_BITS[name] - 1):
        raise ValueError(text)
    return number


def _double(_name: str, value: Any) -> float | str | None:
    text = java_text(value).strip()
    if not text:
        return None
    if "_" in text:
        raise ValueError(text)
    number = float(text)
    return number if math.isfinite(number) else text  # Jackson writes these as strings


def _string(_name: str, value: Any) -> str:
    if isinstance(value, dict | list) and '"' in java_text(value):
        raise ValueError(value)
    return java_text(value)


def _date(_name: str, value: Any) -> str | None:
    text = java_text(value).strip()
    return date_text(date_ms(text)) if text else None


def _bytes(_name: str, value: Any) -> bytes:
    return base64.b64decode(java_text(value), validate=True)


_CONVERTERS: dict[str, Callable[[str, Any], Any]] = {
    "Boolean": _boolean,
    "Short": _integer,
    "Integer": _integer,
    "Long": _integer,
    "Double": _double,
    "String": _string,
    "Date": _date,
    "Bytes": _bytes,
}


def _serialized(
    name: str, given: str, value: Any, info: Mapping[str, Any], *, transient: bool
) -> Variable:
    if value is not None and not isinstance(value, str):
        raise invalid_request(
            f"Must provide 'null' or String value for value of SerializableValue type '{given}'."
        )
    kept = {}
    if name == "Object":
        kept = {key: info.get(key) for key in ("objectTypeName", "serializationDataFormat")}
        if kept["serializationDataFormat"] is None:
            raise engine_failure(
                "Cannot find serializer for value 'ObjectValue [value=null, "
                "isDeserialized=false, serializationDataFormat=null, "
                f"objectTypeName={java_text(kept['objectTypeName'])}, ...]'."
            )
    return Variable(name, value, kept, transient=transient)


def _bad_file(message: str) -> RestError:
    return RestError(500, "IllegalArgumentException", message)


def _file(value: Any, info: Mapping[str, Any], *, transient: bool) -> Variable:
    if info.get("filename") is None:
        raise _bad_file(
            "Cannot create file without filename! Please set a name into ValueInfo "
            "with key filename"
        )
    if not isinstance(value, str):
        raise _bad_file("Provided value is not of File, InputStream or byte[] type.")
    kept = {k: java_text(info[k]) for k in ("filename", "mimeType", "encoding") if k in info}
    padded = value + "=" * (-len(value) % 4)
    return Variable("File", None, kept, base64.b64decode(padded), transient)


def _check(name: str, variable: Variable, *, typed: bool) -> None:
    if variable.type == "String" and len(variable.value or "") > MAX_TEXT:
        raise engine_failure(
            "An exception occurred in the persistence layer. Please check the server logs for "
            "a detailed message and the entire exception stack trace.",
            kind="ProcessEnginePersistenceException",
            code=10002,
        )
    info = variable.value_info
    nameless = "objectTypeName" in info and info["objectTypeName"] is None
    if nameless and variable.value is not None:
        raise engine_failure(
            f"Cannot write serialized value for variable '{name}': no 'objectTypeName' provided "
            "for non-null value."
        )
    if typed and variable.value_info.get("serializationDataFormat") == _JAVA_FORMAT:
        raise engine_failure(
            f"ENGINE-17007 Cannot set variable with name {name}. "
            "Java serialization format is prohibited"
        )
