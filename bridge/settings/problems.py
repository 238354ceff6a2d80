"""Sentences about settings: the key as people write it, what was found, what is wanted, the cure.

Names kinds of values, never values: any of them may be a secret in the wrong place.  Of numbers
those below a limit are named, which are none.
"""

import json
import re
from collections.abc import Iterable, Mapping
from datetime import timedelta
from difflib import get_close_matches

from pydantic import BaseModel
from pydantic_core import ErrorDetails

from bridge.settings.source import TABLES, TOP_KEYS
from bridge.settings.values import duration_text

_WANTED = {
    "string_type": "a string",
    "int_type": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
    "tuple_type": "a list",
    "mapping_type": "a table",
    "dict_type": "a table",
    "path_type": "the path of a file",
    "is_instance_of": "the path of a file",
    "string_too_short": "a string that is not empty",
    "too_short": "one that is not empty",
    "finite_number": "a finite number",
}
_LIMITS = (
    ("ge", "at least"),
    ("gt", "more than"),
    ("le", "at most"),
    ("max_length", "a length of at most"),
)


def dotted(path: Iterable[str | int]) -> str:
    """`topics."a b".retry_pauses[1]`: a path as it is written in the file."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            bare = re.fullmatch(r"[A-Za-z0-9_-]+", part) is not None
            text += ("." if text else "") + (part if bare else json.dumps(part, ensure_ascii=False))
    return text


def type_problem(path: tuple[str, ...], found: object, wanted: str) -> str:
    header = f"[{dotted(path)}]"
    return f"{dotted(path)}: {wanted} is wanted, found {_kind(found)}; write it as {header}"


def unknown_key(path: tuple[str | int, ...], known: Iterable[str], label: str = "") -> str:
    """The sentence for a key that nobody knows, with the nearest right one."""
    key = str(path[-1])
    near = get_close_matches(key, list(known), n=1, cutoff=0.6)
    homes = [table for table, model in TABLES.items() if key in model.model_fields]
    if near:
        cure = f'did you mean "{near[0]}"?'
    elif homes:
        cure = f"it is a key of {' and of '.join(homes)}; move it there"
    elif key in TOP_KEYS:
        cure = "it belongs at the top of the file, before the first [table]"
    else:
        cure = "remove it; deploy/bridge.toml shows every key in its place"
    return f"{label or dotted(path)}: unknown key; {cure}"


def explain(
    label: str, path: tuple[str | int, ...], details: ErrorDetails, model: type[BaseModel]
) -> str:
    """One sentence for one error of pydantic."""
    context: Mapping[str, object] = details.get("ctx", {})
    if details["type"] == "extra_forbidden":
        return unknown_key(path, model.model_fields, label)
    if details["type"] == "value_error":
        found = _kind(details["input"])
        return f"{label}: {context['error']}{'' if found == 'a string' else f', found {found}'}"
    if details["type"] == "literal_error":
        wanted = f"one of {context['expected']}".replace("'", '"')
    elif details["type"] in _WANTED:
        wanted = _WANTED[details["type"]]
    else:
        limits = [f"{words} {context[key]}" for key, words in _LIMITS if key in context]
        wanted = " and ".join(limits) or details["msg"]
    example = _example(model, str(details["loc"][0]))
    return f"{label}: {wanted} is wanted, found {_found(details)}{example}"


def _example(model: type[BaseModel], key: str) -> str:
    default = model.model_fields[key].default
    if isinstance(default, timedelta):
        default = duration_text(default)
    if not isinstance(default, str | int | float) or default == "":
        return ""
    return f"; such as {key} = {json.dumps(default)}"


def _found(details: ErrorDetails) -> str:
    value, is_too_small = details["input"], details["type"].startswith("greater_than")
    if is_too_small and isinstance(value, int | float):
        return str(value)
    return _kind(value)


def _kind(value: object) -> str:
    if value in ("", [], ()):
        return "an empty one"
    for kind, words in (
        (bool, "true or false"),
        (int, "a whole number"),
        (float, "a number"),
        (str, "a string"),
        (list | tuple, "a list"),
        (dict, "a table"),
    ):
        if isinstance(value, kind):
            return words
    return "a date or time"
