"""The real rooms of the bridge on a simulated engine over HTTP, with a publisher in memory.

Time can be moved for both at once, so that windows of minutes pass in an instant.
"""

from __future__ import annotations

import itertools
import json
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from types import TracebackType
from typing import Any, Self, cast

import pytest

import bridge.clock
from bridge.attempts import Attempts
from bridge.broker import Publisher
from bridge.callers import Callers
from bridge.circuits import Circuits
from bridge.clock import monotonic
from bridge.dispatcher import Dispatcher, FetchOptions
from bridge.engine import EngineClient, EngineClock
from bridge.engine.connection import HttpOptions
from bridge.engine.http import EngineHttp
from bridge.handover import Handover
from bridge.ledger import Entry, Ledger, Timing
from bridge.lock_keeper import LockKeeper
from bridge.messages import Delivery, engine_seconds
from bridge.metrics import Metrics
from bridge.outcomes import Outcomes
from bridge.protocol import RetryPolicy
from bridge.reporter import Reporter
from bridge.results import ReplyRules
from bridge.sidings import Sidings
from bridge.simulated_engine import SimulatedEngine, linear_process
from bridge.task_message import Shape
from bridge.tokens import TokenSigner
from bridge.topics import Topic, Topics
from bridge.unanswered import Unanswered
from tests.support.fake_publisher import FakePublisher
from tests.support.waiting import eventually

WORKER = "bridge"
PARKED, WAIT, DEAD, GONE = "bridge.parked", "bridge.wait", "bridge.dead-letters", "bridge.gone"
TIMING = Timing(capacity=50, publish_window=60, lease_after=5, lease=600, deadline=86_400)
POLICY = RetryPolicy(3, (5.0, 30.0, 300.0))


def make_topic(name: str, **changes: Any) -> Topic:
    """A topic with the defaults of the settings; `fetch` is added to its fetch request."""
    timing = changes.pop("timing", TIMING)
    fetch = {"topicName": name, "lockDuration": int(timing.publish_window * 1000)}
    shape = Shape(topic=name, exchange="", routing_key=name, reply_to=f"{name}.results")
    known: dict[str, Any] = {
        "name": name,
        "fetch": fetch | changes.pop("fetch", {}),
        "timing": timing,
        "shape": replace(shape, **changes.pop("shape", {})),
        "replies": ReplyRules(**changes.pop("replies", {})),
        "retries": POLICY,
        "queue": name,
        "result_queue": f"{name}.results",
    }
    return Topic(**(known | changes))


def timing(**changes: Any) -> Timing:
    """The default times of a topic, some of them changed."""
    return replace(TIMING, **changes)


class MovableTime:
    """Stands in for the `time` module of `bridge.clock`: real time plus what a test adds."""

    def __init__(self) -> None:
        self.offset = 0.0

    def clock_gettime(self, clock: int) -> float:
        return time.clock_gettime(clock) + self.offset


