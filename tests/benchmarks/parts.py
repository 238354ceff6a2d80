"""The parts of a run: one real engine, one real broker, each started when it is first asked for."""

from __future__ import annotations

import subprocess
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Self

import requests

from deploy.local import choice
from deploy.local.engine import EngineProcess, answers
from deploy.local.engine_build import build_engine
from deploy.local.programs import PartError, free_port
from tests.benchmarks import programs
from tests.benchmarks.calls import PROPERTIES, Calls
from tests.support.engine import EngineRest

HEAP = "-Xmx1g"
START_LIMIT_S = 600
FORGET_LIMIT_S = 300  # ten thousand running instances take their time


class Parts:
    """Leaving its `with` block ends what was started.  Files go below `directory`.

    `warm` is set by whoever has warmed the engine up.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.warm = False
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        self._stack.close()

    @cached_property
    def engine(self) -> EngineProcess:
        """Camunda 7.24 with a heap of its own size and an access log, by which all are measured."""
        jar, port = build_engine("camunda"), free_port()
        settings = {
            "server.port": port,
            **PROPERTIES,
            "server.tomcat.accesslog.directory": self.directory.resolve(),
        }
        command = ["java", HEAP, "-jar", str(jar), *(f"--{k}={v}" for k, v in settings.items())]
        log = self.directory / "engine.log"
        engine = self._stack.enter_context(EngineProcess("camunda", port, command, log))
        assert answers(engine.url)
        return engine

    @cached_property
    def rest(self) -> EngineRest:
        return EngineRest(self.engine.url)

    def calls(self) -> Calls:
        """What the engine is asked from now on."""
        return Calls.from_now(self.directory / "access.log")

    @cached_property
    def broker(self) -> choice.Broker:
        """A RabbitMQ on this machine: only one of ours has processes to measure and to pin."""
        broker = choice.open_broker(directory=self.directory / "broker")
        self._stack.callback(broker.close)
        if not broker.pids:
            raise PartError("the benchmarks need RabbitMQ as a program of this machine: unset "
                            "AMQP_URL, apt-get install rabbitmq-server")  # fmt: skip
        return broker

    @contextmanager
    def vhost(self) -> Iterator[str]:
        """The AMQP URL of a virtual host of its own."""
        name = f"bench-{uuid.uuid4().hex[:12]}"
        yield self.broker.add_vhost(name)
        self.broker.delete_vhost(name)

    def start_instances(self, key: str, count: int) -> None:
        """Begin so many instances of a process, two variables each."""
        words = [
            *programs.native(), "start", "-url", self.engine.url, "-key", key,
            "-count", str(count), "-connections", "8",
        ]  # fmt: skip
        subprocess.run(words, check=True, timeout=START_LIMIT_S, stdout=subprocess.DEVNULL)

    def forget(self, key: str) -> None:
        """Delete a process, its instances and their history: the engine keeps them in memory."""
        for found in self.rest.call("GET", "/process-definition", key=key):
            url = f"{self.engine.url}/deployment/{found['deploymentId']}?cascade=true"
            requests.delete(url, timeout=FORGET_LIMIT_S).raise_for_status()
