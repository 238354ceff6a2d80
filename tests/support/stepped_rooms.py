"""The real rooms of a replica without threads, sockets or real time: a test takes every step.

Nothing happens at the same time as anything else; what would, is an `Ambush` that strikes before
or after a call to the engine, in the middle of whatever made the call.
"""

from __future__ import annotations

import json as jsons
import random
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from email.utils import formatdate
from types import SimpleNamespace
from typing import Any, Literal

import pytest
from urllib3.exceptions import ProtocolError

import bridge.clock
from bridge.callers import Callers
from bridge.errors import EngineError
from bridge.messages import Delivery
from bridge.simulated_engine import Answer, Drop, RestError, SimulatedEngine
from bridge.simulated_engine.wire import Request, Response, error_response, json_response
from bridge.topics import Topic
from tests.support.fake_publisher import FakePublisher
from tests.support.rooms import MovableTime, Rooms

Moment = Literal["before", "after"]
_JITTERING = ("adoption", "circuits", "engine.client", "lock_keeper", "patience")


class StoppedTime(MovableTime):
    """Time that passes only where a test lets it."""

    def clock_gettime(self, clock: int) -> float:
        return self.offset


class _Seeded(random.Random):
    def __init__(self) -> None:
        super().__init__(0)


def stopped_time(monkeypatch: pytest.MonkeyPatch) -> StoppedTime:
    """The bridge's monotonic clock stands, and its jitter is the same in every run."""
    stopped = StoppedTime()
    monkeypatch.setattr(bridge.clock, "time", stopped)
    for module in _JITTERING:
        monkeypatch.setattr(f"bridge.{module}.random", SimpleNamespace(Random=_Seeded))
    return stopped


class Crashed(BaseException):
    """Kills the replica in whose call it is raised."""


@dataclass(frozen=True)
class Reply:
    """As much of an HTTP response as the bridge reads."""

    status: int
    data: bytes
    headers: dict[str, str]


@dataclass(frozen=True)
class Ambush:
    """What happens around the next call of a verb; `act` may raise Crashed."""

    verb: str
    moment: Moment
    act: Callable[[], None]


