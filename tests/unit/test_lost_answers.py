"""The engine has carried a call out and its answer is lost, for every verb that the bridge uses:
the end is right, nothing is done twice and no retry is spent.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest

from bridge.ledger import Entry
from bridge.simulated_engine import Answer, Drop
from bridge.simulated_engine.faults import When
from bridge.tokens import Token
from tests.support.rooms import DEAD, Rooms, make_topic, timing
from tests.support.waiting import eventually
from tests.unit.conftest import Open, hurry


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Try again in an instant."""
    hurry(monkeypatch)
    monkeypatch.setattr("bridge.lock_keeper.TICK_SECONDS", 0.02)


@dataclass(frozen=True)
class Loss:
    """How an answer is lost after the engine has done what was asked."""

    when: When
    action: Drop | Answer


LOSSES = {
    "cut": Loss("after", Drop()),
    "cut in the middle": Loss("response", Drop()),
    "gateway": Loss("after", Answer(504, "<html>gateway time-out</html>")),
}
# Half of an answer without a body is the whole of it.
with_body = pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES.keys())


@pytest.fixture(params=["cut", "gateway"])
def loss(request: pytest.FixtureRequest) -> Loss:
    """The connection breaks, or a proxy loses its patience."""
    return LOSSES[request.param]


def lose(rooms: Rooms, verb: str, loss: Loss, times: int = 1) -> None:
    """Lose the answers of the next calls."""
    if isinstance(loss.action, Drop):
        rooms.engine.faults.add(verb, when=loss.when, action=loss.action, times=times)
    else:
        rooms.engine.faults.add(verb, when=loss.when, action=loss.action, times=times)


def answered(rooms: Rooms, entry: Entry, body: Any = None, outcome: str | None = None) -> None:
    """Answer, and wait until the result is acknowledged; it must not be parked or wait."""
    delivery = rooms.answer(entry, body, outcome)
    eventually(lambda: delivery in rooms.acked, what="acknowledged")
    assert rooms.acked == [delivery]
    assert rooms.publisher.sent == []


def record(rooms: Rooms, entry: Entry) -> dict[str, Any]:
    task = rooms.task(entry.task_id)
    assert task is not None
    return task


def succeeded(rooms: Rooms, verb: str) -> int:
    """How many calls the engine has carried out and nobody has lost."""
    return sum(call.status in (200, 204) for call in rooms.engine.calls.of(verb))


@pytest.mark.parametrize(
    ("verb", "body", "outcome"),
    [("complete", {"a": 1}, None), ("bpmnError", {"errorCode": "E1"}, "bpmnError")],
)
def test_an_end_is_reached_once(
    rooms: Rooms, verb: str, body: Any, outcome: str | None, loss: Loss
) -> None:
    """The second call finds the task gone: done, and acknowledged."""
    entry = rooms.in_flight()
    lose(rooms, verb, loss)

    answered(rooms, entry, body, outcome)

    assert rooms.engine.tasks() == []
    assert [c.status for c in rooms.engine.calls.of(verb)][1:] == [404]
    assert entry.task_id not in rooms.ledger


def test_a_failure_is_counted_once(rooms: Rooms, loss: Loss) -> None:
    """Three attempts stay three: the read before the write shows that it is done."""
    entry = rooms.in_flight()
    lose(rooms, "failure", loss)

    answered(rooms, entry, {"errorMessage": "boom"}, "failure")

    assert (record(rooms, entry)["retries"], record(rooms, entry)["errorMessage"]) == (2, "boom")
    assert len(rooms.engine.calls.of("failure")) == 1
    rooms.advance(6)
    assert rooms.fetched_next().retries == 2


@with_body
def test_a_failure_whose_reading_is_lost_is_reported_once(rooms: Rooms, loss: Loss) -> None:
    """To read again costs nothing."""
    entry = rooms.in_flight()
    lose(rooms, "getTask", loss, times=4)

    answered(rooms, entry, {}, "failure")

    assert record(rooms, entry)["retries"] == 2
    assert len(rooms.engine.calls.of("failure")) == 1


def test_an_incident_is_raised_once(rooms: Rooms, loss: Loss) -> None:
    """And the result that caused it is parked once."""
    entry = rooms.in_flight()
    lose(rooms, "failure", loss)
    delivery = rooms.answer(entry, b"no json")

    eventually(lambda: delivery in rooms.acked)

    assert record(rooms, entry)["retries"] == 0
    assert len(rooms.engine.calls.of("failure")) == 1
    assert len(rooms.publisher.sent) == 1


@pytest.mark.parametrize("verb", ["extendLock", "writeVariables", "getTask"])
def test_progress_keeps_its_task(rooms: Rooms, verb: str, loss: Loss) -> None:
    """Its variables are written, its lock runs, and its holder answers for it."""
    entry = rooms.in_flight()
    lose(rooms, verb, loss)

    answered(rooms, entry, {"newDuration": 900_000, "variables": {"n": 1}}, "extendLock")

    assert 890 < rooms.lock_left(entry.task_id) <= 900.1
    assert succeeded(rooms, "writeVariables") == 1
    assert entry.task_id in rooms.ledger
    assert record(rooms, entry)["retries"] is None


