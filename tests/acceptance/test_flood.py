"""One topic's flood, and everybody else."""

from __future__ import annotations

from tests.support.amqp import Amqp, Reply, Worker
from tests.support.bridge import Bridge, settings
from tests.support.engine import EngineRest, unique
from tests.support.waiting import eventually, throughout

FLOOD = 1500
ROOM = 100


def test_a_flood_of_one_topic_neither_fills_the_broker_nor_delays_another(
    engine: EngineRest, amqp_url: str
) -> None:
    """No room, no fetch: the engine keeps what nobody works on, and another topic's first task is
    done within seconds.
    """
    flooded, quiet = unique("flooded"), unique("quiet")
    flood_key = engine.deploy_topics(flooded, copies=FLOOD)
    quiet_key = engine.deploy_topics(quiet)
    engine.start(flood_key)
    topics = {flooded: {"max_in_flight": ROOM}, quiet: {}}

    with (
        Bridge(settings(engine.url, amqp_url, topics)) as bridge,
        Amqp(amqp_url) as amqp,
        Worker(amqp_url, quiet, lambda _: Reply()),
    ):
        eventually(lambda: amqp.count(flooded) == ROOM)
        engine.start(quiet_key)
        eventually(lambda: engine.finished(quiet_key) == 1, 5, what="the quiet topic's task")

        throughout(lambda: (amqp.count(flooded) or 0) <= ROOM, 3)

        assert bridge.count(flooded, "fetched") == ROOM
    engine.clean(flood_key)


def test_room_that_workers_make_is_filled_again(engine: EngineRest, amqp_url: str) -> None:
    """Back-pressure ends where a worker begins: the flood drains, never more than the room out."""
    topic = unique("draining")
    key = engine.deploy_topics(topic, copies=300)
    instance = engine.start(key)

    with (
        Bridge(settings(engine.url, amqp_url, {topic: {"max_in_flight": 50}})),
        Amqp(amqp_url) as amqp,
    ):
        eventually(lambda: amqp.count(topic) == 50)
        with Worker(amqp_url, topic, lambda _: Reply(), prefetch=5) as worker:

            def ended_within_its_room() -> bool:
                assert (amqp.count(topic) or 0) <= 50
                return engine.ended_at(instance) is not None

            eventually(ended_within_its_room, 60)

    assert len(worker.seen) == 300
    assert len({message.properties.message_id for message in worker.seen}) == 300


def test_without_a_consumer_nothing_is_fetched_where_so_wished(
    engine: EngineRest, amqp_url: str
) -> None:
    """`wait_for_consumer = true`: tasks stay in the engine, unlocked, while nobody would take
    them.
    """
    topic = unique("attended")
    key = engine.deploy_topics(topic)
    engine.start(key)

    with Bridge(settings(engine.url, amqp_url, {topic: {"wait_for_consumer": True}})) as bridge:
        throughout(lambda: bridge.count(topic, "fetched") == 0, 3)

        with Worker(amqp_url, topic, lambda _: Reply()):
            eventually(lambda: engine.finished(key) == 1)
