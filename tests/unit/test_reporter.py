"""Results and dead letters reach the engine; each is acknowledged last, and never too early."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from bridge.broker import Outcome
from bridge.ledger import Entry
from bridge.messages import Delivery
from bridge.patience import BROKEN_PAUSES_SECONDS
from bridge.simulated_engine import Answer, Drop, Hold
from tests.support.rooms import DEAD, PARKED, WAIT, Rooms, make_topic
from tests.support.waiting import eventually, throughout
from tests.unit.conftest import Open, hurry

BROKEN_TRIES = len(BROKEN_PAUSES_SECONDS) + 1

BROKEN = Answer(500, {"type": "ProcessEngineException", "message": "listener", "code": 0})
AWAY = Answer(503)
GONE = Answer(404, {"type": "RestException", "message": "does not exist"})


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Try again in an instant."""
    hurry(monkeypatch)


def acked(rooms: Rooms, delivery: Delivery) -> None:
    """Wait for the acknowledgement, which comes exactly once."""
    eventually(lambda: delivery in rooms.acked, what="acknowledged")
    rooms.settled()
    assert rooms.acked.count(delivery) == 1


def parked(rooms: Rooms, reason: str) -> None:
    [copy] = rooms.publisher.to(PARKED)
    assert copy.headers["reason"] == reason
    assert rooms.count("parked") == 1


def record(rooms: Rooms, entry: Entry) -> dict[str, Any]:
    task = rooms.task(entry.task_id)
    assert task is not None
    return task


# Each outcome


def test_a_completion_finishes_the_task(rooms: Rooms) -> None:
    """Variables typed, ledger settled, message acknowledged."""
    entry = rooms.in_flight()

    delivery = rooms.answer(
        entry, {"variables": {"a": 1}, "localVariables": {"b": "x"}}, "complete"
    )

    acked(rooms, delivery)
    assert rooms.task(entry.task_id) is None
    [call] = rooms.engine.calls.of("complete")
    assert call.body["variables"] == {"a": {"value": 1, "type": "Integer"}}
    assert call.body["localVariables"] == {"b": {"value": "x", "type": "String"}}
    assert entry.task_id not in rooms.ledger
    assert rooms.count("completed") == 1


def test_a_failure_is_reported_with_what_it_names(rooms: Rooms) -> None:
    """Message, details, retries and pause (milliseconds on the wire)."""
    entry = rooms.in_flight()

    delivery = rooms.answer(
        entry,
        {
            "errorMessage": "boom",
            "errorDetails": "stack",
            "retries": 5,
            "retryTimeout": 7000,
            "variables": {"v": 1},
            "localVariables": {"l": 2},
        },
        "failure",
    )

    acked(rooms, delivery)
    [call] = rooms.engine.calls.of("failure")
    assert (call.body["errorMessage"], call.body["errorDetails"]) == ("boom", "stack")
    assert (call.body["retries"], call.body["retryTimeout"]) == (5, 7000)
    assert call.body["variables"] == {"v": {"value": 1, "type": "Integer"}}
    assert call.body["localVariables"] == {"l": {"value": 2, "type": "Integer"}}
    assert rooms.count("failed") == 1


def test_a_failure_without_a_message_has_one(rooms: Rooms) -> None:
    """An incident with an empty text helps no operator."""
    entry = rooms.in_flight()

    acked(rooms, rooms.answer(entry, {}, "failure"))

    assert record(rooms, entry)["errorMessage"] == (
        "the worker reported a failure without a message"
    )
    assert record(rooms, entry)["retries"] == 2


def test_a_bpmn_error_is_raised(rooms: Rooms) -> None:
    """The boundary event of the process catches it."""
    entry = rooms.in_flight()

    delivery = rooms.answer(
        entry, {"errorCode": "E1", "errorMessage": "m", "variables": {"a": 1}}, "bpmnError"
    )

    acked(rooms, delivery)
    assert rooms.task(entry.task_id) is None
    [call] = rooms.engine.calls.of("bpmnError")
    assert (call.body["errorCode"], call.body["errorMessage"]) == ("E1", "m")
    assert call.body["variables"] == {"a": {"value": 1, "type": "Integer"}}
    assert entry.task_id not in rooms.ledger
    assert rooms.count("bpmn_error") == 1


