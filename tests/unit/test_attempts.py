"""Acts on one attempt: read before write, absolute retries, nothing done to another attempt."""

from __future__ import annotations

from typing import Any

import pytest

from bridge.attempts import MESSAGE_MAX, READ_TRIES, Report
from bridge.clock import monotonic
from bridge.errors import EngineRefused, EngineUnavailable, TaskGone, TaskSuspended
from bridge.ledger import Entry
from bridge.protocol import RetryPolicy
from bridge.simulated_engine import Answer, Drop, Hold, SimulatedEngine, linear_process
from bridge.tokens import Token
from tests.support.rooms import POLICY, Rooms, make_topic
from tests.support.waiting import eventually
from tests.unit.conftest import Open


def token(entry: Entry) -> Token:
    return Token(entry.task_id, entry.retries)


def record(rooms: Rooms, entry: Entry) -> dict[str, Any]:
    task = rooms.task(entry.task_id)
    assert task is not None
    return task


# Fail


def test_a_failure_is_reported_by_the_topics_policy(rooms: Rooms) -> None:
    """The first of three attempts failed: two are left, after the first pause."""
    entry = rooms.in_flight()

    done = rooms.attempts.fail(rooms.topics["a"], token(entry), Report("boom", "stack"))

    task = record(rooms, entry)
    assert done
    assert (task["retries"], task["errorMessage"]) == (2, "boom")
    assert 3 < rooms.lock_left(entry.task_id) <= 5.1
    assert rooms.engine.calls.of("failure")[0].body["errorDetails"] == "stack"
    assert entry.task_id not in rooms.ledger
    assert rooms.count("failed") == 1


def test_what_the_report_names_goes_before_the_policy(rooms: Rooms) -> None:
    """A worker knows when the other side will be back."""
    entry = rooms.in_flight()

    rooms.attempts.fail(rooms.topics["a"], token(entry), Report("m", retries=9, pause=100.0))

    assert record(rooms, entry)["retries"] == 9
    assert 98 < rooms.lock_left(entry.task_id) <= 100.1


def test_a_failure_without_details_repeats_its_message_there(rooms: Rooms) -> None:
    """The engine cuts the message at 666 characters and keeps the details whole."""
    entry = rooms.in_flight()

    rooms.attempts.fail(rooms.topics["a"], token(entry), Report("x" * 1000))

    [call] = rooms.engine.calls.of("failure")
    assert call.body["errorMessage"] == "x" * MESSAGE_MAX
    assert call.body["errorDetails"] == "x" * 1000


@pytest.mark.parametrize("act", ["fail", "incident", "release", "keep_alive"])
def test_an_act_on_another_attempt_is_stale(rooms: Rooms, act: str) -> None:
    """A peer reported a failure meanwhile: its retry must not be delayed, or failed once more."""
    entry = rooms.in_flight()
    rooms.engine_sets_retries(entry.task_id, 1)
    before = record(rooms, entry)

    assert do(rooms, entry, act) is False

    assert record(rooms, entry) == before
    assert entry.task_id in rooms.ledger


@pytest.mark.parametrize("act", ["fail", "incident", "release", "keep_alive"])
def test_an_act_on_a_task_of_another_owner_is_stale(rooms: Rooms, act: str) -> None:
    """An operator unlocked it, and another deployment may have it now."""
    entry = rooms.in_flight()
    rooms.client.unlock(entry.task_id)
    before = record(rooms, entry)

    assert do(rooms, entry, act) is False
    assert record(rooms, entry) == before


@pytest.mark.parametrize("act", ["fail", "incident", "release", "keep_alive"])
def test_an_act_on_a_task_that_is_gone_says_so(rooms: Rooms, act: str) -> None:
    """The caller lets go."""
    entry = rooms.in_flight()
    rooms.client.complete(entry.task_id, {}, {})

    with pytest.raises(TaskGone):
        do(rooms, entry, act)


