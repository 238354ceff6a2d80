"""Memory and handles stay bounded through many reconnects under load."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import psutil
import pytest

from tests.support.amqp import Message, Reply, Worker
from tests.support.bridge import Bridge, settings
from tests.support.engine import EngineRest, unique
from tests.support.proxy import Proxy
from tests.support.waiting import eventually

ROUNDS = int(os.environ.get("SOAK_ROUNDS", "7"))
WARM_UP = 3  # pools fill and allocators settle; what grows after that is a leak
TASKS_A_ROUND = 40
MIB = 1024 * 1024


@dataclass(frozen=True)
class Usage:
    """What a process holds."""

    threads: int
    files: int
    rss: int

    @classmethod
    def of(cls, pid: int) -> Usage:
        process = psutil.Process(pid)
        return cls(process.num_threads(), process.num_fds(), process.memory_info().rss)


def done(_: Message) -> Reply:
    return Reply({"done": True})


@contextmanager
def broken_off(*ways: Proxy) -> Iterator[None]:
    """All connections are cut again and again while the block runs."""
    over = threading.Event()

    def cut() -> None:
        while not over.wait(0.4):
            for way in ways:
                way.cut()

    thread = threading.Thread(target=cut)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


@pytest.mark.timeout(120 + 20 * ROUNDS)
def test_reconnects_leave_no_thread_handle_or_memory_behind(
    engine: EngineRest, amqp_url: str
) -> None:
    """Every round cuts the connections to broker and engine some times in the middle of the work;
    afterwards the bridge holds what it held after warming up.
    """
    topic = unique("soak")
    key = engine.deploy_topics(topic)
    with Proxy(amqp_url) as to_broker, Proxy(engine.url) as to_engine:
        made = settings(to_engine.url, to_broker.url, {topic: {"max_in_flight": 20}})
        with (
            Bridge(made, level="info") as bridge,
            Worker(amqp_url, topic, done) as worker,
        ):
            seen: list[Usage] = []
            for number in range(1, ROUNDS + 1):
                before = to_broker.accepted
                with broken_off(to_broker, to_engine):
                    engine.start_many(key, TASKS_A_ROUND)
                    eventually(lambda: to_broker.accepted >= before + 3, 30)  # noqa: B023
                eventually(lambda: engine.finished(key) == number * TASKS_A_ROUND, 60)  # noqa: B023
                eventually(bridge.is_ready, 30)
                seen.append(Usage.of(bridge.pid))
        assert len({message.headers["taskId"] for message in worker.seen}) == ROUNDS * TASKS_A_ROUND
    warm, after = seen[:WARM_UP], seen[WARM_UP:]
    assert min(u.threads for u in after) <= max(u.threads for u in warm), seen
    assert min(u.files for u in after[-3:]) <= max(u.files for u in warm), seen
    assert min(u.rss for u in after[-3:]) <= max(u.rss for u in warm) + 4 * MIB, seen
    assert engine.incidents(key) == []
