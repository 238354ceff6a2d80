"""A task whose worker never answers is completed once its message lies in a queue."""

from __future__ import annotations

from typing import Any

import pytest

from bridge.ledger import Entry
from bridge.patience import BROKEN_PAUSES_SECONDS
from bridge.simulated_engine import Answer
from bridge.tokens import Token
from tests.support.rooms import Rooms, make_topic
from tests.support.waiting import eventually, throughout
from tests.unit.conftest import Open, hurry

BROKEN = Answer(500, {"type": "ProcessEngineException", "message": "listener", "code": 0})
AWAY = Answer(503)
GONE = Answer(404, {"type": "RestException", "message": "does not exist"})


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Try again in an instant."""
    hurry(monkeypatch)


def record(rooms: Rooms, entry: Entry) -> dict[str, Any]:
    task = rooms.task(entry.task_id)
    assert task is not None
    return task


@pytest.fixture
def silent(open_rooms: Open) -> Rooms:
    """A replica whose topic is never answered."""
    return open_rooms(make_topic("a", replies={"profile": "none"})).start()


def complete_unanswered(rooms: Rooms, entry: Entry) -> None:
    rooms.unanswered.complete(rooms.topics["a"], Token(entry.task_id, entry.retries))


def a_minute_passes(rooms: Rooms) -> None:
    """And more; the callers are told, for they wait in real time."""
    rooms.settled()
    rooms.advance(80)
    rooms.callers.submit("anything", lambda: None)


def test_a_task_of_a_silent_worker_is_completed(silent: Rooms) -> None:
    """Once the broker has its message."""
    entry = silent.in_flight()

    complete_unanswered(silent, entry)

    eventually(lambda: silent.task(entry.task_id) is None)
    eventually(lambda: entry.task_id not in silent.ledger)


def test_a_silent_workers_task_is_completed_when_the_engine_is_back(silent: Rooms) -> None:
    """There is no message that would come again."""
    entry = silent.in_flight()
    silent.engine.faults.add("complete", when="before", times=10, action=AWAY)

    complete_unanswered(silent, entry)

    eventually(lambda: silent.task(entry.task_id) is None)


def test_a_silent_workers_task_that_is_gone_is_let_go(silent: Rooms) -> None:
    """Cancelled in between."""
    entry = silent.in_flight()
    silent.client.complete(entry.task_id, {}, {})

    complete_unanswered(silent, entry)

    eventually(lambda: entry.task_id not in silent.ledger)


@pytest.mark.parametrize(
    ("answer", "tries"),
    [
        (BROKEN, len(BROKEN_PAUSES_SECONDS) + 1),
        (Answer(400, {"type": "RestException", "message": "no"}), 1),
    ],
)
def test_a_process_that_cannot_go_on_is_an_incident(
    silent: Rooms, answer: Answer, tries: int
) -> None:
    """As with a worker that answers."""
    entry = silent.in_flight()
    silent.engine.faults.add("complete", when="before", times=None, action=answer)

    complete_unanswered(silent, entry)

    eventually(lambda: record(silent, entry)["retries"] == 0)
    assert len(silent.engine.calls.of("complete")) == tries


@pytest.mark.parametrize("fault", [GONE, AWAY, BROKEN], ids=["gone", "away", "broken"])
def test_an_incident_that_cannot_be_raised_does_not_kill_the_callers(
    silent: Rooms, fault: Answer
) -> None:
    """A caller that dies ends the process: one bad task would stop all others."""
    entry = silent.in_flight()
    refusal = Answer(400, {"type": "RestException", "message": "no"})
    silent.engine.faults.add("complete", when="before", times=None, action=refusal)
    silent.engine.faults.add("getTask", when="before", times=5, action=fault)

    complete_unanswered(silent, entry)

    eventually(lambda: silent.engine.calls.of("getTask"))
    silent.settled()
    other = silent.in_flight()
    silent.engine.faults.clear()
    complete_unanswered(silent, other)
    eventually(lambda: silent.task(other.task_id) is None)
    assert silent.died == []


def test_a_suspended_process_is_asked_again_once_a_minute(silent: Rooms) -> None:
    """It may stay suspended for days: more calls would only burden the engine."""
    entry = silent.in_flight()
    silent.suspend(entry.task_id)

    complete_unanswered(silent, entry)

    eventually(lambda: silent.engine.calls.of("complete"))
    throughout(lambda: len(silent.engine.calls.of("complete")) == 1, 0.3)
    silent.suspend(entry.task_id, suspended=False)
    a_minute_passes(silent)
    eventually(lambda: silent.task(entry.task_id) is None)


@pytest.mark.parametrize("verb", ["complete", "failure"])
def test_missing_rights_are_asked_for_again_once_a_minute(silent: Rooms, verb: str) -> None:
    """Only an administrator can mend it, be it the completion or the incident that is refused."""
    entry = silent.in_flight()
    refusal = Answer(400, {"type": "RestException", "message": "no"})
    forbidden = Answer(403, {"type": "AuthorizationException", "message": "no"})
    silent.engine.faults.add(verb, when="before", times=None, action=forbidden)
    silent.engine.faults.add("complete", when="before", times=None, action=refusal)

    complete_unanswered(silent, entry)

    eventually(lambda: silent.engine.calls.of(verb))
    throughout(lambda: len(silent.engine.calls.of(verb)) == 1, 0.3)
    silent.engine.faults.clear()
    a_minute_passes(silent)
    eventually(lambda: silent.task(entry.task_id) is None)


def test_a_stopping_reporter_completes_no_more(silent: Rooms) -> None:
    """The lock lapses and the message is published again: at least once."""
    entry = silent.in_flight()
    silent.reporter.closing.set()

    complete_unanswered(silent, entry)

    silent.settled()
    assert silent.task(entry.task_id) is not None