def test_progress_extends_the_lock(rooms: Rooms) -> None:
    """And hands the task to whoever reads it, variables included."""
    entry = rooms.in_flight()

    delivery = rooms.answer(
        entry, {"newDuration": 900_000, "variables": {"percent": 40}}, "extendLock"
    )

    acked(rooms, delivery)
    assert 890 < rooms.lock_left(entry.task_id) <= 900.1
    [call] = rooms.engine.calls.of("writeVariables")
    assert call.body == {"modifications": {"percent": {"value": 40, "type": "Integer"}}}
    assert entry.task_id in rooms.ledger


def test_a_task_given_back_is_released_after_the_first_pause(rooms: Rooms) -> None:
    """It costs no retry."""
    entry = rooms.in_flight()

    acked(rooms, rooms.answer(entry, {}, "unlock"))

    assert 3 < rooms.lock_left(entry.task_id) <= 5.1
    assert record(rooms, entry)["retries"] is None
    assert entry.task_id not in rooms.ledger


def test_a_result_of_a_peers_task_is_applied(rooms: Rooms) -> None:
    """All replicas consume all result queues; the ledger knows only this one's."""
    entry = rooms.in_flight()
    rooms.ledger.settle(entry.task_id)

    acked(rooms, rooms.answer(entry, {}))

    assert rooms.task(entry.task_id) is None


def test_results_of_one_task_are_applied_in_order(rooms: Rooms) -> None:
    """Progress, then the end: the other way round the progress would be lost."""
    entry = rooms.in_flight()
    hold = rooms.engine.faults.add("extendLock", when="before", action=Hold())
    first = rooms.answer(entry, {"newDuration": 1}, "extendLock")
    second = rooms.answer(entry, {})
    assert hold.reached.wait(10)
    assert rooms.acked == []

    hold.release()

    acked(rooms, second)
    assert rooms.acked == [first, second]


# Acknowledged last


def test_nothing_is_acknowledged_before_the_engine_has_answered(rooms: Rooms) -> None:
    """A bridge that dies in between gets the message again."""
    entry = rooms.in_flight()
    hold = rooms.engine.faults.add("complete", when="after", action=Hold())
    delivery = rooms.answer(entry, {})
    assert hold.reached.wait(10)
    throughout(lambda: rooms.acked == [], 0.2)

    hold.release()

    acked(rooms, delivery)


def test_a_parked_result_is_acknowledged_after_its_copy_is_confirmed(rooms: Rooms) -> None:
    """Until then only the original exists."""
    rooms.publisher.decide = lambda _: None
    delivery = rooms.result(rooms.in_flight(), b"no json")
    rooms.reporter.deliver(delivery)
    eventually(lambda: rooms.publisher.pending)
    assert rooms.acked == []

    rooms.publisher.settle(Outcome.CONFIRMED)

    acked(rooms, delivery)


def test_a_stopping_reporter_leaves_messages_unacknowledged(rooms: Rooms) -> None:
    """They come again, here or at a peer."""
    entry = rooms.in_flight()
    rooms.reporter.closing.set()

    rooms.answer(entry, {})

    rooms.settled()
    assert rooms.acked == []
    assert rooms.engine.calls.of("complete") == ()


# Stale and gone


@pytest.mark.parametrize("outcome", ["failure", "extendLock", "unlock"])
def test_what_speaks_of_an_older_attempt_is_dropped(rooms: Rooms, outcome: str) -> None:
    """The task has been failed meanwhile: the engine's newer record stays as it is."""
    entry = rooms.in_flight()
    rooms.engine_sets_retries(entry.task_id, 1)
    before = record(rooms, entry)

    acked(rooms, rooms.answer(entry, {}, outcome))

    assert record(rooms, entry) == before
    assert rooms.count("stale") == 1
    assert rooms.publisher.sent == []


def test_a_success_of_an_older_attempt_is_applied(rooms: Rooms) -> None:
    """The work is done, whoever asked for it."""
    entry = rooms.in_flight()
    rooms.engine_sets_retries(entry.task_id, 1)

    acked(rooms, rooms.answer(entry, {}))

    assert rooms.task(entry.task_id) is None
    assert rooms.count("completed") == 1


def test_a_bpmn_error_of_an_older_attempt_is_applied(rooms: Rooms) -> None:
    """A business outcome too."""
    entry = rooms.in_flight()
    rooms.engine_sets_retries(entry.task_id, 1)

    acked(rooms, rooms.answer(entry, {"errorCode": "E1"}, "bpmnError"))

    assert rooms.task(entry.task_id) is None


