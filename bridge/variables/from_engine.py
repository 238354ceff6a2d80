"""The engine's variables as plain JSON values for a message.  Reads no file and calls no engine.

Refuses nothing: what cannot be shown as JSON without loss stays the text that the engine sent.
"""

import json
import math
from base64 import b64encode
from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any

MAX_DEPTH = 100
"""Levels of arrays and objects that a document may have, both ways."""
TOO_DEEP = f"has more than {MAX_DEPTH} levels; send it as Bytes"
LONE_SURROGATE = "holds half a character (a lone surrogate), which UTF-8 cannot carry; send Bytes"


def plain(
    variables: Mapping[str, Mapping[str, Any]],
    *,
    file_address: Callable[[str], str],
    file_contents: Mapping[str, bytes] = {},
) -> tuple[dict[str, Any], dict[str, str]]:
    """The values, and beside them the engine's type names; never raises for what an engine sends.

    The values always encode as strict JSON (`allow_nan=False`).  Numbers, texts, dates (in the
    engine's spelling) and Bytes (Base64) are the engine's own.  File becomes an object of
    `filename`, `mimeType`, `encoding` and `url`, with the Base64 `content` where `file_contents`
    has the variable.  Object and Xml are their serialized text.  A Double that is no number is the
    text "NaN", "Infinity" or "-Infinity".  Json is parsed; integers of up to 4300 digits are exact.
    It stays text where parsing would lose something: no JSON at all, a number that a double would
    change (1e400, more than 17 digits), a lone surrogate, more than 100 levels.  Of members with
    the same name the last one counts.  An unknown type passes as it came.
    """
    values: dict[str, Any] = {}
    types: dict[str, str] = {}
    for name, variable in variables.items():
        value, type_name = variable.get("value"), variable.get("type") or "Null"
        if type_name == "File":
            value = _file(variable.get("valueInfo") or {}, file_address(name))
            if name in file_contents:
                value["content"] = b64encode(file_contents[name]).decode("ascii")
        elif type_name == "Json" and isinstance(value, str):
            value = _parsed(value)
        elif isinstance(value, float) and not math.isfinite(value):
            value = "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
        values[name] = value
        types[name] = type_name
    return values, types


def parse_document(text: str, *, exact: bool) -> Any:
    """The value of a JSON text.  Raises ValueError, whose text never quotes the document.

    Refuses what json.loads lets pass: NaN and Infinity, lone surrogates, more than 100 levels;
    with `exact` also a number that a double cannot carry.
    """
    try:
        parse_float = exact_double if exact else None
        value = json.loads(text, parse_float=parse_float, parse_constant=_no_constant)
    except json.JSONDecodeError as error:
        raise ValueError(f"is no valid JSON: {error.msg} at character {error.pos}") from None
    except RecursionError:
        raise ValueError(TOO_DEEP) from None
    if _too_deep(value):
        raise ValueError(TOO_DEEP)
    # An escape such as \ud800 is plain ASCII in the document and shows only in what it stands for.
    if not encodable(json.dumps(value, ensure_ascii=False) if "\\u" in text else text):
        raise ValueError(LONE_SURROGATE)
    return value


def compact(value: Any) -> str:
    """The value as compact JSON text.  Raises ValueError where no strict UTF-8 JSON can hold it."""
    if _too_deep(value):
        raise ValueError(TOO_DEEP)
    try:
        text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    except (TypeError, ValueError):
        raise ValueError(
            "holds NaN, an infinite number or an integer of more than 4300 digits; send it as text"
        ) from None
    if not encodable(text):
        raise ValueError(LONE_SURROGATE)
    return text


def encodable(text: str) -> bool:
    """Whether the text has a UTF-8 form: it holds no lone surrogate."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def exact_double(text: str) -> float:
    """The double whose shortest text is the same number.  Raises ValueError where there is none."""
    number = float(text)
    try:
        same = math.isfinite(number) and Decimal(text) == Decimal(repr(number))
    except ArithmeticError:  # exponents beyond 10^18, which a Decimal cannot hold either
        same = False
    if not same:
        raise ValueError("holds a number with more digits or a larger exponent than a Double has")
    return number


def _file(info: Mapping[str, Any], url: str) -> dict[str, Any]:
    return {
        "filename": info.get("filename"),
        "mimeType": info.get("mimeType"),
        "encoding": info.get("encoding"),
        "url": url,
    }


def _parsed(text: str) -> Any:
    try:
        return parse_document(text, exact=True)
    except ValueError:
        return text


def _no_constant(constant: str) -> None:
    raise ValueError(f"holds {constant}, which JSON does not know; send null")


def _too_deep(value: Any) -> bool:
    level = [value]
    for _ in range(MAX_DEPTH + 1):
        level = [item for item in level if isinstance(item, (dict, list))]
        if not level:
            return False
        level = [
            child
            for parent in level
            for child in (parent.values() if isinstance(parent, dict) else parent)
        ]
    return True
