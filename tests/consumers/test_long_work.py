"""Work that outlasts every time limit, with plain pika: consumers/python/transcode_worker.py."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import Any, cast

import pytest

from deploy.local.choice import Broker
from deploy.local.programs import Program
from deploy.local.rabbitmq import BrokerNode
from tests.consumers.stacks import CONSUMERS, running, vhost
from tests.support.amqp import Amqp
from tests.support.broker_faults import patience
from tests.support.engine import EngineRest
from tests.support.hasty_bridge import HASTY
from tests.support.proxy import Proxy
from tests.support.stage import Case, Stage
from tests.support.waiting import eventually

WORKER = CONSUMERS / "python" / "transcode_worker.py"
QUEUE, LIMIT_S = "transcodeVideo", 60.0
# Four of these are longer than lease and deadline (20 s) and the broker's patience; one of them
# is longer than the connection may stay silent.
STEP_SECONDS, PATIENCE_S, HEARTBEAT_S = 6, 10, 2
FILM = {"video": {"value": "film", "type": "String"}}
pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def stage(engine: EngineRest, broker_node: Broker) -> Iterator[Stage]:
    """A bridge with windows of seconds, and a broker that soon wants its messages acknowledged."""
    topics: dict[str, dict[str, Any]] = {"transcode": {"queue": QUEUE}}
    module = "tests.support.hasty_bridge"
    node = cast(BrokerNode, broker_node)  # any broker that can be controlled
    with (
        patience(node, PATIENCE_S * 1000),
        vhost(broker_node) as url,
        Stage(engine, url, topics, module=module, topic_defaults=HASTY) as stage,
    ):
        yield stage


def worker(
    stage: Stage, log: Path, step_seconds: float, url: str | None = None
) -> AbstractContextManager[Program]:
    return running(
        "the transcoder",
        [sys.executable, WORKER],
        amqp_url=url or f"{stage.url}?heartbeat={HEARTBEAT_S}",
        log=log,
        ready=lambda: stage.amqp.consumers(QUEUE) > 0,
        env={"STEP_SECONDS": str(step_seconds)},
    )


def begin(stage: Stage) -> Case:
    return stage.begin("transcode", FILM, queue=QUEUE)


def said(program: Program) -> list[str]:
    """The outcomes that the worker has told, oldest first."""
    return [line.partition(" ")[0] for line in program.log.read_text().splitlines()]


def test_work_longer_than_every_time_limit_completes_once(stage: Stage, tmp_path: Path) -> None:
    """Longer than publish window, lease, deadline, consumer timeout and heartbeats: the early
    acknowledgement keeps the broker out, and what it tells keeps the task its own.
    """
    with Amqp(stage.url) as impatient, worker(stage, tmp_path / "log", STEP_SECONDS) as program:
        stage.amqp.channel.queue_declare("held")
        stage.amqp.send("", "held", b"")
        held = impatient.channel
        eventually(lambda: held.basic_get("held")[0], LIMIT_S)
        case = begin(stage)

        eventually(partial(stage.engine.ended_at, case.instance), LIMIT_S)

        impatient.connection.process_data_events(0)
        assert not held.is_open, "the consumer timeout was not on"
        eventually(lambda: "complete" in said(program), LIMIT_S)  # told after the confirm
        assert said(program) == ["extendLock"] * 4 + ["complete"], "it had to connect again"
    assert case.variables()["transcodedVideo"]["value"] == "film.webm"
    assert case.variables()["progress"]["value"] == 75
    assert stage.count("transcode", "confirmed") == 1
    assert stage.amqp.count(QUEUE) == 0


def test_a_stop_gives_long_work_back(stage: Stage, tmp_path: Path) -> None:
    """Hours are too long for a stop, and the message is acknowledged: the engine offers the task
    again, as the same attempt.
    """
    with worker(stage, tmp_path / "first", 3600) as first:
        case = begin(stage)
        eventually(lambda: said(first) == ["extendLock"], LIMIT_S)

        first.stop(grace_s=LIMIT_S)

        assert first.exit_code == 0, first.log.read_text()
        assert said(first) == ["extendLock", "unlock"]
    with worker(stage, tmp_path / "second", 0.01):
        assert eventually(partial(stage.engine.ended_at, case.instance), LIMIT_S) == "end"


def test_a_lost_connection_does_not_lose_long_work(stage: Stage, tmp_path: Path) -> None:
    """The message is gone from the broker: only this worker can still tell that it is done."""
    log = tmp_path / "log"
    with Proxy(stage.url) as proxy, worker(stage, log, 1, proxy.url) as program:
        case = begin(stage)
        eventually(lambda: said(program) == ["extendLock"], LIMIT_S)

        proxy.reset()

        assert eventually(partial(stage.engine.ended_at, case.instance), LIMIT_S) == "end"
        assert said(program).count("complete") == 1
