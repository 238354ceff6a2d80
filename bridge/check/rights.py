"""Which rights the bridge needs in its virtual host, and which of them its user lacks.  No I/O.

The rules are those of https://www.rabbitmq.com/docs/access-control#authorisation.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from bridge import plan
from bridge.broker import Exchange, Queue
from bridge.check.findings import Finding, ok, problem, warning
from bridge.settings import Settings

# What RabbitMQ asks for where a message goes to the default exchange.
DEFAULT_EXCHANGE = "amq.default"
_NAMED_MAX = 20

Needed = Mapping[str, set[str]]


@dataclass
class ToDo:
    """What `run` would have to make at the broker."""

    parts: list[Exchange | Queue] = field(default_factory=list)
    bindings: list[tuple[str, str, str]] = field(default_factory=list)


def needed(settings: Settings, to_do: ToDo) -> Needed:
    """The names for which each of configure, write and read is needed."""
    names = settings.broker.names
    exchanges = {topic.exchange for topic in settings.topics.values()} - {""}
    # The default exchange always: that is the way to the parking queue.
    write = {DEFAULT_EXCHANGE, names.wait, names.gone_exchange, *exchanges}
    read = set(plan.consumed_queues(settings))
    for part in to_do.parts:
        if isinstance(part, Queue) and "x-dead-letter-exchange" in part.arguments:
            # A queue with a dead-letter exchange: read it, write there.
            read.add(part.name)
            write.add(part.arguments["x-dead-letter-exchange"] or DEFAULT_EXCHANGE)
    for queue, exchange, _ in to_do.bindings:
        write.add(queue)
        read.add(exchange)
    return {"configure": {part.name for part in to_do.parts}, "write": write, "read": read}


def findings(needs: Needed, patterns: Mapping[str, Any], user: str) -> Iterator[Finding]:
    """What the user lacks, a line per right.  `patterns` are RabbitMQ's own."""
    lacks = False
    for right, names in needs.items():
        pattern = str(patterns.get(right, ""))
        try:
            lacking = lacking_names(names, pattern)
        except re.error:
            text = f"the pattern {pattern!r} for {right} cannot be compared here"
            yield warning("broker", "broker.username", text, f"it must match {_some(names)}")
            lacks = True
            continue
        if lacking:
            lacks = True
            text = f"user {user!r} may not {right} {_some(lacking)} (its pattern is {pattern!r})"
            cure = "run the lines of `external-task-bridge permissions`, or widen it"
            yield problem("broker", "broker.username", text, cure)
    if not lacks:
        yield ok("broker", f"user {user!r} may configure, write and read what it must")


def lacking_names(names: Iterable[str], pattern: str) -> list[str]:
    """The names that a pattern does not match, as RabbitMQ matches.  Raises re.error."""
    matches = re.compile(pattern or "^$")
    return sorted(name for name in names if not matches.search(name))


def _some(names: Iterable[str]) -> str:
    ordered = sorted(names)
    more = f" and {len(ordered) - _NAMED_MAX} more" if len(ordered) > _NAMED_MAX else ""
    return ", ".join(map(repr, ordered[:_NAMED_MAX])) + more
