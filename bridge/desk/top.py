"""A running replica's snapshot, and what is wrong by it, in the words of the page.  Asks its status
server and nobody else.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from typing import Any
from urllib.parse import SplitResult, urlsplit

from bridge.desk.asking import status_address
from bridge.errors import BridgeError
from bridge.settings import Settings

ASK_SECONDS = 5.0
SCHEMA_VERSION = 1
# A lock is renewed long before; and an answer that takes so long is worth a look.
_LATE_LOCK_SECONDS, _LONG_SECONDS = 3.0, 3600.0
# Counts are a few seconds old, and what was just published is not in them.
_LOST_SECONDS = 30.0
_DONE = ("completed", "bpmn_error")
# A parked result fails nothing by itself: what lies parked is told apart.
_FAILED = ("failed", "deadline_missed", "incident")
_PARTS = {
    "engine": "the engine cannot be used",
    "publisher": "RabbitMQ takes no messages",
    "consumer": "RabbitMQ gives no results",
}

Document = Mapping[str, Any]


class BridgeSilent(BridgeError):
    """No bridge answers; the text says where it was looked for and how to say otherwise."""


class NoAddress(BridgeSilent):
    """There is nobody to ask: `--url` or the settings name no address."""


@dataclass(frozen=True)
class TopicNow:
    """One topic's numbers; None: not known.  `done_per_second` takes two looks, `failed` counts
    failures, incidents and missed deadlines since the start.
    """

    name: str
    waiting: int | None
    ready: int | None
    unacked: int | None
    consumers: int | None
    in_flight: int
    capacity: int
    oldest: float | None
    done_per_second: float | None
    failed: int
    state: str


@dataclass(frozen=True)
class Trouble:
    """What is wrong now; `command` None where none of ours helps.  Not `bad`: worth a look."""

    text: str
    command: str | None = None
    bad: bool = True


@dataclass(frozen=True)
class Now:
    """The snapshot as the operator reads it.  `parts`: each part with its problem, or None."""

    worker_id: str
    version: str
    uptime: float
    parts: Mapping[str, str | None]
    topics: tuple[TopicNow, ...]
    troubles: tuple[Trouble, ...]


def url_of(settings: Settings) -> str:
    """Where these settings let the bridge answer.  Raises NoAddress where that is nowhere."""
    address = status_address(settings)
    if address is None:
        listen = settings.status.listen
        raise NoAddress(f"status.listen is {listen!r}, which names no port to ask; say --url")
    return f"http://{address}"


def without_credentials(url: str) -> str:
    """A base address, or what somebody took for one, as it may be shown."""
    scheme, colon, rest = url.rpartition("://")
    return scheme + colon + rest.rpartition("@")[2]


def ask(url: str) -> Document:
    """The snapshot of the bridge at a base address.  Raises BridgeSilent, NoAddress."""
    where = without_credentials(url)
    parts = _split(url)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise NoAddress(f"--url {where!r} is no address; it looks like http://host:9464")
    kind = HTTPSConnection if parts.scheme == "https" else HTTPConnection
    try:
        connection = kind(parts.hostname, parts.port, timeout=ASK_SECONDS)
        try:
            connection.request("GET", f"{parts.path.rstrip('/')}/status.json")
            answer = connection.getresponse()
            document = json.loads(answer.read()) if answer.status == 200 else None
        finally:
            connection.close()
    except (OSError, HTTPException, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise BridgeSilent(
            f"no bridge answers at {where}: {reason}; start it, or say with --url "
            "where its status server is"
        ) from error
    if not isinstance(document, dict) or document.get("schemaVersion") != SCHEMA_VERSION:
        raise BridgeSilent(
            f"what answers at {where} is no bridge of this version; "
            "say with --url where its status server is"
        )
    return document


def counts_known(document: Document) -> bool:
    """Whether the snapshot has been counted: the bridge begins to when it is asked."""
    return document["parked"] is not None


def read(document: Document, before: Document | None = None) -> Now:
    """The numbers, the rates being those since the look `before`."""
    earlier = _comparable(document, before)
    topics = {topic["name"]: topic for topic in earlier["topics"]} if earlier else {}
    seconds = document["uptimeSeconds"] - earlier["uptimeSeconds"] if earlier else 0.0
    return Now(
        worker_id=document["workerId"],
        version=document["version"],
        uptime=document["uptimeSeconds"],
        parts={part: document[part]["problem"] for part in _PARTS},
        topics=tuple(_topic(t, topics.get(t["name"]), seconds) for t in document["topics"]),
        troubles=tuple(sorted(_troubles(document), key=lambda trouble: not trouble.bad)),
    )


def _split(url: str) -> SplitResult:
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:  # half an IPv6 address, or a port that is no number
        return urlsplit("")
    return parts


def _comparable(document: Document, before: Document | None) -> Document | None:
    """A restarted bridge counts from zero again."""
    if before is None or before["uptimeSeconds"] >= document["uptimeSeconds"]:
        return None
    return before


def _topic(topic: Document, before: Document | None, seconds: float) -> TopicNow:
    rate = None
    if before is not None and seconds > 0:
        rate = max(0, _count(topic, _DONE) - _count(before, _DONE)) / seconds
    return TopicNow(
        name=topic["name"],
        waiting=topic["waiting"],
        ready=topic["ready"],
        unacked=topic["unacked"],
        consumers=topic["consumers"],
        in_flight=topic["inFlight"],
        capacity=topic["capacity"],
        oldest=topic["oldestSeconds"],
        done_per_second=rate,
        failed=_count(topic, _FAILED),
        state="flows" if topic["circuit"] == "closed" else f"paused ({topic['circuit']})",
    )


def _count(topic: Document, events: tuple[str, ...]) -> int:
    return sum(topic["events"].get(event, 0) for event in events)


# -- what is wrong -------------------------------------------------------------------------------


def _troubles(document: Document) -> Iterator[Trouble]:
    told = {topic["problem"] for topic in document["topics"]}
    problems = {part: text for part, text in document["problems"].items() if text not in told}
    problems |= {p: document[p]["problem"] for p in _PARTS if document[p]["problem"]}
    for part, text in problems.items():
        yield Trouble(f"{_PARTS.get(part, part)}: {text}", "external-task-bridge check")
    for topic in document["topics"]:
        yield from _of_topic(topic)
    if parked := document["parked"]:
        lie = "message lies" if parked == 1 else "messages lie"
        text = f"{parked} {lie} parked: nobody could apply {'it' if parked == 1 else 'them'}"
        yield Trouble(text, "external-task-bridge parked list")
    if waiting := document["waitingResults"]:
        wait = "result waits" if waiting == 1 else "results wait"
        text = f"{waiting} {wait} to be tried again: the engine does not take them now"
        yield Trouble(f"{text}; resume a suspended instance, grant a missing right", bad=False)


def _of_topic(topic: Document) -> Iterator[Trouble]:
    name, queue, waiting = topic["name"], topic["queue"], topic["waiting"]
    nobody = topic["consumers"] == 0
    why = f": {topic['problem']}" if topic["problem"] else ""
    if topic["circuit"] != "closed":
        text = f"topic {name} is paused{why}; it tries again by itself"
        yield Trouble(text, "external-task-bridge check")
    elif why:
        yield Trouble(f"topic {name}{why}", "external-task-bridge check")
    if nobody and topic["ready"]:
        text = f"queue {queue} has {topic['ready']} ready and no consumer: start a worker"
        yield Trouble(text, "external-task-bridge topics")
    elif nobody and waiting:
        text = f"topic {name}: {waiting} waiting in the engine, and queue {queue} has no consumer"
        yield Trouble(f"{text}: start a worker", "external-task-bridge topics")
    elif waiting and topic["inFlight"] >= topic["capacity"]:
        text = f"topic {name} is full: {topic['inFlight']} in flight, {waiting} more in the engine"
        yield Trouble(f"{text}; add workers", bad=False)
    if stuck := topic.get("stuck"):  # not of an older bridge
        text = f"{stuck} {'task' if stuck == 1 else 'tasks'} of topic {name}"
        have = "has" if stuck == 1 else "have"
        cure = f"external-task-bridge incidents --topic {name}"
        yield Trouble(f"{text} {have} no attempts left", cure)
    if _is_lost(topic):
        text = f"topic {name}: {topic['inFlight']} in flight, but queue {queue} is empty and nobody"
        cure = f"external-task-bridge release --topic {name} --older-than 0s"
        yield Trouble(
            f"{text} consumes: was it purged? An answer may never come; release them", cure
        )
    yield from _late(topic)


def _is_lost(topic: Document) -> bool:
    """Whether nobody can have the messages of what is in flight: its queue was purged, perhaps."""
    nobody = topic["consumers"] == 0 and topic["ready"] == 0 and not topic["unacked"]
    return nobody and topic["inFlight"] > 0 and (topic["oldestSeconds"] or 0.0) > _LOST_SECONDS


def _late(topic: Document) -> Iterator[Trouble]:
    name, left, oldest = topic["name"], topic["lockMarginSeconds"], topic["oldestSeconds"]
    if left is not None and left < _LATE_LOCK_SECONDS:
        how = "one has lapsed" if left < 0 else f"one has {left:.1f} s left"
        text = f"locks of topic {name} are renewed late: {how}"
        yield Trouble(text, "external-task-bridge check")
    if oldest is not None and oldest > _LONG_SECONDS:
        text = f"the oldest task of topic {name} has had no answer for over an hour"
        yield Trouble(text, f"external-task-bridge tasks --topic {name}", bad=False)
