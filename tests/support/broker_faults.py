"""What a test does to a RabbitMQ node of its own, and the scene on which a bridge suffers it."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import trustme

from deploy.local.programs import free_port
from deploy.local.rabbitmq import BrokerNode
from tests.support.amqp import Amqp
from tests.support.bridge import Bridge, settings
from tests.support.engine import EngineRest
from tests.support.hasty_bridge import HASTY
from tests.support.load import Load
from tests.support.steady_worker import SteadyWorker

# Windows of seconds, where no connection has to be missed by its heartbeat.
SHORT = {**HASTY, "publish_window": "4s", "lease": "40s", "deadline": "600s"}
SHORT_MODULE = "tests.support.hasty_bridge"


class Scene:
    """A bridge with a topic that is to suffer and one that must not notice."""

    def __init__(
        self,
        engine: EngineRest,
        url: str,
        *,
        times: Mapping[str, Any] = SHORT,
        broker: Mapping[str, Any] | None = None,
        **suffering: Any,
    ) -> None:
        self.url = url
        self.suffering, self.other = Load(engine, "suffering"), Load(engine, "other")
        topics = {self.suffering.topic: suffering, self.other.topic: {}}
        made = settings(engine.url, url, topics, topic_defaults=times, broker=broker or {})
        self.bridge = Bridge(made, module=SHORT_MODULE, level="info")

    def other_is_unharmed(self) -> None:
        """Its tasks go all the way, now."""
        self.other.start(5)
        with SteadyWorker(self.url, self.other.topic):
            self.other.ends()

    def paused(self) -> list[dict[str, Any]]:
        """What the log says about pauses of the suffering topic."""
        return self.bridge.events("topic paused", topic=self.suffering.topic)

    def count(self, event: str) -> int:
        return self.bridge.count(self.suffering.topic, event)


class Certificate:
    """A server's certificate in a file, which a test may let expire and renew."""

    def __init__(self, directory: Path) -> None:
        self._authority = trustme.CA()
        self.ca_file = directory / "ca.pem"
        self.cert_file, self.key_file = directory / "server.crt", directory / "server.key"
        self.port = free_port()
        self._authority.cert_pem.write_to_path(str(self.ca_file))
        self.renew(timedelta(days=1))

    def renew(self, valid: timedelta) -> None:
        """Issue it anew; a negative time makes it one that expired."""
        issued = self._authority.issue_cert("localhost", not_after=datetime.now(UTC) + valid)
        issued.cert_chain_pems[0].write_to_path(str(self.cert_file))
        issued.private_key_pem.write_to_path(str(self.key_file))

    @property
    def config(self) -> list[str]:
        return [
            f"listeners.ssl.1 = 127.0.0.1:{self.port}",
            f"ssl_options.cacertfile = {self.ca_file}",
            f"ssl_options.certfile = {self.cert_file}",
            f"ssl_options.keyfile = {self.key_file}",
        ]


@contextmanager
def alarm(node: BrokerNode, kind: str) -> Iterator[None]:
    """RabbitMQ stops reading from whoever publishes."""
    command, on, off = {
        "memory": ("set_vm_memory_high_watermark", "0.00001", "0.6"),
        "disk": ("set_disk_free_limit", "900000GB", "50MB"),
    }[kind]
    node.ctl(command, on)
    try:
        yield
    finally:
        node.ctl(command, off)


def declare(url: str, queue: str, exchange: str = "", **arguments: Any) -> None:
    """A user's own queue, bound to an exchange of the user where one is named."""
    named = {name.replace("_", "-"): value for name, value in arguments.items()}
    with Amqp(url) as amqp:
        kind = {"x-queue-type": "quorum"}
        amqp.channel.queue_declare(queue, durable=True, arguments=kind | named)
        if exchange:
            amqp.channel.exchange_declare(exchange, "direct", durable=True)
            amqp.channel.queue_bind(queue, exchange, queue)


@contextmanager
def patience(node: BrokerNode, milliseconds: int) -> Iterator[None]:
    """How long RabbitMQ waits for an acknowledgement, on channels that are opened meanwhile."""

    def wait(limit: int, look_every: int) -> None:
        limits = {"consumer_timeout": limit, "channel_tick_interval": look_every}
        for name, value in limits.items():
            node.ctl("eval", f"application:set_env(rabbit, {name}, {value}).")

    wait(milliseconds, milliseconds // 2)
    try:
        yield
    finally:
        wait(1_800_000, 60_000)


@contextmanager
def closing_listener() -> Iterator[str]:
    """The address of somebody who takes connections and closes them at once."""
    stopping = threading.Event()

    def serve(listener: socket.socket) -> None:
        while not stopping.is_set():
            with suppress(TimeoutError):
                listener.accept()[0].close()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(0.05)
        thread = threading.Thread(target=serve, args=(listener,))
        thread.start()
        try:
            yield f"amqp://guest:guest@127.0.0.1:{listener.getsockname()[1]}/%2F"
        finally:
            stopping.set()
            thread.join(10)
