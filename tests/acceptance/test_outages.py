"""The broker or the engine goes away and comes back while the bridge runs: it mends by itself."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from deploy.local.engine import start_engine
from deploy.local.programs import PartError, free_port
from deploy.local.rabbitmq import BrokerNode, start_rabbitmq
from tests.conftest import missing
from tests.support.amqp import Amqp, Message, Reply, Worker
from tests.support.bridge import Bridge, settings
from tests.support.engine import EngineRest, unique
from tests.support.waiting import eventually


class OwnBroker:
    """A node that a test may stop.  Its address is known before it is up."""

    def __init__(self, directory: Path) -> None:
        self._directory, self._port = directory, free_port()
        self._node: BrokerNode | None = None
        self.url = f"amqp://guest:guest@127.0.0.1:{self._port}/%2F"

    def up(self) -> None:
        if self._node is None:
            try:
                self._node = start_rabbitmq(port=self._port, base_dir=self._directory)
            except PartError as error:
                missing(error)
        elif not self._node.running:
            self._node.restart()

    def crash(self) -> None:
        if self._node is not None and self._node.running:
            self._node.kill()


@pytest.fixture(scope="module")
def own_broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OwnBroker]:
    broker = OwnBroker(tmp_path_factory.mktemp("own-broker"))
    yield broker
    broker.crash()


def done(_: Message) -> Reply:
    return Reply({"done": True})


def test_a_broker_that_comes_later_is_waited_for(engine: EngineRest, own_broker: OwnBroker) -> None:
    """Until then no task is fetched: what cannot be published stays the engine's."""
    own_broker.crash()
    topic = unique("early")
    key = engine.deploy_topics(topic)
    engine.start(key)
    with Bridge(settings(engine.url, own_broker.url, {topic: {}}), wait_ready=False) as bridge:
        eventually(lambda: bridge.events("broker not connected", connection="publisher"))
        assert not bridge.is_ready()
        assert bridge.count(topic, "fetched") == 0

        own_broker.up()

        eventually(bridge.is_ready, 40)
        with Worker(own_broker.url, topic, done):
            eventually(lambda: engine.finished(key) == 1)
        assert len(bridge.events("broker not connected", connection="publisher")) == 1


@pytest.mark.timeout(180)
def test_messages_and_results_outlive_a_crash_of_the_broker(
    engine: EngineRest, own_broker: OwnBroker
) -> None:
    """Killed with messages in flight and new tasks arriving: none is lost, none costs a retry,
    and what the broker had confirmed is not published again.
    """
    own_broker.up()
    topic = unique("crash")
    key = engine.deploy_topics(topic)
    engine.start_many(key, 20)
    with Bridge(settings(engine.url, own_broker.url, {topic: {}})) as bridge:
        eventually(lambda: bridge.count(topic, "confirmed") == 20)
        eventually(lambda: bridge.count(topic, "leased") == 20)

        own_broker.crash()
        engine.start_many(key, 10)
        eventually(lambda: not bridge.is_ready())
        own_broker.up()

        with Worker(own_broker.url, topic, done) as worker:
            eventually(lambda: engine.finished(key) == 30, 60)
        assert len({message.properties.message_id for message in worker.seen}) == 30
        assert all(m.properties.message_id.endswith(":-") for m in worker.seen)
        eventually(bridge.is_ready)


@pytest.mark.timeout(180)
def test_answers_outlive_a_crash_of_the_engine(amqp_url: str, tmp_path: Path) -> None:
    """Killed with messages in flight: answers wait, and are applied when it is back."""
    topic = unique("outage")
    try:
        process = start_engine("camunda", database=tmp_path / "engine", log_dir=tmp_path)
    except PartError as error:
        missing(error)
        raise
    with process, Amqp(amqp_url) as amqp:
        engine = EngineRest(process.url)
        key = engine.deploy_topics(topic)
        engine.start_many(key, 20)
        with Bridge(settings(process.url, amqp_url, {topic: {}})) as bridge:
            eventually(lambda: bridge.count(topic, "leased") == 20)

            process.kill()
            eventually(lambda: bridge.events("engine does not answer as it should"))
            messages = amqp.drain(topic)
            for message in messages:
                amqp.answer(message, done(message))
            process.restart()

            eventually(lambda: engine.finished(key) == 20, 40)
            assert len({message.properties.message_id for message in messages}) == 20
            assert bridge.count(topic, "confirmed") == 20
            eventually(bridge.is_ready, 15)
        assert engine.incidents(key) == []


def test_deleted_queues_are_declared_again(engine: EngineRest, amqp_url: str) -> None:
    """Somebody deletes a topic's queues while the bridge runs: the next task finds them."""
    topic = unique("deleted")
    key = engine.deploy_topics(topic)
    with Bridge(settings(engine.url, amqp_url, {topic: {}})) as bridge, Amqp(amqp_url) as amqp:
        for queue in (topic, f"{topic}.results"):
            amqp.channel.queue_delete(queue)
        eventually(lambda: bridge.events("queue not consumed", queue=f"{topic}.results"))

        engine.start(key)

        eventually(lambda: amqp.count(topic) == 1, 40, what="published to the new queue")
        with Worker(amqp_url, topic, done) as worker:
            eventually(lambda: engine.finished(key) == 1)
        assert worker.seen[0].properties.message_id.endswith(":-")
        eventually(bridge.is_ready)


@pytest.mark.timeout(180)
def test_deleted_sidings_are_declared_again(engine: EngineRest, amqp_url: str) -> None:
    """Somebody deletes the waiting room and the parking queue while the bridge runs: it needs no
    reconnect to find out, and no result lies unread for ever.
    """
    topic = unique("sidings")
    key = engine.deploy_topics(topic)
    instance = engine.start(key)
    with Bridge(settings(engine.url, amqp_url, {topic: {}})) as bridge, Amqp(amqp_url) as amqp:
        message = eventually(lambda: amqp.get(topic), 40)
        assert message is not None
        engine.suspend(instance, True)
        amqp.channel.queue_delete("bridge.parked")
        amqp.channel.queue_delete("bridge.wait")
        amqp.channel.exchange_delete("bridge.wait")

        amqp.send("", f"{topic}.results", b"garbage", correlation_id="no token")
        amqp.answer(message, Reply({"done": True}))

        eventually(lambda: amqp.count("bridge.parked") == 1, 60, what="parked after all")
        eventually(lambda: bridge.count(topic, "waiting") > 0, 60, what="the result waits")
        assert amqp.count("bridge.wait") is not None
        engine.suspend(instance, False)
        eventually(lambda: engine.finished(key) == 1, 60)
        eventually(bridge.is_ready, 15)


def test_a_shared_part_that_cannot_be_had_is_told_at_ready(
    engine: EngineRest, amqp_url: str
) -> None:
    """Results would be left hanging behind a service that says all is well."""
    tables = settings(engine.url, amqp_url, {"told": {}}, broker={"declare": "missing"})
    passive = settings(engine.url, amqp_url, {"told": {}}, broker={"declare": "passive"})
    with Bridge(tables) as first:
        eventually(first.is_ready, 40)
    with Bridge(passive) as bridge, Amqp(amqp_url) as amqp:
        amqp.channel.queue_delete("bridge.parked")
        amqp.send("", "told.results", b"garbage", correlation_id="no token")

        eventually(lambda: not bridge.is_ready(), 40, what="the missing queue is noticed")
        told = requests.get(f"{bridge.status_url()}/ready", timeout=10).text
        assert "queue bridge.parked" in told
        assert "404" in told
