"""`release`: which tasks, and that only our own locks are ever ended, on the simulated engine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bridge.desk import release
from bridge.desk.asking import REPLICA_TASKS_MAX, Replica
from bridge.desk.choosing import CHANGED, Chosen
from bridge.errors import EngineUnavailable
from bridge.queue_counts import QueueCount
from bridge.settings import Settings
from bridge.simulated_engine import SimulatedEngine
from tests.support import desk
from tests.support.desk import Counts, Desk, given, held
from tests.support.waiting import eventually

NOBODY = Replica(desk.silent)


@pytest.fixture
def engine(simulated: SimulatedEngine) -> Desk:
    return Desk(simulated)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return given(tmp_path)


def flying(engine: Desk, number: int = 1, seconds: float = 600.0) -> list[str]:
    """Tasks that this worker id has leased."""
    made = [engine.start() for _ in range(number)]
    engine.fetch(seconds=seconds)
    return made


def ids(chosen: Chosen) -> list[str]:
    return [task.id for task in chosen.tasks]


# -- choose ----------------------------------------------------------------------------------------


def test_what_must_not_be_released_is_left_with_its_reason(
    engine: Desk, settings: Settings
) -> None:
    """Each has another cure."""
    (mine,) = flying(engine)
    incident, suspended = flying(engine, 2)
    engine.fail(incident)
    engine.suspend(suspended)
    legacy = engine.start()
    engine.fetch(worker="legacy")
    waiting = engine.start()

    named = [mine, incident, suspended, legacy, waiting, "nope"]
    chosen = release.choose(settings, engine.records, NOBODY, task_ids=named)

    assert ids(chosen) == [mine]
    left = dict(chosen.left)
    assert "retry it" in left[incident]
    assert "suspended" in left[suspended]
    assert left[legacy] == "worker id legacy holds it, and this is bridge"
    assert "nobody holds it" in left[waiting]
    assert "no such task" in left["nope"]


def test_a_topic_is_released_by_how_long_it_is_held(engine: Desk, settings: Settings) -> None:
    """What was published after the purge still lies in the queue."""
    old = flying(engine, 2)
    engine.simulated.clock.advance(300)
    flying(engine)
    engine.start("ship")
    engine.fetch("ship")

    def chosen(older_than: float) -> list[str]:
        found = release.choose(settings, engine.records, NOBODY, topic="pay", older_than=older_than)
        return ids(found)

    assert chosen(120) == old
    assert len(chosen(0)) == 3
    assert chosen(3000) == []


def test_a_replica_knows_better_since_when(engine: Desk, settings: Settings) -> None:
    """An old task that was fetched a moment ago has its message in the queue."""
    fresh, old = (engine.start() for _ in range(2))
    engine.simulated.clock.advance(3600)
    engine.fetch()
    told = desk.replica(held(fresh, seconds=2), held(old, seconds=500))

    chosen = release.choose(settings, engine.records, told, topic="pay", older_than=300)

    assert ids(chosen) == [old]


def test_what_a_full_answer_leaves_out_is_younger(engine: Desk, settings: Settings) -> None:
    """A replica tells of its oldest only."""
    flying(engine, seconds=7200)
    engine.simulated.clock.advance(3600)
    told = desk.replica(*(held(str(n), seconds=100) for n in range(REPLICA_TASKS_MAX)))

    def chosen(older_than: float) -> list[str]:
        found = release.choose(settings, engine.records, told, topic="pay", older_than=older_than)
        return ids(found)

    assert chosen(200) == []
    assert len(chosen(50)) == 1


def test_whose_age_is_not_known_is_said(engine: Desk, settings: Settings) -> None:
    """A peer may have published it just now, and a healthy message would come twice."""
    old, peers = flying(engine, 2)
    told = desk.replica(held(old, seconds=500))

    def notes(replica: Replica) -> tuple[str, ...]:
        return release.choose(settings, engine.records, replica, topic="pay").notes

    assert notes(told) == (
        "1 of them are not held by the bridge that was asked: age from creation",
    )
    assert notes(NOBODY) == (f"{desk.SILENT}: age from creation",)
    assert notes(desk.replica(held(old), held(peers))) == ()


@pytest.mark.parametrize("bridge", [desk.replica(), NOBODY])
def test_a_topic_release_leaves_a_pause_between_attempts(
    engine: Desk, settings: Settings, bridge: Replica
) -> None:
    """No message of it is lost: the fault that it waits out would only strike earlier."""
    lost, paused = flying(engine, 2)
    engine.fail(paused, retries=2, pause=200)

    by_topic = release.choose(settings, engine.records, bridge, topic="pay")
    by_name = release.choose(settings, engine.records, bridge, task_ids=[paused])

    assert (ids(by_topic), by_topic.left) == ([lost], ())
    assert by_topic.notes[0] == "1 that only wait for their next attempt are left out"
    assert ids(by_name) == [paused]


# -- release ---------------------------------------------------------------------------------------


def test_a_released_task_is_offered_at_once(engine: Desk, settings: Settings) -> None:
    """With the same retries: no attempt was lost."""
    tasks = flying(engine, 3)
    chosen = release.choose(settings, engine.records, NOBODY, task_ids=tasks)

    done = release.release(settings, engine.records, chosen.tasks)

    assert (set(done.done), done.failed) == (set(tasks), ())
    eventually(lambda: engine.records.count_tasks(notLocked=True) == 3)
    assert set(engine.fetch()) == set(tasks)
    assert {engine.task(task)["retries"] for task in tasks} == {None}


def test_what_changed_since_the_preview_is_left_alone(engine: Desk, settings: Settings) -> None:
    """The operator may think for minutes before the y."""
    gone, failed, taken, lapsed, suspended = flying(engine, 5)
    named = [gone, failed, taken, lapsed, suspended]
    chosen = release.choose(settings, engine.records, NOBODY, task_ids=named)
    engine.act(gone, "complete")
    engine.fail(failed, retries=2, pause=60)
    engine.call("POST", f"/external-task/{taken}/unlock")
    engine.fetch(worker="legacy")
    engine.act(lapsed, "extendLock", newDuration=1)
    engine.suspend(suspended)
    eventually(lambda: engine.records.count_tasks(notLocked=True) == 1)

    done = release.release(settings, engine.records, chosen.tasks)

    assert done.done == (lapsed,)
    left = dict(done.failed)
    assert "no such task" in left[gone]
    assert left[failed] == left[taken] == CHANGED
    assert "suspended" in left[suspended]
    assert engine.task(taken)["workerId"] == "legacy"
    assert engine.task(failed)["retries"] == 2


def test_what_was_fetched_again_meanwhile_is_left_alone(engine: Desk, settings: Settings) -> None:
    """A colleague released it and the bridge published it: same owner, same retries, and a message
    on its way.
    """
    fetched, renewed = flying(engine, 2)
    chosen = release.choose(settings, engine.records, NOBODY, task_ids=[fetched, renewed])
    engine.call("POST", f"/external-task/{fetched}/unlock")
    engine.fetch(seconds=60)
    engine.act(renewed, "extendLock", newDuration=500_000)

    done = release.release(settings, engine.records, chosen.tasks)

    assert (done.done, done.failed) == ((renewed,), ((fetched, CHANGED),))


def test_a_lock_that_was_renewed_at_the_same_moment_is_told(
    engine: Desk, settings: Settings
) -> None:
    """A replica had asked just before and leases just after: the release is undone, and saying
    "done" would be a lie.
    """
    (task,) = flying(engine)
    chosen = release.choose(settings, engine.records, NOBODY, task_ids=[task])
    lease = _Leases(engine, task)
    done = release.release(settings, lease, chosen.tasks)  # type: ignore[arg-type]

    assert done.done == ()
    assert done.failed == ((task, release.RENEWED),)


class _Leases:
    """The engine's records, with a replica that leases the task as soon as it is released."""

    def __init__(self, engine: Desk, task_id: str) -> None:
        self._engine = engine
        self._task_id = task_id

    def release(self, task_id: str, worker_id: str) -> None:
        self._engine.records.release(task_id, worker_id)
        self._engine.act(self._task_id, "lock", lockDuration=600_000)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine.records, name)