@dataclass
class Wire:
    """Between the replicas and the simulated engine.  `carried_out` is told of every act that the
    engine has done: replica, verb, task id and the retries that the task had before.
    """

    engine: SimulatedEngine
    carried_out: Callable[[Rooms, str, str, int | None], None]
    ambushes: list[Ambush] = field(default_factory=list)
    calling: list[Rooms] = field(default_factory=list)

    def request(self, rooms: Rooms, method: str, target: str, json: Any) -> Reply:
        """One call, with the faults and the ambushes that wait for it."""
        self.calling.append(rooms)
        try:
            return self._request(rooms, method, target, json)
        finally:
            self.calling.pop()

    def _request(self, rooms: Rooms, method: str, target: str, json: Any) -> Reply:
        routes = self.engine._routes
        route, names, query = routes.find(method, target)
        task_id = names[0] if names and "/external-task/" in target else None
        content = b"" if json is None else jsons.dumps(json).encode()
        request = Request(method, target, names, query, "application/json", content)
        self._spring(route.verb, "before")
        response = self._strike(route.verb, "before", task_id)
        if response is None:
            task = routes.store.tasks.get(task_id or "")
            try:
                response = routes.answer(route, request)
                before = None if task is None else task.retries
                self.carried_out(rooms, route.verb, task_id or "", before)
            except RestError as error:
                response = error_response(error)
            response = self._strike(route.verb, "after", task_id) or response
        self._spring(route.verb, "after")
        date = formatdate(self.engine.clock.now_ms() // 1000, usegmt=True)
        return Reply(response.status, response.content or b"", {"Date": date})

    def _spring(self, verb: str, moment: Moment) -> None:
        for ambush in self.ambushes:
            if (ambush.verb, ambush.moment) == (verb, moment):
                self.ambushes.remove(ambush)  # first: what it does calls the engine too
                ambush.act()
                return

    def _strike(self, verb: str, moment: Moment, task_id: str | None) -> Response | None:
        action = self.engine.faults.strike(verb, moment, task_id)
        if isinstance(action, Drop):
            raise ProtocolError("Remote end closed connection without response")
        if isinstance(action, Answer):
            return json_response(action.status, action.body)
        return None


class _Idle(Exception):
    """Nothing is left that can run now."""


class _EndsInsteadOfWaiting(threading.Condition):
    def wait(self, timeout: float | None = None) -> bool:
        raise _Idle


class _Pump(Callers):
    """Callers whose jobs run where `pump` is called."""

    def __init__(self, size: int, groups: int) -> None:
        super().__init__(size, groups)
        lock = threading.Lock()
        self._changed = _EndsInsteadOfWaiting(lock)
        self._idle = threading.Condition(lock)
        self._ran = 0

    def pump(self) -> bool:
        """Run what can run now; False if that is nothing."""
        before = self._ran
        try:
            self.run_one()
        except _Idle:
            return self._ran > before
        return False

    def wait_idle(self, timeout: float) -> bool:
        self.pump()
        return True

    def _done(self, key: str, again: float | None, urgent: bool) -> None:
        self._ran += 1
        super()._done(key, again, urgent)


class _Hurry(threading.Event):
    """The pauses between a call's tries take their time, but nobody waits for it."""

    def __init__(self, advance: Callable[[float], None]) -> None:
        super().__init__()
        self._advance = advance

    def wait(self, timeout: float | None = None) -> bool:
        if not self.is_set():
            self._advance(timeout or 0.0)
        return self.is_set()


class SteppedRooms(Rooms):
    """One replica.  Every method ends when there is nothing left to do at this moment."""

    callers: _Pump
    chores: _Pump

    def __init__(
        self,
        wire: Wire,
        stopped: StoppedTime,
        topic: Topic,
        on_ack: Callable[[Rooms, Delivery], None],
    ) -> None:
        self._on_ack = on_ack
        super().__init__(wire.engine, stopped, (topic,))
        self.client._http._connection = lambda: self  # type: ignore[method-assign, assignment, return-value]
        self._wire = wire

    def send(self, method: str, path: str, body: Any, _wait: float) -> Reply:
        """Stands in for the connection to the engine."""
        return self._wire.request(self, method, f"/engine-rest{path}", body)

    def new_stopping(self) -> threading.Event:
        return _Hurry(self.advance)

    def new_publisher(self) -> FakePublisher:
        return FakePublisher(threaded=False)

    def new_callers(self, size: int, groups: int) -> Callers:
        return _Pump(size, groups)

    def ack(self, delivery: Delivery) -> None:
        super().ack(delivery)
        self._on_ack(self, delivery)

    def run(self) -> None:
        """What the callers, the chores and the publishing connection have to do."""
        while self.callers.pump() or self.chores.pump() or self.publisher.run_pending():
            pass

    def keep(self) -> None:
        """One round of the lock keeper, and the work that follows from it."""
        keeper = self.keeper
        for step in (keeper._attend_due, keeper._check_full_topics, keeper._adoption.sweep):
            keeper._tried(step)
        self.run()

    def next_step(self) -> float:
        """When `run` or `keep` may have something to do, unless something happens before."""
        checks = self.keeper._room_checks
        full = [checks.get(t, (0.0, 0))[0] for t in self.topics if self.ledger.room(t) == 0]
        sweeps = self.keeper._adoption._next.values()
        jobs = [at for at, _, _ in self.callers._later]
        return min([self.ledger.next_due(), *sweeps, *jobs, *full])

    def fetch(self) -> None:
        """One short fetch of as much as there is room for; a paused topic is tried first."""
        dispatcher, [topic] = self.dispatcher, self.topics
        try:
            for half_open in self.circuits.look():
                dispatcher._probe(half_open)
            self.run()
            if room := dispatcher._room(topic):
                dispatcher._fetch([topic], room, 0.0)
        except EngineError:
            pass  # the loop would try again
        self.run()

    def stop(self) -> bool:
        """What SIGTERM does; True if everything in flight is leased."""
        self.stopping.set()
        with pytest.MonkeyPatch.context() as patch:
            hurry = SimpleNamespace(Event=lambda: _Hurry(self.advance))
            patch.setattr("bridge.lock_keeper.threading", hurry)
            done = self.keeper.lease_all(20)
        self.run()
        return done
