"""A replica is killed at every arrow of a task's path, and a peer carries on.

Each point of tests/support/crash_points.py is played once, several at a time, on virtual hosts of
their own; each test looks at one ending.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from deploy.local import choice
from tests.support.crash_points import POINTS, TAKEN_OVER, CrashPoint, as_markdown, find, wrapped
from tests.support.crash_scenes import HELD_BACK, LONG, Ending, Play
from tests.support.engine import EngineRest, unique

AT_ONCE = 3 * (os.cpu_count() or 2)
# The longest first: what waits for a lease to run down must not come last.
SLOW = ("silent", "adopt", "cancel", "stop", "outward")
BY_DURATION = sorted(POINTS, key=lambda p: SLOW.index(p.scene) if p.scene in SLOW else len(SLOW))
# Scenes in which the first attempt fails, each in its own way, and the second one succeeds.
FAILURES = {
    "failure": "the worker says so",
    "reject": "rejected",
    "silent": "no answer within the deadline",
}

Endings = dict[str, Future[Ending]]


@pytest.fixture(scope="module")
def endings(engine: EngineRest, broker_node: choice.Broker) -> Iterator[Endings]:
    """Every point being played; the results come as they end."""

    def play(point: CrashPoint) -> Ending:
        vhost = unique("crash")
        url = broker_node.add_vhost(vhost)
        try:
            return Play(point, engine.url, url).run()
        finally:
            broker_node.delete_vhost(vhost)

    with ThreadPoolExecutor(AT_ONCE) as pool:
        yield {point.name: pool.submit(play, point) for point in BY_DURATION}
        pool.shutdown(cancel_futures=True)


@pytest.mark.timeout(600)
@pytest.mark.parametrize("point", BY_DURATION, ids=lambda point: point.name)
def test_a_crash_costs_what_the_table_says(endings: Endings, point: CrashPoint) -> None:
    """Nothing is lost, the engine is told once, every result is taken, and the copies of a message
    are as many as promised and have one message_id.
    """
    ending = endings[point.name].result(5 * LONG)

    assert set(ending.crash_codes) == {-signal.SIGKILL}
    assert ending.stop_code == 0
    assert ending.left == 0
    assert ending.parked == point.parked
    first, *later = sorted(ending.copies, key=lambda message_id: not message_id.endswith(":-"))
    least, most = point.copies
    assert first.endswith(":-")
    assert least <= ending.copies[first] <= most, ending
    assert all(ending.copies[message_id] == 1 for message_id in later)
    told(point, ending, retried=bool(later))


def told(point: CrashPoint, ending: Ending, *, retried: bool) -> None:
    """What the engine knows in the end: each thing once."""
    failure = FAILURES.get(point.scene)
    if point.name == "before_deadline_failure":
        failure = None  # its failure was never told: the attempt is published again
    assert retried == (failure is not None), ending.copies
    if point.scene == "garbage":
        assert (ending.ended_at, ending.incidents, len(ending.failures)) == (None, 1, 1)
        return
    assert ending.incidents == 0
    assert len(ending.failures) == (failure is not None), ending.failures
    assert all(failure and failure in message for message in ending.failures)
    if point.scene == "cancel":
        assert (ending.ended_at, ending.completions) == (None, 0)
    elif point.scene == "bpmnError":
        assert ending.ended_at == "caught-oops-1"
    else:
        assert (ending.ended_at, ending.completions) == ("end", 1)
    if point.scene in HELD_BACK:
        assert ending.taken_over == (point.costs == TAKEN_OVER)


def test_an_unknown_crash_point_is_refused_by_name() -> None:
    """A misspelt point would never be passed, and the test would prove nothing."""
    with pytest.raises(ValueError, match="names no crash point: 'after_lunch'; known: after_fetch"):
        find("after_lunch")


def test_a_crash_comes_at_the_passage_that_is_named() -> None:
    """Calls that brought nothing are no passages."""

    class Fetched:
        def __init__(self, tasks: list[str]) -> None:
            self.tasks = tasks

    passed: list[int] = []
    crashing = wrapped(find("after_fetch:2"), Fetched, lambda: passed.append(len(passed)))

    for tasks in ([], ["a"], [], ["b"], ["c"]):
        crashing(tasks)
        assert len(passed) == (tasks in (["b"], ["c"]))


def test_the_table_has_a_row_for_every_point() -> None:
    """It is what the README promises."""
    rows = as_markdown().splitlines()[2:]

    assert len(rows) == len(POINTS) == len({point.name for point in POINTS})
    assert "| after confirm | 2 | one more copy, after P |" in rows
