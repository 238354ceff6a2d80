"""Each outcome of a task, through the whole service on a real engine and a real RabbitMQ."""

from __future__ import annotations

from tests.support.amqp import Reply, Worker
from tests.support.bridge import Bridge, settings
from tests.support.engine import EngineRest, unique
from tests.support.waiting import eventually


def test_a_plain_object_completes_the_task_with_its_members_as_variables(
    engine: EngineRest, amqp_url: str
) -> None:
    """The least a worker must do."""
    topic = unique("charge")
    key = engine.deploy_topics(topic)
    instance = engine.start(key, {"amount": {"value": 5, "type": "Integer"}}, business_key="b-1")

    with (
        Bridge(settings(engine.url, amqp_url, {topic: {}})),
        Worker(amqp_url, topic, lambda m: Reply({"doubled": 2 * m.json["variables"]["amount"]})),
    ):
        eventually(lambda: engine.finished(key) == 1)

    assert engine.history_variables(instance)["doubled"] == {"value": 10, "type": "Integer"}
