"""`incidents` and `retry`: what failed for good, and new attempts, on the simulated engine."""

from __future__ import annotations

from typing import Any

import pytest

from bridge.desk import incidents
from bridge.desk.choosing import CHANGED
from bridge.desk.incidents import Wanted, choose, look, retry
from bridge.errors import EngineUnavailable
from bridge.simulated_engine import Answer, SimulatedEngine
from tests.support.desk import Desk
from tests.support.waiting import eventually


@pytest.fixture
def engine(simulated: SimulatedEngine) -> Desk:
    return Desk(simulated)


def failed(engine: Desk, topic: str = "pay", message: str = "no money", pause: float = 0.0) -> str:
    """A task whose last attempt has failed."""
    task = engine.start(topic)
    engine.fetch(topic)
    engine.fail(task, message=message, pause=pause)
    return task


# -- incidents -------------------------------------------------------------------------------------


def test_incidents_are_counted_by_topic_and_message(engine: Desk) -> None:
    """A thousand incidents are mostly one fault."""
    for _ in range(3):
        failed(engine, message="no money\nstack of one")
    failed(engine, message="no answer")
    failed(engine, "ship", message="no money")
    engine.start()

    found = look(engine.records, Wanted())

    assert found.groups() == [
        ("pay", "no money", 3),
        ("pay", "no answer", 1),
        ("ship", "no money", 1),
    ]


def test_topic_and_process_choose_incidents(engine: Desk) -> None:
    """Who is on duty for one process looks at that one."""
    paid, shipped = failed(engine), failed(engine, "ship")

    def ids(wanted: Wanted) -> list[str]:
        return [incident.task.id for incident in look(engine.records, wanted).found]

    assert ids(Wanted()) == [paid, shipped]
    assert ids(Wanted(topic="ship")) == [shipped]
    assert ids(Wanted(process="pay-process")) == [paid]
    assert ids(Wanted(topic="ship", process="pay-process")) == []


def test_the_document_of_incidents_is_complete(engine: Desk) -> None:
    """Scripts read it."""
    task = failed(engine, message="no money\nstack")
    engine.simulated.clock.advance(60)

    document = look(engine.records, Wanted()).as_json()

    assert document["schemaVersion"] == document["count"] == 1
    assert document["more"] is False
    assert document["groups"] == [{"topic": "pay", "message": "no money", "count": 1}]
    (incident,) = document["incidents"]
    assert (incident["taskId"], incident["topic"]) == (task, "pay")
    assert (incident["process"], incident["activityId"]) == ("pay-process", "task-1")
    assert incident["message"] == "no money\nstack"
    assert 59 <= incident["ageSeconds"] <= 65


def test_an_incident_without_a_message_is_shown(engine: Desk) -> None:
    """A worker of another make reported nothing."""
    task = engine.start()
    engine.fetch()
    engine.act(task, "failure", retries=0)

    assert look(engine.records, Wanted()).groups() == [("pay", "without a message", 1)]


# -- choose ----------------------------------------------------------------------------------------


def test_only_tasks_without_retries_are_retried(engine: Desk) -> None:
    """The retries of a task in flight name its attempt: to set them would publish it twice."""
    broken, flying = failed(engine), engine.start()
    engine.fetch()

    everything = choose(engine.records, (), Wanted(topic="pay"))
    named = choose(engine.records, [broken, flying, "nope", broken], Wanted())

    assert [task.id for task in everything.tasks] == [broken]
    assert everything.left == ()
    assert [task.id for task in named.tasks] == [broken]
    assert [task_id for task_id, _ in named.left] == [flying, "nope"]
    assert "needs no retries" in named.left[0][1]
    assert "no such task" in named.left[1][1]


def test_topic_process_and_message_choose_together(engine: Desk) -> None:
    """One fault that was mended, of one topic."""
    mended = failed(engine, message="connection refused by bank")
    failed(engine, message="no money")
    failed(engine, "ship", message="connection refused by harbour")

    wanted = Wanted(topic="pay", process="pay-process", message="connection refused")
    chosen = choose(engine.records, (), wanted)

    assert [task.id for task in chosen.tasks] == [mended]
    assert chosen.topics() == [("pay", 1)]


# -- retry -----------------------------------------------------------------------------------------


def test_a_retried_task_is_offered_at_once(engine: Desk) -> None:
    """Also while the pause after its last failure runs: whoever types this has mended the fault
    and waits.
    """
    tasks = [failed(engine, pause=300), failed(engine)]
    chosen = choose(engine.records, tasks, Wanted())

    done = retry(engine.records, chosen.tasks, 2, "bridge")

    assert (set(done.done), done.failed) == (set(tasks), ())
    eventually(lambda: engine.records.count_tasks(notLocked=True, withRetriesLeft=True) == 2)
    assert set(engine.fetch()) == set(tasks)
    assert {engine.task(task)["retries"] for task in tasks} == {2}
    assert look(engine.records, Wanted()).found == ()


