"""What a round does and when, decided before it begins: the same seed gives the same plan.

Pure: no I/O, no clock.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

Kind = Literal[
    "kill", "freeze", "long freeze", "rolling restart", "broker", "engine", "purge", "connections"
]
TOPICS = ("alpha", "beta")
WORKERS = 4  # in all
KINDS: tuple[Kind, ...] = get_args(Kind)
# A purged message is missed only at the deadline, a lease later: it comes first, so that it is
# missed while other faults go on.
FIRST: tuple[Kind, ...] = ("purge",)


@dataclass(frozen=True)
class Times:
    """A topic's times in seconds.  The rules between them are DESIGN's, but for the deadline,
    which the settings want longer: a purged message shall be missed while somebody watches.
    """

    publish_window: float
    lease_after: float
    lease: float
    deadline: float

    def settings(self) -> dict[str, Any]:
        """As keys of a topic."""
        names = ("publish_window", "lease_after", "lease", "deadline")
        return {name: f"{round(getattr(self, name) * 1000)}ms" for name in names}


QUICK = Times(publish_window=13.0, lease_after=1.0, lease=130.0, deadline=60.0)
# Those of a bridge without settings, which the benchmarks measure.  Nobody waits for this deadline:
# nothing may be purged.
DEFAULTS = Times(publish_window=60.0, lease_after=5.0, lease=600.0, deadline=86_400.0)
WITHOUT_PURGE = tuple(kind for kind in KINDS if kind != "purge")


@dataclass(frozen=True)
class Options:
    """One round: how many instances, how many seconds of faults of which kinds, and the seed of
    everything.
    """

    tasks: int = 1000
    seconds: float = 120.0
    seed: int = 1
    replicas: int = 3
    times: Times = field(default=QUICK)
    kinds: tuple[Kind, ...] = KINDS

    @property
    def work_seconds(self) -> float:
        """How long one message keeps a worker busy, in the mean: all of them together are slower
        than the instances come, so that faults meet full queues.
        """
        return 1.2 * self.seconds * WORKERS / max(1, self.tasks)

    @property
    def heals_within(self) -> float:
        """After how many seconds nothing that a fault locked is locked any more."""
        return self.times.lease + (self.times.deadline if "purge" in self.kinds else 0.0)

    def starts_at(self, number: int) -> float:
        """When an instance is to be started: some at once, the others evenly over the first part
        of the round.
        """
        at_once = self.tasks // 5
        return 0.6 * self.seconds * max(0, number - at_once) / max(1, self.tasks - at_once)


@dataclass(frozen=True)
class Fault:
    """`at`: seconds after the start.  `victim`: the replica or the topic, by number.  `lasts`:
    seconds until the victim is started, or woken, again.
    """

    at: float
    kind: Kind
    victim: int
    lasts: float

    def __str__(self) -> str:
        return f"{self.at:5.1f} s  {self.kind} {self.victim} {self.lasts:.1f} s"


# How often a kind is chosen once every kind has had its turn; the broker and the engine take long
# to come back.
WEIGHTS: Mapping[Kind, int] = {
    "kill": 6,
    "freeze": 4,
    "long freeze": 3,
    "rolling restart": 2,
    "broker": 2,
    "engine": 1,
    "purge": 1,
    "connections": 3,
}
# What a fault keeps the next one waiting, in seconds.
TAKES: Mapping[Kind, float] = {
    "kill": 3,
    "freeze": 2,
    "long freeze": 8,
    "rolling restart": 12,
    "broker": 8,
    "engine": 14,
    "purge": 2,
    "connections": 3,
}


def schedule(options: Options) -> tuple[Fault, ...]:
    """Every kind at least once, if the seconds suffice, in an order that the seed decides."""
    chance, weights = random.Random(options.seed), [WEIGHTS[kind] for kind in options.kinds]
    queue = [kind for kind in options.kinds if kind not in FIRST]
    chance.shuffle(queue)
    queue[:0] = [kind for kind in FIRST if kind in options.kinds]
    faults: list[Fault] = []
    at = chance.uniform(2.0, 4.0)
    while at < options.seconds:
        kind = queue.pop(0) if queue else chance.choices(options.kinds, weights)[0]
        victim = chance.randrange(options.replicas)
        faults.append(Fault(at, kind, victim, _lasts(kind, options.times, chance)))
        at += TAKES[kind] * chance.uniform(0.7, 1.3)
    return tuple(faults)


def _lasts(kind: Kind, times: Times, chance: random.Random) -> float:
    match kind:
        case "freeze":  # too short for anything to lapse
            return chance.uniform(0.1, 0.4) * times.publish_window
        case "long freeze":  # locks lapse meanwhile, and a message may be published too late
            return chance.uniform(1.1, 1.6) * times.publish_window
        case _:
            return chance.uniform(0.2, 2.0)
