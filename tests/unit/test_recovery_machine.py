"""The real rooms of two replicas against everything that can go wrong, in any order.

`hypothesis` draws the steps: workers, operators, crashes, freezes, lost answers, a broker that
confirms late or never.  After each step the promises are asked of engine, ledgers and queues; at
the end all is healed, and every task must end.  `CHAOS_EXAMPLES` sets the number of runs.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import structlog
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from bridge.broker import Outcome
from bridge.messages import Delivery, Publication
from bridge.simulated_engine import Answer, Drop, SimulatedEngine
from bridge.simulated_engine.state import Task
from tests.support.rooms import PARKED, WAIT, WORKER, Rooms, deployed, make_topic, timing
from tests.support.stepped_rooms import (
    Ambush,
    Crashed,
    SteppedRooms,
    StoppedTime,
    Wire,
    stopped_time,
)

EXAMPLES = int(os.environ.get("CHAOS_EXAMPLES", "60"))
STEPS = 30

P, LEASE_AFTER, L, D = 60.0, 5.0, 600.0, 2000.0
PROGRESS = 900.0  # the longest that a worker asks for
SLICE = 10.0  # how often a replica fetches that may
TICK = 0.25
FREEZE = P / 2 - LEASE_AFTER  # a longer one may cost a copy (promise 3)
CAPACITY = 3
WAITING_ROOM = 60.0
INSTANCES = 4
TOPIC = "a"

REPLICAS = st.integers(0, 1)
WHICH = st.integers(0, 7)
CONFLICT = Answer(500, {"type": "OptimisticLockingException", "message": "m", "code": 1})
VERBS = (
    "fetchAndLock",
    "complete",
    "failure",
    "bpmnError",
    "extendLock",
    "lock",
    "query",
    "getTask",
)
ANSWERS: dict[str, tuple[str | None, bytes]] = {
    "ok": (None, b"{}"),
    "failure": ("failure", b'{"errorMessage":"m"}'),
    "generous": ("failure", b'{"errorMessage":"m","retries":9,"retryTimeout":0}'),
    "bpmnError": ("bpmnError", b'{"errorCode":"E1"}'),
    "extendLock": ("extendLock", json.dumps({"newDuration": PROGRESS * 1000}).encode()),
    "unlock": ("unlock", b"{}"),
    "garbage": ("complete", b"{"),
}
SPENDS_A_RETRY = ("failure", "generous", "garbage")
FINISHES = ("ok", "failure", "generous", "bpmnError", "garbage")
VERDICTS = ("confirmed", "pending", "nacked", "returned", "unknown, kept", "unknown, lost")


STAND: list[StoppedTime] = []


class Recovery(RuleBasedStateMachine):
    """Two replicas, an engine, a queue with its workers, an operator."""

    def __init__(self) -> None:
        super().__init__()
        self.time = STAND[-1]
        self.time.offset = 1000.0
        self.engine = SimulatedEngine()
        self.engine.clock.freeze()
        self.store = self.engine._routes.store
        self.wire = Wire(self.engine, self.carried_out)
        self.topic = make_topic(TOPIC, timing=timing(capacity=CAPACITY, deadline=D))
        self.key = deployed(self.engine, TOPIC)
        self.instances: list[str] = []
        # The broker: its queues, and what it will say of the next task messages.
        self.queue: list[Publication] = []
        self.taken: list[Publication] = []
        self.results: list[Delivery] = []
        self.waiting: list[tuple[float, Publication]] = []
        self.sideways: set[str] = set()  # correlation ids of what was parked or waits
        self.verdicts: list[str] = []
        self.tags = 0
        self.meant: dict[int, str] = {}
        # The witness's notes.
        self.published: set[str] = set()
        self.excused: set[str] = set()
        self.blamed: set[str] = set()
        self.finished: set[str] = set()
        self.proven: set[str] = set()
        self.retry_at: dict[str, float] = {}
        self.ambushed = False
        self.broken = False
        self.settled: list[set[str]] = [set(), set()]
        self.hands: list[list[Delivery]] = [[], []]
        self.replicas = [self.new_replica(0), self.new_replica(1)]

    # -- the world -------------------------------------------------------------------------------

    def new_replica(self, number: int) -> SteppedRooms:
        rooms = SteppedRooms(self.wire, self.time, self.topic, self.acknowledged)
        rooms.publisher.decide = lambda message: self.arrives(rooms, message)
        self.settled[number] = set()
        return rooms

    def number(self, rooms: Rooms) -> int | None:
        return next((n for n in (0, 1) if self.replicas[n] is rooms), None)

    @property
    def now(self) -> float:
        return self.time.offset

    def left(self, task: Task) -> float:
        """Seconds that the task's lock still runs."""
        expires = task.lock_expires_ms
        return -math.inf if expires is None else (expires - self.engine.clock.now_ms()) / 1000

    def suspended(self, task: Task) -> bool:
        return self.store.instances[task.instance_id].suspended

    def act(self, number: int, step: Callable[[SteppedRooms], object]) -> None:
        """A step of a replica, which may die in it."""
        rooms = self.replicas[number]
        try:
            step(rooms)
        except Crashed as crashed:
            if crashed.args[0] is not rooms or rooms in self.wire.calling:
                raise  # an outer step of it is under way, and must not go on
            self.dies(number)
        except AssertionError:
            self.broken = True
            raise

    def dies(self, number: int) -> None:
        self.not_looked_after()
        self.replicas[number].stopping.set()
        self.results += self.hands[number]
        self.hands[number] = []
        self.replicas[number] = self.new_replica(number)

    def pass_time(
        self, seconds: float, *, frozen: int | None = None, fetching: bool = False
    ) -> None:
        while seconds > 0:
            part = min(seconds, SLICE if fetching else math.inf, self.quiet(frozen))
            seconds -= part
            self.time.offset += part
            self.engine.clock.advance(part)
            back = [m for at, m in self.waiting if at + WAITING_ROOM <= self.now]
            self.waiting = [(at, m) for at, m in self.waiting if at + WAITING_ROOM > self.now]
            self.results += [self.delivery(message) for message in back]
            for number in (n for n in (0, 1) if n != frozen):
                while self.results:
                    self.hand(self.results.pop(0), number)
                self.act(number, lambda rooms: rooms.run())
                self.act(number, lambda rooms: rooms.keep())
                if fetching:
                    self.act(number, lambda rooms: rooms.fetch())

    def quiet(self, frozen: int | None) -> float:
        """For how many seconds nobody has anything to do, at least one tick."""
        times = [at + WAITING_ROOM for at, _ in self.waiting]
        for rooms in (self.replicas[n] for n in (0, 1) if n != frozen):
            times += [rooms.next_step()]
        return max(TICK, min(times) - self.now)

    def hand(self, delivery: Delivery, number: int) -> None:
        self.hands[number].append(delivery)
        self.act(number, lambda rooms: rooms.reporter.deliver(delivery))
        self.act(number, lambda rooms: rooms.run())

    def delivery(self, message: Publication) -> Delivery:
        """A message of the result queue, also one that comes back from the waiting room."""
        self.tags += 1
        return Delivery(
            queue=self.topic.result_queue,
            body=message.body,
            headers=message.headers,
            generation=1,
            tag=self.tags,
            correlation_id=message.correlation_id,
        )

    def arrives(self, rooms: Rooms, message: Publication) -> Outcome | None:
        """The broker has a message before it; what it does with it is what was drawn."""
        if message.lane != TOPIC:
            self.sideways.add(message.correlation_id or "")
            if message.exchange == WAIT:
                self.waiting.append((self.now, message))
            else:
                assert message.routing_key == PARKED
            return Outcome.CONFIRMED
        verdict = self.verdicts.pop(0) if self.verdicts else "confirmed"
        if verdict in ("confirmed", "pending", "unknown, kept"):
            self.copy(message)
            self.queue.append(message)
        if verdict == "pending":
            return None
        if verdict == "confirmed":
            self.proven.add(str(message.message_id))
        if verdict.startswith("unknown"):
            self.excused.add(_task_of(message))
            return Outcome.UNKNOWN
        return Outcome(verdict)

    # -- promises that hold at a moment ----------------------------------------------------------

    def copy(self, message: Publication) -> None:
        """Promise 3: an attempt is published again only when it must be."""
        attempt, task_id = str(message.message_id), _task_of(message)
        if attempt in self.published:
            assert task_id in self.excused, "a copy of an attempt without a cause"
        self.published.add(attempt)
        self.excused.discard(task_id)

    def carried_out(self, rooms: Rooms, verb: str, task_id: str, retries: int | None) -> None:
        """Promises 2 and 4: told once; a retry is spent by a worker or a deadline alone."""
        if verb in ("complete", "bpmnError"):
            assert task_id not in self.finished, "finished twice"
            self.finished.add(task_id)
        renewed = verb in ("extendLock", "lock") and not self.ambushed
        if verb == "fetchAndLock":
            due = {task_id: at for task_id, at in self.retry_at.items() if at > self.now}
            self.retry_at = due
        if renewed:
            assert task_id not in self.retry_at, "a retry pushed away by a renewal"
        if renewed and self.left(self.store.tasks[task_id]) > 2 * P:
            proof = f"{task_id}:{'-' if retries is None else retries}"
            assert proof in self.proven, "a lease without a confirmed message"
        if verb == "failure":
            task = self.store.tasks[task_id]
            self.retry_at[task_id] = self.now + self.left(task)
            age = (self.engine.clock.now_ms() - task.create_ms) / 1000
            attempt = f"{task_id}:{'-' if retries is None else retries}"
            assert attempt in self.blamed or age >= D, "a retry spent by nobody's failure"
            assert retries is None or (task.retries or 0) < max(retries, 1), "retries grew"

    def acknowledged(self, rooms: Rooms, delivery: Delivery) -> None:
        """Promise 2: acknowledged last, after the engine has it or it lies aside."""
        number = self.number(rooms)
        assert number is not None, "the dead acknowledge nothing"
        self.hands[number] = [d for d in self.hands[number] if d.tag != delivery.tag]
        if delivery.correlation_id in self.sideways:
            return
        token = rooms.signer.verify(delivery.correlation_id, TOPIC)
        task, outcome = self.store.tasks.get(token.task_id), delivery.headers.get("meant")
        if task and outcome in FINISHES and task.worker_id == WORKER:
            assert task.retries != token.retries, f"{outcome} acknowledged and not applied"
        if task is None:
            self.settled[number].add(token.task_id)

    def not_looked_after(self) -> None:
        """A replica crashed or froze: what is not proven to be out may be published again."""
        for task in self.store.tasks.values():
            age = (self.engine.clock.now_ms() - task.create_ms) / 1000
            adoptable = task.retries is None and self.left(task) > 2 * P
            if not adoptable or self.suspended(task) or age > D - PROGRESS:
                self.excused.add(task.id)

    # -- promises that hold always ---------------------------------------------------------------

    @invariant()
    def the_ledger_counts_what_it_holds(self) -> None:
        """Back-pressure is the ledger's count: one lost place is lost for ever."""
        for rooms in self.replicas:
            held = sum(e.topic == TOPIC for e in rooms.ledger._entries.values())
            assert rooms.ledger.held(TOPIC) == held == len(rooms.ledger)
            assert rooms.ledger.room(TOPIC) == max(0, CAPACITY - held)

    @invariant()
    def a_belief_never_outlives_its_lock(self) -> None:
        """What a replica takes for its lock runs at least as long as it believes."""
        for rooms in self.replicas:
            for entry in rooms.ledger._entries.values():
                task = self.store.tasks.get(entry.task_id)
                if task is None or task.lock_expires_ms is None or task.retries != entry.retries:
                    continue
                ours = any(w.holds(task.lock_expires_ms / 1000) for w in entry.expiries)
                if ours and task.worker_id == WORKER:
                    assert entry.lock_ends <= self.now + self.left(task) + 3

    @invariant()
    def no_lock_is_longer_than_a_lease(self) -> None:
        """Whatever dies, a task comes back within the longest lock that anybody asked for."""
        for task in self.store.tasks.values():
            assert self.left(task) <= max(L, PROGRESS)

    @invariant()
    def what_is_finished_is_let_go(self) -> None:
        """An entry of a task that this replica settled would hold room for half a lease."""
        for number, rooms in enumerate(self.replicas):
            for task_id in self.settled[number]:
                gone = task_id not in self.store.tasks
                assert not (gone and task_id in rooms.ledger), "settled here, and still held"

    # -- moves -----------------------------------------------------------------------------------

    @initialize()
    def begin(self) -> None:
        """There is something to do."""
        self.start(0)
        self.start(1)

    @precondition(lambda self: len(self.instances) < INSTANCES)
    @rule(number=st.none() | REPLICAS)
    def start(self, number: int | None) -> None:
        """An instance begins, and mostly a replica fetches its task at once."""
        self.instances.append(self.engine.start_process(self.key))
        if number is not None:
            self.act(number, lambda rooms: rooms.fetch())

    @rule(number=REPLICAS)
    def fetch(self, number: int) -> None:
        self.act(number, lambda rooms: rooms.fetch())

    @rule(verdict=st.sampled_from(VERDICTS))
    def the_next_message_meets(self, verdict: str) -> None:
        self.verdicts.append(verdict)

    @precondition(lambda self: any(rooms.publisher.pending for rooms in self.replicas))
    @rule(number=REPLICAS, confirmed=st.booleans())
    def late_word_of_the_broker(self, number: int, confirmed: bool) -> None:
        publisher = self.replicas[number].publisher
        if not publisher.pending:
            return
        message = publisher.pending[0].publication
        if confirmed:
            self.proven.add(str(message.message_id))
        else:
            self.excused.add(_task_of(message))
        publisher.settle(Outcome.CONFIRMED if confirmed else Outcome.UNKNOWN)
        self.act(number, lambda rooms: rooms.run())

    @precondition(lambda self: self.published)
    @rule(which=WHICH, what=st.sampled_from(["ok", "failure", *ANSWERS]), number=REPLICAS)
    def a_worker_answers(self, which: int, what: str, number: int) -> None:
        """Any message that ever was in the queue, as often as it is drawn."""
        known = self.taken + self.queue
        if known:
            self.answer(known[which % len(known)], what, number)

    def answer(self, message: Publication, what: str, number: int) -> None:
        if message in self.queue:
            self.queue.remove(message)
            self.taken.append(message)
        self.proven.add(str(message.message_id))  # whoever answers has had it
        outcome, body = ANSWERS[what]
        if what in SPENDS_A_RETRY:
            self.blamed.add(str(message.message_id))
        if what == "unlock":
            self.excused.add(_task_of(message))
        headers = {"meant": what} | ({"outcome": outcome} if outcome else {})
        result = Publication(TOPIC, "", "", body, headers, None, message.correlation_id)
        self.hand(self.delivery(result), number)

    @rule(
        seconds=st.sampled_from([3.0, LEASE_AFTER + 1, P / 2, P, 2 * P, L / 2, L, D + L]),
        fetching=st.booleans(),
    )
    def time_passes(self, seconds: float, fetching: bool) -> None:
        self.pass_time(seconds, fetching=fetching)

    @rule(number=REPLICAS)
    def crash(self, number: int) -> None:
        self.dies(number)

    @rule(number=REPLICAS)
    def sigterm(self, number: int) -> None:
        self.act(number, self.leaves)
        self.dies(number)

    def leaves(self, rooms: SteppedRooms) -> None:
        """Promise 8 and rule 12: what a stopping replica has in flight, its peers can adopt."""
        if rooms.stop():
            assert all(e.leased for e in rooms.ledger._entries.values() if e.confirmed)

    @rule(number=REPLICAS, seconds=st.sampled_from([10.0, P, 2 * P, L]), fetching=st.booleans())
    def freeze(self, number: int, seconds: float, fetching: bool) -> None:
        if seconds > FREEZE:
            self.not_looked_after()
        self.pass_time(seconds, frozen=number, fetching=fetching)

    @precondition(lambda self: self.queue)
    @rule()
    def purge(self) -> None:
        self.queue.clear()

    @rule(verb=st.sampled_from(VERBS), times=st.integers(1, 4), lost=st.booleans())
    def an_answer_is_lost(self, verb: str, times: int, lost: bool) -> None:
        self.engine.faults.add(verb, when="after" if lost else "before", action=Drop(), times=times)

    @rule(verb=st.sampled_from(VERBS), action=st.sampled_from([CONFLICT, Answer(503)]))
    def the_engine_is_busy(self, verb: str, action: Answer) -> None:
        self.engine.faults.add(verb, when="before", action=action, times=2)

    @rule(
        verb=st.sampled_from(VERBS),
        moment=st.sampled_from(["before", "after"]),
        what=st.sampled_from(["crash", "pause", "answer", "operator"]),
        which=WHICH,
        number=REPLICAS,
    )
    def in_the_middle_of(self, verb: str, moment: Any, what: str, which: int, number: int) -> None:
        """Something happens between a replica's call and what it does next."""
        acts: dict[str, Callable[[], None]] = {
            "crash": self.crash_here,
            "pause": self.everything_stands,
            "answer": lambda: self.a_worker_answers(which, "failure", number),
            "operator": lambda: self.operator(which, ("unlock", "suspend")[number]),
        }
        if what != "crash" or verb != "query":
            self.ambushed = True  # a failure between check and extend is known and accepted
            self.wire.ambushes.append(Ambush(verb, moment, acts[what]))

    def crash_here(self) -> None:
        raise Crashed(self.calling())

    def calling(self) -> Rooms:
        return self.wire.calling[-1]

    def everything_stands(self) -> None:
        self.not_looked_after()
        self.time.offset += P / 2 + 1
        self.engine.clock.advance(P / 2 + 1)

    @precondition(lambda self: self.store.tasks)
    @rule(which=WHICH, what=st.sampled_from(["unlock", "retries", "suspend", "resume", "cancel"]))
    def an_operator(self, which: int, what: str) -> None:
        self.operator(which, what)

    def operator(self, which: int, what: str) -> None:
        tasks = list(self.store.tasks.values())
        if not tasks:
            return
        task = tasks[which % len(tasks)]
        processes, locking = self.engine._routes.processes, self.engine._routes.tasks._tasks
        self.excused.add(task.id)
        self.retry_at.pop(task.id, None)
        match what:
            case "unlock":
                locking.unlock(task.id)
            case "retries":
                locking.set_retries(task.id, which)
            case "cancel":
                processes.cancel(task.instance_id)
            case _:
                processes.suspend(task.instance_id, suspended=what == "suspend")

    # -- the end ---------------------------------------------------------------------------------

    def teardown(self) -> None:
        """Promise 1: healed, everything ends within a deadline, a lease and the longest pause."""
        if self.broken:
            return  # what comes after a broken promise would hide it
        self.engine.faults.clear()
        self.wire.ambushes.clear()
        self.verdicts.clear()
        for instance_id in self.running():
            self.engine._routes.processes.suspend(instance_id, suspended=False)
        until = self.now + 2 * (D + L) + PROGRESS
        while self.running() and self.now < until:
            for rooms in self.replicas:
                for sent in list(rooms.publisher.pending):
                    self.proven.add(str(sent.publication.message_id))
                    rooms.publisher.settle(Outcome.CONFIRMED)
            self.pass_time(SLICE, fetching=True)
            for number, message in enumerate(list(self.queue)):
                self.answer(message, "ok", number % 2)
                self.what_is_finished_is_let_go()
        assert not self.running(), "neither ended nor an incident: stuck"
        self.pass_time(L + PROGRESS)
        assert self.hands == [[], []], "a result that is neither applied nor aside"
        assert [len(rooms.ledger) for rooms in self.replicas] == [0, 0], "held for ever"

    def running(self) -> list[str]:
        shown = {i.task.instance_id for i in self.store.incidents.values()}
        return [
            i.id for i in self.store.instances.values() if i.end_ms is None and i.id not in shown
        ]


def _task_of(message: Publication) -> str:
    return str(message.message_id).partition(":")[0]


@pytest.fixture
def _stand(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Time and jitter are the test's, and nobody reads the log of a hundred thousand calls."""
    STAND.append(stopped_time(monkeypatch))
    before = structlog.get_config()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger("critical"))
    yield
    structlog.configure(**before)
    STAND.pop()


@pytest.mark.timeout(180 + EXAMPLES * 5)  # shared cores are slow cores
@pytest.mark.usefixtures("_stand")
def test_nothing_is_lost_and_nothing_is_done_twice_whatever_happens_in_any_order() -> None:
    """The promises of the README, of the real rooms, where nobody has thought of the order."""
    run_state_machine_as_test(
        Recovery,
        settings=settings(
            max_examples=EXAMPLES,
            stateful_step_count=STEPS,
            derandomize="CHAOS_EXAMPLES" not in os.environ,
            database=None,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
