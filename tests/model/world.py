"""The small world of the model: two replicas, one task, one queue.  Values only, no moves.

Every time is what remains of it, in ticks, so that the same situation later is the same state.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import NamedTuple

# A tick is half a publish window: with the default settings every time below is the real one but
# for the deadline, which is the shortest legal one (two leases).
TICK_SECONDS = 30.0
WINDOW, HALF_WINDOW, LEASE, DEADLINE = 2, 1, 20, 40
HALVES = 2
RENEW_AT = LEASE // 2
NEVER_FAILED = -1  # `retries` null; a number, so that states can be ordered
MAX_CREDITS = 6


class Status(IntEnum):
    """What a replica is doing."""

    UP = 0
    FROZEN = 1
    DOWN = 2
    STOPPING = 3


class Phase(IntEnum):
    """How far a replica has brought the task."""

    NONE = 0
    FETCHED = 1
    SENT = 2  # handed to the socket: no queue has it yet
    QUEUED = 3  # a queue has it, the confirm has not come
    CONFIRMED = 4


class Act(IntEnum):
    """What a replica is about to do after it has asked the engine."""

    NONE = 0
    RENEW = 1
    ADOPT = 2


class Kind(IntEnum):
    """What a result message says; DEADLINE is the lock keeper's own report."""

    NONE = 0
    OK = 1
    FAILURE = 2
    RELEASE = 3
    PROGRESS = 4
    DEADLINE = 5


class Engine(NamedTuple):
    """The engine's record: locked by the shared worker id or by nobody, for `left` more ticks.

    `early`: for half a tick less.  It changes whenever somebody releases, unlocks or keeps alive
    the task, so that what is locked then is not taken for what was locked before in the same tick.
    """

    owned: bool = False
    retries: int = NEVER_FAILED
    left: int = 0
    early: bool = False
    suspended: bool = False
    age: int = 0


class Entry(NamedTuple):
    """A replica's memory of the task; `expiries`: those that it set, in half ticks from now."""

    phase: Phase = Phase.NONE
    attempt: int = NEVER_FAILED
    expiries: tuple[int, ...] = ()
    since: int = 0
    deadline: int = 0


class Check(NamedTuple):
    """An answer of the engine that a replica is about to act on; `overtaken`: since then somebody
    has reported a failure, or released the task.
    """

    act: Act = Act.NONE
    age: int = 0
    suspended: bool = False
    overtaken: bool = False


class Job(NamedTuple):
    """A result between the read and the write; `excused`: somebody acted in between."""

    kind: Kind = Kind.NONE
    attempt: int = NEVER_FAILED
    age: int = 0
    excused: bool = False


class Replica(NamedTuple):
    """One process of the bridge."""

    status: Status = Status.UP
    entry: Entry = Entry()
    check: Check = Check()
    job: Job = Job()


class Message(NamedTuple):
    """A task message that some worker may still take; `ttl` runs to its expiration."""

    attempt: int
    ttl: int = 0


class Result(NamedTuple):
    """A message in the result queue, or a dead letter."""

    kind: Kind
    attempt: int


class State(NamedTuple):
    """The whole world.

    `credits`: for each attempt, how many copies more than one the causes so far allow.  `out`: a
    message of this attempt is out, or was taken by a worker or lost on its way there.  `quiet`:
    ticks since it was published or its worker reported progress.
    """

    engine: Engine
    messages: tuple[Message, ...]
    results: tuple[Result, ...]
    replicas: tuple[Replica, Replica]
    faults: tuple[int, ...]
    credits: tuple[int, ...] = (0, 0, 0)
    out: bool = False
    quiet: int = 0


NO_ENTRY, NO_CHECK, NO_JOB = Entry(), Check(), Job()


class Fault(IntEnum):
    """What may happen a bounded number of times; its place in `State.faults`."""

    CRASH = 0
    FREEZE = 1
    LOST_ANSWER = 2
    CONNECTION = 3
    LOST_MESSAGE = 4
    WORKER_FAILS = 5
    ANSWERED_TWICE = 6
    GIVEN_BACK = 7
    PROGRESS = 8
    UNLOCK = 9
    SET_RETRIES = 10
    SUSPEND = 11
    SIGTERM = 12
    EXPIRES = 13


@dataclass(frozen=True)
class World:
    """One configuration: how often each fault may happen, and what the settings are.

    `retry_pauses` and `release_pauses` are in ticks, `named_retries` what failing workers ask for
    (None: the policy decides), `ages` how old the task may be when the search begins.  Without
    `deadlines` no time is kept for them, which saves states where nothing can go unanswered.
    """

    name: str
    faults: dict[Fault, int]
    retry_pauses: tuple[int, ...] = (1,)
    release_pauses: tuple[int, ...] = (0, 1)
    named_retries: tuple[int | None, ...] = (None,)
    attempts: int = 2
    deadlines: bool = False
    ages: tuple[int, ...] = (0,)

    def starts(self) -> list[State]:
        """Where the search begins: the task waits, both replicas run and know nothing."""
        faults = tuple(self.faults.get(fault, 0) for fault in Fault)
        return [State(Engine(age=age), (), (), (Replica(), Replica()), faults) for age in self.ages]


class Move(NamedTuple):
    """One step.  `fault`: it is none that a healthy world must make.  `breach`: the property that
    it breaks; `accepted`: the known race that it is.
    """

    label: str
    state: State | None  # None: the task is completed
    replica: int = -1
    fault: bool = False
    breach: str = ""
    accepted: str = ""


def expiry(engine: Engine) -> int:
    """What remains of the record's lock, in half ticks."""
    return max(0, HALVES * engine.left - engine.early)


def freed(engine: Engine, pause: int) -> Engine:
    """The record once somebody has released or unlocked the task for `pause` ticks."""
    # A pause as long as the lock at fetch cannot be told from it.
    early = engine.early if pause == WINDOW else not engine.early
    return engine._replace(left=pause, early=early)


def ordered(state: State) -> State:
    """The same state with the replicas in a fixed order: they are interchangeable."""
    first, second = state.replicas
    if first <= second:
        return state
    return state._replace(replicas=(second, first))