@pytest.mark.parametrize("outcome", ["complete", "failure", "bpmnError", "extendLock", "unlock"])
def test_a_result_of_a_task_that_is_gone_is_acknowledged(rooms: Rooms, outcome: str) -> None:
    """Cancelled, or completed by a duplicate: counted, never parked."""
    entry = rooms.in_flight()
    rooms.client.complete(entry.task_id, {}, {})

    acked(rooms, rooms.answer(entry, {"errorCode": "E1"}, outcome))

    assert rooms.count("gone") == 1
    assert rooms.publisher.sent == []
    assert entry.task_id not in rooms.ledger


def test_a_completion_whose_answer_was_lost_is_acknowledged(rooms: Rooms) -> None:
    """The second call finds the task gone."""
    entry = rooms.in_flight()
    rooms.engine.faults.add("complete", when="after", action=Drop())

    acked(rooms, rooms.answer(entry, {}))

    assert rooms.task(entry.task_id) is None
    assert rooms.publisher.sent == []


def test_a_failure_whose_answer_was_lost_is_reported_once(rooms: Rooms) -> None:
    """It is read before it is told again, and then found done."""
    entry = rooms.in_flight()
    rooms.engine.faults.add("failure", when="after", action=Drop())

    acked(rooms, rooms.answer(entry, {"retries": 7}, "failure"))

    assert len(rooms.engine.calls.of("failure")) == 1
    assert record(rooms, entry)["retries"] == 7


# Waiting


@pytest.mark.parametrize("outcome", ["complete", "failure", "bpmnError", "unlock"])
def test_a_result_of_a_suspended_task_waits(rooms: Rooms, outcome: str) -> None:
    """Instead of filling the prefetch; it comes back until the instance is resumed."""
    entry = rooms.in_flight()
    rooms.suspend(entry.task_id)

    delivery = rooms.answer(entry, {"errorCode": "E1"}, outcome)

    acked(rooms, delivery)
    [waiting] = rooms.publisher.through(WAIT)
    assert waiting.routing_key == "a.results"
    assert waiting.correlation_id == delivery.correlation_id
    assert rooms.count("waiting") == 1
    assert entry.task_id in rooms.ledger


def test_a_result_whose_rights_are_missing_waits(rooms: Rooms) -> None:
    """An administrator can mend it; the worker's work is not lost."""
    entry = rooms.in_flight()
    forbidden = Answer(403, {"type": "AuthorizationException", "message": "no"})
    rooms.engine.faults.add("complete", when="before", action=forbidden)

    acked(rooms, rooms.answer(entry, {}))

    assert len(rooms.publisher.through(WAIT)) == 1


# The engine is away, in conflict or broken


def test_a_result_is_held_while_the_engine_is_away(rooms: Rooms) -> None:
    """In memory, unacknowledged; the engine's return ends the wait."""
    entry = rooms.in_flight()
    rooms.engine.faults.add("complete", when="before", times=None, action=AWAY)
    delivery = rooms.answer(entry, {})
    eventually(lambda: len(rooms.engine.calls.of("complete")) > 4)
    assert rooms.acked == []
    assert rooms.publisher.sent == []

    rooms.engine.faults.clear()

    acked(rooms, delivery)
    assert rooms.task(entry.task_id) is None


def test_a_held_result_does_not_keep_others_waiting(rooms: Rooms) -> None:
    """One slow task must not stop the others: its pauses free the thread."""
    stuck = [rooms.in_flight() for _ in range(rooms.callers.size * 2)]
    for entry in stuck:
        rooms.engine.faults.add(
            "complete", when="before", times=None, action=BROKEN, task_id=entry.task_id
        )
        rooms.answer(entry, {})
    other = rooms.in_flight()

    acked_other = rooms.answer(other, {})

    eventually(lambda: acked_other in rooms.acked)


def test_a_result_held_for_five_minutes_moves_to_the_waiting_room(rooms: Rooms) -> None:
    """RabbitMQ takes deliveries back after half an hour; a prefetch full of them helps nobody."""
    entry = rooms.in_flight()
    rooms.engine.faults.add("complete", when="before", times=None, action=AWAY)
    delivery = rooms.answer(entry, {})
    eventually(lambda: rooms.engine.calls.of("complete"))

    rooms.advance(301)

    acked(rooms, delivery)
    assert len(rooms.publisher.through(WAIT)) == 1


