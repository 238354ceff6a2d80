"""A worker's values as variables for the engine.  Refuses what would arrive changed or not at all.

The engine converts, cuts and ignores in silence (an invalid Json text, an unknown `valueInfo`), or
fails late with a database error; so every value is judged here, before the engine is called.
"""

import unicodedata
from collections.abc import Collection, Mapping
from typing import Any

from bridge.errors import ValueRefused
from bridge.variables.types import INFO_KEYS, READERS, Given, check_text, utf16_units

MAX_VARIABLES = 1000
MAX_NAME = 255


def typed(values: Mapping[str, Any], *, string_max: int = 4000) -> dict[str, dict[str, Any]]:
    """The variables of a request to the engine, each with an explicit type.

    A value is plain JSON, or an object of exactly `value` and `type` (a type of the engine, its
    first letter in either case), optionally `valueInfo`.  What arrives is the same value: numbers
    are sent as numbers, Base64 without line breaks, dates as the engine writes them (the sign of a
    zero Double is up to the database).  `valueInfo` may hold `transient` on every type and what
    File and Object need; another key is refused, as the engine would ignore it.  Raises
    ValueRefused, and nothing else, for any JSON; also for a name of more than 255 characters or
    with control characters, and from the 1001st variable on.  `string_max` and the length of a
    name count UTF-16 units, as the engine does (a character beyond U+FFFF is two).
    """
    variables: dict[str, dict[str, Any]] = {}
    for name, value in values.items():
        if len(variables) == MAX_VARIABLES:
            raise ValueRefused(
                name[:MAX_NAME], f"one result may set {MAX_VARIABLES} variables; send one Json"
            )
        _check_name(name)
        given = _given(name, value, string_max)
        variables[name] = {"value": READERS[given.type](given), "type": given.type}
        if given.info:
            variables[name]["valueInfo"] = given.info
    return variables


def names_allowed(names: Collection[str], allowed: Collection[str] | None) -> None:
    """Raises ValueRefused for the first name that the topic does not allow; None allows all."""
    for name in names:
        if allowed is not None and name not in allowed:
            raise ValueRefused(name[:MAX_NAME], "is not in allowed_variables of the topic")


def _check_name(name: str) -> None:
    if not name:
        raise ValueRefused(name, "a variable needs a name")
    if utf16_units(name) > MAX_NAME:
        raise ValueRefused(name[:MAX_NAME], f"the name is longer than {MAX_NAME} characters")
    if any(unicodedata.category(character) in {"Cc", "Cs"} for character in name):
        raise ValueRefused(name, "the name holds a control character or a lone surrogate")


def _given(name: str, value: Any, string_max: int) -> Given:
    if not _is_typed(value):
        return Given(name, _type_of(name, value), value, {}, string_max)
    type_name = _spelling(value["type"])
    info = value.get("valueInfo")
    if info is not None and not isinstance(info, dict):
        raise ValueRefused(name, "valueInfo must be an object")
    known = {key: item for key, item in (info or {}).items() if item is not None}
    # The engine's manual says mimetype, the engine (7.24) knows only mimeType and drops the other.
    if type_name == "File" and "mimetype" in known and "mimeType" not in known:
        known["mimeType"] = known.pop("mimetype")
    given = Given(name, type_name, value["value"], known, string_max)
    _check_info(given)
    return given


def _is_typed(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and {"value", "type"} <= value.keys() <= {"value", "type", "valueInfo"}
        and isinstance(value["type"], str)
        and _spelling(value["type"]) in READERS
    )


def _spelling(type_name: str) -> str:
    return type_name[:1].upper() + type_name[1:]


def _type_of(name: str, value: Any) -> str:
    match value:
        case None:
            return "Null"
        case bool():
            return "Boolean"
        case int():
            return "Integer" if -(2**31) <= value < 2**31 else "Long"
        case float():
            return "Double"
        case str():
            return "String"
        case dict() | list():
            return "Json"
    raise ValueRefused(name, f"{type(value).__name__} is no JSON value")


def _check_info(given: Given) -> None:
    needed = INFO_KEYS.get(given.type, {})
    for key, item in given.info.items():
        if key == "transient":
            if not isinstance(item, bool):
                raise given.refused("takes true or false as valueInfo.transient")
        elif key not in needed:
            raise given.refused(
                f"knows in valueInfo only {', '.join(['transient', *needed])}; leave others out"
            )
        elif not isinstance(item, str) or not item:
            raise given.refused(f"takes a text that is not empty as valueInfo.{key}")
        else:
            check_text(given, item, f"in valueInfo.{key} ")
    if "#" in given.info.get("mimeType", ""):
        raise given.refused("takes no # in valueInfo.mimeType: the engine would cut it there")
    missing = [key for key, must in needed.items() if must and key not in given.info]
    if missing:
        raise given.refused(f"needs valueInfo.{missing[0]}")