def do(rooms: Rooms, entry: Entry, act: str) -> bool:
    topic, attempts = rooms.topics["a"], rooms.attempts
    match act:
        case "fail":
            return attempts.fail(topic, token(entry), Report("m"))
        case "incident":
            return attempts.incident(topic, token(entry), "m")
        case "release":
            return attempts.release(topic, token(entry))
        case _:
            return attempts.keep_alive(topic, token(entry), 1.0, {})


def failed(rooms: Rooms, entry: Entry) -> None:
    assert do(rooms, entry, "fail")


def test_a_record_older_than_a_second_is_read_again(rooms: Rooms) -> None:
    """Between the read and the write somebody else may act: the shorter the better."""
    entry = rooms.in_flight()
    slow = rooms.engine.faults.add("getTask", when="after", action=Hold())
    rooms.callers.submit("x", lambda: failed(rooms, entry))
    assert slow.reached.wait(10)

    rooms.advance(1.5)
    slow.release()

    rooms.settled()
    assert len(rooms.engine.calls.of("getTask")) == 2
    assert record(rooms, entry)["retries"] == 2


def test_an_engine_that_always_answers_late_is_not_written_to(
    rooms: Rooms, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Then the act is held, not made blindly."""
    monkeypatch.setattr("bridge.attempts.WRITE_WITHIN_SECONDS", 0.0)
    entry = rooms.in_flight()

    with pytest.raises(EngineUnavailable, match="slowly"):
        do(rooms, entry, "fail")

    assert len(rooms.engine.calls.of("getTask")) == READ_TRIES
    assert rooms.engine.calls.of("failure") == ()


def test_a_suspended_task_is_not_failed(rooms: Rooms) -> None:
    """The engine would refuse it; the result waits."""
    entry = rooms.in_flight()
    rooms.suspend(entry.task_id)

    with pytest.raises(TaskSuspended):
        do(rooms, entry, "fail")

    assert rooms.engine.calls.of("failure") == ()
    assert entry.task_id in rooms.ledger


def test_a_failure_whose_answer_was_lost_is_told_and_then_stale(rooms: Rooms) -> None:
    """The second try reads the record and sees that the first one arrived."""
    entry = rooms.in_flight()
    rooms.engine.faults.add("failure", when="after", action=Drop())
    with pytest.raises(EngineUnavailable):
        do(rooms, entry, "fail")

    assert do(rooms, entry, "fail") is False
    assert record(rooms, entry)["retries"] == 2


# Incident, release


def test_an_incident_has_no_retries_left(rooms: Rooms) -> None:
    """No further attempt can mend it; an operator sees the reason."""
    entry = rooms.in_flight()

    assert do(rooms, entry, "incident") is True

    task = record(rooms, entry)
    assert (task["retries"], task["errorMessage"]) == (0, "m")
    assert entry.task_id not in rooms.ledger
    assert (rooms.count("incident"), rooms.count("failed")) == (1, 0)


def test_a_release_ends_the_lock_after_the_pause(rooms: Rooms) -> None:
    """It costs no retry: the task is offered again as it was."""
    entry = rooms.in_flight()

    assert rooms.attempts.release(rooms.topics["a"], token(entry), 15.0) is True

    task = record(rooms, entry)
    assert 13 < rooms.lock_left(entry.task_id) <= 15.1
    assert (task["retries"], task["errorMessage"]) == (None, None)
    assert entry.task_id not in rooms.ledger
    assert rooms.count("released") == 1
    assert rooms.engine.calls.of("unlock") == ()


def test_a_release_never_looks_like_a_lease(rooms: Rooms) -> None:
    """Peers would adopt a longer lock on a task that never failed, and wait for its deadline."""
    entry = rooms.in_flight()

    rooms.attempts.release(rooms.topics["a"], token(entry), 300.0)

    assert rooms.lock_left(entry.task_id) <= 20.1


def test_a_pause_is_never_longer_than_the_deadline(rooms: Rooms) -> None:
    """A worker's careless retryTimeout must not bury the task."""
    entry = rooms.in_flight()

    rooms.attempts.fail(rooms.topics["a"], token(entry), Report("m", pause=1e12))

    assert rooms.lock_left(entry.task_id) <= 86_400.1


def test_a_release_at_once_can_be_fetched_at_once(rooms: Rooms) -> None:
    """An expired message is published afresh without a pause."""
    entry = rooms.in_flight()

    rooms.attempts.release(rooms.topics["a"], token(entry))

    eventually(lambda: rooms.client.fetch_and_lock([rooms.topics["a"].fetch], 1).tasks, 5)


def test_a_lock_that_has_lapsed_is_released_already(rooms: Rooms) -> None:
    """extendLock would refuse it; nothing is left to do."""
    entry = rooms.in_flight()
    rooms.advance(61)

    assert do(rooms, entry, "release") is True
    assert entry.task_id not in rooms.ledger


# Keep alive


def test_a_busy_worker_gets_a_lease_and_a_fresh_deadline(rooms: Rooms) -> None:
    """Whoever reads the progress answers for the task from now on."""
    entry = rooms.in_flight()
    rooms.advance(50)
    now = monotonic()

    assert rooms.attempts.keep_alive(rooms.topics["a"], token(entry), 1.0, {}) is True

    assert rooms.lock_left(entry.task_id) > 590
    taken = rooms.ledger.settle(entry.task_id)
    assert taken is not None
    assert taken.leased
    assert taken.serial != entry.serial
    assert taken.deadline == pytest.approx(now + 86_400, abs=2)
    assert taken.due == pytest.approx(now + 300, abs=2)
    assert rooms.count("progress") == 1


def test_a_worker_may_ask_for_more_than_a_lease(rooms: Rooms) -> None:
    """max(newDuration, L), renewed half a lease before its end."""
    entry = rooms.in_flight()
    now = monotonic()

    rooms.attempts.keep_alive(rooms.topics["a"], token(entry), 20_000.0, {})

    taken = rooms.ledger.settle(entry.task_id)
    assert taken is not None
    assert rooms.lock_left(entry.task_id) > 19_990
    assert taken.due == pytest.approx(now + 19_700, abs=2)
    assert taken.deadline == pytest.approx(now + 86_400, abs=2)


def test_nobody_keeps_a_task_longer_than_the_deadline(rooms: Rooms) -> None:
    """A worker that takes seconds for milliseconds must not lock a task for years."""
    entry = rooms.in_flight()

    rooms.attempts.keep_alive(rooms.topics["a"], token(entry), 1e12, {})

    assert 86_390 < rooms.lock_left(entry.task_id) <= 86_401


def test_progress_sets_variables_on_the_instance(rooms: Rooms) -> None:
    """A user of the process sees how far it is."""
    entry = rooms.in_flight()
    variables = {"percent": {"value": 40, "type": "Integer"}}

    rooms.attempts.keep_alive(rooms.topics["a"], token(entry), 1.0, variables)

    [call] = rooms.engine.calls.of("writeVariables")
    assert record(rooms, entry)["processInstanceId"] in call.path
    assert call.body == {"modifications": variables}


def test_progress_that_cannot_set_its_variables_keeps_nothing_alive(rooms: Rooms) -> None:
    """The caller decides what follows; the lock must not hide the refusal for a lease."""
    entry = rooms.in_flight()
    refusal = Answer(400, {"type": "RestException", "message": "no"})
    rooms.engine.faults.add("writeVariables", when="before", action=refusal)

    with pytest.raises(EngineRefused):
        rooms.attempts.keep_alive(
            rooms.topics["a"], token(entry), 1.0, {"v": {"value": 1, "type": "Integer"}}
        )

    assert rooms.lock_left(entry.task_id) <= 60.1


@pytest.mark.parametrize("state", ["suspended", "lapsed"])
def test_progress_keeps_a_task_whose_lock_cannot_be_extended(rooms: Rooms, state: str) -> None:
    """It still is the engine's attempt: `lock` takes what extendLock refuses."""
    entry = rooms.in_flight()
    if state == "suspended":
        rooms.suspend(entry.task_id)
    else:
        rooms.advance(61)

    assert do(rooms, entry, "keep_alive") is True

    assert rooms.lock_left(entry.task_id) > 590
    assert entry.task_id in rooms.ledger


# Policies of the model

MODELED = b"""<?xml version="1.0" encoding="UTF-8"?>
<definitions xmlns="http://www.omg.org/spec/BPMN/20100524/MODEL"
 xmlns:camunda="http://camunda.org/schema/1.0/bpmn" targetNamespace="x">
 <process id="modeled" isExecutable="true" camunda:historyTimeToLive="P1D">
  <startEvent id="s"/><sequenceFlow id="f1" sourceRef="s" targetRef="step"/>
  <serviceTask id="step" camunda:type="external" camunda:topic="a"><extensionElements>
   <camunda:properties><camunda:property name="retries" value="7"/>
   <camunda:property name="retryPauses" value="2m"/></camunda:properties>
  </extensionElements></serviceTask>
  <sequenceFlow id="f2" sourceRef="step" targetRef="e"/><endEvent id="e"/>
 </process>
</definitions>"""


def modeled(rooms: Rooms) -> Entry:
    rooms.engine.start_process("modeled")
    return rooms.fetched_next("a")


def test_the_models_own_retries_count_where_the_topic_asks_for_them(
    open_rooms: Open, simulated: SimulatedEngine
) -> None:
    """The model is read once per definition and activity, however many tasks fail."""
    simulated.deploy(MODELED)
    rooms = open_rooms(make_topic("a", model_retries=True)).start()
    entries = [modeled(rooms), modeled(rooms)]

    for entry in entries:
        assert do(rooms, entry, "fail")

    assert [record(rooms, e)["retries"] for e in entries] == [6, 6]
    assert 115 < rooms.lock_left(entries[0].task_id) <= 120.1
    assert len(simulated.calls.of("definitionXml")) == 1


def test_the_models_retries_do_not_count_elsewhere(
    open_rooms: Open, simulated: SimulatedEngine
) -> None:
    """The settings say whose word counts."""
    simulated.deploy(MODELED)
    rooms = open_rooms(make_topic("a", retries=RetryPolicy(2, (5.0,)))).start()
    entry = modeled(rooms)

    do(rooms, entry, "fail")

    assert record(rooms, entry)["retries"] == 1
    assert simulated.calls.of("definitionXml") == ()


def test_a_model_that_cannot_be_read_leaves_the_topics_policy(
    open_rooms: Open, simulated: SimulatedEngine
) -> None:
    """Missing rights for the definition must not keep a failure from the engine."""
    simulated.deploy(MODELED)
    rooms = open_rooms(make_topic("a", model_retries=True)).start()
    simulated.faults.add("definitionXml", when="before", action=Answer(403, {"message": "no"}))
    first, second = modeled(rooms), modeled(rooms)

    do(rooms, first, "fail")
    do(rooms, second, "fail")

    assert record(rooms, first)["retries"] == POLICY.attempts - 1
    assert record(rooms, second)["retries"] == 6, "asked again: the refusal is not kept"


def test_the_next_attempt_has_the_retries_that_were_set(rooms: Rooms) -> None:
    """Three attempts in all, then an incident."""
    rooms.engine.deploy(linear_process("p", "a"))
    rooms.engine.start_process("p")
    seen = []
    for _ in range(3):
        entry = rooms.fetched_next("a")
        seen.append(entry.retries)
        do(rooms, entry, "fail")
        rooms.advance(400)

    assert seen == [None, 2, 1]
    assert rooms.client.fetch_and_lock([rooms.topics["a"].fetch], 1).tasks == []