def test_a_held_result_that_came_again_leaves_one_copy_in_the_waiting_room(rooms: Rooms) -> None:
    """Each reconnect delivers it anew: what the old channels brought must not multiply it."""
    entry = rooms.in_flight()
    rooms.engine.faults.add("complete", when="before", times=None, action=AWAY)
    first = rooms.answer(entry, {})
    eventually(lambda: rooms.engine.calls.of("complete"))

    rooms.holds = lambda delivery: delivery.generation == 2
    again = replace(first, generation=2)
    rooms.reporter.deliver(again)
    rooms.advance(301)

    acked(rooms, again)
    assert len(rooms.publisher.through(WAIT)) == 1
    assert rooms.acked == [first, again], "the first one frees its bytes"


def test_a_result_of_a_lost_channel_is_left_to_its_next_delivery(rooms: Rooms) -> None:
    """It cannot be acknowledged: told to the engine or parked now, it would be so twice."""
    entry = rooms.in_flight()
    rooms.holds = lambda _: False
    rooms.engine.calls.clear()

    acked(rooms, rooms.answer(entry, {}))
    acked(rooms, rooms.answer(entry, b"no json"))

    assert rooms.engine.calls.of() == ()
    assert rooms.publisher.sent == []
    assert entry.task_id in rooms.ledger


def test_bad_credentials_hold_the_result(rooms: Rooms) -> None:
    """A rotated password is nobody's incident."""
    entry = rooms.in_flight()
    rooms.engine.faults.add("complete", when="before", times=8, action=Answer(401))

    acked(rooms, rooms.answer(entry, {}))

    assert rooms.task(entry.task_id) is None
    assert rooms.publisher.sent == []


def test_a_broken_process_is_tried_five_times_and_then_an_incident(rooms: Rooms) -> None:
    """A listener that throws: the operator sees why, and the result lies parked."""
    entry = rooms.in_flight()
    rooms.engine.faults.add("complete", when="before", times=None, action=BROKEN)

    delivery = rooms.answer(entry, {})

    acked(rooms, delivery)
    assert len(rooms.engine.calls.of("complete")) == BROKEN_TRIES + 1  # once more, after a read
    assert record(rooms, entry)["retries"] == 0
    assert "listener" in record(rooms, entry)["errorMessage"]
    parked(rooms, "engine-broken")
    assert rooms.count("incident") == 1


def test_a_broken_process_that_mends_itself_is_completed(rooms: Rooms) -> None:
    """A gateway's data may arrive a moment later."""
    entry = rooms.in_flight()
    rooms.engine.faults.add("complete", when="before", times=BROKEN_TRIES - 1, action=BROKEN)

    acked(rooms, rooms.answer(entry, {}))

    assert rooms.task(entry.task_id) is None
    assert rooms.publisher.sent == []


def test_an_engine_that_was_away_does_not_use_up_the_tries_of_a_broken_one(rooms: Rooms) -> None:
    """Infrastructure must not cost an incident: an engine that comes up may stumble once."""
    entry = rooms.in_flight()
    rooms.engine.faults.add("complete", when="before", times=30, action=AWAY)
    rooms.engine.faults.add("complete", when="before", times=1, action=BROKEN)

    acked(rooms, rooms.answer(entry, {}))

    assert rooms.task(entry.task_id) is None
    assert rooms.publisher.sent == []


@pytest.mark.parametrize(
    "refusal",
    [
        Answer(400, {"type": "RestException", "message": "Cannot continue: ${x}"}),
        Answer(500, {"type": "ProcessEngineException", "message": "too long", "code": 10002}),
    ],
)
def test_what_the_engine_refuses_for_good_is_an_incident_at_once(
    rooms: Rooms, refusal: Answer
) -> None:
    """Trying again cannot help."""
    entry = rooms.in_flight()
    rooms.engine.faults.add("complete", when="before", times=None, action=refusal)

    acked(rooms, rooms.answer(entry, {}))

    assert len(rooms.engine.calls.of("complete")) == 1
    assert record(rooms, entry)["retries"] == 0
    parked(rooms, "engine-refused")


