"""How the bridge stands, as metrics and as documents: gathered from real rooms, in one pass."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Any

import pytest

from bridge.callers import Callers
from bridge.circuits import Circuits
from bridge.clock import monotonic
from bridge.errors import BrokerUnavailable
from bridge.ledger import Ledger
from bridge.metrics import Metrics
from bridge.queue_counts import QueueCount
from bridge.settings.names import ServiceNames
from bridge.status import Gauges, Observatory, Snapshot
from bridge.surroundings import FRESH_SECONDS, Surroundings
from bridge.topics import Topic, Topics
from tests.support.rooms import TIMING, MovableTime, make_topic, movable_time
from tests.support.waiting import eventually
from tests.unit.test_metrics import samples

NAMES = ServiceNames("bridge")
LIMIT = 30.0

CONTRACT = {
    "bridge_tasks_total": {"topic", "event"},
    "bridge_tasks_in_flight": {"topic"},
    "bridge_tasks_capacity": {"topic"},
    "bridge_task_oldest_seconds": {"topic"},
    "bridge_lock_margin_seconds": {"topic"},
    "bridge_topic_paused": {"topic"},
    "bridge_lock_renewals_total": {"topic"},
    "bridge_engine_call_seconds_bucket": {"verb", "outcome", "le"},
    "bridge_engine_call_seconds_count": {"verb", "outcome"},
    "bridge_engine_call_seconds_sum": {"verb", "outcome"},
    "bridge_connected": {"part"},
    "bridge_stage_seconds_bucket": {"topic", "stage", "le"},
    "bridge_stage_seconds_count": {"topic", "stage"},
    "bridge_stage_seconds_sum": {"topic", "stage"},
    "bridge_queue_ready": {"topic"},
    "bridge_queue_unacked": {"topic"},
    "bridge_queue_consumers": {"topic"},
    "bridge_engine_waiting": {"topic"},
    "bridge_engine_stuck": {"topic"},
    "bridge_parked_messages": set(),
    "bridge_waiting_results": set(),
    "bridge_info": {"version", "worker_id"},
}


class Shown:
    """The rooms that are shown, with queues and waiting tasks that a test sets."""

    def __init__(self, *topics: Topic) -> None:
        self.topics = Topics(topics or (make_topic("pay"),))
        self.queues: dict[str, QueueCount | None] | None = {"pay": QueueCount(12, 3, 0)}
        self.waiting, self.stuck = 7, 2
        self.problems: dict[str, str] = {}
        self.metrics = Metrics()
        self.ledger = Ledger(self.topics.timings)
        self.circuits = Circuits(self.topics, Callers(1), lambda _: True)
        around = self.around = Surroundings(
            self.topics, (NAMES.parked, NAMES.wait), self._count_queues, self._count_tasks
        )
        observatory = Observatory(
            topics=self.topics,
            ledger=self.ledger,
            circuits=self.circuits,
            surroundings=around,
            names=NAMES,
            problems=lambda: self.problems,
        )
        about = {"version": "1.2.3", "worker_id": "w"}
        self.metrics.registry.register(Gauges(observatory.look, **about))
        self.snapshot = Snapshot(
            observatory,
            self.ledger,
            self.metrics,
            engine_url="http://user:secret@engine:8080/engine-rest",
            **about,
        )
        self.threads = [threading.Thread(target=loop, daemon=True) for _, loop in around.loops]

    def _count_queues(self, names: object) -> dict[str, QueueCount | None]:
        if self.queues is None:
            raise BrokerUnavailable("away")
        return self.queues

    def _count_tasks(self, **query: object) -> int:
        return self.stuck if "noRetriesLeft" in query else self.waiting

    def admit(self, task_id: str, topic: str = "pay", age: float = 0.0) -> None:
        """A task that was fetched so many seconds ago."""
        self.ledger.admit(task_id, topic, None, 1000.0, monotonic() - age)

    def topic(self, name: str = "pay") -> dict[str, Any]:
        [found] = [t for t in self.snapshot.status({})["topics"] if t["name"] == name]
        return dict(found)


Open = Callable[..., Shown]


@pytest.fixture
def open_shown() -> Iterator[Open]:
    """Rooms for these topics, default `pay`."""
    opened: list[Shown] = []

    def open_shown(*topics: Topic) -> Shown:
        shown = Shown(*topics)
        opened.append(shown)
        for thread in shown.threads:
            thread.start()
        shown.around.latest(LIMIT)  # from now on it is known
        return shown

    yield open_shown
    for shown in opened:
        shown.around.stop()
        for thread in shown.threads:
            thread.join(LIMIT)


@pytest.fixture
def shown(open_shown: Open) -> Shown:
    return open_shown()


@pytest.fixture
def moved(monkeypatch: pytest.MonkeyPatch) -> MovableTime:
    return movable_time(monkeypatch)


# -- metrics -----------------------------------------------------------------------------------


def test_every_metric_is_exported_with_its_labels(open_shown: Open, moved: MovableTime) -> None:
    """Dashboards and alerts are built on these names."""
    shown = open_shown()
    shown.queues = {
        "pay": QueueCount(1, 2, 3),
        NAMES.parked: QueueCount(4, 0, 0),
        NAMES.wait: QueueCount(5, 0, 1),
    }
    moved.offset += FRESH_SECONDS + 1
    shown.around.latest(LIMIT)
    shown.metrics.expect(shown.topics)
    shown.metrics.took("pay", "confirm", 0.1)
    shown.metrics.called("complete", "ok", 0.1)
    shown.admit("t1")

    found: dict[str, set[str]] = {}
    for name in samples(shown.metrics):
        base, _, labels = name.rstrip("}").partition("{")
        found.setdefault(base, {one.partition("=")[0] for one in labels.split(",") if one})

    ours = {name: labels for name, labels in found.items() if name.startswith("bridge_")}
    assert ours == CONTRACT
    assert any(name.startswith("process_") for name in found)


def test_what_is_in_flight_is_counted_when_it_is_asked_for(shown: Shown) -> None:
    """The oldest, and the lock that ends first, of everything that is held."""
    shown.admit("t1", age=50)
    shown.admit("t2", age=10)

    found = samples(shown.metrics)

    assert found["bridge_tasks_in_flight{topic=pay}"] == 2
    assert 50 <= found["bridge_task_oldest_seconds{topic=pay}"] < 60
    left = found["bridge_lock_margin_seconds{topic=pay}"]
    assert TIMING.publish_window - 60 < left <= TIMING.publish_window - 50


def test_where_nothing_is_in_flight_there_is_no_oldest(shown: Shown) -> None:
    """A margin of 0 would ring."""
    found = samples(shown.metrics)

    assert found["bridge_tasks_in_flight{topic=pay}"] == 0
    assert "bridge_task_oldest_seconds{topic=pay}" not in found
    assert "bridge_lock_margin_seconds{topic=pay}" not in found


def test_a_lock_that_has_ended_has_a_margin_below_nought(shown: Shown) -> None:
    """The alert must see how late it is."""
    shown.admit("t1", age=TIMING.publish_window + 5)

    assert samples(shown.metrics)["bridge_lock_margin_seconds{topic=pay}"] < 0


def test_a_paused_topic_says_so(shown: Shown) -> None:
    """By number for the alert; until single tasks are tried again."""
    assert samples(shown.metrics)["bridge_topic_paused{topic=pay}"] == 0

    shown.circuits.trip("pay", "full")

    assert samples(shown.metrics)["bridge_topic_paused{topic=pay}"] == 1


def test_a_part_that_does_not_work_is_not_connected(shown: Shown) -> None:
    """What makes /ready answer 503 is the number of the alert."""
    shown.problems["consumer"] = "connection refused"

    found = samples(shown.metrics)

    parts = {part: found[f"bridge_connected{{part={part}}}"] for part in ("engine", "consumer")}
    assert parts == {"engine": 1, "consumer": 0}


def test_what_is_not_known_is_not_exported(open_shown: Open, moved: MovableTime) -> None:
    """An old number beside a broken connection would be a lie."""
    shown = open_shown()
    shown.queues = None
    moved.offset += 3600

    eventually(
        lambda: "bridge_queue_ready{topic=pay}" not in samples(shown.metrics), LIMIT, what="unknown"
    )
    found = samples(shown.metrics)
    assert "bridge_parked_messages{}" not in found
    assert found["bridge_info{version=1.2.3,worker_id=w}"] == 1


def test_a_scrape_of_very_much_holds_nobody_up(shown: Shown) -> None:
    """The ledger is locked for a copy only: tasks come and go while it is counted."""
    for number in range(20_000):
        shown.admit(f"t{number}")
    stop, done = threading.Event(), []

    def work() -> None:
        number = 0
        while not stop.is_set():
            shown.admit(f"new-{number}")
            assert shown.ledger.settle(f"new-{number}") is not None
            number += 1
        done.append(number)

    worker = threading.Thread(target=work)
    worker.start()
    try:
        found = [samples(shown.metrics)["bridge_tasks_in_flight{topic=pay}"] for _ in range(5)]
    finally:
        stop.set()
        worker.join(LIMIT)

    assert set(found) <= {20_000, 20_001}
    assert done[0] > 0


# -- /status.json ------------------------------------------------------------------------------


def test_the_snapshot_has_its_keys(shown: Shown) -> None:
    """The page and `top` rely on them."""
    shown.admit("t1", age=2)
    shown.metrics.count("pay", "completed", 3)

    status = shown.snapshot.status({})

    now = status.pop("now")
    assert datetime.fromisoformat(now).tzinfo is not None
    assert now.endswith("Z")
    assert status.pop("uptimeSeconds") >= 0
    [topic] = status.pop("topics")
    assert status == {
        "schemaVersion": 1,
        "version": "1.2.3",
        "workerId": "w",
        "ready": True,
        "problems": {},
        "engine": {"url": "http://engine:8080/engine-rest", "problem": None},
        "publisher": {"problem": None},
        "consumer": {"problem": None},
        "parked": None,
        "waitingResults": None,
    }
    assert 2 <= topic.pop("oldestSeconds") < LIMIT
    assert topic.pop("lockMarginSeconds") <= TIMING.publish_window - 2
    assert topic == {
        "name": "pay",
        "queue": "pay",
        "resultQueue": "pay.results",
        "circuit": "closed",
        "problem": None,
        "inFlight": 1,
        "capacity": TIMING.capacity,
        "events": {"completed": 3},
        "waiting": 7,
        "stuck": 2,
        "ready": 12,
        "unacked": 3,
        "consumers": 0,
    }


def test_problems_stand_where_they_belong(open_shown: Open) -> None:
    """A topic has its own, its queue's and its result queue's; the parts have theirs."""
    shown = open_shown(make_topic("pay"), make_topic("ship"), make_topic("bill"))
    shown.problems = {
        "engine": "no connection",
        "topic pay": "full",
        "queue ship.results": "404",
        "exchange bridge.dead": "403",
    }

    status = shown.snapshot.status({})

    assert not status["ready"]
    assert status["problems"] == shown.problems
    assert status["engine"]["problem"] == "no connection"
    problems = {topic["name"]: topic["problem"] for topic in status["topics"]}
    assert problems == {"pay": "full", "ship": "404", "bill": None}


def test_the_circuit_is_told_in_words(shown: Shown) -> None:
    """They are shown to people as they are."""
    shown.circuits.trip("pay", "full")

    assert shown.topic()["circuit"] == "open"


def test_a_topic_that_is_left_is_shown_while_something_of_it_is_in_flight(shown: Shown) -> None:
    """Taken out of the settings, its tasks are still answered for."""
    shown.admit("t1")
    shown.topics.replace([make_topic("ship")])

    assert [t["name"] for t in shown.snapshot.status({})["topics"]] == ["ship", "pay"]
    shown.ledger.settle("t1")

    assert [t["name"] for t in shown.snapshot.status({})["topics"]] == ["ship"]


def test_a_queue_behind_somebody_elses_exchange_is_not_known(open_shown: Open) -> None:
    """Another queue of the topic's name has nothing to do with it."""
    shown = open_shown(make_topic("pay", shape={"exchange": "orders"}))

    topic = shown.topic()

    assert topic["ready"] is topic["consumers"] is topic["unacked"] is None
    assert (topic["waiting"], topic["stuck"]) == (7, 2)


