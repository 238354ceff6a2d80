"""What is known at the end of a round, from everybody who was not killed: the engine's history, the
queues, the workers, the replicas that are left.  Frozen data; judges nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Verb = Literal["complete", "failure", "bpmnError", "extendLock", "unlock", "garbage", "forged"]


@dataclass(frozen=True)
class Instance:
    """A process instance with one external task, as the engine's history has it."""

    id: str
    topic: str
    ended: bool
    answered_by: str | None = None  # the topic whose worker's variables it has


@dataclass(frozen=True)
class Told:
    """An entry of the engine's external-task log that a replica has caused.  `retries` names the
    attempt, as it was before: None for the first one.
    """

    task_id: str
    instance: str
    success: bool
    retries: int | None = None
    message: str = ""


@dataclass(frozen=True)
class Published:
    """A task message, as the audit queue holds it: every one that was published."""

    message_id: str
    task_id: str
    retries: int | None
    topic: str
    token: str


@dataclass(frozen=True)
class Answer:
    """A result that a worker sent.  `confirmed`: RabbitMQ holds it; else perhaps."""

    message_id: str
    task_id: str
    retries: int | None
    instance: str
    token: str
    verb: Verb
    confirmed: bool = True


@dataclass(frozen=True)
class Parked:
    """A message of the parking queue."""

    token: str
    reason: str


@dataclass(frozen=True)
class Struck:
    """A fault that was carried out.  `exposed`: how many tasks might be published again for it.
    `problem`: what went wrong with it, such as a stop that was not graceful.
    """

    kind: str
    exposed: int = 0
    purged: int = 0
    problem: str = ""


@dataclass(frozen=True)
class Usage:
    """What a replica holds of the machine."""

    threads: int
    handles: int
    megabytes: float


@dataclass(frozen=True)
class Evidence:
    """Everything.  `left`: messages that still lie in a queue, and those not acknowledged, after
    the last replica has stopped.  `overlong`: locks that were seen to run longer than any renewal
    may set.  `locked`: tasks whose lock still runs although nobody answers for them.
    """

    healed: bool
    started: frozenset[str] = frozenset()
    instances: Mapping[str, Instance] = field(default_factory=dict)
    told: tuple[Told, ...] = ()
    incidents: frozenset[str] = frozenset()  # instances that have one
    published: tuple[Published, ...] = ()
    answers: tuple[Answer, ...] = ()
    parked: tuple[Parked, ...] = ()
    left: Mapping[str, int] = field(default_factory=dict)
    unacknowledged: int = 0
    overlong: tuple[str, ...] = ()
    locked: tuple[str, ...] = ()
    struck: tuple[Struck, ...] = ()
    counts: Mapping[str, int] = field(default_factory=dict)  # of the replicas that are left
    expired: int = 0  # dead letters that were released because nobody took them in time
    before: Usage | None = None
    after: tuple[Usage, ...] = ()
    redelivered: int = 0

    @property
    def copies(self) -> Mapping[str, int]:
        """How many messages were published with each message_id."""
        found: dict[str, int] = {}
        for message in self.published:
            found[message.message_id] = found.get(message.message_id, 0) + 1
        return found

    @property
    def duplicates(self) -> int:
        """Messages beyond the first of each message_id."""
        return sum(self.copies.values()) - len(self.copies)

    @property
    def allowed(self) -> int:
        """The bound for `duplicates`: tasks exposed to faults, releases that workers asked for
        (twice each: a crash may repeat one), and messages that expired unread.
        """
        exposed = sum(fault.exposed for fault in self.struck)
        released = 2 * sum(answer.verb == "unlock" for answer in self.answers)
        return exposed + released + self.expired
