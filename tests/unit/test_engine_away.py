"""The engine is away, or somebody else answers in its place: results are held, nobody is blamed,
one call at a time asks whether it is back, and locks are looked after all the while.
"""

from __future__ import annotations

from typing import Any

import pytest

from bridge.errors import EngineUnavailable
from bridge.ledger import Entry
from bridge.messages import Delivery
from bridge.simulated_engine import Answer, Hold
from bridge.tokens import Token
from tests.support.rooms import PARKED, WAIT, Rooms, make_topic
from tests.support.waiting import eventually, throughout
from tests.unit.conftest import Open, hurry

LOGIN = "<!doctype html><html><form>Sign in</form></html>"
FORBIDDEN = Answer(403, {"type": "AuthorizationException", "message": "no"})
UNAVAILABLE = Answer(503)
ELSEWHERE = {"Location": "http://192.0.2.1/engine-rest"}

# Whatever answers instead of the engine: in its own way each says nothing about any task.
STRANGERS: dict[str, Answer] = {
    "401": Answer(401),
    "login page with 200": Answer(200, LOGIN),
    "OK with 200": Answer(200, "OK"),
    "nothing with 200": Answer(200),
    "another service's JSON": Answer(200, {"status": "up"}),
    "half an object": Answer(200, '{"id": "0a1b'),
    "redirect": Answer(302, headers=ELSEWHERE),
    "redirect that repeats": Answer(307, headers=ELSEWHERE),
    "HTML with 404": Answer(404, LOGIN),
    "no such path": Answer(404, {"type": "NotFoundException", "message": "RESTEASY003210"}),
    "HTML with 405": Answer(405, LOGIN),
    "time-out of a request": Answer(408),
    "throttled": Answer(429),
    "throttled for a second": Answer(429, headers={"Retry-After": "1"}),
    "HTML with 500": Answer(500, LOGIN),
    "empty 500": Answer(500),
    "bad gateway": Answer(502, LOGIN),
    "away": UNAVAILABLE,
    "gateway time-out": Answer(504, LOGIN),
}
strangers = pytest.mark.parametrize("stranger", STRANGERS.values(), ids=STRANGERS.keys())
CONFLICTS = [1, 10000, 10001]


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Try again in an instant."""
    hurry(monkeypatch)
    monkeypatch.setattr("bridge.dispatcher.MAX_PAUSE_SECONDS", 0.02)


def record(rooms: Rooms, entry: Entry) -> dict[str, Any]:
    task = rooms.task(entry.task_id)
    assert task is not None
    return task


def all_acked(rooms: Rooms, deliveries: list[Delivery]) -> None:
    eventually(lambda: len(rooms.acked) == len(deliveries), 60, what="all acknowledged")
    assert {d.tag for d in rooms.acked} == {d.tag for d in deliveries}


# Somebody else answers


@strangers
@pytest.mark.usefixtures("soon")
def test_no_result_is_lost_to_a_stranger(rooms: Rooms, stranger: Answer) -> None:
    """Neither taken for the engine's yes nor for its no: each is held and applied once."""
    done, caught, failed, busy = (rooms.in_flight() for _ in range(4))
    rooms.engine.faults.add("*", when="before", action=stranger, times=None)
    deliveries = [
        rooms.answer(done, {}),
        rooms.answer(caught, {"errorCode": "E1"}, "bpmnError"),
        rooms.answer(failed, {}, "failure"),
        rooms.answer(busy, {"variables": {"n": 1}}, "extendLock"),
    ]
    eventually(lambda: len(rooms.engine.calls.of()) > 8)
    assert rooms.acked == []

    rooms.engine.faults.clear()

    all_acked(rooms, deliveries)
    assert rooms.publisher.sent == []
    assert {t["id"] for t in rooms.engine.tasks()} == {failed.task_id, busy.task_id}
    assert record(rooms, failed)["retries"] == 2
    assert record(rooms, busy)["retries"] is None
    assert rooms.lock_left(busy.task_id) > 590


