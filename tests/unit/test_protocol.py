"""The rules of the recovery protocol, each clause on its own: switch one off and a test fails."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.ledger import Entry, Timing
from bridge.messages import SLACK_SECONDS, ExternalTask, LockWindow
from bridge.protocol import (
    MIN_PAUSE_SECONDS,
    RetryPolicy,
    adoptable,
    release_pause,
    same_attempt,
    still_ours,
)

W = "bridge"
NOW = 1_800_000_000.0
P, LEASE, DEADLINE = 60.0, 600.0, 86_400.0
TIMING = Timing(capacity=1, publish_window=P, lease_after=5, lease=LEASE, deadline=DEADLINE)


def date(seconds: float) -> str:
    moment = datetime.fromtimestamp(seconds, UTC)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{moment.microsecond // 1000:03d}+0000"


def task(**changes: Any) -> ExternalTask:
    known: dict[str, Any] = {
        "id": "t1",
        "topic_name": "a",
        "process_instance_id": "p1",
        "worker_id": W,
        "lock_expiration_time": date(NOW + 100),
        "create_time": date(NOW - 100),
        "retries": None,
    }
    return ExternalTask(**(known | changes))


def entry(*expiries: LockWindow, retries: int | None = None) -> Entry:
    return Entry(
        task_id="t1",
        topic="a",
        retries=retries,
        serial=1,
        since=0,
        expiries=expiries or (LockWindow.exactly(NOW + 100),),
        lock_ends=100,
        due=50,
        deadline=DEADLINE,
    )


# Whose lock is it


def test_the_lock_that_we_set_is_ours() -> None:
    """Same owner, same attempt, the expiration that this replica set, still running."""
    assert still_ours(entry(), task(), W, NOW)


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"worker_id": "other"}, "another worker id took it"),
        ({"worker_id": None}, "an operator unlocked it"),
        ({"retries": 2}, "a peer reported its failure, or an operator set the retries"),
        ({"lock_expiration_time": None}, "an operator unlocked it"),
        ({"lock_expiration_time": date(NOW + 102)}, "a peer renewed it or fetched it again"),
        ({"lock_expiration_time": date(NOW + 98)}, "a peer released it"),
    ],
)
def test_a_record_that_differs_is_not_ours(changes: dict[str, Any], why: str) -> None:
    """Extending it would push a retry, or a task that nobody published, a whole lease away."""
    assert not still_ours(entry(), task(**changes), W, NOW), why


def test_a_task_that_is_gone_is_not_ours() -> None:
    """Completed by a peer or cancelled."""
    assert not still_ours(entry(), None, W, NOW)


def test_a_later_attempt_is_not_ours_even_with_our_expiry() -> None:
    """The fingerprint is the attempt as fetched, in both directions."""
    assert still_ours(entry(retries=2), task(retries=2), W, NOW)
    assert not still_ours(entry(retries=2), task(retries=1), W, NOW)
    assert not still_ours(entry(retries=0), task(retries=None), W, NOW)


@pytest.mark.parametrize(("engine_now", "ours"), [(99.9, True), (100.0, False), (100.1, False)])
def test_a_lock_that_has_passed_is_not_ours(engine_now: float, ours: bool) -> None:
    """From that moment on any replica may fetch the task."""
    assert still_ours(entry(), task(), W, NOW + engine_now) is ours


def test_each_expiry_that_we_may_have_set_counts() -> None:
    """The answer of an extendLock was lost: carried out or not, the lock is ours."""
    both = entry(LockWindow.exactly(NOW + 100), LockWindow(NOW + 600, NOW + 603))

    assert still_ours(both, task(), W, NOW)
    assert still_ours(both, task(lock_expiration_time=date(NOW + 601)), W, NOW)
    assert not still_ours(both, task(lock_expiration_time=date(NOW + 300)), W, NOW)


@given(st.floats(-50, 50), st.floats(0, 20))
def test_a_window_holds_what_lies_in_it_within_one_second(offset: float, width: float) -> None:
    """Two nodes differ by up to a second, and some columns have no milliseconds."""
    window = LockWindow(NOW, NOW + width)

    inside = -SLACK_SECONDS <= offset <= width + SLACK_SECONDS
    if abs(offset + SLACK_SECONDS) > 1e-3 and abs(offset - width - SLACK_SECONDS) > 1e-3:
        assert window.holds(NOW + offset) is inside


# What may be adopted


def orphan(left: float = 200.0, **changes: Any) -> ExternalTask:
    return task(lock_expiration_time=date(NOW + left), **changes)


def test_a_lease_that_nobody_renews_is_adopted() -> None:
    """Its holder is gone and its message is out: it must be answered for."""
    assert adoptable(orphan(), TIMING, W, NOW)


@pytest.mark.parametrize(
    ("left", "adopted"),
    [(-1, False), (2 * P, False), (2 * P + 1, True), (0.4 * LEASE - 1, True), (0.4 * LEASE, False)],
)
def test_only_the_band_between_two_windows_and_four_tenths_of_a_lease_is_adopted(
    left: float, adopted: bool
) -> None:
    """Less proves no publication; more is renewed by a holder that lives."""
    assert adoptable(orphan(left), TIMING, W, NOW) is adopted


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"retries": 2}, "the lock of a failed task is a retry pause, no lease"),
        ({"retries": 0}, "an incident"),
        ({"worker_id": "other"}, "another deployment's"),
        ({"worker_id": None}, "nobody's"),
        ({"suspended": True}, "extendLock refuses it, and nobody can work on it"),
        ({"create_time": None}, "its age is unknown, so no deadline could be kept"),
        ({"create_time": date(NOW - DEADLINE)}, "older than the deadline"),
        ({"create_time": date(NOW - DEADLINE - 5)}, "older than the deadline"),
    ],
)
def test_what_proves_no_message_that_is_out_is_not_adopted(
    changes: dict[str, Any], why: str
) -> None:
    """An adopted task that was never published would wait until its deadline."""
    assert not adoptable(orphan(**changes), TIMING, W, NOW), why


def test_a_task_without_a_lock_is_not_adopted() -> None:
    """It is fetched."""
    assert not adoptable(task(lock_expiration_time=None), TIMING, W, NOW)


def test_a_task_just_younger_than_the_deadline_is_adopted() -> None:
    """The edge belongs to the living."""
    assert adoptable(orphan(create_time=date(NOW - DEADLINE + 1)), TIMING, W, NOW)


# Which attempt a result speaks of


def test_an_act_is_stale_where_the_retries_or_the_owner_are_others() -> None:
    """The worker id is the engine's only fence and every replica shares it."""
    assert same_attempt(task(retries=None), None, W)
    assert same_attempt(task(retries=2), 2, W)
    assert not same_attempt(task(retries=1), 2, W)
    assert not same_attempt(task(retries=0), None, W)
    assert not same_attempt(task(retries=None, worker_id="other"), None, W)
    assert not same_attempt(task(retries=None, worker_id=None), None, W)


