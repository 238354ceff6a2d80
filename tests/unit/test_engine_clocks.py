"""The engine's clock is minutes off, or its nodes differ by a second: leases, adoption and deadline
go by the engine's own time, and no lock is let go of or taken over wrongly.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from bridge.clock import monotonic
from bridge.engine import EngineClient
from bridge.engine.connection import HttpOptions
from bridge.simulated_engine import Clock, Drop, SimulatedEngine, linear_process
from tests.support.rooms import MovableTime, Rooms, make_topic, timing
from tests.support.waiting import eventually

MINUTES_OFF = [-86_400 * 365, -600, 600, 86_400 * 365]
off = pytest.mark.parametrize("seconds", MINUTES_OFF)


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look every few milliseconds instead of four times a second."""
    monkeypatch.setattr("bridge.lock_keeper.TICK_SECONDS", 0.02)


class TwoNodes(Clock):
    """The clocks of two nodes of one engine behind one address: a load balancer gives each
    connection to one of them in turn, and theirs differ by `apart` seconds.
    """

    def __init__(self, apart: float) -> None:
        super().__init__()
        self._apart = apart
        self._nodes: dict[int, int] = {}
        self._dealing = threading.Lock()

    def now_ms(self) -> int:
        with self._dealing:
            node = self._nodes.setdefault(threading.get_ident(), len(self._nodes) % 2)
        return super().now_ms() + round(node * self._apart * 1000)

    def used(self) -> set[int]:
        """The nodes that have been asked."""
        return set(self._nodes.values())


@pytest.fixture(params=[1.0, -1.0, 1.9, 5.0])
def nodes(request: pytest.FixtureRequest) -> Iterator[SimulatedEngine]:
    """Two nodes, the second some seconds ahead or behind."""
    with SimulatedEngine(TwoNodes(request.param)) as engine:
        yield engine


def replica(engine: SimulatedEngine, moved: MovableTime, *, deadline: float = 86_400.0) -> Rooms:
    return Rooms(engine, moved, [make_topic("a", timing=timing(deadline=deadline))])


# Minutes, or years, off


@off
def test_a_lease_is_kept_whatever_the_engines_clock_says(
    simulated: SimulatedEngine, moved: MovableTime, seconds: float
) -> None:
    """Its dates are compared with its own `Date` header alone."""
    simulated.clock.set_offset(seconds)
    with replica(simulated, moved).start(keeper=True) as rooms:
        entry = rooms.in_flight()
        rooms.advance(6)
        for renewals in (1, 2, 3):
            eventually(lambda n=renewals: rooms.count("leased") == n)  # type: ignore[misc]
            assert 590 < rooms.lock_left(entry.task_id) <= 600.1
            rooms.advance(331)

        assert rooms.count("dropped") == 0


@off
def test_adoption_goes_by_the_engines_time(
    simulated: SimulatedEngine, moved: MovableTime, seconds: float
) -> None:
    """What a dead replica left is taken over, what a living one holds is not; the deadline counts
    from the task's creation.
    """
    simulated.clock.set_offset(seconds)
    with replica(simulated, moved) as dead, replica(simulated, moved, deadline=1000) as peer:
        left_behind, held, fetched = dead.in_flight(), dead.in_flight(), dead.fetched()
        dead.advance(50)
        dead.client.extend_lock(left_behind.task_id, 200)
        dead.client.extend_lock(held.task_id, 500)
        now = monotonic()

        peer.start(keeper=True)

        eventually(lambda: left_behind.task_id in peer.ledger)
        peer.settled()
        assert held.task_id not in peer.ledger
        assert fetched.task_id not in peer.ledger
        taken = peer.ledger.settle(left_behind.task_id)
        assert taken is not None
        assert taken.deadline == pytest.approx(now + 950, abs=3)


@off
def test_a_deadline_is_missed_when_its_time_has_passed(
    simulated: SimulatedEngine, moved: MovableTime, seconds: float
) -> None:
    """Neither at once nor never."""
    simulated.clock.set_offset(seconds)
    with replica(simulated, moved, deadline=100).start(keeper=True) as rooms:
        entry = rooms.in_flight()
        rooms.advance(6)
        for renewals in (1, 2, 3):
            eventually(lambda n=renewals: rooms.count("leased") == n)  # type: ignore[misc]
            assert rooms.engine.calls.of("failure") == ()
            rooms.advance(331)

        eventually(lambda: entry.task_id not in rooms.ledger)
        assert rooms.count("deadline_missed") == 1