def test_a_look_that_is_old_is_made_again(
    engine: Desk, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A slow engine must not make it act on what it saw long ago."""
    monkeypatch.setattr(release, "WRITE_WITHIN_SECONDS", 0.0)
    tasks = flying(engine, 3)
    chosen = release.choose(settings, engine.records, NOBODY, task_ids=tasks)
    engine.simulated.calls.clear()

    release.release(settings, engine.records, chosen.tasks)

    assert len(engine.simulated.calls.of("query")) == 4  # each one, and the look afterwards


def test_an_engine_that_goes_away_leaves_a_count_of_what_was_done(
    engine: Desk, settings: Settings
) -> None:
    """Half of it is done, and the operator must know which half."""
    first, second, third = flying(engine, 3)
    chosen = release.choose(settings, engine.records, NOBODY, task_ids=[first, second, third])
    original = engine.records.release

    class Leaving(_Leases):
        def release(self, task_id: str, worker_id: str) -> None:
            if task_id != first:
                raise EngineUnavailable("no answer in time")
            original(task_id, worker_id)

    leaving = Leaving(engine, first)
    done = release.release(settings, leaving, chosen.tasks)  # type: ignore[arg-type]

    assert done.done == (first,)
    assert dict(done.failed) == dict.fromkeys((second, third), "no answer in time")


def test_an_engine_that_is_away_from_the_start_is_an_error(
    engine: Desk, settings: Settings
) -> None:
    """Nothing was done, which is another thing than some."""
    chosen = release.choose(settings, engine.records, NOBODY, task_ids=flying(engine))
    engine.simulated.stop()

    with pytest.raises(EngineUnavailable):
        release.release(settings, engine.records, chosen.tasks)


# -- the queues ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("counts", "text", "empty"),
    [
        (
            Counts(pay=QueueCount(0, 0, 2)),
            "queue pay holds 0 messages, and 0 are at its consumers",
            True,
        ),
        (
            Counts(pay=QueueCount(0, 1, 2)),
            "queue pay holds 0 messages, and 1 are at its consumers",
            False,
        ),
        (
            Counts(pay=QueueCount(7, 0, 2)),
            "queue pay holds 7 messages, and 0 are at its consumers",
            False,
        ),
        (
            Counts(pay=QueueCount(0, None, 2)),
            "queue pay holds 0 messages; what its consumers have in hand is not known",
            False,
        ),
        (
            Counts(pay=QueueCount(0, None, 0)),
            "queue pay holds 0 messages",
            True,
        ),
        (Counts(), "queue pay does not exist, or must not be looked at", False),
        (Counts("Connection refused"), "queue pay cannot be looked at: Connection refused", False),
    ],
)
def test_a_queue_is_empty_only_where_that_is_known(
    settings: Settings, counts: Counts, text: str, empty: bool
) -> None:
    """A message that is not lost comes twice, which the operator hears before."""
    assert release.queues(settings, ["pay"], counts) == [release.Held("pay", text, empty)]


def test_what_cannot_be_looked_at_is_not_called_empty(tmp_path: Path) -> None:
    """Somebody else's exchange; a topic that nobody fetches."""
    settings = given(tmp_path, "[topics.pay]\nexchange = 'orders'")

    orders, unheard = release.queues(settings, ["pay", "unheard-of"], Counts("never asked"))

    assert (orders.empty, unheard.empty) == (False, False)
    assert "exchange orders" in orders.text
    assert "configured nowhere" in unheard.text