def test_an_incident_that_the_engine_refuses_too_does_not_keep_the_result(
    rooms: Rooms, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a time it is parked all the same; the lock lapses."""
    monkeypatch.setattr("bridge.reporter.HOLD_SECONDS", 0.2)
    entry = rooms.in_flight()
    refusal = Answer(400, {"type": "RestException", "message": "no"})
    rooms.engine.faults.add("complete", when="before", times=None, action=BROKEN)
    rooms.engine.faults.add("failure", when="before", times=None, action=refusal)

    acked(rooms, rooms.answer(entry, {}))

    parked(rooms, "engine-broken")
    assert entry.task_id not in rooms.ledger


def test_an_engine_that_cannot_even_take_the_incident_is_waited_for(rooms: Rooms) -> None:
    """Its database is away: no process is broken."""
    entry = rooms.in_flight()
    rooms.engine.faults.add("failure", when="before", times=6, action=BROKEN)

    acked(rooms, rooms.answer(entry, b"no json"))

    assert record(rooms, entry)["retries"] == 0
    parked(rooms, "bad-json")


def test_an_engine_that_writes_nothing_for_long_costs_no_result(rooms: Rooms) -> None:
    """Parked, the work would be done twice: its lock lapses, and no incident tells of it."""
    entry = rooms.in_flight()
    for verb in ("complete", "failure"):
        rooms.engine.faults.add(verb, when="before", times=None, action=BROKEN)
    delivery = rooms.answer(entry, {})
    eventually(lambda: rooms.engine.calls.of("failure"))

    rooms.advance(301)

    acked(rooms, delivery)
    assert len(rooms.publisher.through(WAIT)) == 1
    assert rooms.publisher.to(PARKED) == []
    assert rooms.count("waiting") == 1
    assert entry.task_id in rooms.ledger, "its lock is kept"
    rooms.engine.faults.clear()
    acked(rooms, rooms.answer(entry, {}))
    assert rooms.task(entry.task_id) is None


def test_an_engine_that_cannot_read_the_task_is_not_a_broken_process(rooms: Rooms) -> None:
    """The database is away, and answers as a listener that throws would."""
    entry = rooms.in_flight()
    rooms.engine.faults.add("complete", when="before", times=BROKEN_TRIES + 1, action=BROKEN)
    rooms.engine.faults.add("getTask", when="before", times=1, action=BROKEN)

    acked(rooms, rooms.answer(entry, {}))

    assert rooms.task(entry.task_id) is None
    assert rooms.publisher.sent == []


def test_an_incident_waits_for_the_engine(rooms: Rooms) -> None:
    """Parked without the incident, nobody would see it in the engine."""
    entry = rooms.in_flight()
    rooms.engine.faults.add("getTask", when="before", times=10, action=AWAY)

    acked(rooms, rooms.answer(entry, b"no json"))

    assert record(rooms, entry)["retries"] == 0
    parked(rooms, "bad-json")


# A lost lock


def test_a_task_that_was_unlocked_is_locked_again_and_completed(rooms: Rooms) -> None:
    """An operator unlocked it while the worker worked: the work is done."""
    entry = rooms.in_flight()
    rooms.client.unlock(entry.task_id)

    acked(rooms, rooms.answer(entry, {}))

    assert rooms.task(entry.task_id) is None
    assert len(rooms.engine.calls.of("lock")) == 1
    assert rooms.count("completed") == 1


def test_a_task_that_is_unlocked_again_and_again_is_parked(rooms: Rooms) -> None:
    """Once is an accident, twice is somebody's intention."""
    entry = rooms.in_flight()
    nobody = Answer(400, {"type": "RestException", "message": "It is locked by worker 'null'."})
    rooms.engine.faults.add("complete", when="before", times=None, action=nobody)

    acked(rooms, rooms.answer(entry, {}))

    assert len(rooms.engine.calls.of("lock")) == 1
    parked(rooms, "lock-lost")


def test_a_task_of_another_worker_is_left_to_it(rooms: Rooms) -> None:
    """Somebody else works on it now; the result lies parked, and no incident disturbs them."""
    entry = rooms.in_flight()
    rooms.client.unlock(entry.task_id)
    path = f"/external-task/{entry.task_id}/lock"
    rooms.http("POST", path, {"workerId": "other", "lockDuration": 60_000})
    before = record(rooms, entry)

    acked(rooms, rooms.answer(entry, {}))

    assert record(rooms, entry) == before
    assert len(rooms.engine.calls.of("lock")) == 1, "only the other's own"
    parked(rooms, "lock-lost")


# What cannot be read


@pytest.mark.parametrize(
    ("body", "outcome", "reason"),
    [
        (b"no json", None, "bad-json"),
        (5, None, "no-result-variable"),
        ({}, "done", "bad-outcome"),
        ({}, "bpmnError", "bad-body"),
        ({"n": 2**63}, None, "value-refused"),
        ({"variables": {"t": "x" * 4001}}, "complete", "value-refused"),
        ({"errorCode": "E1", "variables": {"n": 2**63}}, "bpmnError", "value-refused"),
        ({"variables": {"n": 2**63}}, "failure", "value-refused"),
        ({"variables": {"n": 2**63}}, "extendLock", "value-refused"),
    ],
)
def test_an_unreadable_result_of_a_known_task_is_an_incident_and_parked(
    rooms: Rooms, body: Any, outcome: str | None, reason: str
) -> None:
    """The operator sees in the engine why nothing moves; the message is kept."""
    entry = rooms.in_flight()

    delivery = rooms.answer(entry, body, outcome)

    acked(rooms, delivery)
    parked(rooms, reason)
    assert rooms.publisher.to(PARKED)[0].body == delivery.body
    assert record(rooms, entry)["retries"] == 0
    assert record(rooms, entry)["errorMessage"].startswith(reason)
    assert rooms.engine.calls.of("complete") == ()
    assert rooms.engine.calls.of("writeVariables") == ()


def test_a_variable_that_the_topic_does_not_allow_is_refused(open_rooms: Open) -> None:
    """What its workers may write is settled by the platform, local variables included."""
    rooms = open_rooms(make_topic("a", allowed_variables=("status",))).start()
    good, process, local = rooms.in_flight(), rooms.in_flight(), rooms.in_flight()

    acked(rooms, rooms.answer(good, {"status": "ok"}))
    acked(rooms, rooms.answer(process, {"isAdmin": True}))
    acked(rooms, rooms.answer(local, {"localVariables": {"isAdmin": True}}, "complete"))

    assert len(rooms.engine.calls.of("complete")) == 1
    assert [p.headers["reason"] for p in rooms.publisher.to(PARKED)] == ["value-refused"] * 2
    assert "isAdmin" in record(rooms, process)["errorMessage"]


def test_an_unreadable_result_of_an_older_attempt_is_parked_without_an_incident(
    rooms: Rooms,
) -> None:
    """The newer attempt is not its to fail."""
    entry = rooms.in_flight()
    rooms.engine_sets_retries(entry.task_id, 1)

    acked(rooms, rooms.answer(entry, b"no json"))

    assert record(rooms, entry)["retries"] == 1
    parked(rooms, "bad-json")
    assert rooms.count("stale") == 1


def test_an_unreadable_result_of_a_task_that_is_gone_is_parked(rooms: Rooms) -> None:
    """Nothing to show in the engine; the message is still of use to its author."""
    entry = rooms.in_flight()
    rooms.client.complete(entry.task_id, {}, {})

    acked(rooms, rooms.answer(entry, b"no json"))

    parked(rooms, "bad-json")


@pytest.mark.parametrize(
    ("token", "reason"),
    [
        (None, "no-token"),
        ("", "no-token"),
        ("nonsense", "bad-token"),
        ("of another topic", "bad-token"),
        ("of another key", "bad-token"),
    ],
)
def test_a_result_that_proves_nothing_is_parked_without_a_call(
    rooms: Rooms, token: str | None, reason: str
) -> None:
    """Anyone could have sent it: it must not even raise an incident."""
    entry = rooms.in_flight()
    if token == "of another topic":
        token = rooms.signer.make(entry.task_id, None, "b")
    elif token == "of another key":
        token = rooms.signer.make(entry.task_id, None, "a")[:-1] + "!"
    rooms.engine.calls.clear()
    delivery = rooms.result(entry, {}, correlation_id=token)

    rooms.reporter.deliver(delivery)

    acked(rooms, delivery)
    parked(rooms, reason)
    assert rooms.engine.calls.of() == ()
    assert entry.task_id in rooms.ledger


def test_a_result_of_one_topic_in_the_queue_of_another_is_parked(open_rooms: Open) -> None:
    """Permissions on queues are the fence between workers."""
    rooms = open_rooms(make_topic("a"), make_topic("b")).start()
    entry = rooms.in_flight("a")
    delivery = rooms.result(entry, {}, queue="b.results")

    rooms.reporter.deliver(delivery)

    acked(rooms, delivery)
    assert rooms.publisher.to(PARKED)[0].headers["reason"] == "bad-token"
    assert rooms.task(entry.task_id) is not None


def test_one_bad_result_does_not_stop_the_others(rooms: Rooms) -> None:
    """Promise 6."""
    entries = [rooms.in_flight() for _ in range(20)]

    deliveries = [rooms.answer(e, b"{" if n % 2 else {}) for n, e in enumerate(entries)]

    for delivery in deliveries:
        acked(rooms, delivery)
    assert rooms.count("completed") == rooms.count("parked") == 10


# Dead letters


def dead(rooms: Rooms, entry: Entry, reason: str, **changes: Any) -> Delivery:
    death = {"reason": reason, "queue": "a", "count": 1, "routing-keys": ["a"]}
    known = {"queue": DEAD, "type": "a", "headers": {"x-death": [death]}}
    delivery = rooms.result(entry, {"taskId": entry.task_id}, **(known | changes))
    rooms.reporter.deliver(delivery)
    return delivery


@pytest.mark.parametrize("reason", ["rejected", "delivery_limit"])
def test_a_rejected_task_message_is_a_failure(rooms: Rooms, reason: str) -> None:
    """A worker had it and refused it: that costs a retry."""
    entry = rooms.in_flight()

    acked(rooms, dead(rooms, entry, reason))

    assert record(rooms, entry)["retries"] == 2
    assert "queue a" in record(rooms, entry)["errorMessage"]
    assert entry.task_id not in rooms.ledger


@pytest.mark.parametrize(("reason", "least", "most"), [("expired", -1, 0.1), ("maxlen", 3, 5.1)])
def test_a_task_message_that_nobody_took_is_released(
    rooms: Rooms, reason: str, least: float, most: float
) -> None:
    """Infrastructure costs no retry; a full queue gets a pause."""
    entry = rooms.in_flight()

    acked(rooms, dead(rooms, entry, reason))

    assert record(rooms, entry)["retries"] is None
    assert least <= rooms.lock_left(entry.task_id) <= most
    assert rooms.count("released") == 1


def test_a_dead_letter_of_an_older_attempt_is_stale(rooms: Rooms) -> None:
    """The task has moved on."""
    entry = rooms.in_flight()
    rooms.engine_sets_retries(entry.task_id, 1)

    acked(rooms, dead(rooms, entry, "rejected"))

    assert record(rooms, entry)["retries"] == 1
    assert rooms.count("stale") == 1


def test_a_dead_letter_of_a_task_that_is_gone_is_acknowledged(rooms: Rooms) -> None:
    """It died long after it was done."""
    entry = rooms.in_flight()
    rooms.client.complete(entry.task_id, {}, {})

    acked(rooms, dead(rooms, entry, "expired"))

    assert rooms.count("gone") == 1


def test_a_dead_letter_of_an_unknown_topic_is_parked(rooms: Rooms) -> None:
    """The topic was taken out of the settings."""
    entry = rooms.in_flight()

    acked(rooms, dead(rooms, entry, "rejected", type="old"))

    [copy] = rooms.publisher.to(PARKED)
    assert copy.headers["reason"] == "unknown-topic"


def test_a_dead_letter_of_a_suspended_task_waits_and_is_buried_later(rooms: Rooms) -> None:
    """It comes back through the waiting room, whose own mark does not change its reason."""
    entry = rooms.in_flight()
    rooms.suspend(entry.task_id)
    acked(rooms, dead(rooms, entry, "rejected"))
    [waiting] = rooms.publisher.through(WAIT)
    assert waiting.routing_key == DEAD
    rooms.suspend(entry.task_id, suspended=False)

    # What RabbitMQ 4 makes of it: its own mark alone is left of x-death.
    room = {"reason": "expired", "queue": WAIT, "count": 1, "routing-keys": [DEAD]}
    headers = {**waiting.headers, "x-death": [room]}
    acked(rooms, dead(rooms, entry, "", headers=headers))

    assert record(rooms, entry)["retries"] == 2