def test_a_clock_that_is_set_while_locks_run_ends_no_lease(
    simulated: SimulatedEngine, moved: MovableTime
) -> None:
    """An administrator mends the engine's clock by two minutes: the locks are shorter for it, and
    still ours.
    """
    with replica(simulated, moved).start(keeper=True) as rooms:
        entry = rooms.in_flight()
        rooms.advance(6)
        rooms.leased(entry)
        eventually(lambda: rooms.count("leased") == 1)

        simulated.clock.advance(120)
        rooms.advance(331)

        eventually(lambda: rooms.count("leased") == 2)
        assert rooms.count("dropped") == 0


# Two nodes


def test_no_lease_is_let_go_of_between_two_nodes(
    nodes: SimulatedEngine, moved: MovableTime
) -> None:
    """Set through one, looked at through the other, again and again."""
    with replica(nodes, moved).start(keeper=True) as rooms:
        entries = [rooms.in_flight() for _ in range(20)]
        rooms.advance(6)
        for renewals in (1, 2, 3, 4):
            eventually(lambda n=renewals: rooms.count("leased") == 20 * n)  # type: ignore[misc]
            rooms.settled()
            rooms.advance(331)

        assert rooms.count("dropped") == 0
        assert all(entry.task_id in rooms.ledger for entry in entries)
        assert isinstance(nodes.clock, TwoNodes)
        assert nodes.clock.used() == {0, 1}


@pytest.mark.parametrize("nodes", [1.0, -1.0], indirect=True)
def test_an_answer_that_is_lost_between_two_nodes_ends_no_lease(
    nodes: SimulatedEngine, moved: MovableTime
) -> None:
    """Then the expiry is known only by what the other node says: hence the second of tolerance."""
    with replica(nodes, moved).start(keeper=True) as rooms:
        entries = [rooms.in_flight() for _ in range(20)]
        nodes.faults.add("extendLock", when="after", action=Drop(), times=60)
        rooms.advance(6)

        eventually(lambda: all(rooms.lock_left(e.task_id) > 500 for e in entries))
        rooms.settled()
        rooms.advance(331)

        eventually(lambda: all(rooms.lock_left(e.task_id) > 500 for e in entries))
        assert rooms.count("dropped") == 0


def test_no_living_replicas_lease_is_adopted_between_two_nodes(
    nodes: SimulatedEngine, moved: MovableTime
) -> None:
    """A peer that starts every few minutes finds nothing to take over while its holder renews."""
    with replica(nodes, moved).start(keeper=True) as holder:
        entries = [holder.in_flight() for _ in range(10)]
        holder.advance(6)
        for renewals in (1, 2, 3):
            eventually(lambda n=renewals: holder.count("leased") == 10 * n)  # type: ignore[misc]
            holder.settled()
            holder.advance(260)  # just before the first of them is due
            with replica(nodes, moved).start(keeper=True) as peer:
                eventually(lambda p=peer: sweeps(p) > 0)  # type: ignore[misc]
                peer.settled()
                assert peer.count("adopted") == 0
            holder.advance(71)

        assert all(entry.task_id in holder.ledger for entry in entries)


def sweeps(rooms: Rooms) -> int:
    """How often anybody has looked for what is left behind, since the last look at it."""
    found = sum("lockExpirationAfter" in c.body for c in rooms.engine.calls.of("query"))
    rooms.engine.calls.clear()
    return found


def test_an_expiry_is_known_by_the_node_that_set_it(nodes: SimulatedEngine) -> None:
    """Many callers, each with its own node: one's answer must not blur another's."""
    client = EngineClient(HttpOptions(nodes.url), "bridge", stopping=threading.Event())
    nodes.deploy(linear_process("p", "a"))
    for _ in range(40):
        nodes.start_process("p")
    fetch = {"topicName": "a", "lockDuration": 60_000}
    tasks = client.fetch_and_lock([fetch], 40).tasks

    with ThreadPoolExecutor(6) as pool:
        windows = list(pool.map(lambda task: client.extend_lock(task.id, 600), tasks))

    shown = client.tasks([task.id for task in tasks]).tasks
    for task, window in zip(tasks, windows, strict=True):
        expires = shown[task.id].lock_expires
        assert expires is not None
        assert window.holds(expires)
