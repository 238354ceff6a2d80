"""An upgrade under load: one replica after the other is stopped and started again."""

from __future__ import annotations

from collections.abc import Callable

from tests.support.amqp import Message, Reply, Worker
from tests.support.bridge import Bridge, settings
from tests.support.engine import EngineRest, unique
from tests.support.loop import Loop
from tests.support.waiting import eventually


def done(_: Message) -> Reply:
    return Reply({"done": True})


def starting(engine: EngineRest, key: str, started: list[str]) -> Callable[[], float]:
    """A step that starts one more instance, from a client of its own."""
    client = EngineRest(engine.url)

    def step() -> float:
        started.append(client.start(key))
        return 0.0

    return step


def test_a_rolling_restart_loses_nothing_and_publishes_nothing_twice(
    engine: EngineRest, amqp_url: str
) -> None:
    """Each stop is graceful (exit 0), the other replica carries on, and no worker sees a task
    twice.
    """
    topic, started = unique("rolling"), list[str]()
    key = engine.deploy_topics(topic)
    made = settings(engine.url, amqp_url, {topic: {"max_in_flight": 60}})
    first, second = Bridge(made), Bridge(made)
    with first, second, Worker(amqp_url, topic, done) as worker:
        with Loop("starter", starting(engine, key, started)):
            for replica in (first, second, first, second):
                more_than(engine, key, engine.finished(key) + 20)
                assert replica.stop() == 0
                more_than(engine, key, engine.finished(key))  # the other works on
                replica.start()

        eventually(lambda: engine.finished(key) == len(started), 60)
        ids = [message.properties.message_id for message in worker.seen]
        assert len(ids) == len(set(ids)) == len(started)
        assert all(message_id.endswith(":-") for message_id in ids)
    assert engine.incidents(key) == []


def more_than(engine: EngineRest, key: str, count: int) -> None:
    """Wait until more instances have ended."""
    eventually(lambda: engine.finished(key) > count, 60, what=f"more than {count} ended")
