"""The protocol's rules as switches, and what breaks when one of them is off.  Data only."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields

from bridge.protocol import release_pause
from tests.model.properties import Breach
from tests.model.world import DEADLINE, LEASE, TICK_SECONDS, WINDOW, Fault, World


@dataclass(frozen=True)
class Rules:
    """Each is one rule of the protocol; all of them are on unless a variant says otherwise."""

    fetches_for_a_window_only: bool = True
    publishes_within_half_a_window: bool = True
    holds_unconfirmed: bool = True
    holds_for_a_window_only: bool = True
    asks_before_renewing: bool = True
    remembers_retries_as_fetched: bool = True
    knows_its_expiry: bool = True
    counts_both_expiries_after_a_lost_answer: bool = True
    acts_on_young_answers_only: bool = True
    locks_suspended: bool = True
    adopts: bool = True
    adopts_only_never_failed: bool = True
    adopts_above_two_windows: bool = True
    adopts_below_renewal: bool = True
    adopts_only_younger_than_deadline: bool = True
    has_a_deadline: bool = True
    # Below the shortest time that a healthy holder's lock still has.
    caps_release_pauses_below_a_window: bool = True
    caps_release_pauses: bool = True
    reads_before_writing: bool = True
    writes_soon_after_reading: bool = True
    pauses_at_least_a_tick: bool = True
    caps_retries: bool = True
    leases_at_sigterm: bool = True

    def release_pause(self, asked: int) -> int:
        """How many ticks a released task rests."""
        if not self.caps_release_pauses:
            return asked
        if not self.caps_release_pauses_below_a_window:
            return min(asked, WINDOW)
        capped = release_pause(asked * TICK_SECONDS, WINDOW * TICK_SECONDS)
        return math.ceil(capped / TICK_SECONDS)


PROTOCOL = Rules()
ALL_RULES = tuple(rule.name for rule in fields(Rules))


@dataclass(frozen=True)
class Variant:
    """The protocol without one rule, the smallest world that shows why it is there, and what
    happens then.  `beyond`: breaches that come sooner and say less.
    """

    without: str
    breach: Breach
    world: World
    beyond: frozenset[Breach] = field(default_factory=frozenset)

    @property
    def rules(self) -> Rules:
        """The rules that are left."""
        return Rules(**{self.without: False})


F = Fault
CRASH = World("a crash", {F.CRASH: 1})
FREEZE = World("a freeze", {F.FREEZE: 1, F.WORKER_FAILS: 1})
FAILURE = World("a failure", {F.WORKER_FAILS: 1})
FAILURES = World(
    "failures answered twice",
    {F.WORKER_FAILS: 1, F.ANSWERED_TWICE: 1},
    attempts=3,
)
CONNECTION = World("a lost connection", {F.CONNECTION: 1})
STOP = World("a stop", {F.SIGTERM: 1, F.WORKER_FAILS: 1})
GIVES_UP = World(
    "failures answered twice, some for good",
    {F.WORKER_FAILS: 1, F.ANSWERED_TWICE: 1},
    named_retries=(None, 0),
    attempts=3,
)
GIVEN_BACK_ONCE = World("given back once", {F.GIVEN_BACK: 1}, release_pauses=(6,))
GIVEN_BACK = World("given back", {F.GIVEN_BACK: 1, F.CRASH: 1}, release_pauses=(1, 6))
LOST = World("a lost message", {F.LOST_MESSAGE: 1}, deadlines=True)
OLD = World("an old task", {F.CRASH: 1}, deadlines=True, ages=(DEADLINE + LEASE,))


def named(*retries: int) -> World:
    """Workers that fail twice and say themselves how many retries are left."""
    return World("named retries", {F.WORKER_FAILS: 2}, named_retries=retries)


VARIANTS = [
    Variant(
        "fetches_for_a_window_only",
        Breach.STUCK,
        CRASH,
        frozenset({Breach.UNPROVEN, Breach.STOLEN}),
    ),
    Variant("publishes_within_half_a_window", Breach.DUPLICATE, FREEZE),
    Variant("holds_unconfirmed", Breach.DUPLICATE, World("no fault", {})),
    Variant("holds_for_a_window_only", Breach.UNPROVEN, CONNECTION, frozenset({Breach.STOLEN})),
    Variant("asks_before_renewing", Breach.STUCK, FAILURE),
    Variant("asks_before_renewing", Breach.FOREIGN_UNLOCK, STOP),
    Variant("remembers_retries_as_fetched", Breach.STUCK, FAILURE),
    Variant("knows_its_expiry", Breach.STUCK, GIVEN_BACK_ONCE),
    Variant(
        "counts_both_expiries_after_a_lost_answer",
        Breach.DUPLICATE,
        World("a lost answer", {F.LOST_ANSWER: 1}),
    ),
    Variant("acts_on_young_answers_only", Breach.DUPLICATE, FREEZE),
    Variant("locks_suspended", Breach.DUPLICATE, World("suspended", {F.SUSPEND: 1})),
    Variant("adopts", Breach.DUPLICATE, CRASH),
    Variant(
        "adopts_only_never_failed",
        Breach.UNPROVEN,
        World("a failure with a long pause", {F.WORKER_FAILS: 1}, retry_pauses=(6,)),
    ),
    Variant("adopts_above_two_windows", Breach.UNPROVEN, CRASH, frozenset({Breach.STOLEN})),
    Variant("adopts_below_renewal", Breach.STOLEN, CRASH),
    Variant("adopts_only_younger_than_deadline", Breach.HASTY, OLD),
    Variant("has_a_deadline", Breach.STUCK, LOST),
    Variant(
        "caps_release_pauses_below_a_window",
        Breach.STUCK,
        GIVEN_BACK_ONCE,
    ),
    Variant("caps_release_pauses", Breach.UNPROVEN, GIVEN_BACK),
    Variant("reads_before_writing", Breach.DUPLICATE, FAILURES),
    Variant("reads_before_writing", Breach.STALE, GIVES_UP, frozenset({Breach.DUPLICATE})),
    Variant("writes_soon_after_reading", Breach.DUPLICATE, FREEZE),
    Variant("pauses_at_least_a_tick", Breach.DUPLICATE, FAILURES),
    Variant("caps_retries", Breach.STUCK, named(2)),
    Variant("caps_retries", Breach.RAISED, named(1, 2)),
    Variant("leases_at_sigterm", Breach.DUPLICATE, STOP),
]
