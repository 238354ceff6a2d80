"""The callers: order and one at a time per key, pauses that free the thread, a stop that ends."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from functools import partial

import pytest

from bridge.callers import Callers, Job
from tests.support.waiting import eventually

LIMIT = 10.0

Start = Callable[[int], Callers]


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

    def start(size: int) -> Callers:
        callers = Callers(size)
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
    """extendLock and complete of one task must not race within a replica."""
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
        callers.submit(key, once(partial(job, key)))

    assert callers.wait_idle(LIMIT)
    assert together == set()


def test_different_keys_run_at_the_same_time(start: Start) -> None:
    """One slow call must not delay other tasks while threads are free."""
    callers, meeting = start(2), threading.Barrier(2)

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
