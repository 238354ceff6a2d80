"""What differs between two settings, and what of it a running bridge can take over.  Pure: reads
nothing and changes nothing.

Topics are taken over.  Everything else is wired in at start; and a topic's publish window is what
all replicas prove a publication by, so it changes only where none of them runs.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta

from pydantic import BaseModel, SecretStr

from bridge.errors import SettingsError
from bridge.settings import Settings, TopicSettings, duration_text
from bridge.settings.checks import Key, Problem, find_problems
from bridge.settings.model import ServiceKeys, TopicKeys
from bridge.settings.problems import dotted

HIDDEN = "[hidden]"
WINDOW = "publish_window"
_TABLES = ("engine", "broker", "status")


@dataclass(frozen=True)
class Change:
    """One key with its values as texts, secrets hidden."""

    path: Key
    old: str
    new: str

    @property
    def key(self) -> str:
        """The path as it is written in the file."""
        return dotted(self.path)


@dataclass(frozen=True)
class Difference:
    """`settings` hold from now on: the wanted topics, everything else as it was.  `changed` are
    keys of topics; `restart` and `windows` are not taken over.
    """

    settings: Settings
    added: tuple[str, ...]
    removed: tuple[str, ...]
    changed: tuple[Change, ...]
    restart: tuple[Change, ...]
    windows: tuple[Change, ...]


def compare(
    current: Settings,
    wanted: Settings,
    *,
    windows: Mapping[str, timedelta],
    consumed: Mapping[str, str],
) -> Difference:
    """From the settings in use to others that are right by themselves.

    `windows`: the publish window of every topic that was ever served by this process.  `consumed`:
    the result queues that are consumed now, with the topics they belong to.  Raises SettingsError
    where the wanted topics do not go with what stays as it is.
    """
    kept = {
        name: keys.model_copy(update={WINDOW: windows.get(name, keys.publish_window)})
        for name, keys in wanted.topics.items()
    }
    stays = {name: getattr(current, name) for name in (*ServiceKeys.model_fields, *_TABLES)}
    difference = Difference(
        settings=wanted.model_copy(update={**stays, "topics": kept}),
        added=tuple(name for name in wanted.topics if name not in current.topics),
        removed=tuple(name for name in current.topics if name not in wanted.topics),
        changed=tuple(
            change
            for name, keys in kept.items()
            if name in current.topics
            for change in _of_topic(current.topics[name], keys)
        ),
        restart=tuple(_of_service(current, wanted)),
        windows=tuple(
            Change(("topics", name, WINDOW), _text(keys.publish_window), _text(window))
            for name, keys in kept.items()
            if keys.publish_window != (window := wanted.topics[name].publish_window)
        ),
    )
    _refuse_problems(difference, consumed)
    return difference


def _of_topic(old: TopicSettings, new: TopicSettings) -> Iterator[Change]:
    for key in TopicKeys.model_fields:
        before, after = getattr(old, key), getattr(new, key)
        if key == "routing_key" and not (old.exchange or new.exchange):
            continue  # the queue's name, which stands in its own line
        if before != after:
            yield Change(("topics", new.name, key), _text(before), _text(after))


def _of_service(current: Settings, wanted: Settings) -> Iterator[Change]:
    for path, old, new in (
        *_pairs((), current, wanted, tuple(ServiceKeys.model_fields)),
        *(
            pair
            for table in _TABLES
            for pair in _pairs((table,), getattr(current, table), getattr(wanted, table))
        ),
    ):
        if old != new:
            yield Change(path, _text(old), _text(new))


def _pairs(
    path: Key, old: BaseModel, new: BaseModel, keys: tuple[str, ...] = ()
) -> Iterator[tuple[Key, object, object]]:
    for key in keys or type(new).model_fields:
        if getattr(new, f"{key}_file", None) is None:  # else it comes from there, at any time
            yield (*path, key), getattr(old, key), getattr(new, key)


def _refuse_problems(difference: Difference, consumed: Mapping[str, str]) -> None:
    """What is wanted was found right by itself; together with what stays it may not be."""
    staying = {change.path: change for change in (*difference.restart, *difference.windows)}
    texts = []
    for problem in (*find_problems(difference.settings), *_taken(difference.settings, consumed)):
        if problem.keys[0][0] != "topics":
            continue  # what was read from a file stands beside its name by now
        stays = [
            f"{change.key} stays {change.old} until a restart"
            for key in problem.keys
            if (change := staying.get(key)) is not None
        ]
        texts.append("; ".join((f"{dotted(problem.keys[0])}: {problem.text}", *stays)))
    if texts:
        raise SettingsError(tuple(texts))


def _taken(settings: Settings, consumed: Mapping[str, str]) -> Iterator[Problem]:
    for topic in settings.topics.values():
        for queue in (topic.queue, topic.result_queue):
            owner = consumed.get(queue, topic.name)
            if owner != topic.name:
                yield Problem(
                    (("topics", topic.name, "queue"),),
                    f"queue {queue!r} is still consumed for results of topic {owner!r}; choose "
                    "another queue, reload again once that topic is left, or restart",
                )


def _text(value: object) -> str:
    match value:
        case None:
            return "not set"
        case SecretStr():
            return HIDDEN
        case timedelta():
            return duration_text(value)
        case Mapping():
            return "{" + ", ".join(f"{key} = {_text(v)}" for key, v in value.items()) + "}"
        case tuple():
            return "[" + ", ".join(map(_text, value)) + "]"
        case bool() | int() | float() | str():
            return json.dumps(value, ensure_ascii=False)
        case _:
            return str(value)
