"""The engine's variable types: for each the check and the spelling of its value.  No names, no I/O.

Every reader gives back what the request to the engine carries, or refuses; none cuts or rounds.
"""

import math
import re
from base64 import b64decode, b64encode
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any
from xml.parsers import expat

from bridge.errors import ValueRefused
from bridge.variables.from_engine import (
    LONE_SURROGATE,
    compact,
    encodable,
    exact_double,
    parse_document,
)

_LIMITS = {"Short": 2**15, "Integer": 2**31, "Long": 2**63}
_WHOLE = re.compile(r"0|-?[1-9][0-9]*")
_NUMBER = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?")
_DATE = re.compile(
    r"([0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2})(?:\.([0-9]+))?"
    r"(Z|[+-][0-9]{2}:?[0-9]{2})"
)


@dataclass(frozen=True)
class Given:
    """A value with its type in the engine's spelling; `info` is its valueInfo without nulls."""

    name: str
    type: str
    value: Any
    info: dict[str, Any]
    string_max: int

    def refused(self, why: str) -> ValueRefused:
        return ValueRefused(self.name, f"{self.type} {why}")


def check_text(given: Given, text: str, where: str = "") -> None:
    """Raises ValueRefused where a text column of the engine's database cannot hold the text."""
    if not encodable(text):
        raise given.refused(f"{where}{LONE_SURROGATE}")
    if "\x00" in text:
        raise given.refused(f"{where}holds a NUL character; send Bytes")
    if utf16_units(text) > given.string_max:
        raise given.refused(
            f"{where}has more than {given.string_max} characters; Json, Bytes and File hold more"
        )


def utf16_units(text: str) -> int:
    """The length as Java counts it: a character beyond the Basic Multilingual Plane counts two."""
    return len(text.encode("utf-16-le", "surrogatepass")) // 2


def _null(given: Given) -> None:
    if given.value is not None:
        raise given.refused("must have the value null")


def _boolean(given: Given) -> bool:
    if isinstance(given.value, bool):
        return given.value
    if given.value in ("true", "false"):
        return bool(given.value == "true")
    raise given.refused("takes true or false")


def _whole(given: Given) -> int:
    value, limit = given.value, _LIMITS[given.type]
    # Longer than any Long, and int() refuses texts of more than 4300 digits.
    if isinstance(value, str) and _WHOLE.fullmatch(value):
        value = int(value) if len(value) <= 20 else 2**64
    # From 2^53 on a double may stand for its neighbour: what the worker wrote is not known.
    elif isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int):
        raise given.refused("takes a whole number; send a fraction as Double")
    if not -limit <= value < limit:
        cure = "String or within a Json" if given.type == "Long" else "Long"
        raise given.refused(f"holds {-limit} to {limit - 1}; send a larger number as {cure}")
    return value


def _double(given: Given) -> float:
    value = given.value
    try:
        if isinstance(value, str) and _WHOLE.fullmatch(value):
            value = int(value)
        if isinstance(value, str) and _NUMBER.fullmatch(value):
            return exact_double(value)
        if isinstance(value, float) and math.isfinite(value):
            return value
        if isinstance(value, int) and not isinstance(value, bool) and int(float(value)) == value:
            return float(value)
    except (ValueError, OverflowError):
        pass  # too many digits, or beyond 1.8e308: refused like the rest
    raise given.refused("takes a finite number of at most 17 digits; send others as String or Json")


def _string(given: Given) -> str:
    if not isinstance(given.value, str):
        raise given.refused("takes a text")
    check_text(given, given.value)
    return given.value


def _date(given: Given) -> str:
    match = _DATE.fullmatch(given.value) if isinstance(given.value, str) else None
    if match is None:
        raise given.refused("takes 2026-01-31T23:59:59.123+0000 or ISO 8601 with an offset")
    moment, fraction, offset = match.groups(default="")
    if fraction[3:].strip("0"):
        raise given.refused("holds milliseconds; round the finer part yourself")
    offset = "+0000" if offset == "Z" else offset.replace(":", "")
    if not _exists(moment, offset):
        raise given.refused("is not a day, time and offset that exist")
    return f"{moment}.{fraction[:3]:0<3}{offset}"


def _exists(moment: str, offset: str) -> bool:
    try:
        time = datetime.strptime(f"{moment}{offset}", "%Y-%m-%dT%H:%M:%S%z")
        time.astimezone(UTC)  # the engine turns a time before the year 1 into one after it
    except (ValueError, OverflowError):
        return False
    # Java's calendar goes from 4 October 1582 to the 15th and moves the days between.
    return not date(1582, 10, 5) <= time.date() < date(1582, 10, 15)


def _bytes(given: Given) -> str:
    try:
        # Many encoders break lines after 76 characters.
        return b64encode(b64decode("".join(given.value.split()), validate=True)).decode("ascii")
    except (AttributeError, ValueError):
        raise given.refused("takes Base64 text with padding, in the standard alphabet") from None


def _json(given: Given) -> str:
    try:
        if not isinstance(given.value, str):
            return compact(given.value)
        parse_document(given.value, exact=False)
    except ValueError as error:
        raise given.refused(str(error)) from None
    return given.value


def _xml(given: Given) -> str:
    parser = expat.ParserCreate("utf-8", namespace_separator=" ")
    parser.StartDoctypeDeclHandler = lambda *_: _no_doctype(given)
    try:
        parser.Parse(given.value.encode("utf-8"), True)
    except (AttributeError, ValueError, expat.ExpatError):
        raise given.refused("takes the text of a well-formed XML document") from None
    return str(given.value)


def _no_doctype(given: Given) -> None:
    raise given.refused("may have no DOCTYPE: its entities can grow without limit")


def _object(given: Given) -> str | None:
    data_format = given.info["serializationDataFormat"]
    if data_format == "application/x-java-serialized-object":
        raise given.refused("in Java's serialization format is refused by the engine; send JSON")
    if given.value is None:
        return None
    if not isinstance(given.value, str):
        raise given.refused("takes its serialized text; send an object without a class as Json")
    if not encodable(given.value):
        raise given.refused(LONE_SURROGATE)
    return _json(given) if data_format == "application/json" else given.value


def _or_null(reader: Callable[[Given], Any]) -> Callable[[Given], Any]:
    return lambda given: None if given.value is None else reader(given)


INFO_KEYS = {  # True: must be there
    "File": {"filename": True, "mimeType": False, "encoding": False},
    "Object": {"objectTypeName": True, "serializationDataFormat": True},
}
READERS: dict[str, Callable[[Given], Any]] = {
    "Null": _null,
    "File": _bytes,
    "Boolean": _or_null(_boolean),
    "Short": _or_null(_whole),
    "Integer": _or_null(_whole),
    "Long": _or_null(_whole),
    "Double": _or_null(_double),
    "String": _or_null(_string),
    "Date": _or_null(_date),
    "Bytes": _or_null(_bytes),
    "Json": _or_null(_json),
    "Xml": _or_null(_xml),
    "Object": _object,
}
