"""How an existing queue or exchange differs from what the bridge would declare.  No I/O.

The bridge uses an existing queue as it is: a difference is a warning that says what it leads to.
An exchange of another type routes elsewhere, and nothing works: that is a problem.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from bridge.broker import Exchange, Queue
from bridge.broker.inspect import Refusal
from bridge.check.findings import Finding, Group, problem, warning

_LEADS_TO = {
    "x-dead-letter-exchange": "what is rejected there vanishes, its task waits for the deadline",
    "x-dead-letter-routing-key": "dead letters go elsewhere",
    "x-dead-letter-strategy": "dead letters can be lost when the broker dies",
    "x-delivery-limit": "a message that kills its workers comes back more or less often than meant",
    "x-overflow": "a full queue may drop messages instead of refusing them",
    "x-queue-type": "it lives on one node, or has no delivery limit",
    "x-message-ttl": "messages expire sooner or later than meant",
    "x-max-length": "it is full sooner or later than meant",
    "durable": "gone after a restart of the broker",
    "auto_delete": "it is deleted with its last consumer",
    "exclusive": "only the connection that declared it may use it",
}
_UNREADABLE_LOST = "an unreadable message vanishes there instead of being parked"
_UNLIMITED = -1
# Arguments that change nothing of what the bridge relies on.
_HARMLESS = frozenset({"x-queue-leader-locator", "x-quorum-initial-group-size", "x-queue-mode"})
_ARGUMENT = re.compile(r"inequivalent arg '([^']*)'")
_CURE = "empty and delete it while the bridge is stopped, so that it is declared anew"


def owner_key(part: Exchange | Queue, topic_queue: bool) -> str:
    """The setting that a queue or exchange has its name from."""
    if not part.lane:
        return "broker.prefix"
    if isinstance(part, Exchange):
        return f"topics.{part.lane}.exchange"
    return f"topics.{part.lane}.queue" if topic_queue else f"topics.{part.lane}"


def group(part: Exchange | Queue) -> Group:
    """Where its findings stand: a topic's parts with the topics."""
    return "topics" if part.lane else "broker"


def of_missing(part: Exchange | Queue, key: str, declare: str | None) -> Finding:
    """Not there, and the bridge will not make it: `declare` forbids it (None: it never does)."""
    kind = "exchange" if isinstance(part, Exchange) else "queue"
    text, cure = f"there is no {kind} {part.name!r}", "declare it"
    if declare is not None:
        text += f' (broker.declare = "{declare}")'
        cure += ', or set broker.declare = "missing"'
    return problem(group(part), key, text, cure)


def of_queue(part: Queue, found: Mapping[str, Any], key: str) -> Iterator[Finding]:
    """What differs from the management API's description of a queue, policies taken in."""
    there = effective_arguments(found)
    names = {*part.arguments, *there} - _HARMLESS
    if "x-dead-letter-exchange" not in there:
        names.discard("x-dead-letter-strategy")
    if there.get("x-delivery-limit") == _UNLIMITED and "x-delivery-limit" not in part.arguments:
        names.discard("x-delivery-limit")  # what RabbitMQ before 4.0 does without being told
    differing = [
        _said(name, f"{_shown(there.get(name))}, not {_shown(part.arguments.get(name))}", part)
        for name in sorted(names)
        if there.get(name) != part.arguments.get(name)
    ]
    for name, wanted in (("durable", True), ("auto_delete", False), ("exclusive", False)):
        if found.get(name, wanted) is not wanted:
            differing.append(_said(name, str(not wanted).lower(), part))
    if differing:
        yield _differs(part, key, differing)


def of_limit(part: Queue, found: Mapping[str, Any], version: tuple[int, ...]) -> Iterator[Finding]:
    """Where a queue of messages for people gets the delivery limit of RabbitMQ 4: twenty looks at
    a message by taking it and giving it back delete it.  No declaration can say otherwise: a
    RabbitMQ before 4.0 refuses the argument -1.  Source: rabbitmq.com/docs/quorum-queues.
    """
    if version < (4,) or "x-delivery-limit" in effective_arguments(found):
        return
    text = f"RabbitMQ 4 deletes a message of {part.name!r} that was taken and given back 20 times"
    pattern = f"^{re.escape(part.name)}$"
    policy = '{"delivery-limit": -1}'
    yield warning("broker", "broker.prefix", text, f"set a policy {policy} for queues {pattern}")


def effective_arguments(found: Mapping[str, Any]) -> dict[str, Any]:
    """The x-arguments of a queue as declared, completed by its policy and its type."""
    policy = found.get("effective_policy_definition") or {}
    arguments = {f"x-{name}": value for name, value in policy.items()}
    if "type" in found:
        arguments["x-queue-type"] = found["type"]
    arguments.update(found.get("arguments") or {})
    return {name: value for name, value in arguments.items() if name.startswith("x-")}


def of_exchange(part: Exchange, found: Mapping[str, Any], key: str) -> Iterator[Finding]:
    """What differs from the management API's description of an exchange."""
    if part.type is not None and found.get("type") != part.type:
        yield _wrong_exchange(part, key, f"is a {found.get('type')} exchange")
    if found.get("internal"):
        yield _wrong_exchange(part, key, "is internal: nobody may publish there")


def of_refusal(part: Exchange | Queue, refusal: Refusal, key: str) -> Iterator[Finding]:
    """What differs in RabbitMQ's own words, which name the first difference only."""
    if refusal.code == 403:
        return  # the bridge may not declare it either, and uses it as it is
    argument = _ARGUMENT.search(refusal.text)
    name = argument[1] if argument else ""
    detail = refusal.text.rpartition("': ")[2] or refusal.text
    if isinstance(part, Exchange):
        yield _wrong_exchange(part, key, f"differs in {name!r}: {detail}")
    else:
        yield _differs(part, key, [_said(name or "its declaration", detail, part)])


def _differs(part: Exchange | Queue, key: str, differing: list[str]) -> Finding:
    text = f"queue {part.name!r} differs and is used as it is: {', '.join(differing)}"
    return warning(group(part), key, text, _CURE)


def _said(name: str, detail: str, part: Exchange | Queue) -> str:
    leads_to = _LEADS_TO.get(name)
    if name == "x-dead-letter-exchange" and _is_for_results(part):
        leads_to = _UNREADABLE_LOST
    return f"{name}: {detail} ({leads_to})" if leads_to else f"{name}: {detail}"


def _is_for_results(part: Exchange | Queue) -> bool:
    """What the bridge rejects there goes to the parking queue, by a key of its own."""
    return isinstance(part, Queue) and "x-dead-letter-routing-key" in part.arguments


def _wrong_exchange(part: Exchange, key: str, text: str) -> Finding:
    cure = "delete it or choose another name" if part.type else "choose another exchange"
    wanted = f"; a durable {part.type} exchange is wanted" if part.type else ""
    return problem(group(part), key, f"exchange {part.name!r} {text}{wanted}", cure)


def _shown(value: Any) -> str:
    return "none" if value is None else repr(value)
