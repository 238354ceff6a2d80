"""The lock keeper on a real engine's rules: lease, hold, renew, adopt, deadline, full topics."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import structlog

from bridge.adoption import Adoption
from bridge.broker import Outcome
from bridge.clock import monotonic
from bridge.errors import EngineUnavailable
from bridge.ledger import Entry
from bridge.renewal_rate import RenewalRate
from bridge.simulated_engine import Answer, Hold, SimulatedEngine
from bridge.simulated_engine.faults import When
from tests.support.rooms import Rooms, make_topic, timing
from tests.support.waiting import eventually, throughout
from tests.unit.conftest import Open

AWAY = Answer(503)


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look every few milliseconds instead of four times a second."""
    monkeypatch.setattr("bridge.lock_keeper.TICK_SECONDS", 0.02)


@pytest.fixture
def keeper(open_rooms: Open) -> Rooms:
    """One replica whose lock keeper runs."""
    return open_rooms().start(keeper=True)


def current(rooms: Rooms, entry: Entry) -> Entry | None:
    return rooms.ledger.current(entry)


def dropped(rooms: Rooms, entry: Entry) -> None:
    eventually(lambda: entry.task_id not in rooms.ledger, what="dropped")


def extended(rooms: Rooms, entry: Entry) -> int:
    calls = rooms.engine.calls
    return len(calls.of("extendLock", entry.task_id)) + len(calls.of("lock", entry.task_id))


# Lease


def test_what_is_unanswered_after_lease_after_is_leased(keeper: Rooms) -> None:
    """The long lock is the proof of publication, for this replica and its peers."""
    entry = keeper.in_flight()
    keeper.advance(6)

    keeper.leased(entry)

    eventually(lambda: keeper.count("leased") == 1)
    now_held = current(keeper, entry)
    assert now_held is not None
    assert now_held.leased


def test_what_is_younger_than_lease_after_costs_no_call(keeper: Rooms) -> None:
    """Most tasks are answered within it."""
    entry = keeper.in_flight()
    keeper.advance(4)

    throughout(lambda: extended(keeper, entry) == 0, 0.6)


def test_one_bulk_query_serves_all_that_are_due(keeper: Rooms) -> None:
    """A call for each would double the engine's load."""
    entries = [keeper.in_flight() for _ in range(20)]
    keeper.engine.calls.clear()
    keeper.advance(6)

    for entry in entries:
        keeper.leased(entry)

    asked = [c for c in keeper.engine.calls.of("query") if "externalTaskIdIn" in c.body]
    assert len(asked) == 1
    assert len(asked[0].body["externalTaskIdIn"]) == 20


def test_a_lease_is_renewed_about_at_its_half(keeper: Rooms) -> None:
    """0.45 to 0.55 of it: they spread, and on average there are two a lease."""
    entry = keeper.in_flight()
    keeper.advance(6)
    keeper.leased(entry)
    eventually(lambda: keeper.count("leased") == 1)
    first = current(keeper, entry)
    assert first is not None
    assert 268 <= first.due - monotonic() <= 330

    keeper.advance(331)

    eventually(lambda: keeper.count("leased") == 2)
    assert keeper.lock_left(entry.task_id) > 590
    assert extended(keeper, entry) == 2


# Hold


def test_an_unconfirmed_message_is_held_for_another_window(keeper: Rooms) -> None:
    """The broker is slow; the lock of the fetch must not lapse under the message."""
    entry = keeper.fetched()
    keeper.advance(31)

    eventually(lambda: keeper.count("held") == 1)

    assert 55 < keeper.lock_left(entry.task_id) <= 60
    held = current(keeper, entry)
    assert held is not None
    assert not held.leased, "a hold is no proof of publication"
    assert held.due - monotonic() <= 33


def test_a_hold_is_repeated_while_the_connection_lives(keeper: Rooms) -> None:
    """Each time by P only."""
    entry = keeper.fetched()
    for round_ in (1, 2, 3):
        keeper.advance(34)
        eventually(lambda n=round_: keeper.count("held") == n)  # type: ignore[misc]

    assert keeper.lock_left(entry.task_id) <= 60