@strangers
@pytest.mark.usefixtures("soon")
def test_no_task_is_fetched_from_a_stranger(rooms: Rooms, stranger: Answer) -> None:
    """Told at `/ready`, never a crash; when the engine is back its tasks flow."""
    rooms.engine.faults.add("fetchAndLock", when="before", action=stranger, times=2)
    rooms.start(dispatcher=True)
    eventually(lambda: rooms.dispatcher.problem)

    task_id = rooms.instance()

    eventually(lambda: [p.message_id for p in rooms.publisher.to("a")] == [f"{task_id}:-"])
    assert rooms.dispatcher.problem is None
    assert rooms.publisher.to(PARKED) == []


@pytest.mark.usefixtures("soon")
@pytest.mark.parametrize("code", CONFLICTS)
@pytest.mark.parametrize(
    ("verb", "body", "outcome"),
    [
        ("complete", {}, None),
        ("bpmnError", {"errorCode": "E1"}, "bpmnError"),
        ("failure", {}, "failure"),
        ("extendLock", {}, "extendLock"),
    ],
)
def test_a_conflict_in_the_database_is_nobodys_fault(
    rooms: Rooms, code: int, verb: str, body: Any, outcome: str | None
) -> None:
    """Optimistic locking, a deadlock, a foreign key: rolled back, tried again, no retry spent."""
    entry = rooms.in_flight()
    conflict = Answer(500, {"type": "OptimisticLockingException", "message": "x", "code": code})
    rooms.engine.faults.add(verb, when="before", action=conflict, times=4)

    delivery = rooms.answer(entry, body, outcome)

    all_acked(rooms, [delivery])
    assert len(rooms.engine.calls.of(verb)) == 5
    assert rooms.publisher.sent == []
    assert rooms.client.gate.is_open


# What one learns, all know


def test_many_held_results_ask_as_one(open_rooms: Open) -> None:
    """Two hundred results and an engine that comes up: it gets a few calls, not hundreds."""
    rooms = open_rooms().start()
    entries = [rooms.in_flight() for _ in range(200)]
    rooms.engine.calls.clear()
    rooms.engine.faults.add("*", when="before", action=UNAVAILABLE, times=None)

    deliveries = [rooms.answer(entry, {}) for entry in entries]

    eventually(lambda: not rooms.client.gate.is_open)
    throughout(lambda: rooms.acked == [], 2.0)
    assert len(rooms.engine.calls.of("complete")) <= 4 * 3 + 5 * 3  # who was under way, and probes
    rooms.engine.faults.clear()
    all_acked(rooms, deliveries)
    assert rooms.engine.tasks() == []
    assert len(rooms.engine.calls.of("complete")) <= 27 + 200
    assert rooms.publisher.sent == []


def test_silent_workers_tasks_ask_as_one_too(open_rooms: Open) -> None:
    """They share the gate with the results of the others."""
    rooms = open_rooms(make_topic("a", replies={"profile": "none"})).start()
    entries = [rooms.in_flight() for _ in range(50)]
    rooms.engine.calls.clear()
    rooms.engine.faults.add("complete", when="before", action=Answer(401), times=None)

    for entry in entries:
        rooms.unanswered.complete(rooms.topics["a"], Token(entry.task_id, entry.retries))

    eventually(lambda: not rooms.client.gate.is_open)
    throughout(lambda: len(rooms.engine.tasks()) == 50, 1.5)
    assert len(rooms.engine.calls.of("complete")) <= 4 + 5
    rooms.engine.faults.clear()
    eventually(lambda: rooms.engine.tasks() == [], 60)


def test_the_poll_tells_the_held_results_that_the_engine_is_back(rooms: Rooms) -> None:
    """They flow at once, whatever pause the probes have come to."""
    entries = [rooms.in_flight() for _ in range(20)]
    away = EngineUnavailable("no connection")
    rooms.client.gate.refused(away, began=1e12, now=1e12)  # no probe before that time
    deliveries = [rooms.answer(entry, {}) for entry in entries]
    throughout(lambda: rooms.engine.calls.of("complete") == (), 1.0)

    rooms.client.fetch_and_lock([rooms.topics["a"].fetch], 1)

    all_acked(rooms, deliveries)


