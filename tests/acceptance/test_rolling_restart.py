"""An upgrade under load: one replica after the other is stopped and started again."""

from __future__ import annotations

import threading

from tests.support.amqp import Message, Reply, Worker
from tests.support.bridge import Bridge, settings
from tests.support.engine import EngineRest, unique
from tests.support.waiting import eventually

TASKS = 600


def done(_: Message) -> Reply:
    return Reply({"done": True})


def start_instances(engine: EngineRest, key: str) -> threading.Thread:
    """New instances come all the time, from a client of their own."""
    thread = threading.Thread(target=EngineRest(engine.url).start_many, args=(key, TASKS))
    thread.start()
    return thread


def test_a_rolling_restart_loses_nothing_and_publishes_nothing_twice(
    engine: EngineRest, amqp_url: str
) -> None:
    """Each stop is graceful (exit 0), the other replica carries on, and no worker sees a task
    twice.
    """
    topic = unique("rolling")
    key = engine.deploy_topics(topic)
    made = settings(engine.url, amqp_url, {topic: {"max_in_flight": 60}})
    first, second = Bridge(made), Bridge(made)
    with first, second, Worker(amqp_url, topic, done) as worker:
        load = start_instances(engine, key)
        ended_before = 0
        for replica in (first, second, first, second):
            eventually(lambda: engine.finished(key) > ended_before + 20, 60, what="under load")  # noqa: B023
            assert replica.stop() == 0
            ended_before = engine.finished(key)
            eventually(lambda: engine.finished(key) > ended_before, 60, what="the other works on")  # noqa: B023
            replica.start()
        assert engine.finished(key) < TASKS, "the restarts came too late to prove anything"
        load.join()

        eventually(lambda: engine.finished(key) == TASKS, 60)
        ids = [message.properties.message_id for message in worker.seen]
        assert len(ids) == len(set(ids)) == TASKS
        assert all(message_id.endswith(":-") for message_id in ids)
    assert engine.incidents(key) == []