# What follows a failure

POLICY = RetryPolicy(attempts=3, pauses=(5.0, 30.0, 300.0))


@pytest.mark.parametrize(
    ("attempt", "named", "retries", "pause"),
    [
        (None, None, 2, 5.0),
        (2, None, 1, 30.0),
        (1, None, 0, 300.0),
        (0, None, 0, 300.0),
        (None, 7, 7, 5.0),
        (None, 0, 0, 300.0),
        (2, 0, 0, 300.0),
        (2, 9, 1, 30.0),
        (9, 8, 8, 5.0),
        (9, None, 8, 5.0),
    ],
)
def test_a_failure_sets_an_absolute_number_below_the_attempts_own(
    attempt: int | None, named: int | None, retries: int, pause: float
) -> None:
    """Every failure changes the engine's record, so `message_id` names one attempt."""
    assert POLICY.after_failure(attempt, named) == (retries, pause)


def test_a_policy_of_three_attempts_makes_three_attempts() -> None:
    """`retries = 3` means three attempts: the first failure sets 2."""
    attempt: int | None = None
    steps = []
    while attempt != 0:
        attempt, pause = POLICY.after_failure(attempt)
        steps.append((attempt, pause))

    assert steps == [(2, 5.0), (1, 30.0), (0, 300.0)]


def test_one_attempt_is_an_incident_at_once() -> None:
    """`retries = 1`: no retry."""
    assert RetryPolicy(1, (5.0,)).after_failure(None)[0] == 0


def test_the_last_pause_serves_all_that_follow() -> None:
    """A policy with more attempts than pauses must not run out of them."""
    assert RetryPolicy(10, (5.0, 30.0)).after_failure(3) == (2, 30.0)


@pytest.mark.parametrize(("named", "pause"), [(0.0, 1.0), (0.2, 1.0), (1.5, 1.5), (9000, 9000)])
def test_a_pause_that_is_named_counts_but_is_at_least_a_second(named: float, pause: float) -> None:
    """A read before a write is at most a second old: no retry may begin in between."""
    assert POLICY.after_failure(2, None, named) == (1, pause)


def test_a_pause_of_the_policy_is_at_least_a_second() -> None:
    """The same rule, whoever sets the pause."""
    assert replace(POLICY, pauses=(0.001,)).after_failure(None) == (2, MIN_PAUSE_SECONDS)


@given(
    st.none() | st.integers(0, 2**31 - 1),
    st.none() | st.integers(0, 2**31 - 1),
    st.integers(1, 10),
    st.lists(st.floats(0.001, 1e6), min_size=1, max_size=5),
)
def test_every_failure_brings_the_incident_nearer(
    attempt: int | None, named: int | None, attempts: int, pauses: list[float]
) -> None:
    """Otherwise two attempts would share a number, or a task would retry for ever."""
    policy = RetryPolicy(attempts, tuple(pauses))

    retries, pause = policy.after_failure(attempt, named)

    assert retries >= 0
    assert pause >= MIN_PAUSE_SECONDS
    if attempt:
        assert retries < attempt


@pytest.mark.parametrize(
    ("asked", "pause"), [(0.001, 0.001), (5, 5), (20, 20), (30, 20), (600, 20)]
)
def test_a_released_task_rests_for_a_third_of_a_window_at_most(asked: float, pause: float) -> None:
    """A longer lock could be taken for one that the fetch set, or for a lease."""
    assert release_pause(asked, publish_window=60) == pause
