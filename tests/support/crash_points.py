"""Named points on a task's path at which a replica can be made to crash, and what that costs.

A point is a function of the bridge, before or after its n-th call; `tests.support.crashing_bridge`
ends its own process there by SIGKILL.  The bridge itself knows nothing of this.  A call that
brought nothing (an empty fetch) does not count.
"""

from __future__ import annotations

import functools
import importlib
import itertools
import os
import signal
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal

VARIABLE = "CRASH_AT"

Scene = Literal[
    "outward",  # no worker before a peer answers for the task
    "adopt",  # the first replica dies with a lease, the second one crashes while it takes over
    "stop",  # SIGTERM as soon as the message is confirmed
    "unanswered",  # reply = "none": completed once the message is confirmed
    "complete",
    "failure",
    "bpmnError",
    "unlock",
    "extendLock",
    "garbage",
    "suspended",
    "reject",
    "silent",  # the worker takes the message and never answers
    "expired",  # nobody takes the message in time: RabbitMQ gives it back
    "cancel",  # the process instance is deleted while a worker is busy
]

NOTHING = "nothing"
LAPSES = "nothing: the lock lapses after P, then it is published once"
AGAIN = "one more copy, after P"
TAKEN_OVER = "nothing: a peer takes the lease over"
COMES_AGAIN = "nothing: RabbitMQ delivers the result again"


@dataclass(frozen=True)
class CrashPoint:
    """`target` is `module:Class.function`.  `copies`: how many messages with the `message_id` of
    the first attempt there are in the end, least and most.  `parked`: copies of the result that
    lie parked in the end.
    """

    name: str
    target: str
    when: Literal["before", "after"]
    scene: Scene
    costs: str
    copies: tuple[int, int] = (1, 1)
    passage: int = 1
    parked: int = 0

    @property
    def variable(self) -> str:
        """The value of CRASH_AT."""
        return f"{self.name}:{self.passage}"


_ENGINE = "bridge.engine.client:EngineClient"
_LEDGER = "bridge.ledger:Ledger"
_PUBLISHER = "bridge.broker.publisher:Publisher"
_KEEPER = "bridge.lock_keeper:LockKeeper"
_ATTEMPTS = "bridge.attempts:Attempts"
_ACK = "bridge.broker.consumer:Consumer.ack"
_SIDINGS = "bridge.sidings:Sidings"
TWO = (2, 2)

