"""The rooms of the bridge on a simulated engine, with a movable clock."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

import bridge.patience
from bridge.simulated_engine import SimulatedEngine
from bridge.topics import Topic
from tests.support.rooms import MovableTime, Rooms, movable_time

Open = Callable[..., Rooms]


@pytest.fixture
def simulated() -> Iterator[SimulatedEngine]:
    """An engine on loopback, empty."""
    with SimulatedEngine() as engine:
        yield engine


@pytest.fixture
def moved(monkeypatch: pytest.MonkeyPatch) -> MovableTime:
    """The bridge's monotonic clock, movable."""
    return movable_time(monkeypatch)


@pytest.fixture
def open_rooms(simulated: SimulatedEngine, moved: MovableTime) -> Iterator[Open]:
    """Rooms for the topics given (default: topic `a`); they are closed with the test, and a loop
    that died fails it.
    """
    opened: list[Rooms] = []

    def open_rooms(*topics: Topic, worker_id: str = "bridge") -> Rooms:
        opened.append(Rooms(simulated, moved, topics, worker_id=worker_id))
        return opened[-1]

    yield open_rooms
    for rooms in opened:
        rooms.close()


@pytest.fixture
def rooms(open_rooms: Open) -> Rooms:
    """One replica for topic `a`, its callers running."""
    return open_rooms().start()


def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the engine did not take is tried again in an instant, as often as ever."""
    tries = len(bridge.patience.BROKEN_PAUSES_SECONDS)
    monkeypatch.setattr("bridge.patience.PAUSE_SECONDS", 0.001)
    monkeypatch.setattr("bridge.patience.MAX_PAUSE_SECONDS", 0.02)
    monkeypatch.setattr("bridge.patience.LOOK_SECONDS", 0.002)
    monkeypatch.setattr("bridge.patience.BROKEN_PAUSES_SECONDS", (0.001,) * tries)
    monkeypatch.setattr("bridge.engine.gate.FIRST_PAUSE_SECONDS", 0.001)
    monkeypatch.setattr("bridge.engine.gate.MAX_PAUSE_SECONDS", 0.02)