def test_locks_are_renewed_behind_a_closed_gate(open_rooms: Open) -> None:
    """A lock that lapses publishes a message twice: the keeper asks nobody."""
    rooms = open_rooms().start(keeper=True)
    held, other = rooms.in_flight(), rooms.in_flight()
    rooms.engine.faults.add("complete", when="before", action=UNAVAILABLE, times=None)
    rooms.answer(held, {})
    eventually(lambda: len(rooms.engine.calls.of("complete")) >= 3)

    rooms.advance(6)

    rooms.leased(held)
    rooms.leased(other)


def test_a_call_that_hangs_keeps_no_lock_and_no_other_result_waiting(open_rooms: Open) -> None:
    """One listener that takes a minute is one process's own affair."""
    rooms = open_rooms().start(keeper=True)
    slow, other, third = (rooms.in_flight() for _ in range(3))
    hang = rooms.engine.faults.add("complete", when="before", action=Hold(), task_id=slow.task_id)
    rooms.answer(slow, {})
    assert hang.reached.wait(10)

    delivery = rooms.answer(other, {})
    rooms.advance(6)

    eventually(lambda: delivery in rooms.acked)
    rooms.leased(third)
    hang.release()


@pytest.mark.usefixtures("soon")
def test_missing_rights_for_one_process_stop_no_other(open_rooms: Open) -> None:
    """Its results wait for an administrator; the gate stays open."""
    rooms = open_rooms(make_topic("a"), make_topic("b")).start()
    refused, fine = [rooms.in_flight("a") for _ in range(10)], rooms.in_flight("b")
    for entry in refused:
        rooms.engine.faults.add(
            "complete", when="before", action=FORBIDDEN, times=None, task_id=entry.task_id
        )

    deliveries = [rooms.answer(entry, {}) for entry in [*refused, fine]]

    all_acked(rooms, deliveries)
    assert len(rooms.publisher.through(WAIT)) == 10
    assert rooms.publisher.to(PARKED) == []
    assert [t["id"] for t in rooms.engine.tasks(externalTaskIdIn=[fine.task_id])] == []
    assert rooms.client.gate.is_open


def test_a_result_that_waits_behind_the_gate_moves_on_after_five_minutes(rooms: Rooms) -> None:
    """RabbitMQ takes deliveries back after half an hour; nothing is requeued until then."""
    entries = [rooms.in_flight() for _ in range(20)]
    rooms.engine.stop()
    deliveries = [rooms.answer(entry, {}) for entry in entries]
    eventually(lambda: not rooms.client.gate.is_open)

    rooms.advance(331)

    all_acked(rooms, deliveries)
    assert len(rooms.publisher.through(WAIT)) == 20


@pytest.mark.usefixtures("soon")
@pytest.mark.parametrize(
    "reason",
    [
        "At the moment the server has to handle too many requests at the same time.",
        "Request rejected due to shutdown of application server.",
    ],
    ids=["poll queue full", "shutting down"],
)
def test_a_poll_that_the_engine_cannot_take_is_made_again(open_rooms: Open, reason: str) -> None:
    """Both are 500 and neither is a topic's fault: no circuit opens."""
    rooms = open_rooms()
    busy = Answer(500, {"type": "RestException", "message": reason})
    rooms.engine.faults.add("fetchAndLock", when="before", action=busy, times=3)
    task_id = rooms.instance()

    rooms.start(dispatcher=True)

    eventually(lambda: rooms.publisher.to("a"))
    assert [p.message_id for p in rooms.publisher.to("a")] == [f"{task_id}:-"]
    assert rooms.circuits.is_closed("a")


def test_the_poll_waits_for_as_long_as_it_is_asked_to(open_rooms: Open) -> None:
    """`Retry-After`: the next poll is not made before."""
    rooms = open_rooms()
    later = Answer(503, headers={"Retry-After": "2"})
    rooms.engine.faults.add("fetchAndLock", when="before", action=later)

    rooms.start(dispatcher=True)

    eventually(lambda: len(rooms.engine.calls.of("fetchAndLock")) > 1)
    first, second = rooms.engine.calls.of("fetchAndLock")[:2]
    assert second.at_ms - first.at_ms >= 1990
