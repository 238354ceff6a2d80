"""Where settings come from: the TOML file and the environment, merged into one tree.

Knows the names that may be used, not whether a value is right.  Never repeats a value.
"""

import re
import tomllib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from types import UnionType
from typing import Annotated, Union, get_args, get_origin

from pydantic import BaseModel

from bridge.errors import SettingsError
from bridge.settings.model import (
    BrokerSettings,
    EngineSettings,
    ServiceKeys,
    StatusSettings,
    TopicKeys,
)

PREFIX = "BRIDGE_"
TABLES: Mapping[str, type[BaseModel]] = {
    "engine": EngineSettings,
    "broker": BrokerSettings,
    "status": StatusSettings,
    "topic_defaults": TopicKeys,
}
TOP_KEYS = (*ServiceKeys.model_fields, *TABLES, "topics")

# Of these only one may stand; one from the environment replaces another one of the file.
_ALTERNATIVES = (
    ("password", "password_file"),
    ("token", "token_file"),
    ("oauth2_client_secret", "oauth2_client_secret_file"),
    ("url", "urls"),
)
# Kubernetes injects these for Services whose name begins with "bridge"
# (https://kubernetes.io/docs/concepts/services-networking/service/#environment-variables).
_KUBERNETES = re.compile(
    r"BRIDGE_((\w+_)?SERVICE_HOST|(\w+_)?SERVICE_PORT\w*|PORT|PORT_\w+|\w+_PORT_\d+_\w+)"
)
_NOT_OURS = frozenset({"BRIDGE_CACHE"})


@dataclass
class Source:
    """The merged tree, what was wrong with the names, and which paths the environment set."""

    tree: dict[str, object]
    problems: list[str] = field(default_factory=list)
    origin: dict[tuple[str, ...], str] = field(default_factory=dict)


def read_source(config: Path | None, environ: Mapping[str, str]) -> Source:
    """The file's tree with the environment over it.  Raises SettingsError if there is no tree."""
    source = Source(_read_toml(config) if config else {})
    known = dict(_environment_keys())
    for name in sorted(environ):
        if name in known:
            _overlay(source, name, *known[name], environ[name])
        elif name == f"{PREFIX}TOPICS":
            _add_topics(source, environ[name])
        elif name.startswith(PREFIX) and not _is_foreign(name, environ[name]):
            source.problems.append(_unknown(name, (*known, f"{PREFIX}TOPICS")))
    return source


def _read_toml(config: Path) -> dict[str, object]:
    try:
        return tomllib.loads(config.read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingsError(
            (f"{config}: cannot be read ({error.strerror}); name a readable TOML file",)
        ) from error
    except UnicodeDecodeError as error:
        raise SettingsError((f"{config}: is not UTF-8 text; save it as UTF-8",)) from error
    except tomllib.TOMLDecodeError as error:
        raise SettingsError((f"{config}: is not valid TOML: {error}; correct it there",)) from error
    except (ValueError, RecursionError) as error:
        what = "has a number of thousands of digits, or a nesting as deep"
        raise SettingsError((f"{config}: {what}; correct it there",)) from error


def _environment_keys() -> Iterator[tuple[str, tuple[tuple[str, ...], Callable[[str], object]]]]:
    tables: dict[str, type[BaseModel]] = {"": ServiceKeys, **TABLES}
    for table, model in tables.items():
        for key, info in model.model_fields.items():
            path = (table, key) if table else (key,)
            parse = _parser(info.annotation)
            if parse is not None:
                yield PREFIX + "__".join(path).upper(), (path, parse)


def _parser(annotation: object) -> Callable[[str], object] | None:
    """How a variable of the environment becomes a value of this type; None for tables."""
    origin = get_origin(annotation)
    if origin in {Annotated, Union, UnionType}:
        return _parser(get_args(annotation)[0])
    if origin is not None:
        return _list if origin is tuple else None
    if annotation is bool:
        return _bool
    return _number if annotation in {int, float} else str


def _list(text: str) -> list[str]:
    return [item.strip() for item in text.split(",") if item.strip()]


def _bool(text: str) -> object:
    return {"true": True, "false": False}.get(text.strip().lower(), text)


def _number(text: str) -> object:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def _overlay(
    source: Source, name: str, path: tuple[str, ...], parse: Callable[[str], object], text: str
) -> None:
    table: object = source.tree
    for part in path[:-1]:
        table = table.setdefault(part, {}) if isinstance(table, dict) else None
    if not isinstance(table, dict):
        return
    for group in _ALTERNATIVES:
        for other in group if path[-1] in group else ():
            if (*path[:-1], other) not in source.origin:
                table.pop(other, None)
    table[path[-1]] = parse(text)
    source.origin[path] = name


def _add_topics(source: Source, text: str) -> None:
    topics = source.tree.setdefault("topics", {})
    for topic in _list(text):
        if isinstance(topics, dict) and topic not in topics:
            topics[topic] = {}
            source.origin["topics", topic] = f"{PREFIX}TOPICS"


def _is_foreign(name: str, value: str) -> bool:
    if "__" in name:
        return False
    is_port = name.endswith("_PORT") and re.match(r"(tcp|udp|sctp)://", value) is not None
    return name in _NOT_OURS or is_port or _KUBERNETES.fullmatch(name) is not None


def _unknown(name: str, known: tuple[str, ...]) -> str:
    if name.startswith(f"{PREFIX}TOPICS__"):
        return (
            f"{name}: tables of topics cannot come from the environment; write [topics.<name>] "
            f"in the settings file, or name topics with defaults in {PREFIX}TOPICS"
        )
    tables = [f"{PREFIX}ENGINE__HEADERS", f"{PREFIX}TOPIC_DEFAULTS__PROCESS_VARIABLES"]
    if any(name == table or name.startswith(f"{table}__") for table in tables):
        return f"{name}: a table cannot come from the environment; write it in the settings file"
    near = get_close_matches(name.upper(), known, n=1, cutoff=0.7)
    cure = f"did you mean {near[0]}?" if near else "remove it, or see the list of settings"
    return f"{name}: unknown variable of the environment; {cure}"