def test_another_worker_ids_pause_is_left_alone(engine: Desk) -> None:
    """Its lock is its own affair; the retries are the engine's."""
    task = engine.start()
    engine.fetch(worker="legacy")
    engine.act(task, "failure", workerId="legacy", retries=0, retryTimeout=300_000)
    ends = engine.task(task)["lockExpirationTime"]

    done = retry(engine.records, choose(engine.records, [task], Wanted()).tasks, 1, "bridge")

    assert done.done == (task,)
    assert (engine.task(task)["retries"], engine.task(task)["lockExpirationTime"]) == (1, ends)


def test_one_task_that_is_gone_does_not_spoil_the_others(
    engine: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The engine sets the retries of all or of none; in a batch of hundreds one may be cancelled
    between the look and the act.
    """
    monkeypatch.setattr(incidents, "AT_ONCE", 2)
    tasks = [failed(engine) for _ in range(5)]
    chosen = choose(engine.records, (), Wanted(topic="pay"))
    engine.call("DELETE", f"/process-instance/{engine.task(tasks[2])['processInstanceId']}")

    done = retry(engine.records, chosen.tasks, 1, "bridge")

    assert set(done.done) == {tasks[n] for n in (0, 1, 3, 4)}
    ((gone, reason),) = done.failed
    assert gone == tasks[2]
    assert "no such task" in reason
    assert [engine.task(tasks[n])["retries"] for n in (0, 1, 3, 4)] == [1] * 4


@pytest.mark.parametrize("number", [1, 3])
def test_what_was_retried_meanwhile_is_left_alone(
    engine: Desk, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """The operator may think for minutes before the y; a colleague did not. The attempt in flight
    keeps its lock and its retries, which its answer names.
    """
    monkeypatch.setattr(incidents, "AT_ONCE", number)
    flying, mine = failed(engine, pause=300), failed(engine)
    chosen = choose(engine.records, [flying, mine], Wanted())
    engine.records.set_retries([flying], 3)
    engine.simulated.clock.advance(301)
    assert engine.fetch(seconds=600) == [flying]
    before = engine.task(flying)

    done = retry(engine.records, chosen.tasks, 1, "bridge")

    assert (done.done, done.failed) == ((mine,), ((flying, CHANGED),))
    assert engine.task(flying) == before


def test_a_task_that_is_retried_between_pause_and_retries_is_left_alone(engine: Desk) -> None:
    """Its pause has ended by us, its retries are the colleague's: it is fetched at once."""
    tasks = [failed(engine, pause=300), failed(engine)]
    chosen = choose(engine.records, tasks, Wanted())

    done = retry(_Colleague(engine, tasks[0]), chosen.tasks, 1, "bridge")  # type: ignore[arg-type]

    assert (done.done, done.failed) == ((tasks[1],), ((tasks[0], CHANGED),))
    assert engine.task(tasks[0])["retries"] == 3


class _Colleague:
    """The engine's records, with somebody who retries a task as soon as its pause has ended."""

    def __init__(self, engine: Desk, task_id: str) -> None:
        self._engine = engine
        self._task_id = task_id

    def release(self, task_id: str, worker_id: str) -> None:
        self._engine.records.release(task_id, worker_id)
        self._engine.records.set_retries([self._task_id], 3)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine.records, name)


def test_a_right_that_is_missing_for_one_process_is_told_for_its_tasks(engine: Desk) -> None:
    """The engine refuses the batch; what may be done is done."""
    mine, theirs = failed(engine), failed(engine)
    chosen = choose(engine.records, [mine, theirs], Wanted())
    forbidden = Answer(403, {"type": "AuthorizationException", "message": "no", "code": 0})
    faults = engine.simulated.faults
    faults.add("setRetriesSync", when="before", action=forbidden, times=2)

    done = retry(engine.records, chosen.tasks, 1, "bridge")

    assert len(done.done) == len(done.failed) == 1
    assert "AuthorizationException" in done.failed[0][1]


def test_an_engine_that_goes_away_leaves_a_count_of_what_was_done(
    engine: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half of it is done, and the operator must know which half."""
    monkeypatch.setattr(incidents, "AT_ONCE", 1)
    tasks = [failed(engine) for _ in range(3)]
    chosen = choose(engine.records, tasks, Wanted())
    calls = iter([None, EngineUnavailable("no answer in time")])
    original = engine.records.set_retries

    def set_retries(task_ids: list[str], retries: int) -> None:
        if fault := next(calls):
            raise fault
        original(task_ids, retries)

    monkeypatch.setattr(engine.records, "set_retries", set_retries)

    done = retry(engine.records, chosen.tasks, 1, "bridge")

    assert done.done == (tasks[0],)
    assert done.failed == ((tasks[1], "no answer in time"), (tasks[2], "no answer in time"))


def test_an_engine_that_is_away_from_the_start_is_an_error(engine: Desk) -> None:
    """Nothing was done, which is another thing than some."""
    chosen = choose(engine.records, [failed(engine)], Wanted())
    engine.simulated.stop()

    with pytest.raises(EngineUnavailable):
        retry(engine.records, chosen.tasks, 1, "bridge")
