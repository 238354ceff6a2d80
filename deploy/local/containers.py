"""Broker and engine as Docker containers, through testcontainers: the third way, after a URL and a
local program. Imported only when Docker was chosen.

Uses testcontainers' core alone: its RabbitMQ module warns of its own deprecated parts on import.
"""

import time
from collections.abc import Callable, Mapping
from typing import cast
from urllib.parse import quote

from testcontainers.core.config import ConnectionMode, testcontainers_config
from testcontainers.core.container import DockerContainer

from deploy.local.engine import answers
from deploy.local.engine_build import EngineKind
from deploy.local.management import ManagementApi
from deploy.local.programs import PartError, free_port, last_lines

RABBITMQ_IMAGE = "rabbitmq:4-management"
ENGINE_IMAGES: Mapping[EngineKind, str] = {
    "camunda": "camunda/camunda-bpm-platform:run-7.24.0",
    "operaton": "operaton/operaton:1.0.3",
}
START_LIMIT_S = 180.0
STOP_GRACE_S = 30
POLL_S = 0.2


class ContainerPart:
    """One container, on host ports that stay the same over a restart, on loopback where it can."""

    controllable = True
    pids: tuple[int, ...] = ()

    def __init__(self, image: str, ports: tuple[int, ...], *, keep: bool) -> None:
        if keep:  # else testcontainers' reaper removes the container when this process ends
            testcontainers_config.ryuk_disabled = True
        self._image = image
        self._container = DockerContainer(image)
        docker = self._container.get_docker_client()
        near = docker.get_connection_mode() is ConnectionMode.docker_host
        bound = cast("dict[str, object]", self._container.ports)
        for port in ports:
            host_port = free_port()
            local = near and docker.host() in {"localhost", "127.0.0.1"}
            bound[f"{port}/tcp"] = ("127.0.0.1", host_port) if local else host_port

    @property
    def container(self) -> str:
        return self._container.get_container_id()

    def start(self, ready: Callable[[], bool]) -> None:
        """Pull, start and wait until `ready()`. PartError, and nothing is left, when that fails."""
        self._ready = ready
        try:
            self._container.start()
            self._wait()
        except BaseException:
            self.close()
            raise

    def address(self, port: int) -> str:
        """`host:port` at which this container port is reached."""
        return f"{self._container.get_container_host_ip()}:{self._container.get_exposed_port(port)}"

    def run(self, *command: str) -> str:
        """The output of a command inside the container; PartError when it fails."""
        done = self._container.exec(list(command))
        output = done.output.decode(errors="replace")
        if done.exit_code:
            raise PartError(f"{' '.join(command)}: {output}")
        return output

    def stop(self) -> None:
        """SIGTERM, and SIGKILL after 30 s. The container's files stay."""
        self._container.get_wrapped_container().stop(timeout=STOP_GRACE_S)

    def kill(self) -> None:
        """SIGKILL. The container's files stay."""
        self._container.get_wrapped_container().kill()

    def restart(self) -> None:
        """Start again after `stop` or `kill`, on the same files and ports."""
        self._container.get_wrapped_container().start()
        self._wait()

    def close(self) -> None:
        """Remove the container and its files."""
        self._container.stop()

    def _wait(self) -> None:
        until = time.monotonic() + START_LIMIT_S
        while not self._ready():
            if time.monotonic() > until:
                log = b"".join(self._container.get_logs()).decode(errors="replace")
                raise PartError(f"{self._image} was not ready in time:\n{last_lines(log)}")
            time.sleep(POLL_S)


class DockerEngine:
    """An engine in a container."""

    controllable = True
    pids: tuple[int, ...] = ()

    def __init__(self, kind: EngineKind, *, keep: bool = False) -> None:
        self._part = ContainerPart(ENGINE_IMAGES[kind], (8080,), keep=keep)
        self._part.start(lambda: answers(self.url))
        self.stop, self.kill = self._part.stop, self._part.kill
        self.restart, self.close = self._part.restart, self._part.close
        self.container: str | None = self._part.container

    @property
    def url(self) -> str:
        return f"http://{self._part.address(8080)}/engine-rest"


class DockerBroker:
    """A broker in a container, with its management plugin."""

    controllable = True
    pids: tuple[int, ...] = ()

    def __init__(self, *, keep: bool = False) -> None:
        self._part = ContainerPart(RABBITMQ_IMAGE, (5672, 15672), keep=keep)
        self._part.start(lambda: ManagementApi(self.management_url).answers())
        self.stop, self.kill = self._part.stop, self._part.kill
        self.restart, self.close = self._part.restart, self._part.close
        self.container: str | None = self._part.container

    @property
    def url(self) -> str:
        return self.url_of("/")

    @property
    def management_url(self) -> str:
        return f"http://guest:guest@{self._part.address(15672)}"

    def url_of(self, vhost: str) -> str:
        return f"amqp://guest:guest@{self._part.address(5672)}/{quote(vhost, safe='')}"

    def add_vhost(self, name: str) -> str:
        ManagementApi(self.management_url).add_vhost(name)
        return self.url_of(name)

    def delete_vhost(self, name: str) -> None:
        ManagementApi(self.management_url).delete_vhost(name)

    def ctl(self, *arguments: str) -> str:
        return self._part.run("rabbitmqctl", "--quiet", *arguments)
