"""A topic's circuit: open after a refusal, tried again with growing pauses, proved by one task."""

from __future__ import annotations

import pytest

from bridge.circuit import Circuit, State


@pytest.fixture
def circuit() -> Circuit:
    return Circuit(lambda: 1.0)


def reopen(circuit: Circuit, now: float) -> None:
    """The try at `now` found the queue still unusable."""
    assert circuit.begin_try(now)
    circuit.trip(now, "full")


def test_a_new_circuit_is_closed(circuit: Circuit) -> None:
    """Tasks flow until a message is refused."""
    assert (circuit.state, circuit.reason) == (State.CLOSED, None)
    assert not circuit.begin_try(1e9)
    assert not circuit.close()


def test_it_opens_with_the_reason(circuit: Circuit) -> None:
    """The operator sees why the topic stands still."""
    assert circuit.trip(100, "queue full") is True

    assert (circuit.state, circuit.reason) == (State.OPEN, "queue full")


def test_the_same_reason_is_no_news(circuit: Circuit) -> None:
    """Two hundred refused messages are one log line."""
    circuit.trip(100, "full")

    assert circuit.trip(100, "full") is False
    assert circuit.trip(100, "missing") is True


def test_refusals_while_open_do_not_make_the_pause_longer(circuit: Circuit) -> None:
    """A window of refused messages is one refusal: the pause grows per try."""
    for _ in range(200):
        circuit.trip(100, "full")

    assert circuit.begin_try(101)


def test_the_pause_must_be_over_before_a_try(circuit: Circuit) -> None:
    """One second at first."""
    circuit.trip(100, "full")

    assert not circuit.begin_try(100.9)
    assert circuit.begin_try(101)


def test_only_one_try_at_a_time(circuit: Circuit) -> None:
    """Declaring a queue twice at once helps nobody."""
    circuit.trip(100, "full")

    assert circuit.begin_try(101)
    assert circuit.state is State.TRYING
    assert not circuit.begin_try(200)


def test_pauses_double_up_to_thirty_seconds(circuit: Circuit) -> None:
    """Soon back after a short fault, no hammering in a long one."""
    now, pauses = 0.0, []
    circuit.trip(now, "full")
    for _ in range(8):
        begun = now
        while not circuit.begin_try(now):
            now += 0.5
        pauses.append(now - begun)
        circuit.trip(now, "full")

    assert pauses == [1, 2, 4, 8, 16, 30, 30, 30]


def test_jitter_spreads_the_tries_of_replicas() -> None:
    """Ten replicas must not declare the same queue in the same instant."""
    early, late = Circuit(lambda: 0.75), Circuit(lambda: 1.25)
    early.trip(100, "full")
    late.trip(100, "full")

    assert early.begin_try(100.75)
    assert not late.begin_try(101.2)
    assert late.begin_try(101.25)


def test_a_usable_queue_half_opens_and_the_first_confirm_closes(circuit: Circuit) -> None:
    """That the queue exists does not say that it takes messages."""
    circuit.trip(100, "full")
    circuit.begin_try(101)

    circuit.half_open()

    assert (circuit.state, circuit.reason) == (State.HALF_OPEN, "full")
    assert circuit.close() is True
    assert (circuit.state, circuit.reason) == (State.CLOSED, None)


def test_a_refusal_in_half_open_opens_for_longer(circuit: Circuit) -> None:
    """The queue is there and still full: the next pause is the next one."""
    circuit.trip(100, "full")
    circuit.begin_try(101)
    circuit.half_open()

    circuit.trip(102, "full")

    assert circuit.state is State.OPEN
    assert not circuit.begin_try(103.9)
    assert circuit.begin_try(104)


def test_a_confirm_of_before_the_try_proves_nothing(circuit: Circuit) -> None:
    """Its message was sent before the queue was full."""
    circuit.trip(100, "full")

    assert circuit.close() is False
    assert circuit.begin_try(101)
    assert circuit.close() is False
    assert circuit.reason == "full"


def test_what_is_proven_closes_at_once(circuit: Circuit) -> None:
    """The engine gives the topic's tasks again: no message has to show it."""
    circuit.trip(100, "the engine refuses to fetch it")

    assert circuit.close(proven=True) is True
    assert (circuit.state, circuit.reason) == (State.CLOSED, None)


def test_half_open_needs_a_try(circuit: Circuit) -> None:
    """A late answer of an earlier look must not open the gate."""
    circuit.trip(100, "full")
    circuit.half_open()

    assert circuit.state is State.OPEN


def test_a_closed_circuit_is_not_half_opened(circuit: Circuit) -> None:
    """A confirm was faster than the look at the queue."""
    circuit.half_open()

    assert circuit.state is State.CLOSED


def test_closing_forgets_the_grown_pause(circuit: Circuit) -> None:
    """The next fault is a new one."""
    circuit.trip(100, "full")
    reopen(circuit, 110)
    reopen(circuit, 120)
    assert circuit.begin_try(130)
    circuit.half_open()
    assert circuit.close()

    circuit.trip(200, "full")

    assert circuit.begin_try(201)