class Rooms:
    """The rooms of one replica.  Loops run only where a test starts them; none may die."""

    def __init__(
        self,
        engine: SimulatedEngine,
        moved: MovableTime,
        topics: Iterable[Topic] = (),
        *,
        worker_id: str = WORKER,
        poll_timeout: float = 0.3,
    ) -> None:
        self.engine = engine
        self._moved = moved
        self.topics = Topics(topics or (make_topic("a"),))
        self.stopping = self.new_stopping()
        self.metrics = Metrics()
        self.publisher = self.new_publisher()
        self.repairs: list[str] = []
        self.repair: Callable[[str], bool] = lambda _: True
        self.consumers: Callable[[str], int] = lambda _: 1
        self.acked: list[Delivery] = []
        self.holds: Callable[[Delivery], bool] = lambda _: True
        self.gone: list[tuple[str, str]] = []
        self.died: list[BaseException] = []
        self._threads: list[threading.Thread] = []
        self._tags = itertools.count(1)
        self._build(worker_id, poll_timeout)

    # What `tests.support.stepped_rooms` replaces, to run without threads.

    def new_stopping(self) -> threading.Event:
        return threading.Event()

    def new_publisher(self) -> FakePublisher:
        return FakePublisher()

    def new_callers(self, size: int, groups: int) -> Callers:
        return Callers(size, groups)

    def ack(self, delivery: Delivery) -> None:
        """What the consumer's acknowledgement stands for."""
        self.acked.append(delivery)

    def _build(self, worker_id: str, poll_timeout: float) -> None:
        publisher = cast("Publisher", self.publisher)
        options = HttpOptions(self.engine.url, connect_timeout=2, read_timeout=5)
        self.client = client = EngineClient(options, worker_id, stopping=self.stopping)
        self.ledger = ledger = Ledger(self.topics.timings)
        self.callers = callers = self.new_callers(4, len(self.topics))
        self.attempts = attempts = Attempts(client, ledger, self.metrics)
        outcomes = Outcomes(client, attempts, ledger, self.metrics)
        self.signer = signer = TokenSigner(b"k" * 32)
        self.sidings = Sidings(publisher, callers, PARKED, WAIT)
        self.chores = chores = self.new_callers(1, 1)
        self.circuits = circuits = Circuits(self.topics, chores, self._repair)
        self.reporter = Reporter(
            engine=client,
            outcomes=outcomes,
            ledger=ledger,
            callers=callers,
            sidings=self.sidings,
            ack=self.ack,
            holds=self._holds,
            signer=signer,
            topics=self.topics,
            metrics=self.metrics,
            dead_letters=DEAD,
        )
        self.unanswered = Unanswered(
            outcomes=outcomes,
            ledger=ledger,
            callers=callers,
            gate=client.gate,
            closing=self.reporter.closing,
        )
        self.handover = Handover(
            engine=client,
            ledger=ledger,
            publisher=publisher,
            callers=callers,
            attempts=attempts,
            signer=signer,
            topics=self.topics,
            circuits=circuits,
            metrics=self.metrics,
            complete_unanswered=self.unanswered.complete,
            stopping=self.stopping,
        )
        self.dispatcher = Dispatcher(
            engine=client,
            ledger=ledger,
            publisher=publisher,
            handover=self.handover,
            circuits=circuits,
            chores=chores,
            topics=self.topics,
            options=FetchOptions(poll_timeout, use_priority=True),
            consumers=self._consumers,
            stopping=self.stopping,
        )
        self.keeper = LockKeeper(
            engine=client,
            ledger=ledger,
            callers=callers,
            attempts=attempts,
            topics=self.topics,
            metrics=self.metrics,
            publishing=self.publisher.connected,
            announce_gone=lambda topic, task_id: self.gone.append((topic, task_id)),
            complete_unanswered=self.unanswered.complete,
            renew_warn=20,
            stopping=self.stopping,
        )

    def _repair(self, topic: str) -> bool:
        self.repairs.append(topic)
        return self.repair(topic)

    def _holds(self, delivery: Delivery) -> bool:
        return self.holds(delivery)

    def _consumers(self, queue: str) -> int:
        return self.consumers(queue)

    # -- loops -----------------------------------------------------------------------------------

    def start(self, *, keeper: bool = False, dispatcher: bool = False) -> Self:
        """Start the callers, and the loops that are asked for."""
        loops = [self.callers.run_one] * self.callers.size + [self.chores.run_one]
        loops += [self.keeper.run] if keeper else []
        if dispatcher:
            loops += [self.dispatcher.run_poller, self.dispatcher.run_drainer]
        for loop in loops:
            self._threads.append(threading.Thread(target=self._watched, args=(loop,), daemon=True))
            self._threads[-1].start()
        return self

    def _watched(self, loop: Callable[[], None]) -> None:
        try:
            loop()
        except BaseException as error:  # noqa: BLE001 (told by `close`)
            self.died.append(error)

    def close(self) -> None:
        """Stop every loop; a loop that died fails the test."""
        self.stopping.set()
        self.callers.stop()
        self.chores.stop()
        for thread in self._threads:
            thread.join(10)
            assert not thread.is_alive(), "a loop did not end on stop"
        self.publisher.close()
        if self.died:
            raise AssertionError(f"a loop died: {self.died!r}") from self.died[0]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        try:
            self.close()
        except AssertionError:
            if error is None:
                raise

    def advance(self, seconds: float) -> None:
        """Let time pass, here and in the engine, without waiting for it."""
        self._moved.offset += seconds
        self.engine.clock.advance(seconds)

    def settled(self) -> None:
        """Wait until the callers have nothing left that can run now."""
        assert self.callers.wait_idle(10)

    def count(self, event: str, topic: str = "a") -> float:
        """The metric of an event."""
        return self.metrics.value(topic, event)  # type: ignore[arg-type]

    # -- tasks -----------------------------------------------------------------------------------

    def instance(self, topic: str = "a", variables: Mapping[str, Any] | None = None) -> str:
        """Start a process of one task of a topic; returns the task's id."""
        instance_id = self.engine.start_process(deployed(self.engine, topic), variables)
        return str(self.engine.tasks(processInstanceId=instance_id)[0]["id"])

    def fetched(self, topic: str = "a", variables: Mapping[str, Any] | None = None) -> Entry:
        """A task, fetched and admitted, its message not yet published."""
        self.instance(topic, variables)
        return self.fetched_next(topic)

    def fetched_next(self, topic: str = "a") -> Entry:
        """The next task that the engine offers, fetched and admitted."""
        fetched = self.client.fetch_and_lock([self.topics[topic].fetch], 1)
        [task] = fetched.tasks
        assert task.lock_expires is not None
        return self.ledger.admit(task.id, topic, task.retries, task.lock_expires, fetched.began)

    def in_flight(self, topic: str = "a", variables: Mapping[str, Any] | None = None) -> Entry:
        """A task whose message a queue holds."""
        entry = self.fetched(topic, variables)
        self.ledger.confirmed(entry, monotonic())
        current = self.ledger.current(entry)
        assert current is not None
        return current

    def task(self, task_id: str) -> dict[str, Any] | None:
        """The engine's record of a task; None if it is gone."""
        found = self.engine.tasks(externalTaskIdIn=[task_id])
        return found[0] if found else None

    def http(self, method: str, path: str, body: Any) -> None:
        """What an operator does to the engine, past the bridge."""
        EngineHttp(HttpOptions(self.engine.url), EngineClock(), threading.Event()).once(
            method, path, body
        )

    def engine_sets_retries(self, task_id: str, retries: int) -> None:
        """An operator sets a task's retries."""
        self.http("PUT", f"/external-task/{task_id}/retries", {"retries": retries})

    def suspend(self, task_id: str, *, suspended: bool = True) -> None:
        """An operator suspends or resumes a task's process instance."""
        task = self.task(task_id)
        assert task is not None
        path = f"/process-instance/{task['processInstanceId']}/suspended"
        self.http("PUT", path, {"suspended": suspended})

    def lock_left(self, task_id: str) -> float:
        """How many seconds a task's lock still runs; negative if it has passed or there is none."""
        task = self.task(task_id)
        expires = task and task["lockExpirationTime"]
        if not expires:
            return -1.0
        return engine_seconds(expires) - self.engine.clock.now_ms() / 1000

    def leased(self, entry: Entry) -> None:
        """Wait until the entry's lock has been set for a lease."""
        eventually(lambda: self.lock_left(entry.task_id) > 500, what="leased")

    def result(
        self,
        entry: Entry,
        body: Any = None,
        outcome: str | None = None,
        **changes: Any,
    ) -> Delivery:
        """What a worker answers to an entry's message."""
        content = b"" if body is None else body if isinstance(body, bytes) else json.dumps(body)
        known: dict[str, Any] = {
            "queue": self.topics.known[entry.topic].result_queue,
            "body": content if isinstance(content, bytes) else content.encode(),
            "headers": {} if outcome is None else {"outcome": outcome},
            "generation": 1,
            "tag": next(self._tags),
            "correlation_id": self.signer.make(entry.task_id, entry.retries, entry.topic),
        }
        return Delivery(**(known | changes))

    def answer(self, entry: Entry, body: Any = None, outcome: str | None = None) -> Delivery:
        """Deliver an answer."""
        delivery = self.result(entry, body, outcome)
        self.reporter.deliver(delivery)
        return delivery


def deployed(engine: SimulatedEngine, topic: str) -> str:
    """The key of a process whose only step is a task of the topic; deployed where it is missing."""
    key = f"process-{topic}"
    engine.deploy(linear_process(key, topic, error_codes=("E1",)))
    return key


def movable_time(monkeypatch: pytest.MonkeyPatch) -> MovableTime:
    """The bridge's monotonic clock, from now on movable."""
    moved = MovableTime()
    monkeypatch.setattr(bridge.clock, "time", moved)
    return moved
