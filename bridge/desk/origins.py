"""Where each value of the settings comes from.  Reads what `bridge.settings` reads, and shows no
secret.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from pydantic import BaseModel, SecretStr

from bridge.settings import Settings, duration_text, load
from bridge.settings.problems import dotted
from bridge.settings.source import TABLES, Source, read_source

MASK = "***"
# Keys that hold the content of a file named by another key.
_FILES = {
    "password": "password_file",
    "token": "token_file",
    "oauth2_client_secret": "oauth2_client_secret_file",
}

Key = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Origin:
    """`kind` is default, file, environment or secretFile; `name` the file or variable; `table` the
    table of the settings file, empty at its top.
    """

    kind: str
    name: str = ""
    table: str = ""

    def __str__(self) -> str:
        match self.kind:
            case "file":
                return f"{self.name} [{self.table}]" if self.table else self.name
            case "secretFile":
                return f"file {self.name}"
        return self.name or self.kind


@dataclass(frozen=True, slots=True)
class Value:
    """One key: its path as problems name it, its plain value (None: not set; durations as texts),
    and its origin.
    """

    key: str
    value: Any
    origin: Origin

    @property
    def toml(self) -> str:
        """The value as it is written in the settings file."""
        return "not set" if self.value is None else _toml(self.value)


def values(config: Path | None, environ: Mapping[str, str]) -> list[Value]:
    """Every key in the order of the settings file, topics with `topic_defaults` applied.

    Raises SettingsError where they are bad.
    """
    settings = load(config, environ)
    return list(_Origins(settings, read_source(config, environ), str(config or "")).all())


def as_document(found: list[Value], config: Path | None) -> dict[str, Any]:
    """The values for programs."""
    return {
        "schemaVersion": 1,
        "file": None if config is None else str(config),
        "settings": [
            {
                "key": one.key,
                "value": one.value,
                "from": {
                    name: text
                    for name, text in (
                        ("kind", one.origin.kind),
                        ("name", one.origin.name),
                        ("table", one.origin.table),
                    )
                    if text
                },
            }
            for one in found
        ],
    }


class _Origins:
    """One set of settings beside the tree that it was made of."""

    def __init__(self, settings: Settings, source: Source, file: str) -> None:
        self._settings = settings
        self._source = source
        self._file = file

    def all(self) -> Iterator[Value]:
        top = {k: v for k, v in self._settings if k not in {*TABLES, "topics"}}
        yield from self._table((), top)
        for name in TABLES:
            if name != "topic_defaults":
                yield from self._table((name,), dict(getattr(self._settings, name)))
        for name, topic in self._settings.topics.items():
            path = ("topics", name)
            yield Value(dotted(path), {}, self._given(path) or Origin("default"))
            own = {k: v for k, v in topic if k in TABLES["topic_defaults"].model_fields}
            yield from self._table(path, own)

    def _table(self, path: Key, keys: Mapping[str, Any]) -> Iterator[Value]:
        for key, value in keys.items():
            origin = self._origin(path, key)
            shown = _plain(value)
            secret = keys.get(_FILES.get(key, ""))
            if origin.kind == "default" and secret is not None:
                origin, shown = Origin("secretFile", str(secret)), MASK
            if key == "url" and keys.get("urls"):
                shown = None  # it is not used
            yield Value(dotted((*path, key)), shown, origin)

    def _origin(self, path: Key, key: str) -> Origin:
        inherited = (("topic_defaults", key),) if path[:1] == ("topics",) else ()
        for place in ((*path, key), *inherited):
            if (found := self._given(place)) is not None:
                return found
        return Origin("default")

    def _given(self, path: Key) -> Origin | None:
        """Who wrote this key; None where nobody did."""
        if path in self._source.origin:
            return Origin("environment", self._source.origin[path])
        tree: Any = self._source.tree
        for part in path:
            if not isinstance(tree, Mapping) or part not in tree:
                return None
            tree = tree[part]
        table = path if isinstance(tree, Mapping) and path[0] == "topics" else path[:-1]
        return Origin("file", self._file, dotted(table[:2]))


def _plain(value: Any) -> Any:
    """What JSON can hold, without secrets."""
    match value:
        case SecretStr():
            return _masked(value.get_secret_value())
        case timedelta():
            return duration_text(value)
        case Path():
            return str(value)
        case BaseModel():
            return {key: _plain(item) for key, item in value}
        case Mapping():
            return {key: _plain(item) for key, item in value.items()}
        case tuple():
            return [_plain(item) for item in value]
    return value


def _masked(secret: str) -> str:
    """Of an address its password alone is secret."""
    if not secret.startswith(("amqp://", "amqps://")):
        return MASK
    parts = urlsplit(secret)
    user, _, address = parts.netloc.rpartition("@")
    name, colon, _ = user.partition(":")
    shown = f"{name}:{MASK}@{address}" if colon else parts.netloc
    return parts._replace(netloc=shown).geturl()


def _toml(value: Any) -> str:
    match value:
        case dict():
            inside = ", ".join(f"{dotted((key,))} = {_toml(item)}" for key, item in value.items())
            return f"{{ {inside} }}" if inside else "{}"
        case list():
            return f"[{', '.join(map(_toml, value))}]"
    return json.dumps(value, ensure_ascii=False)