# -- /tasks.json -------------------------------------------------------------------------------


def test_tasks_are_listed_oldest_first(shown: Shown) -> None:
    """Who is stuck stands at the top."""
    shown.admit("young", age=1)
    shown.admit("old", age=9)

    document = shown.snapshot.tasks({})

    assert (document["schemaVersion"], document["total"]) == (1, 2)
    assert [task["taskId"] for task in document["tasks"]] == ["old", "young"]
    old = document["tasks"][0]
    assert 9 <= old.pop("seconds") < LIMIT
    assert old.pop("lockSecondsLeft") <= TIMING.publish_window - 9
    assert old.pop("deadlineSecondsLeft") <= TIMING.deadline - 9
    told = {"taskId": "old", "topic": "pay", "retries": None, "confirmed": False, "leased": False}
    assert old == told


def test_at_most_five_hundred_tasks_are_listed(shown: Shown) -> None:
    """And how many there are."""
    for number in range(600):
        shown.admit(f"t{number}", age=600 - number)

    document = shown.snapshot.tasks({"topic": "pay"})

    assert document["total"] == 600
    assert [t["taskId"] for t in document["tasks"]] == [f"t{n}" for n in range(500)]


def test_tasks_of_one_topic_or_one_task(open_shown: Open) -> None:
    """What a search needs; who is not here is an empty list, not an error."""
    shown = open_shown(make_topic("pay"), make_topic("ship"))
    shown.admit("p1")
    shown.admit("s1", "ship")
    entry = shown.ledger.entry("s1")
    assert entry is not None
    shown.ledger.confirmed(entry, monotonic())

    def ids(**query: str) -> list[str]:
        return [task["taskId"] for task in shown.snapshot.tasks(query)["tasks"]]

    assert ids(topic="ship") == ids(task="s1") == ["s1"]
    assert ids(topic="none") == ids(task="none") == []
    assert shown.snapshot.tasks({"task": "s1"})["tasks"][0]["confirmed"] is True
