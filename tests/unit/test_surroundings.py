"""Queues and engine are looked at only while somebody wants to know."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import pytest

from bridge.errors import BrokerUnavailable, EngineUnavailable
from bridge.queue_counts import QueueCount
from bridge.surroundings import FRESH_SECONDS, STALE_SECONDS, EngineCount, Surroundings
from bridge.topics import Topic
from tests.support.rooms import MovableTime, make_topic, movable_time
from tests.support.waiting import eventually

LONG = 30.0  # a limit, not a pause


class Around:
    """Counts that a test sets, and who was asked for what."""

    def __init__(self, topics: dict[str, Topic]) -> None:
        self.queues: dict[str, QueueCount | None] = {"pay": QueueCount(3, None, 1)}
        self.waiting, self.stuck = 7, 2
        self.asked_queues: list[list[str]] = []
        self.asked_tasks: list[dict[str, Any]] = []
        self.before: Callable[[], None] = lambda: None
        self.room = Surroundings(topics, ("b.parked",), self.count_queues, self.count_tasks)
        self._threads = [
            threading.Thread(target=loop, name=name, daemon=True) for name, loop in self.room.loops
        ]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        self.room.stop()
        for thread in self._threads:
            thread.join(LONG)
            assert not thread.is_alive()

    def count_queues(self, names: Sequence[str]) -> Mapping[str, QueueCount | None]:
        self.asked_queues.append(list(names))
        self.before()
        return {name: self.queues.get(name) for name in names}

    def count_tasks(self, **query: Any) -> int:
        self.asked_tasks.append(query)
        return self.stuck if "noRetriesLeft" in query else self.waiting


@pytest.fixture
def topics() -> dict[str, Topic]:
    return {"pay": make_topic("pay")}


@pytest.fixture
def around(topics: dict[str, Topic]) -> Iterator[Around]:
    around = Around(topics)
    around.start()
    yield around
    around.stop()


@pytest.fixture
def moved(monkeypatch: pytest.MonkeyPatch) -> MovableTime:
    return movable_time(monkeypatch)


def test_nothing_is_asked_while_nobody_wants_to_know(around: Around) -> None:
    """A bridge without a dashboard costs engine and broker nothing."""
    around.stop()

    assert not around.asked_queues
    assert not around.asked_tasks


def test_the_first_answer_is_waited_for(around: Around) -> None:
    """A snapshot right after the start has its numbers."""
    queues, tasks = around.room.latest(LONG)

    assert queues == {"pay": QueueCount(3, None, 1), "b.parked": None}
    assert tasks == {"pay": EngineCount(7, 2)}
    assert around.asked_tasks == [
        {"topicName": "pay", "notLocked": True, "withRetriesLeft": True, "active": True},
        {"topicName": "pay", "noRetriesLeft": True},
    ]


def test_an_answer_that_nobody_can_read_ends_nothing(around: Around, moved: MovableTime) -> None:
    """A gateway may answer anything; a bridge that carries tasks must outlive a look."""

    def strange() -> None:
        raise KeyError("count")

    around.before = strange
    assert around.room.latest(LONG) == (None, {"pay": EngineCount(7, 2)})
    around.before = lambda: None
    moved.offset += FRESH_SECONDS + 1

    queues, _ = around.room.latest(LONG)

    assert queues == {"pay": QueueCount(3, None, 1), "b.parked": None}


def test_who_asks_often_gets_the_same_answer(around: Around) -> None:
    """Ten browsers are no more work than one."""
    for _ in range(10):
        around.room.latest(LONG)

    assert (len(around.asked_queues), len(around.asked_tasks)) == (1, 2)


def test_an_answer_that_is_old_is_asked_for_again(around: Around, moved: MovableTime) -> None:
    """A page that is open shows how it is now."""
    around.room.latest(LONG)
    around.queues["pay"], around.waiting = QueueCount(0, None, 2), 0
    moved.offset += FRESH_SECONDS + 1

    queues, tasks = around.room.latest(LONG)

    assert queues == {"pay": QueueCount(0, None, 2), "b.parked": None}
    assert tasks == {"pay": EngineCount(0, 2)}


def test_many_topics_are_counted_less_often(
    around: Around, topics: dict[str, Topic], moved: MovableTime
) -> None:
    """Each of them is a call to the engine."""
    topics.update((f"t{n}", make_topic(f"t{n}")) for n in range(199))
    around.room.latest(LONG)
    moved.offset += 2 * FRESH_SECONDS

    around.room.latest(LONG)

    assert len(around.asked_tasks) == 2 * 200


def test_topics_may_come_and_go(
    around: Around, topics: dict[str, Topic], moved: MovableTime
) -> None:
    """Settings are read again while the bridge runs."""
    around.room.latest(LONG)
    topics["ship"] = make_topic("ship")
    del topics["pay"]
    moved.offset += FRESH_SECONDS + 1

    _, tasks = around.room.latest(LONG)

    assert around.asked_queues[-1] == ["ship", "b.parked"]
    assert tasks == {"ship": EngineCount(7, 2)}


def test_queues_behind_an_exchange_of_others_are_not_looked_for(
    around: Around, topics: dict[str, Topic]
) -> None:
    """Every look at a queue that is not there is an error in RabbitMQ's log."""
    topics["out"] = make_topic("out", shape={"exchange": "orders"})

    around.room.latest(LONG)

    assert around.asked_queues == [["pay", "b.parked"]]


def test_a_broker_that_hangs_holds_nobody_and_hides_nothing_else(
    around: Around, moved: MovableTime
) -> None:
    """The engine's count is shown, the old count of queues for a minute, then none."""
    before, _ = around.room.latest(LONG)
    released = threading.Event()
    around.before = lambda: _until(released)
    around.waiting = 8
    moved.offset += FRESH_SECONDS + 1

    assert around.room.latest(0)[0] == before
    eventually(lambda: around.room.latest(0)[1] == {"pay": EngineCount(8, 2)})
    moved.offset += STALE_SECONDS
    assert around.room.latest(0)[0] is None
    released.set()


def _until(event: threading.Event) -> None:
    event.wait(LONG)


@pytest.mark.parametrize("part", ["broker", "engine"])
def test_what_cannot_be_asked_is_not_known(topics: dict[str, Topic], part: str) -> None:
    """An old number beside a broken connection would be a lie; the other part is still shown."""

    def count_queues(names: Sequence[str]) -> Mapping[str, QueueCount | None]:
        if part == "broker":
            raise BrokerUnavailable("away")
        return dict.fromkeys(names)

    def count_tasks(**_: Any) -> int:
        if part == "engine":
            raise EngineUnavailable("away")
        return 0

    room = Surroundings(topics, (), count_queues, count_tasks)
    threads = [threading.Thread(target=loop, daemon=True) for _, loop in room.loops]
    for thread in threads:
        thread.start()

    queues, tasks = room.latest(LONG)
    room.stop()

    assert (queues is None, tasks is None) == (part == "broker", part == "engine")
    for thread in threads:
        thread.join(LONG)
        assert not thread.is_alive()


def test_a_stop_keeps_nobody_waiting(around: Around) -> None:
    """Who asks at that moment is answered with what is known."""
    released = threading.Event()
    around.before = lambda: _until(released)
    answers: list[object] = []
    asking = threading.Thread(target=lambda: answers.append(around.room.latest(LONG)[0]))
    asking.start()

    around.room.stop()

    asking.join(LONG)
    released.set()
    assert answers == [None]
