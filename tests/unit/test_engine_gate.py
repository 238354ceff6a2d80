"""What one call learns of an engine that is away, all share; its return is found by single probes.

Time is an argument here; the jitter always takes the longest pause.
"""

from __future__ import annotations

import contextlib
import itertools
import threading

import pytest

from bridge.engine import EngineClient, Gate
from bridge.engine.connection import HttpOptions
from bridge.engine.gate import FIRST_PAUSE_SECONDS, MAX_PAUSE_SECONDS, MAX_RETRY_AFTER_SECONDS
from bridge.errors import (
    EngineBroken,
    EngineConflict,
    EngineError,
    EngineForbidden,
    EngineMisconfigured,
    EngineRefused,
    EngineUnauthorized,
    EngineUnavailable,
    TaskGone,
    TaskSuspended,
)
from bridge.simulated_engine import Answer, SimulatedEngine

AWAY = EngineUnavailable("no connection")


@pytest.fixture
def gate() -> Gate:
    return Gate(lambda _shortest, longest: longest)


def probes(gate: Gate, *, until: float) -> list[float]:
    """When single calls pass a closed gate, to the tenth of a second."""
    return [t / 10 for t in range(round(until * 10)) if gate.passes(t / 10)]


def test_an_open_gate_lets_everybody_pass(gate: Gate) -> None:
    """Nothing is known against the engine."""
    assert all(gate.passes(now) for now in (0.0, 0.0, 5.0))


@pytest.mark.parametrize(
    "error", [AWAY, EngineUnauthorized("401"), EngineMisconfigured("HTML")], ids=str
)
def test_an_engine_that_is_away_closes_it_for_all_but_one(gate: Gate, error: EngineError) -> None:
    """Down, the wrong password, another address: no other call would fare better."""
    assert gate.refused(error, began=0.0, now=0.0)

    assert not gate.is_open
    assert not gate.passes(FIRST_PAUSE_SECONDS - 0.01)
    assert gate.passes(FIRST_PAUSE_SECONDS)
    assert not gate.passes(FIRST_PAUSE_SECONDS)


@pytest.mark.parametrize(
    "error",
    [
        EngineForbidden("403"),
        EngineRefused("400"),
        EngineBroken("500"),
        EngineConflict("500"),
        TaskGone("404"),
        TaskSuspended("400"),
    ],
    ids=lambda e: type(e).__name__,
)
def test_what_concerns_one_task_leaves_it_open(gate: Gate, error: EngineError) -> None:
    """Rights missing for one process must not stop the others."""
    assert not gate.refused(error, began=0.0, now=0.0)

    assert gate.is_open


def test_the_pauses_between_probes_grow(gate: Gate) -> None:
    """Calm calls to an engine that is busy with its own start."""
    gate.refused(AWAY, began=0.0, now=0.0)

    times = probes(gate, until=60)

    pauses = [round(b - a, 1) for a, b in itertools.pairwise(times)]
    assert pauses == sorted(pauses)
    assert pauses[0] < 1
    assert pauses[-1] == pytest.approx(MAX_PAUSE_SECONDS)
    assert len(times) < 13


def test_a_probe_that_never_ends_is_followed_by_another(gate: Gate) -> None:
    """Nothing depends on one caller's coming back."""
    gate.refused(AWAY, began=0.0, now=0.0)
    assert gate.passes(1.0)

    assert gate.passes(2.0)


def test_calls_that_were_under_way_do_not_make_the_pauses_longer(gate: Gate) -> None:
    """Eight callers fail at once when the engine dies: that is one outage."""
    closed = [gate.refused(AWAY, began=0.0, now=moment / 100) for moment in range(8)]

    assert closed == [True] + [False] * 7
    assert gate.passes(FIRST_PAUSE_SECONDS)


def test_any_answer_opens_it_for_all(gate: Gate) -> None:
    """Whoever hears the engine first, be it the poll, tells the others."""
    gate.refused(AWAY, began=0.0, now=0.0)

    gate.answered(0.1)

    assert gate.is_open
    assert gate.passes(0.1)
    assert gate.passes(0.1)


def test_one_slow_call_says_nothing_of_an_engine_that_answers_others(gate: Gate) -> None:
    """A listener of one process that takes a minute must not stop all topics."""
    gate.answered(10.0)

    gate.refused(EngineUnavailable("no answer in time"), began=5.0, now=25.0)

    assert gate.is_open


def test_an_answer_of_before_the_call_does_not_speak_for_the_engine(gate: Gate) -> None:
    """It may have died since."""
    gate.answered(4.0)

    gate.refused(AWAY, began=5.0, now=25.0)

    assert not gate.is_open


def test_who_asks_for_time_gets_it(gate: Gate) -> None:
    """`Retry-After` of a 429 or 503."""
    gate.refused(EngineUnavailable("429", retry_after=30), began=0.0, now=0.0)

    assert probes(gate, until=30) == []
    assert gate.passes(30.0)


def test_nobody_gets_more_time_than_a_minute(gate: Gate) -> None:
    """An hour of a careless proxy would be an hour's outage."""
    gate.refused(EngineUnavailable("503", retry_after=3600), began=0.0, now=0.0)

    assert gate.passes(MAX_RETRY_AFTER_SECONDS)


# Who tells it


@pytest.mark.parametrize(
    ("answer", "heard"),
    [
        (Answer(200, {"version": "7"}), True),
        (Answer(404, {"type": "RestException", "message": "gone"}), True),
        (Answer(500, {"type": "ProcessEngineException", "message": "x", "code": 0}), True),
        (Answer(401), False),
        (Answer(503), False),
        (Answer(200, "<html>login</html>"), False),
        (Answer(404, "<html>not here</html>"), False),
    ],
    ids=["200", "404", "500", "401", "503", "login page", "HTML 404"],
)
def test_every_answer_of_the_engines_own_opens_it(answer: Answer, *, heard: bool) -> None:
    """Also a refusal: the engine is there and takes the credentials."""
    with SimulatedEngine() as engine:
        client = EngineClient(HttpOptions(engine.url), "bridge", stopping=threading.Event())
        client.gate.refused(AWAY, began=1e12, now=1e12)
        engine.faults.add("version", when="before", action=answer, times=None)

        with contextlib.suppress(EngineError):
            client.version()

        assert client.gate.is_open is heard
