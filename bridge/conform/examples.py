"""Which variables make a worker do what: the user's examples, read and checked.  Tries nothing."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from bridge.conform.verdict import CannotRun
from bridge.errors import ValueRefused
from bridge.variables import typed

TABLES = ("success", "business_error", "failure", "unicode", "null", "numbers", "large")
_KEYS = ("variables", "expect")
_LARGE = "A" * (4 * 256 * 1024)

# What a case adds to the variables of [success] where it has no table of its own.
ADDED: Mapping[str, Mapping[str, Any]] = {
    "unicode": {"conform": "naïve Größe, Ελληνικά, 漢字, עברית, 👩‍🔬, \u2028 and \\u0041"},
    "null": {"conform": None},
    "numbers": {
        "conformInteger": 2**31 - 1,
        "conformIntegerMin": -(2**31),
        "conformLong": 2**63 - 1,
        "conformLongMin": -(2**63),
        "conformDouble": 1.7976931348623157e308,
        "conformDoubleMin": 5e-324,
    },
    "large": {"conform": {"type": "Bytes", "value": _LARGE}},
}


@dataclass(frozen=True, slots=True)
class Example:
    """Variables for one task message, and some that the answer must then have."""

    variables: Mapping[str, Any] = field(default_factory=dict)
    expect: Mapping[str, Any] = field(default_factory=dict)


def load_examples(path: Path) -> dict[str, Example]:
    """The examples of a TOML or JSON file, by the names of `TABLES`.  Raises CannotRun."""
    try:
        text = path.read_text(encoding="utf-8")
        tree = json.loads(text) if path.suffix == ".json" else tomllib.loads(text)
    except OSError as error:
        raise CannotRun(f"{path} cannot be read ({error.strerror}); name a file") from None
    except ValueError as error:
        kind = "JSON" if path.suffix == ".json" else "TOML"
        raise CannotRun(f"{path} is no {kind}: {error}; correct it") from None
    if not isinstance(tree, dict):
        raise CannotRun(f"{path} holds no object; write one member for each case")
    return {name: _example(name, table) for name, table in tree.items()}


def _example(name: str, table: Any) -> Example:
    _known(name, name, TABLES)
    if not isinstance(table, dict):
        raise CannotRun(f"{name} is no table; write [{name}] with variables in it")
    for key, value in table.items():
        _known(f"{name}.{key}", key, _KEYS)
        if not isinstance(value, dict):
            raise CannotRun(f"{name}.{key} is no table; write {key} = {{ name = value }}")
    example = Example(table.get("variables", {}), table.get("expect", {}))
    try:
        typed(example.variables)
    except ValueRefused as refused:
        raise CannotRun(f"{name}.variables: {refused.detail}; use another value") from None
    return example


def _known(path: str, name: str, names: tuple[str, ...]) -> None:
    if name not in names:
        near = get_close_matches(name, names, 1)
        cure = f"{near[0]!r}?" if near else f"one of {', '.join(names)}"
        raise CannotRun(f"{path} is no key of the examples; did you mean {cure}")