def test_a_task_given_back_is_released(rooms: Rooms, loss: Loss) -> None:
    """After its pause it is offered again, with every retry it had."""
    entry = rooms.in_flight()
    lose(rooms, "extendLock", loss)

    answered(rooms, entry, {}, "unlock")

    assert 3 < rooms.lock_left(entry.task_id) <= 5.1
    rooms.advance(6)
    assert rooms.fetched_next().retries is None


def test_an_expired_message_releases_its_task(rooms: Rooms, loss: Loss) -> None:
    """At once: the repeated call finds the lock over, and that is what was asked for."""
    entry = rooms.in_flight()
    lose(rooms, "extendLock", loss)
    death = {"reason": "expired", "queue": "a", "count": 1, "routing-keys": ["a"]}
    letter = rooms.result(entry, {}, queue=DEAD, type="a", headers={"x-death": [death]})

    rooms.reporter.deliver(letter)

    eventually(lambda: letter in rooms.acked)
    assert rooms.fetched_next().retries is None
    assert rooms.count("released") == 1


def test_a_task_that_was_unlocked_is_taken_back_and_completed(rooms: Rooms, loss: Loss) -> None:
    """`lock` may be repeated: it is ours already."""
    entry = rooms.in_flight()
    rooms.client.unlock(entry.task_id)
    lose(rooms, "lock", loss)

    answered(rooms, entry, {})

    assert rooms.engine.tasks() == []
    assert succeeded(rooms, "complete") == 1


def test_a_silent_workers_task_is_completed_once(open_rooms: Open, loss: Loss) -> None:
    """No message would come again for it."""
    rooms = open_rooms(make_topic("a", replies={"profile": "none"})).start()
    entry = rooms.in_flight()
    lose(rooms, "complete", loss)

    rooms.unanswered.complete(rooms.topics["a"], Token(entry.task_id, entry.retries))

    eventually(lambda: entry.task_id not in rooms.ledger)
    assert rooms.engine.tasks() == []
    assert rooms.count("incident") == 0


# The locks


@with_body
def test_a_lease_is_set_by_a_second_question(open_rooms: Open, loss: Loss) -> None:
    """The bulk query changes nothing: it is asked again."""
    lease_is_set_and_renewed(open_rooms().start(keeper=True), "query", loss)


@pytest.mark.parametrize("verb", ["extendLock", "lock"])
def test_a_lease_is_set_and_renewed(open_rooms: Open, verb: str, loss: Loss) -> None:
    """Old or new, the expiry counts as ours: the next check must not let go of the task."""
    lease_is_set_and_renewed(open_rooms().start(keeper=True), verb, loss)


def lease_is_set_and_renewed(rooms: Rooms, verb: str, loss: Loss) -> None:
    entry = rooms.in_flight()
    if verb == "lock":
        rooms.suspend(entry.task_id)
    lose(rooms, verb, loss, times=4)
    rooms.advance(6)
    eventually(lambda: rooms.count("leased") == 1, what="leased")

    rooms.advance(331)

    eventually(lambda: rooms.count("leased") == 2, what="renewed")
    assert rooms.lock_left(entry.task_id) > 590
    assert rooms.count("dropped") == 0


def test_an_adoption_is_not_lost(open_rooms: Open, loss: Loss) -> None:
    """Extended and not known to be: a repeated call makes it so."""
    rooms = open_rooms()
    entry = rooms.in_flight()
    rooms.client.extend_lock(entry.task_id, 200)
    rooms.ledger.settle(entry.task_id)
    lose(rooms, "extendLock", loss)

    rooms.start(keeper=True)

    eventually(lambda: entry.task_id in rooms.ledger)
    assert rooms.lock_left(entry.task_id) > 590


def test_a_missed_deadline_is_reported_once(open_rooms: Open, loss: Loss) -> None:
    """One answer that never came costs one retry."""
    rooms = open_rooms(make_topic("a", timing=timing(deadline=100))).start(keeper=True)
    entry = rooms.in_flight()
    lose(rooms, "failure", loss)
    rooms.advance(6)

    for renewals in (1, 2, 3):
        eventually(lambda n=renewals: rooms.count("leased") == n)  # type: ignore[misc]
        rooms.advance(331)

    eventually(lambda: entry.task_id not in rooms.ledger)
    assert record(rooms, entry)["retries"] == 2
    assert len(rooms.engine.calls.of("failure")) == 1


# Fetch


@with_body
def test_a_fetch_costs_a_window_and_no_task(open_rooms: Open, loss: Loss) -> None:
    """What it locked comes again when the lock lapses, and is published once."""
    rooms = open_rooms()
    lose(rooms, "fetchAndLock", loss)
    task_id = rooms.instance()
    rooms.start(dispatcher=True)
    eventually(lambda: succeeded(rooms, "fetchAndLock") >= 2)
    assert rooms.publisher.sent == []

    rooms.engine.clock.advance(61)  # the engine's alone: a poll under way is no older for it

    eventually(lambda: rooms.publisher.to("a"))
    assert [p.message_id for p in rooms.publisher.to("a")] == [f"{task_id}:-"]
