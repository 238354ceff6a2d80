"""What of a queue may be in hand: bounded in bytes whatever the sizes, and never stuck."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.broker.hand import Hand


def taken(hand: Hand, *sizes: int) -> list[bool]:
    """What becomes of messages of these sizes; their keys count from 0."""
    return [hand.take(key, size) for key, size in enumerate(sizes)]


def test_what_exceeds_the_limit_is_not_taken() -> None:
    """The memory of a replica is reckoned from it."""
    hand = Hand(200, 100)

    assert taken(hand, 60, 40, 1) == [True, True, False]
    assert hand.used == 100


def test_a_message_larger_than_the_limit_is_taken_alone() -> None:
    """Given back for ever it would never be parked."""
    hand = Hand(200, 100)

    assert taken(hand, 500, 1) == [True, False]
    hand.done(0)
    assert hand.take("next", 500)


@pytest.mark.parametrize(("size", "window"), [(40, 1), (25, 2), (5, 10), (200, 1)])
def test_after_a_refusal_as_many_are_asked_for_as_fit_into_half(size: int, window: int) -> None:
    """The next ones must not exceed the limit again: what goes back counts as a delivery."""
    hand = Hand(30, 100)

    while hand.take(object(), size):
        pass

    assert hand.window == window


def test_a_refusal_never_widens_the_window() -> None:
    """Many small ones together exceed the limit too."""
    hand = Hand(2, 100)

    assert taken(hand, 50, 50, 1) == [True, True, False]

    assert hand.window == 1
    hand.done(0)
    assert taken(hand, *[1] * 50, 1)[-1] is False
    assert hand.window == 1


def test_there_is_room_again_at_half_of_the_limit() -> None:
    """A pause for each single message would be a loop."""
    hand = Hand(200, 100)
    taken(hand, 40, 40, 40)

    assert not hand.has_room
    hand.done(0)
    assert hand.has_room


def test_small_messages_widen_the_window_again() -> None:
    """One large result must not slow a topic down for ever."""
    hand = Hand(4, 100)
    taken(hand, 90, 90)
    hand.done(0)
    assert hand.window == 1

    grown = []
    for key in range(4):
        hand.take(key, 10)
        grown.append(hand.grows())
        hand.done(key)

    assert grown == [False, False, False, True]
    assert hand.window == 4


def test_one_large_message_among_them_keeps_the_window_small() -> None:
    """It would exceed the limit as soon as the window has grown."""
    hand = Hand(4, 100)
    taken(hand, 90, 90)
    hand.done(0)

    for key, size in enumerate([10, 50, 10, 10]):
        hand.take(key, size)
        hand.done(key)

        assert not hand.grows()
    assert hand.window == 1


def test_what_is_not_in_hand_cannot_be_done_with() -> None:
    """An acknowledgement may be asked for twice."""
    hand = Hand(200, 100)
    taken(hand, 60)

    hand.done("stranger")
    hand.done(0)
    hand.done(0)

    assert hand.used == 0


@given(
    st.lists(st.tuples(st.booleans(), st.integers(0, 400)), max_size=100),
    st.integers(1, 20),
    st.integers(1, 200),
)
def test_whatever_comes_the_limit_holds_and_room_returns(
    steps: list[tuple[bool, int]], prefetch: int, limit: int
) -> None:
    """At most the limit, or one message; and an empty hand always takes the next one."""
    hand = Hand(prefetch, limit)
    held: dict[int, int] = {}
    for key, (comes, size) in enumerate(steps):
        if comes and hand.take(key, size):
            held[key] = size
            hand.grows()
        elif held:
            oldest = next(iter(held))
            del held[oldest]
            hand.done(oldest)
        assert hand.used == sum(held.values())
        assert hand.used <= limit or len([s for s in held.values() if s]) == 1
        assert 1 <= hand.window <= prefetch

    for key in held:
        hand.done(key)
    assert hand.has_room
    assert hand.take("next", 10**9)


@pytest.mark.parametrize(("held", "size"), [(40, 61), (50, 51), (10, 200)])
def test_what_was_refused_is_taken_when_deliveries_begin_again(held: int, size: int) -> None:
    """It comes first: refused again and again it would use up its deliveries in a second."""
    hand = Hand(200, 100)

    assert taken(hand, held, size) == [True, False]
    assert not hand.has_room
    hand.done(0)
    assert hand.has_room
    assert hand.take("again", size)