POINTS: tuple[CrashPoint, ...] = (
    # engine -> dispatcher -> ledger
    CrashPoint("after_fetch", f"{_ENGINE}.fetch_and_lock", "after", "outward", LAPSES),
    CrashPoint("after_admit", f"{_LEDGER}.admit", "after", "outward", LAPSES),
    # dispatcher -> queue
    CrashPoint("before_send", f"{_PUBLISHER}._send", "before", "outward", LAPSES),
    CrashPoint(
        "after_send", f"{_PUBLISHER}._send", "after", "outward",
        "one more copy, after P, if it had left the process", (1, 2),
    ),
    CrashPoint("before_confirm", f"{_PUBLISHER}._on_confirm", "before", "outward", AGAIN, TWO),
    CrashPoint("after_confirm", f"{_LEDGER}.confirmed", "after", "outward", AGAIN, TWO),
    # lease and renewal
    CrashPoint("before_bulk_query", f"{_ENGINE}.tasks", "before", "outward", AGAIN, TWO),
    CrashPoint("after_bulk_query", f"{_ENGINE}.tasks", "after", "outward", AGAIN, TWO),
    CrashPoint("before_lease", f"{_KEEPER}._set_lock", "before", "outward", AGAIN, TWO),
    CrashPoint("after_lease_at_engine", f"{_ENGINE}.extend_lock", "after", "outward", TAKEN_OVER),
    CrashPoint("after_lease", f"{_LEDGER}.renewed", "after", "outward", TAKEN_OVER),
    CrashPoint(
        "before_renewal", f"{_KEEPER}._set_lock", "before", "outward", TAKEN_OVER, passage=2
    ),
    CrashPoint(
        "after_renewal_at_engine", f"{_ENGINE}.extend_lock", "after", "outward", TAKEN_OVER,
        passage=2,
    ),
    # adoption
    CrashPoint("before_adoption", "bridge.adoption:Adoption._adopt", "before", "adopt", TAKEN_OVER),
    CrashPoint("after_adoption_at_engine", f"{_ENGINE}.extend_lock", "after", "adopt", TAKEN_OVER),
    CrashPoint("after_adoption", f"{_LEDGER}.take_over", "after", "adopt", TAKEN_OVER),
    # deadline
    CrashPoint(
        "before_deadline_failure", f"{_ENGINE}.failure", "before", "silent",
        "one more copy of the unanswered message, after the lease", TWO,
    ),
    CrashPoint("after_deadline_failure", f"{_ENGINE}.failure", "after", "silent", NOTHING),
    # result queue -> reporter -> engine -> settle -> ack
    CrashPoint(
        "before_result", "bridge.reporter:Reporter.deliver", "before", "complete", COMES_AGAIN
    ),
    CrashPoint("before_complete", f"{_ENGINE}.complete", "before", "complete", COMES_AGAIN),
    CrashPoint("after_complete", f"{_ENGINE}.complete", "after", "complete", COMES_AGAIN),
    CrashPoint("after_settle", f"{_LEDGER}.settle", "after", "complete", COMES_AGAIN),
    CrashPoint("before_ack", _ACK, "before", "complete", COMES_AGAIN),
    CrashPoint("after_ack", _ACK, "after", "complete", COMES_AGAIN),
    CrashPoint("before_failure", f"{_ENGINE}.failure", "before", "failure", COMES_AGAIN),
    CrashPoint("after_failure", f"{_ENGINE}.failure", "after", "failure", COMES_AGAIN),
    CrashPoint("after_failure_settled", f"{_LEDGER}.settle", "after", "failure", COMES_AGAIN),
    CrashPoint("before_bpmn_error", f"{_ENGINE}.bpmn_error", "before", "bpmnError", COMES_AGAIN),
    CrashPoint("after_bpmn_error", f"{_ENGINE}.bpmn_error", "after", "bpmnError", COMES_AGAIN),
    CrashPoint(
        "before_release", f"{_ATTEMPTS}.release", "before", "unlock",
        "nothing more than the copy that was asked for", TWO,
    ),
    CrashPoint(
        "after_release", f"{_ATTEMPTS}._settled", "before", "unlock",
        "one more copy than was asked for, if the peer publishes before it sees the result", (2, 3),
    ),
    CrashPoint("before_progress", f"{_ATTEMPTS}.keep_alive", "before", "extendLock", COMES_AGAIN),
    CrashPoint(
        "after_progress_at_engine", f"{_LEDGER}.take_over", "before", "extendLock", COMES_AGAIN
    ),
    CrashPoint("before_unanswered", f"{_ENGINE}.complete", "before", "unanswered", AGAIN, TWO),
    CrashPoint("after_unanswered", f"{_ENGINE}.complete", "after", "unanswered", NOTHING),
    # sidings
    CrashPoint(
        "before_incident", f"{_ATTEMPTS}.incident", "before", "garbage", COMES_AGAIN, parked=1
    ),
    CrashPoint("before_park", f"{_SIDINGS}.park", "before", "garbage", COMES_AGAIN, parked=1),
    CrashPoint(
        "after_park", _ACK, "before", "garbage", "a second copy of the parked message", parked=2
    ),
    CrashPoint("before_wait", f"{_SIDINGS}.wait", "before", "suspended", COMES_AGAIN),
    CrashPoint(
        "after_wait", _ACK, "before", "suspended", "nothing: the second copy finds the task done"
    ),
    # dead letters, gone notices
    CrashPoint("before_dead_letter", f"{_ENGINE}.failure", "before", "reject", COMES_AGAIN),
    CrashPoint("after_dead_letter", f"{_ENGINE}.failure", "after", "reject", COMES_AGAIN),
    CrashPoint(
        "before_dead_letter_release", f"{_ATTEMPTS}.release", "before", "expired", COMES_AGAIN
    ),
    CrashPoint(
        "after_dead_letter_release", f"{_ATTEMPTS}._settled", "before", "expired",
        "one more copy, if the peer publishes before it sees the dead letter", (1, 2),
    ),
    CrashPoint(
        "before_gone_notice", "bridge.gone_notices:GoneNotices.announce", "before", "cancel",
        "the notice: the worker finishes for nothing",
    ),
    # SIGTERM
    CrashPoint("before_last_leases", f"{_KEEPER}.lease_all", "before", "stop", AGAIN, TWO),
    CrashPoint("after_last_leases", f"{_KEEPER}.lease_all", "after", "stop", TAKEN_OVER),
)  # fmt: skip


def find(variable: str) -> CrashPoint:
    """The point that CRASH_AT names, `name` or `name:n` for the n-th passage."""
    name, _, passage = variable.partition(":")
    for point in POINTS:
        if point.name == name:
            return replace(point, passage=int(passage)) if passage else point
    raise ValueError(f"{VARIABLE} names no crash point: {name!r}; known: {names()}")


def names() -> str:
    return ", ".join(point.name for point in POINTS)


def crash() -> None:
    """End this process at once, as a power cut does: no handler, no `finally`, no flush."""
    os.kill(os.getpid(), signal.SIGKILL)


def install(point: CrashPoint, end: Callable[[], None] = crash) -> None:
    """Have the process end at the point from now on."""
    module, _, path = point.target.partition(":")
    class_name, _, function_name = path.partition(".")
    owner = getattr(importlib.import_module(module), class_name)
    setattr(owner, function_name, wrapped(point, getattr(owner, function_name), end))


def wrapped(
    point: CrashPoint, function: Callable[..., Any], end: Callable[[], None]
) -> Callable[..., Any]:
    """The function with `end` called at the point's passage."""
    passages = itertools.count(1)

    @functools.wraps(function)
    def crashing(*arguments: Any, **named: Any) -> Any:
        if point.when == "before":
            if next(passages) == point.passage:
                end()
            return function(*arguments, **named)
        result = function(*arguments, **named)
        if getattr(result, "tasks", True) and next(passages) == point.passage:
            end()
        return result

    return crashing


def as_markdown() -> str:
    """The table for a README: crash point, copies of the attempt's message, what it costs."""
    lines = [
        "| a crash ... | copies of the task message | what it costs |",
        "|---|---|---|",
    ]
    for point in POINTS:
        least, most = point.copies
        copies = str(least) if least == most else f"{least} or {most}"
        where = point.name.replace("_", " ")
        lines.append(f"| {where} | {copies} | {point.costs} |")
    return "\n".join(lines)
