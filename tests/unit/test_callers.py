"""The callers: order and one at a time per key, pauses that free the thread, a stop that ends."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from functools import partial

import pytest

from bridge.callers import Callers, Job
from tests.support.waiting import eventually, throughout

LIMIT = 10.0

Start = Callable[..., Callers]


def once(act: Callable[[], object]) -> Job:
    """A job that is done when it has run."""

    def job() -> None:
        act()

    return job


@pytest.fixture
def start() -> Iterator[Start]:
    """Callers with as many threads as asked for; all of them end with the test."""
    pools: list[Callers] = []
    threads: list[threading.Thread] = []

    def start(size: int, groups: int = 1) -> Callers:
        callers = Callers(size, groups)
        pools.append(callers)
        for _ in range(size):
            threads.append(threading.Thread(target=callers.run_one, daemon=True))
            threads[-1].start()
        return callers

    yield start
    for callers in pools:
        callers.stop()
    for thread in threads:
        thread.join(LIMIT)
        assert not thread.is_alive(), "a caller did not end on stop"


def test_jobs_of_a_key_run_in_order(start: Start) -> None:
    """A task's results are applied in the order of their delivery."""
    callers, done = start(4), list[int]()

    for number in range(200):
        callers.submit("task", once(partial(done.append, number)))

    assert callers.wait_idle(LIMIT)
    assert done == list(range(200))


def test_jobs_of_a_key_never_run_at_the_same_time(start: Start) -> None:
    """extendLock, urgent, and complete of one task must not race within a replica."""
    callers = start(4)
    running, together = dict.fromkeys("abc", 0), set[str]()
    guard = threading.Lock()

    def job(key: str) -> None:
        with guard:
            running[key] += 1
            if running[key] > 1:
                together.add(key)
        threading.Event().wait(0.0002)
        with guard:
            running[key] -= 1

    for number in range(300):
        key = "abc"[number % 3]
        callers.submit(key, once(partial(job, key)), urgent=number % 4 == 0)

    assert callers.wait_idle(LIMIT)
    assert together == set()


def test_different_keys_run_at_the_same_time(start: Start) -> None:
    """One slow call must not delay other tasks while threads are free."""
    callers, meeting = start(4), threading.Barrier(2)

    callers.submit("a", once(partial(meeting.wait, LIMIT)))
    callers.submit("b", once(partial(meeting.wait, LIMIT)))

    assert callers.wait_idle(LIMIT)
    assert not meeting.broken


def test_a_job_that_pauses_frees_its_thread(start: Start) -> None:
    """One suspended task must not occupy the pool."""
    callers, done = start(1), threading.Event()
    callers.submit("suspended", lambda: 3600.0)

    callers.submit("other", once(done.set))

    assert done.wait(LIMIT)


def test_what_follows_a_paused_job_waits_for_it(start: Start) -> None:
    """Order per key holds across pauses too."""
    callers, order = start(2), list[str]()
    pauses = iter([0.02, 0.02, None])

    def first() -> float | None:
        pause = next(pauses)
        order.append(f"first {pause}")
        return pause

    callers.submit("task", first)
    callers.submit("task", once(partial(order.append, "second")))

    eventually(lambda: len(order) == 4, LIMIT)
    assert order == ["first 0.02", "first 0.02", "first None", "second"]


def test_a_pause_of_zero_runs_again_after_what_is_ready(start: Start) -> None:
    """Zero is a pause, not an end."""
    callers, runs = start(1), list[int]()

    def job() -> float | None:
        runs.append(1)
        return 0.0 if len(runs) < 3 else None

    callers.submit("task", job)

    eventually(lambda: len(runs) == 3, LIMIT)
    assert callers.wait_idle(LIMIT)


def test_idle_means_nothing_can_run_now(start: Start) -> None:
    """A stopping bridge waits for calls under way, not for jobs put off."""
    callers, entered, leave = start(1), threading.Event(), threading.Event()

    def job() -> None:
        entered.set()
        leave.wait(LIMIT)

    callers.submit("task", job)
    assert entered.wait(LIMIT)
    assert not callers.wait_idle(0.01)

    leave.set()
    assert callers.wait_idle(LIMIT)
    callers.submit("later", lambda: 3600.0)
    eventually(lambda: callers.wait_idle(0.0), LIMIT)
    assert len(callers) == 1


def test_stop_ends_the_loops_and_starts_nothing_new() -> None:
    """After the job in hand the thread is gone, whatever still waits."""
    callers, entered, leave, ran = Callers(1), threading.Event(), threading.Event(), list[int]()

    def job() -> None:
        entered.set()
        leave.wait(LIMIT)

    thread = threading.Thread(target=callers.run_one, daemon=True)
    thread.start()
    callers.submit("a", job)
    callers.submit("b", once(partial(ran.append, 1)))
    assert entered.wait(LIMIT)

    callers.stop()
    leave.set()

    thread.join(LIMIT)
    assert not thread.is_alive()
    assert ran == []


def test_stop_wakes_a_thread_that_waits_for_a_pause(start: Start) -> None:
    """The fixture fails where a thread outlives the stop."""
    callers, ran = start(3), threading.Event()

    def job() -> float:
        ran.set()
        return 3600.0

    callers.submit("task", job)

    assert ran.wait(LIMIT)


