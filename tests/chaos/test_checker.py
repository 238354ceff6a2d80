"""The checker must be able to fail: each invariant is shown rounds that break it alone."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.chaos.checker import INVARIANTS, check
from tests.chaos.evidence import (
    Answer,
    Evidence,
    Instance,
    Parked,
    Published,
    Struck,
    Told,
    Usage,
    Verb,
)
from tests.chaos.plan import KINDS, WITHOUT_PURGE, Kind, Options, schedule

BEFORE = Usage(threads=20, handles=30, megabytes=70.0)
FIRST = Published("t1:-", "t1", None, "alpha", "token-1")
FAILED = Told("t1", "i1", success=False, retries=None, message="a worker failed at t1:-")
SECOND = Published("t1:9", "t1", 9, "alpha", "token-2")
COMPLETED = Told("t1", "i1", success=True, retries=9)
GARBAGE = Told("t2", "i2", success=False, retries=None, message="bad-json: key must be a string")


def answer(message_id: str, verb: Verb, token: str, instance: str) -> Answer:
    task, _, attempt = message_id.partition(":")
    retries = None if attempt == "-" else int(attempt)
    return Answer(message_id, task, retries, instance, token, verb)


# A task that failed once and was then completed, and one whose worker sent garbage.
GOOD = Evidence(
    healed=True,
    started=frozenset({"i1", "i2"}),
    instances={
        "i1": Instance("i1", "alpha", ended=True, answered_by="alpha"),
        "i2": Instance("i2", "beta", ended=False),
    },
    told=(FAILED, COMPLETED, GARBAGE),
    incidents=frozenset({"i2"}),
    published=(FIRST, SECOND, Published("t2:-", "t2", None, "beta", "token-3")),
    answers=(
        answer("t1:-", "failure", "token-1", "i1"),
        answer("t1:9", "complete", "token-2", "i1"),
        answer("t2:-", "garbage", "token-3", "i2"),
    ),
    parked=(Parked("token-3", "bad-json"),),
    left={"alpha": 0, "alpha.results": 0},
    struck=(Struck("kill", exposed=1),),
    before=BEFORE,
    after=(replace(BEFORE, threads=22),),
)

NO_DEADLINE = replace(FAILED, message="no answer within the deadline of 1 h")
NO_REASON = replace(FAILED, message="the broker was away")
UNCONFIRMED = replace(answer("t2:-", "complete", "token-3", "i2"), confirmed=False)

BROKEN: dict[str, tuple[str, Evidence]] = {
    "not healed": ("I1", replace(GOOD, healed=False)),
    "an instance that vanished": ("I1", replace(GOOD, started=frozenset({"i1", "i9"}))),
    "an instance that hangs": ("I1", replace(GOOD, incidents=frozenset())),
    "two duplicates where one may be": (
        "I2", replace(GOOD, published=(*GOOD.published, FIRST, FIRST)),
    ),
    "an id that lies": (
        "I3", replace(GOOD, published=(*GOOD.published, replace(SECOND, message_id="t1:8"))),
    ),
    "an attempt from nowhere": (
        "I3",
        replace(GOOD, published=(*GOOD.published, Published("t3:2", "t3", 2, "alpha", "token-4"))),
    ),
    "an attempt that had not come yet": (
        "I3",
        replace(GOOD, told=(replace(FAILED, retries=9), COMPLETED, GARBAGE)),
    ),
    "two tokens for one attempt": (
        "I3", replace(GOOD, published=(*GOOD.published, replace(FIRST, token="other"))),
    ),
    "an overlong lock": ("I4", replace(GOOD, overlong=("task t1 was locked for 900 s",))),
    "a lock of nobody": ("I4", replace(GOOD, locked=("t1",))),
    "a failure nobody reported": ("I5", replace(GOOD, told=(NO_REASON, COMPLETED, GARBAGE))),
    "a deadline that nothing explains": (
        "I5", replace(GOOD, told=(NO_DEADLINE, COMPLETED, GARBAGE)),
    ),
    "one attempt that failed twice": ("I5", replace(GOOD, told=(*GOOD.told, FAILED))),
    "a result that is left": ("I6", replace(GOOD, left={"alpha.results": 1})),
    "a result in somebody's hands": ("I6", replace(GOOD, unacknowledged=1)),
    "garbage that vanished": ("I6", replace(GOOD, parked=())),
    "a good result that was parked": (
        "I6", replace(GOOD, parked=(*GOOD.parked, Parked("token-2", "bad-token"))),
    ),
    "a result without effect": (
        "I6", replace(GOOD, answers=(*GOOD.answers, replace(UNCONFIRMED, confirmed=True))),
    ),
    "a failure without effect": (
        "I6",
        replace(GOOD, answers=(*GOOD.answers, answer("t2:4", "failure", "token-3", "i2"))),
    ),
    "a task completed twice": ("I6", replace(GOOD, told=(*GOOD.told, COMPLETED))),
    "the wrong topic's result": (
        "I7",
        replace(
            GOOD, instances={**GOOD.instances, "i1": Instance("i1", "alpha", True, "beta")}
        ),
    ),
    "more threads": ("I8", replace(GOOD, after=(replace(BEFORE, threads=60),))),
    "more handles": ("I8", replace(GOOD, after=(replace(BEFORE, handles=200),))),
    "more memory": ("I8", replace(GOOD, after=(replace(BEFORE, megabytes=900.0),))),
    "a stop that was not graceful": (
        "   ", replace(GOOD, struck=(Struck("rolling restart", problem="ended with 1"),)),
    ),
}  # fmt: skip


def test_a_good_round_violates_nothing() -> None:
    """Else every round would be suspected."""
    assert check(GOOD) == {name: [] for name, _ in INVARIANTS}


@pytest.mark.parametrize(("invariant", "evidence"), BROKEN.values(), ids=BROKEN.keys())
def test_a_violation_is_told_by_its_invariant(invariant: str, evidence: Evidence) -> None:
    """A checker that cannot fail proves nothing, and one that blames others misleads."""
    violated = [name for name, violations in check(evidence).items() if violations]

    assert [name[: len(invariant)] for name in violated] == [invariant]


def test_what_faults_explain_is_no_violation() -> None:
    """A duplicate within the window, a deadline after a purge, a result that may not have been
    sent, a release that was asked for.
    """
    told = (NO_DEADLINE, COMPLETED, GARBAGE)
    faults = (Struck("purge", purged=1), Struck("freeze", exposed=1))
    answers = (*GOOD.answers, UNCONFIRMED, answer("t2:-", "unlock", "token-3", "i2"))
    published = (*GOOD.published, FIRST, FIRST)

    seen = replace(GOOD, told=told, struck=faults, answers=answers, published=published)

    assert not any(check(seen).values())


def test_the_seed_decides_the_plan() -> None:
    """A round that failed can be played again."""
    assert schedule(Options(seed=3)) == schedule(Options(seed=3))
    assert schedule(Options(seed=3)) != schedule(Options(seed=4))


@pytest.mark.parametrize("kinds", [KINDS, WITHOUT_PURGE])
def test_every_kind_of_fault_has_its_turn(kinds: tuple[Kind, ...]) -> None:
    """And one freeze is too short for a lock to lapse, the other is not."""
    options = Options(seconds=90.0, kinds=kinds)

    faults = schedule(options)

    window = options.times.publish_window
    assert {fault.kind for fault in faults} == set(kinds)
    assert all(fault.at < 90.0 and fault.victim < 3 for fault in faults)
    for fault in faults:
        if "freeze" in fault.kind:
            assert (fault.lasts > window) == (fault.kind == "long freeze")
            assert fault.kind == "long freeze" or fault.lasts < window / 2
