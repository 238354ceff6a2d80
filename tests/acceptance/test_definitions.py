"""What `external-task-bridge definitions` prints, imported into a real RabbitMQ: a bridge without
the right to declare anything works there, and its workers with it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from bridge import plan
from bridge.broker import Queue
from bridge.settings import load
from deploy.local import choice
from deploy.local.programs import PartError
from deploy.local.rabbitmq import BrokerNode
from tests.conftest import missing
from tests.support.amqp import Amqp
from tests.support.engine import EngineRest, unique
from tests.support.roles import manage
from tests.support.stage import Stage
from tests.support.waiting import eventually

TOPICS: dict[str, dict[str, Any]] = {"pay": {}, "ship": {"reply": "none"}}
PASSWORD = "chosen by the administrator: é\n"


@dataclass(frozen=True)
class Imported:
    """A bridge on what was imported; `definitions` is the file."""

    stage: Stage
    node: BrokerNode
    definitions: Path

    def worker(self, short: str) -> Amqp:
        parts = urlsplit(self.stage.url)
        login = f"worker-{self.stage.names[short]}:chosen%20by%20the%20administrator%3A%20%C3%A9"
        return Amqp(parts._replace(netloc=f"{login}@{parts.hostname}:{parts.port}").geturl())


def command(stage: Stage, *words: str) -> str:
    """What the command prints for the settings of a stage."""
    return subprocess.run(
        [sys.executable, "-m", "bridge", *words, "--config", str(stage.bridge.config)],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
        env={k: v for k, v in os.environ.items() if not k.startswith("BRIDGE_")},
    ).stdout


@pytest.fixture(scope="module")
def imported(
    broker_node: choice.Broker,
    engine: EngineRest,
    shared_amqp_url: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Imported]:
    if not isinstance(broker_node, BrokerNode):
        missing(PartError("a broker whose rabbitmqctl can be run: unset AMQP_URL"))
        raise TypeError("CI has a node of its own")
    node, folder, user = broker_node, tmp_path_factory.mktemp("passwords"), unique("bridge")
    file, password = folder / "definitions.json", folder / f"{user}.password"
    password.write_text(PASSWORD)
    broker = {"declare": "passive", "username": user, "password_file": str(password)}

    def prepare(stage: Stage) -> None:
        for name in stage.names.values():
            (folder / f"worker-{name}.password").write_text(PASSWORD)
        file.write_text(command(stage, "definitions", "--passwords", str(folder)))
        node.ctl("import_definitions", str(file))

    with Stage(engine, shared_amqp_url, TOPICS, broker=broker, prepare=prepare) as stage:
        yield Imported(stage, node, file)
        users = [user, *(f"worker-{name}" for name in stage.names.values())]
    for name in users:
        manage(node, "DELETE", f"users/{name}")


def test_a_task_travels_through_imported_queues(imported: Imported) -> None:
    """With the users, the passwords and the rights of the file, and no others."""
    case = imported.stage.begin("pay")
    with imported.worker("pay") as worker:
        message = eventually(lambda: worker.get(case.queue), 60, what="the task")
        assert message is not None
        properties = message.properties
        worker.send(
            "bridge.results", case.topic, b'{"paid":true}', correlation_id=properties.correlation_id
        )

    assert case.end() == "end"


def test_what_is_imported_is_what_the_bridge_would_declare(imported: Imported) -> None:
    """Queues without their dead letters work until the first message is rejected; RabbitMQ refuses
    to declare an object again that is different.
    """
    for part in plan.topology(load(imported.stage.bridge.config, {})):
        with Amqp(imported.stage.url) as administrator:
            if isinstance(part, Queue):
                administrator.channel.queue_declare(
                    part.name, durable=True, arguments=dict(part.arguments)
                )
            else:
                administrator.channel.exchange_declare(part.name, part.type, durable=True)


def test_a_second_import_changes_nothing(imported: Imported) -> None:
    """A node that loads the file at its start must not lose what lies in its queues."""
    stage = imported.stage
    case = stage.begin("ship")
    assert case.end() == "end"  # its message is published, and nobody takes it

    imported.node.ctl("import_definitions", str(imported.definitions))

    with imported.worker("ship") as worker:
        assert eventually(lambda: worker.get(case.queue), 60, what="the message") is not None
    after = stage.begin("pay")
    stage.answer(after.message())
    assert after.end() == "end"


def test_a_queue_with_other_arguments_is_left_alone(imported: Imported) -> None:
    """An import that fails half way leaves a broker half configured."""
    document = json.loads(imported.definitions.read_text())
    queue = imported.stage.names["pay"]
    for one in document["queues"]:
        if one["name"] == queue:
            one["arguments"] = {"x-queue-type": "classic"}
    other = imported.definitions.with_name("other.json")
    other.write_text(json.dumps(document))

    imported.node.ctl("import_definitions", str(other))

    case = imported.stage.begin("pay")
    imported.stage.answer(case.message())
    assert case.end() == "end"