def test_a_job_that_raises_ends_the_loop() -> None:
    """A loop that dies must be seen by whoever watches it, not go on half alive."""
    callers = Callers(1)
    callers.submit("task", once(partial(int, "no number")))

    with pytest.raises(ValueError, match="no number"):
        callers.run_one()


def test_a_finished_key_is_forgotten(start: Start) -> None:
    """Task ids never come back: keeping them would leak."""
    callers = start(2)
    for number in range(100):
        callers.submit(f"task-{number}", lambda: None)

    assert callers.wait_idle(LIMIT)
    assert len(callers) == 0


# Urgent jobs and groups


class Gate:
    """Jobs that stand until the test opens it; `standing` are those that have begun."""

    def __init__(self) -> None:
        self._open = threading.Event()
        self.standing: list[str] = []

    def job(self, name: str) -> Job:
        return once(partial(self._stand, name))

    def open(self) -> None:
        self._open.set()

    def _stand(self, name: str) -> None:
        self.standing.append(name)
        assert self._open.wait(LIMIT)


@pytest.fixture
def gate() -> Iterator[Gate]:
    gate = Gate()
    yield gate
    gate.open()


def test_an_urgent_job_overtakes_the_others_of_its_key(start: Start, gate: Gate) -> None:
    """A lock that is about to end cannot wait behind results; none of them runs beside it."""
    callers, order = start(4), list[str]()
    callers.submit("task", gate.job("first"))
    eventually(lambda: gate.standing)
    callers.submit("task", once(partial(order.append, "result")))
    callers.submit("task", once(partial(order.append, "lock")), urgent=True)
    assert not callers.wait_idle(0.05)
    assert order == []

    gate.open()

    assert callers.wait_idle(LIMIT)
    assert order == ["lock", "result"]


def test_a_job_put_off_is_not_called_early_for_what_was_submitted_behind_it(
    start: Start, gate: Gate
) -> None:
    """Its pause is the back-off of a call that failed."""
    callers, runs = start(1), list[str]()

    def job() -> float:
        runs.append("first")
        return 3600.0

    callers.submit("held", gate.job("held"))
    eventually(lambda: gate.standing)
    callers.submit("task", job)
    callers.submit("task", once(partial(runs.append, "behind")))

    gate.open()

    eventually(lambda: runs)
    throughout(lambda: runs == ["first"], 0.1)


def test_an_urgent_job_runs_while_its_key_is_put_off(start: Start) -> None:
    """A result that waits for the engine must not let its task's lock lapse."""
    callers, ran, order = start(2), threading.Event(), list[str]()
    callers.submit("task", lambda: 3600.0)
    callers.submit("task", once(partial(order.append, "behind")))
    eventually(lambda: callers.wait_idle(0.0))

    callers.submit("task", once(ran.set), urgent=True)

    assert ran.wait(LIMIT)
    assert callers.wait_idle(LIMIT)
    assert order == []
    assert "task" in callers


def test_an_urgent_job_runs_once_whatever_it_returns(start: Start) -> None:
    """It says itself when it wants to be asked again."""
    callers, runs = start(1), list[int]()

    def job() -> float:
        runs.append(1)
        return 0.0

    callers.submit("task", job, urgent=True)

    assert callers.wait_idle(LIMIT)
    assert runs == [1]
    assert len(callers) == 0


def test_threads_are_kept_free_for_urgent_jobs(start: Start, gate: Gate) -> None:
    """An engine that hangs on every completion must not stop the renewals."""
    callers, ran = start(4), threading.Event()
    for number in range(8):
        callers.submit(f"task-{number}", gate.job("slow"), group=f"topic-{number}")
    eventually(lambda: len(gate.standing) == 3)

    callers.submit("other", once(ran.set), urgent=True)

    assert ran.wait(LIMIT)
    assert len(gate.standing) == 3


def test_one_group_of_several_never_takes_the_whole_pool(start: Start, gate: Gate) -> None:
    """One topic whose process is slow must not stop the others."""
    callers, ran = start(4, groups=2), threading.Event()
    for number in range(8):
        callers.submit(f"task-{number}", gate.job("slow"), group="flood")
    eventually(lambda: len(gate.standing) == 2)

    callers.submit("other", once(ran.set), group="other")

    assert ran.wait(LIMIT)
    assert len(gate.standing) == 2


def test_a_group_alone_takes_all_but_the_urgent_threads(start: Start, gate: Gate) -> None:
    """Nobody else needs them."""
    callers = start(4)
    for number in range(8):
        callers.submit(f"task-{number}", gate.job("slow"), group="only")

    eventually(lambda: len(gate.standing) == 3)
    assert not callers.wait_idle(0.05)
    assert len(gate.standing) == 3


def test_groups_take_turns(start: Start, gate: Gate) -> None:
    """The first result of a quiet topic does not wait behind thousands of another's."""
    callers, order = start(1, groups=2), list[str]()
    callers.submit("held", gate.job("held"), group="flood")
    eventually(lambda: gate.standing)
    for number in range(20):
        job = once(partial(order.append, "flood"))
        callers.submit(f"flood-{number}", job, group="flood")
    callers.submit("quiet", once(partial(order.append, "quiet")), group="quiet")

    gate.open()

    assert callers.wait_idle(LIMIT)
    assert order.index("quiet") <= 1
    assert len(order) == 21