def test_a_sweep_that_fails_does_not_stop_the_leases(
    open_rooms: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A slow query on the engine's database must not let every lock lapse."""

    def fails(_: Adoption) -> None:
        raise EngineUnavailable("no answer in time")

    monkeypatch.setattr(Adoption, "sweep", fails)
    keeper = open_rooms().start(keeper=True)
    entry = keeper.in_flight()
    keeper.advance(6)

    eventually(lambda: extended(keeper, entry) == 1)


def test_an_unconfirmed_message_is_not_held_without_a_connection(keeper: Rooms) -> None:
    """Nobody knows what became of it: the engine offers the task again."""
    keeper.publisher.connected.clear()
    entry = keeper.fetched()
    keeper.advance(31)

    dropped(keeper, entry)

    assert extended(keeper, entry) == 0
    assert keeper.lock_left(entry.task_id) < 30


def test_an_unconfirmed_message_is_held_while_the_broker_blocks(keeper: Rooms) -> None:
    """Connected, and not ready for more: what was sent may still be confirmed."""
    keeper.publisher.ready.clear()
    keeper.fetched()
    keeper.advance(31)

    eventually(lambda: keeper.count("held") == 1)


def test_a_message_confirmed_after_a_hold_is_leased(keeper: Rooms) -> None:
    """The confirm came late and counts."""
    entry = keeper.fetched()
    keeper.advance(31)
    eventually(lambda: keeper.count("held") == 1)
    keeper.ledger.confirmed(entry, monotonic())
    keeper.advance(6)

    keeper.leased(entry)


# Only if still ours


def settle_elsewhere(rooms: Rooms, entry: Entry) -> None:
    rooms.client.complete(entry.task_id, {}, {})


def unlock(rooms: Rooms, entry: Entry) -> None:
    rooms.client.unlock(entry.task_id)


def set_retries(rooms: Rooms, entry: Entry) -> None:
    rooms.engine_sets_retries(entry.task_id, 5)


def fail_elsewhere(rooms: Rooms, entry: Entry) -> None:
    rooms.client.failure(
        entry.task_id,
        message="m",
        details="",
        retries=2,
        pause=300,
        variables={},
        local_variables={},
    )


def locked_by_another(rooms: Rooms, entry: Entry) -> None:
    rooms.client.unlock(entry.task_id)
    path = f"/external-task/{entry.task_id}/lock"
    rooms.http("POST", path, {"workerId": "other", "lockDuration": 90_000})


def renewed_by_a_peer(rooms: Rooms, entry: Entry) -> None:
    rooms.client.extend_lock(entry.task_id, 600)


def released_by_a_peer(rooms: Rooms, entry: Entry) -> None:
    rooms.client.extend_lock(entry.task_id, 20)


Act = Callable[[Rooms, Entry], None]
ACTS = [
    unlock,
    set_retries,
    fail_elsewhere,
    locked_by_another,
    renewed_by_a_peer,
    released_by_a_peer,
]


@pytest.mark.parametrize("act", ACTS)
def test_a_lock_that_is_not_ours_any_more_is_left_alone(keeper: Rooms, act: Act) -> None:
    """Extending it would push a retry away for a lease, or renew a task that nobody published."""
    entry = keeper.in_flight()
    act(keeper, entry)
    before, calls = keeper.task(entry.task_id), extended(keeper, entry)
    keeper.advance(6)

    dropped(keeper, entry)

    assert keeper.task(entry.task_id) == before
    assert extended(keeper, entry) == calls
    eventually(lambda: keeper.count("dropped") == 1)
    assert keeper.gone == []


def test_a_lock_that_has_lapsed_is_left_alone(keeper: Rooms) -> None:
    """Whoever slept longer than P comes too late: the task is fetched again."""
    entry = keeper.in_flight()
    keeper.advance(61)

    dropped(keeper, entry)

    assert extended(keeper, entry) == 0


def test_a_task_that_is_gone_is_announced(keeper: Rooms) -> None:
    """A worker that is still busy with it can stop early."""
    entry = keeper.in_flight()
    settle_elsewhere(keeper, entry)
    keeper.advance(6)

    dropped(keeper, entry)

    eventually(lambda: keeper.gone == [("a", entry.task_id)])


def test_a_task_that_goes_between_the_question_and_the_extension_is_announced_too(
    keeper: Rooms,
) -> None:
    """The engine answers 404 to extendLock."""
    entry = keeper.in_flight()
    gone = Answer(404, {"type": "RestException", "message": "does not exist"})
    keeper.engine.faults.add("extendLock", when="before", action=gone)
    keeper.advance(6)

    dropped(keeper, entry)

    eventually(lambda: keeper.gone == [("a", entry.task_id)])


def test_an_operator_who_unlocks_between_the_question_and_the_extension_wins(
    keeper: Rooms,
) -> None:
    """extendLock checks the owner: the task is let go."""
    entry = keeper.in_flight()
    hold = keeper.engine.faults.add("extendLock", when="before", action=Hold())
    keeper.advance(6)
    assert hold.reached.wait(10)

    unlock(keeper, entry)
    hold.release()

    dropped(keeper, entry)
    assert keeper.lock_left(entry.task_id) < 0
    assert keeper.gone == []


def test_a_result_that_is_applied_meanwhile_comes_first(keeper: Rooms) -> None:
    """One call at a time per task: what was settled is not extended."""
    entry = keeper.in_flight()
    hold = keeper.engine.faults.add("complete", when="before", action=Hold())
    keeper.answer(entry, {})
    assert hold.reached.wait(10)
    keeper.advance(6)
    eventually(lambda: any("externalTaskIdIn" in c.body for c in keeper.engine.calls.of("query")))

    hold.release()

    dropped(keeper, entry)
    keeper.settled()
    assert extended(keeper, entry) == 0
    assert keeper.gone == []


def test_an_answer_older_than_half_a_window_is_asked_for_again(keeper: Rooms) -> None:
    """The process may have been frozen between the question and the act."""
    entry = keeper.in_flight()
    hold = keeper.engine.faults.add("getTask", when="before", action=Hold())
    keeper.callers.submit(entry.task_id, lambda: read(keeper, entry.task_id))
    assert hold.reached.wait(10)
    keeper.advance(6)
    eventually(lambda: keeper.ledger.idle("a") == [], what="in hand")
    eventually(lambda: len(keeper.callers) == 1)
    eventually(lambda: any("externalTaskIdIn" in c.body for c in keeper.engine.calls.of("query")))

    keeper.advance(31)
    keeper.engine.calls.clear()
    hold.release()

    keeper.leased(entry)
    asked = [c for c in keeper.engine.calls.of("query") if "externalTaskIdIn" in c.body]
    assert asked, "extended on an answer of before the freeze"


def read(rooms: Rooms, task_id: str) -> None:
    rooms.client.task(task_id)


# Suspended, lost answers, an engine that is away


def test_a_suspended_task_is_renewed_by_lock(keeper: Rooms) -> None:
    """extendLock refuses it, and a lock that lapses would offer it twice after the resumption."""
    entry = keeper.in_flight()
    keeper.suspend(entry.task_id)
    keeper.advance(6)

    keeper.leased(entry)

    assert len(keeper.engine.calls.of("lock", entry.task_id)) == 1
    assert keeper.engine.calls.of("extendLock", entry.task_id) == ()
    assert entry.task_id in keeper.ledger


def test_a_task_suspended_in_the_last_moment_is_renewed_by_lock(keeper: Rooms) -> None:
    """Between the question and the extension."""
    entry = keeper.in_flight()
    hold = keeper.engine.faults.add("extendLock", when="before", action=Hold())
    keeper.advance(6)
    assert hold.reached.wait(10)

    keeper.suspend(entry.task_id)
    keeper.engine.calls.clear()
    hold.release()

    keeper.leased(entry)
    assert len(keeper.engine.calls.of("lock", entry.task_id)) == 1
    assert keeper.engine.calls.of("query") == (), "at once, without asking again"


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_lost_answer_keeps_the_old_and_the_new_expiry(keeper: Rooms, when: When) -> None:
    """Carried out or not, the lock is ours, and the next check must find it so."""
    entry = keeper.in_flight()
    keeper.engine.faults.add("extendLock", when=when, times=None, action=AWAY)
    keeper.advance(6)
    eventually(lambda: extended(keeper, entry) >= 3)
    keeper.settled()
    uncertain = current(keeper, entry)
    assert uncertain is not None
    assert len(uncertain.expiries) >= 2

    keeper.engine.faults.clear()

    eventually(lambda: keeper.count("leased") == 1)
    assert keeper.lock_left(entry.task_id) > 590
    kept = current(keeper, entry)
    assert kept is not None
    assert len(kept.expiries) == 1


def test_an_engine_that_is_away_is_asked_again(keeper: Rooms) -> None:
    """The entries stay; the loop says so once and lives."""
    entry = keeper.in_flight()
    keeper.engine.stop()
    with structlog.testing.capture_logs() as logs:
        keeper.advance(6)
        eventually(lambda: [e for e in logs if e["event"] == "locks not looked after"])
        keeper.engine.start()
        keeper.leased(entry)

    assert entry.task_id in keeper.ledger


def test_a_refusal_to_extend_is_tried_again(keeper: Rooms) -> None:
    """A conflict or missing rights: the lock still runs."""
    entry = keeper.in_flight()
    forbidden = Answer(403, {"type": "AuthorizationException", "message": "no"})
    keeper.engine.faults.add("extendLock", when="before", action=forbidden)
    keeper.advance(6)

    keeper.leased(entry)

    assert extended(keeper, entry) == 2


# Deadline


def test_what_is_unanswered_a_lease_after_the_deadline_is_a_failure(open_rooms: Open) -> None:
    """The engine's record is the only memory of it; a worker had its time."""
    rooms = open_rooms(make_topic("a", timing=timing(deadline=1200))).start(keeper=True)
    entry = rooms.in_flight()
    rooms.advance(6)
    for renewals in range(1, 7):
        eventually(lambda n=renewals: rooms.count("leased") == n)  # type: ignore[misc]
        assert rooms.engine.calls.of("failure") == (), f"reported before renewal {renewals}"
        rooms.advance(331)

    eventually(lambda: rooms.count("deadline_missed") == 1)
    task = rooms.task(entry.task_id)
    assert task is not None
    assert task["retries"] == 2
    assert task["errorMessage"] == "no answer within the deadline of 0.333333 h"
    assert entry.task_id not in rooms.ledger


def test_a_deadline_of_another_attempt_is_not_reported(open_rooms: Open) -> None:
    """An operator has set the retries: that attempt is not ours to fail."""
    rooms = open_rooms(make_topic("a", timing=timing(deadline=1))).start(keeper=True)
    entry = rooms.in_flight()
    rooms.engine_sets_retries(entry.task_id, 5)
    rooms.advance(6)

    dropped(rooms, entry)

    assert rooms.engine.calls.of("failure") == ()


# Adopt


def orphan(rooms: Rooms, left: float) -> str:
    """A task whose lease a dead replica has left behind."""
    rooms.instance()
    fetched = rooms.client.fetch_and_lock([rooms.topics["a"].fetch], 1)
    [task] = fetched.tasks
    rooms.client.extend_lock(task.id, left)
    rooms.engine.calls.clear()
    return task.id


def sweeps(rooms: Rooms) -> int:
    return sum("lockExpirationAfter" in c.body for c in rooms.engine.calls.of("query"))


def test_a_lease_without_a_holder_is_adopted_at_start(open_rooms: Open) -> None:
    """A restart needs no special case: an empty memory and a sweep."""
    rooms = open_rooms()
    task_id = orphan(rooms, 200)
    now = monotonic()

    rooms.start(keeper=True)

    eventually(lambda: task_id in rooms.ledger)
    assert rooms.lock_left(task_id) > 590
    assert rooms.count("adopted") == 1
    entry = rooms.ledger.settle(task_id)
    assert entry is not None
    assert (entry.confirmed, entry.leased, entry.retries) == (True, True, None)
    assert entry.deadline == pytest.approx(now + 86_400, abs=3)
    assert 268 <= entry.due - monotonic() <= 330


@pytest.mark.parametrize("left", [100, 118, 245, 600])
def test_a_lock_outside_the_band_is_not_adopted(open_rooms: Open, left: float) -> None:
    """Up to 2 P it proves nothing, from 0.4 L on its holder lives."""
    rooms = open_rooms()
    task_id = orphan(rooms, left)

    rooms.start(keeper=True)

    eventually(lambda: sweeps(rooms) >= 1)
    rooms.settled()
    assert task_id not in rooms.ledger
    assert extended(rooms, rooms.ledger.admit(task_id, "a", None, 0, 0)) == 0


def test_a_task_that_has_failed_is_not_adopted(open_rooms: Open) -> None:
    """Its lock may be a retry pause, which must not be renewed for ever."""
    rooms = open_rooms()
    rooms.instance()
    [task] = rooms.client.fetch_and_lock([rooms.topics["a"].fetch], 1).tasks
    rooms.client.failure(
        task.id, message="m", details="", retries=2, pause=200, variables={}, local_variables={}
    )

    rooms.start(keeper=True)

    eventually(lambda: sweeps(rooms) >= 1)
    rooms.settled()
    assert task.id not in rooms.ledger
    assert rooms.lock_left(task.id) <= 200


@pytest.mark.parametrize("whose", ["another worker's", "another topic's", "suspended"])
def test_what_is_not_ours_to_answer_for_is_not_adopted(open_rooms: Open, whose: str) -> None:
    """Another deployment may live on the same engine."""
    rooms = open_rooms(make_topic("a"), worker_id="bridge")
    asking = open_rooms(
        make_topic("b" if whose == "another topic's" else "a"),
        worker_id="other" if whose == "another worker's" else "bridge",
    )
    task_id = orphan(rooms, 200)
    if whose == "suspended":
        rooms.suspend(task_id)

    asking.start(keeper=True)

    eventually(lambda: sweeps(asking) >= 1)
    asking.settled()
    assert task_id not in asking.ledger
    assert 0 < rooms.lock_left(task_id) <= 200


def test_the_sweep_is_repeated_about_every_tenth_of_a_lease(keeper: Rooms) -> None:
    """A peer may die at any time; 48 to 72 seconds, so that replicas do not sweep together."""
    eventually(lambda: sweeps(keeper) == 1)
    keeper.advance(40)
    throughout(lambda: sweeps(keeper) == 1, 0.5)

    task_id = orphan(keeper, 232)
    keeper.advance(40)

    eventually(lambda: task_id in keeper.ledger)


def test_what_is_in_memory_is_not_adopted(keeper: Rooms) -> None:
    """Two entries for one task would renew each other."""
    eventually(lambda: sweeps(keeper) == 1)
    task_id = orphan(keeper, 330)
    kept = keeper.ledger.admit(task_id, "a", None, 0.0, monotonic())
    keeper.ledger.put_off(kept, monotonic() + 9000)
    keeper.advance(100)

    eventually(lambda: sweeps(keeper) == 1)

    keeper.settled()
    assert keeper.count("adopted") == 0
    assert keeper.ledger.current(kept) is not None


def test_what_was_fetched_since_the_sweep_is_not_adopted(open_rooms: Open) -> None:
    """What the sweep saw is older than what this replica knows."""
    rooms = open_rooms()
    task_id = orphan(rooms, 200)
    hold = rooms.engine.faults.add("getTask", when="before", action=Hold())
    other = rooms.in_flight()
    rooms.callers.submit(task_id, lambda: read(rooms, task_id))
    rooms.advance(6)
    rooms.start(keeper=True)
    assert hold.reached.wait(10)
    rooms.leased(other)
    # Its adoption waits behind the held call.
    eventually(lambda: sweeps(rooms) == 1, what="the sweep was answered")

    fetched = rooms.ledger.admit(task_id, "a", None, 0.0, monotonic())
    hold.release()

    rooms.settled()
    assert rooms.ledger.current(fetched) is not None
    assert extended(rooms, fetched) == 0


def test_an_adopted_task_of_a_peer_is_taken_over_only_once(open_rooms: Open) -> None:
    """The first sweep extends the lock, which takes it out of the band."""
    first, second = open_rooms(), open_rooms()
    task_id = orphan(first, 200)
    first.start(keeper=True)
    eventually(lambda: task_id in first.ledger)

    second.start(keeper=True)

    eventually(lambda: sweeps(second) >= 2)
    second.settled()
    assert task_id not in second.ledger


def test_an_adopted_task_of_a_silent_worker_is_completed(open_rooms: Open) -> None:
    """No result will ever come: leased until the deadline, it would fail and be published again."""
    rooms = open_rooms(make_topic("a", replies={"profile": "none"}))
    task_id = orphan(rooms, 200)

    rooms.start(keeper=True)

    eventually(lambda: rooms.task(task_id) is None)
    eventually(lambda: task_id not in rooms.ledger)
    assert (rooms.count("adopted"), rooms.count("completed")) == (1, 1)


# Full topics


def full(rooms: Rooms, count: int) -> list[Entry]:
    return [rooms.in_flight() for _ in range(count)]


def test_a_full_topic_is_checked_at_once(open_rooms: Open) -> None:
    """Its room may be taken by tasks that peers have settled long ago."""
    rooms = open_rooms(make_topic("a", timing=timing(capacity=3, lease_after=3000))).start(
        keeper=True
    )
    entries = full(rooms, 3)
    rooms.client.complete(entries[0].task_id, {}, {})

    eventually(lambda: rooms.ledger.room("a") == 1)

    assert entries[0].task_id not in rooms.ledger
    assert rooms.gone == [("a", entries[0].task_id)]


def test_a_full_topic_lets_go_of_what_is_not_ours_any_more(open_rooms: Open) -> None:
    """A task that a peer has failed is nobody's here, though the engine still has it."""
    rooms = open_rooms(make_topic("a", timing=timing(capacity=2, lease_after=3000))).start(
        keeper=True
    )
    entries = full(rooms, 2)
    fail_elsewhere(rooms, entries[0])

    eventually(lambda: rooms.ledger.room("a") == 1)

    assert entries[0].task_id not in rooms.ledger
    assert rooms.gone == []


def test_a_topic_with_room_is_not_checked(keeper: Rooms) -> None:
    """The check costs a call."""
    keeper.in_flight()
    keeper.engine.calls.clear()

    throughout(
        lambda: not any("externalTaskIdIn" in c.body for c in keeper.engine.calls.of("query")), 0.6
    )


def test_a_topic_that_stays_full_is_checked_with_growing_pauses(open_rooms: Open) -> None:
    """Slow workers are no reason to ask four times a second."""
    rooms = open_rooms(make_topic("a", timing=timing(capacity=2, lease_after=3000)))
    full(rooms, 2)
    rooms.engine.calls.clear()
    rooms.start(keeper=True)

    def checks() -> int:
        return sum("externalTaskIdIn" in c.body for c in rooms.engine.calls.of("query"))

    eventually(lambda: checks() == 1)
    throughout(lambda: checks() == 1, 0.6)
    rooms.advance(1)
    eventually(lambda: checks() == 2)
    rooms.advance(1)
    throughout(lambda: checks() == 2, 0.6)
    rooms.advance(1)
    eventually(lambda: checks() == 3)


# Stop


def test_a_stopping_replica_leases_what_is_in_flight(rooms: Rooms) -> None:
    """Peers adopt it, and nothing is published a second time."""
    entries = [rooms.in_flight() for _ in range(3)]
    unconfirmed = rooms.fetched()
    rooms.stopping.set()

    assert rooms.keeper.lease_all(5) is True

    assert all(rooms.lock_left(e.task_id) > 590 for e in entries)
    assert rooms.lock_left(unconfirmed.task_id) <= 60


def test_a_stop_is_bounded_where_the_engine_is_away(rooms: Rooms) -> None:
    """False: the exit code must tell that messages may be published again."""
    rooms.in_flight()
    rooms.engine.stop()
    rooms.stopping.set()
    began = monotonic()

    assert rooms.keeper.lease_all(0.5) is False

    assert monotonic() - began < 3


def test_waiting_for_an_engine_at_the_stop_does_not_spin(rooms: Rooms) -> None:
    """A core at full load for twenty seconds would harm whoever shares the machine."""
    rooms.in_flight()
    rooms.engine.faults.add("query", when="before", times=None, action=AWAY)
    rooms.stopping.set()

    rooms.keeper.lease_all(0.5)

    assert len(rooms.engine.calls.of("query")) <= 10


# The rate


def test_too_many_renewals_are_told_with_a_better_lease() -> None:
    """Never skipped, but an operator can do something about it."""
    rate = RenewalRate({"a": make_topic("a")}, limit=20)
    rate.warn(100.0)
    for _ in range(400):
        rate.add("a")
    with structlog.testing.capture_logs() as logs:
        rate.warn(105.0)
        assert logs == []
        rate.warn(110.0)
        rate.warn(121.0)

    [warning] = logs
    assert (warning["per_second"], warning["topic"], warning["better_lease"]) == (40, "a", "1200s")


def test_a_published_message_that_nobody_answers_is_leased_in_the_end(
    open_rooms: Open, simulated: SimulatedEngine
) -> None:
    """The whole way: fetched, published, unconfirmed, held, confirmed, leased."""
    rooms = open_rooms().start(keeper=True, dispatcher=True)
    rooms.publisher.decide = lambda _: None
    task_id = rooms.instance()
    eventually(lambda: rooms.publisher.pending)
    rooms.advance(31)
    eventually(lambda: rooms.count("held") == 1)

    rooms.publisher.settle(Outcome.CONFIRMED)
    eventually(lambda: rooms.count("confirmed") == 1)
    rooms.advance(6)

    eventually(lambda: rooms.lock_left(task_id) > 590)
    assert len(simulated.calls.of("fetchAndLock")) >= 1
