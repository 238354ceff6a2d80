"""A topic moves from a client library to the bridge and back, as consumers/README.md says it."""

from __future__ import annotations

import re
import sys
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pytest

from deploy.local.choice import Broker
from deploy.local.programs import Program
from tests.consumers.stacks import CONSUMERS, running, vhost
from tests.support.amqp import Amqp
from tests.support.bridge import Bridge, settings
from tests.support.engine import EngineRest, unique
from tests.support.waiting import eventually

QUEUE, CLIENT, LOCK_MS, LIMIT_S = "charge-card", "old-client", 3_000, 60.0
pytestmark = pytest.mark.timeout(300)


class Client:
    """What an external-task client library does: fetch and lock, work, complete."""

    def __init__(self, engine: EngineRest, topic: str) -> None:
        self.done: list[str] = []
        self._engine, self._topic = EngineRest(engine.url), topic
        self._stopping = threading.Event()

    def fetch(self, most: int) -> list[dict[str, Any]]:
        topics = [{"topicName": self._topic, "lockDuration": LOCK_MS}]
        asked = {"workerId": CLIENT, "maxTasks": most, "topics": topics}
        locked: list[dict[str, Any]] = self._engine.call(
            "POST", "/external-task/fetchAndLock", asked | {"asyncResponseTimeout": 200}
        )
        return locked

    def step(self) -> int:
        """Take one task and complete it; how many that makes."""
        for task in self.fetch(1):
            receipt = {"receipt": {"value": "by the client", "type": "String"}}
            body = {"workerId": CLIENT, "variables": receipt}
            self._engine.call("POST", f"/external-task/{task['id']}/complete", body)
            self.done.append(task["processInstanceId"])
        return len(self.done)

    @contextmanager
    def working(self) -> Iterator[None]:
        thread = threading.Thread(target=self._run, daemon=True)
        thread.start()
        yield
        self._stopping.set()
        thread.join(30)
        assert not thread.is_alive()

    def _run(self) -> None:
        while not self._stopping.is_set():
            self.step()


class Scene:
    """A topic, its process, and who may work on it."""

    def __init__(self, engine: EngineRest, url: str, directory: Path) -> None:
        self.engine, self.url, self._directory = engine, url, directory
        self.topic = unique("charge-card")
        self.key = engine.deploy_topics(self.topic)
        self.client = Client(engine, self.topic)

    def start(self, count: int) -> set[str]:
        amount = {"amount": {"value": 5, "type": "Integer"}}
        return {self.engine.start(self.key, amount) for _ in range(count)}

    def bridge(self, **keys: Any) -> Bridge:
        topic = {"queue": QUEUE, **keys}
        return Bridge(settings(self.engine.url, self.url, {self.topic: topic}))

    def consumer(self, amqp: Amqp) -> AbstractContextManager[Program]:
        """The worker that the page shows, as it stands there."""
        page = (CONSUMERS / "README.md").read_text(encoding="utf-8")
        [lines] = re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL)
        return running(
            "the worker of the page",
            [sys.executable, "-c", lines],
            amqp_url=self.url,
            log=self._directory / "worker.log",
            ready=lambda: amqp.consumers(QUEUE) > 0,
        )

    def receipts(self, instances: set[str]) -> dict[str, str]:
        """By instance that has ended; each has one."""
        ended = {i for i in instances if self.engine.ended_at(i)}
        return {i: self.engine.history_variables(i)["receipt"]["value"] for i in ended}


@pytest.fixture
def scene(engine: EngineRest, broker_node: Broker, tmp_path: Path) -> Iterator[Scene]:
    with vhost(broker_node) as url:
        scene = Scene(engine, url, tmp_path)
        yield scene
        engine.clean(scene.key)


def test_a_topic_moves_to_the_bridge_while_the_client_works_on(scene: Scene) -> None:
    """Both ask for the same tasks, and what the client leaves behind the bridge takes over."""
    instances = scene.start(3)
    abandoned = {task["processInstanceId"] for task in scene.client.fetch(3)}
    assert abandoned == instances

    with scene.bridge(), Amqp(scene.url) as amqp, scene.consumer(amqp):
        with scene.client.working():
            instances |= scene.start(12)
            eventually(lambda: scene.client.done, LIMIT_S)
        instances |= scene.start(2)
        eventually(lambda: scene.engine.finished(scene.key) == len(instances), LIMIT_S)

    receipts = scene.receipts(instances)
    by_client = {instance for instance, by in receipts.items() if by == "by the client"}
    assert by_client == set(scene.client.done)
    assert len(scene.client.done) == len(by_client)
    assert set(receipts.values()) == {"by the client", "charged 5"}


def test_a_topic_moves_back_without_doing_anything_twice(scene: Scene) -> None:
    """A filter that fits nothing: what is published is kept and answered, the rest is left."""
    engine, amqp = scene.engine, Amqp(scene.url)
    with scene.bridge():
        published = scene.start(5)
        eventually(lambda: amqp.count(QUEUE) == 5, LIMIT_S)

    with amqp, scene.bridge(business_key="moved"):
        rest = scene.start(4)
        eventually(lambda: scene.client.step() == 4, LIMIT_S)
        assert scene.client.fetch(10) == []
        with scene.consumer(amqp):
            eventually(lambda: engine.finished(scene.key) == 9, LIMIT_S)
        held = {"topicName": scene.topic, "workerId": "bridge", "locked": "true"}
        assert engine.call("GET", "/external-task/count", **held) == {"count": 0}
        assert amqp.count(QUEUE) == amqp.count(f"{scene.topic}.results") == 0

    assert set(scene.client.done) == rest
    assert set(scene.receipts(published).values()) == {"charged 5"}
