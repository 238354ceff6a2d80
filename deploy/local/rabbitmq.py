"""A private RabbitMQ node on this machine, of the distribution's package rabbitmq-server.

It has its own name, ports, data, cookie and epmd, listens on loopback only, and disturbs no node of
the system. Needs no root, and works as root. Installs nothing.
"""

import os
import secrets
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import quote

from deploy.local.management import ManagementApi
from deploy.local.programs import PartError, Program, free_port, listens

# The directory behind the package's wrappers, which insist on root or the user rabbitmq.
PROGRAMS = Path("/usr/lib/rabbitmq/bin")
START_LIMIT_S = 90.0
STOP_GRACE_S = 30.0
CTL_LIMIT_S = 60.0


@dataclass(frozen=True)
class Ports:
    amqp: int
    management: int
    distribution: int
    epmd: int


@dataclass(frozen=True)
class Together:
    """What the nodes of a cluster share: the directory of their cookie, and an epmd's port."""

    home: Path
    epmd: int


class BrokerNode:
    """A running node. Leaving its `with` block ends it.

    `own_epmd` is False where the port mapper is somebody else's, who ends it.
    """

    controllable = True
    container: str | None = None

    def __init__(
        self,
        nodename: str,
        base_dir: Path,
        ports: Ports,
        environment: Mapping[str, str],
        *,
        own_epmd: bool = True,
    ) -> None:
        self.nodename = nodename
        self.base_dir = base_dir
        self.ports = ports
        self._environment = dict(environment)
        self._api = ManagementApi(self.management_url)
        self._own_epmd = own_epmd
        self._epmd = self._start_epmd()
        self._beam = self._start_beam()

    @property
    def url(self) -> str:
        """The virtual host `/` as user guest."""
        return self.url_of("/")

    @property
    def management_url(self) -> str:
        return f"http://guest:guest@127.0.0.1:{self.ports.management}"

    @property
    def pid(self) -> int:
        """The Erlang machine, which is the node."""
        return self._beam.pid

    @property
    def pids(self) -> tuple[int, ...]:
        """Every process to end when nobody holds this object any more."""
        own = () if self._epmd is None else (self._epmd.pid,)
        return (self._beam.pid, *own)

    @property
    def running(self) -> bool:
        return self._beam.running

    def url_of(self, vhost: str) -> str:
        return f"amqp://guest:guest@127.0.0.1:{self.ports.amqp}/{quote(vhost, safe='')}"

    def add_vhost(self, name: str) -> str:
        """Make a virtual host that guest may use, in some 30 ms. Returns its URL."""
        self._api.add_vhost(name)
        return self.url_of(name)

    def delete_vhost(self, name: str) -> None:
        self._api.delete_vhost(name)

    def ctl(self, *arguments: str) -> str:
        """What `rabbitmqctl` prints, run against this node. PartError when it fails."""
        done = subprocess.run(
            [PROGRAMS / "rabbitmqctl", "--quiet", "--node", self.nodename, *arguments],
            env=self._environment,
            capture_output=True,
            text=True,
            timeout=CTL_LIMIT_S,
            check=False,
        )
        if done.returncode:
            raise PartError(f"rabbitmqctl {' '.join(arguments)}: {done.stderr or done.stdout}")
        return done.stdout

    def stop(self) -> None:
        """SIGTERM: the node closes its connections and its files. Takes about 6 s."""
        self._beam.stop(grace_s=STOP_GRACE_S)
        self._end_epmd()

    def kill(self) -> None:
        """SIGKILL, as in a crash. Durable queues with their persistent messages survive it."""
        self._beam.kill()
        self._end_epmd()

    def restart(self) -> None:
        """Start again after `stop` or `kill`, on the same data and the same ports."""
        self._epmd = self._start_epmd()
        self._beam = self._start_beam()

    def close(self) -> None:
        """End it at once: its data are thrown away, and a stop would take 6 s."""
        self.kill()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _start_epmd(self) -> Program | None:
        return start_epmd(self.ports.epmd, self.base_dir) if self._own_epmd else None

    def _end_epmd(self) -> None:
        if self._epmd is not None:
            self._epmd.kill()

    def _start_beam(self) -> Program:
        command = [PROGRAMS / "rabbitmq-server"]
        log = self.base_dir / "start.log"
        beam = Program("RabbitMQ", command, log=log, environment=self._environment)
        try:
            beam.wait_until(self._ready, limit_s=START_LIMIT_S)
        except BaseException:
            beam.kill()
            self._end_epmd()
            raise
        return beam

    def _ready(self) -> bool:
        return listens(self.ports.amqp) and self._api.answers()


def start_epmd(port: int, directory: Path) -> Program:
    """A port mapper in the foreground: one that a node started would outlive it."""
    command = ["epmd", "-port", str(port), "-address", "127.0.0.1"]
    epmd = Program("epmd", command, log=directory / "epmd.log")
    epmd.wait_until(lambda: listens(port), limit_s=10)
    return epmd


def start_rabbitmq(
    *,
    port: int | None = None,
    base_dir: Path,
    config_lines: Sequence[str] = (),
    plugins: Sequence[str] = (),
    nodename: str | None = None,
    together: Together | None = None,
) -> BrokerNode:
    """A node that accepts connections on 127.0.0.1, its files below `base_dir`.

    `config_lines` are added to its rabbitmq.conf and `plugins` to the management plugin; nodes with
    the same `together` can make a cluster. Raises PartError with the log's end when it does not
    come up.
    """
    base_dir = base_dir.resolve()
    if not (PROGRAMS / "rabbitmq-server").exists() or shutil.which("epmd") is None:
        raise PartError("RabbitMQ is not installed: apt-get install rabbitmq-server")
    common = together or Together(base_dir / "home", free_port())
    ports = Ports(port or free_port(), free_port(), free_port(), common.epmd)
    base_dir.mkdir(parents=True, exist_ok=True)
    common.home.mkdir(parents=True, exist_ok=True)
    (base_dir / "rabbitmq.conf").write_text("\n".join([*node_config(ports), *config_lines, ""]))
    enabled = ",".join(["rabbitmq_management", *plugins])
    (base_dir / "enabled_plugins").write_text(f"[{enabled}].\n")
    name = nodename or f"bridge-{secrets.token_hex(4)}@localhost"
    environment = node_environment(name, base_dir, ports, common.home)
    return BrokerNode(name, base_dir, ports, environment, own_epmd=together is None)


def node_config(ports: Ports) -> list[str]:
    return [
        f"listeners.tcp.1 = 127.0.0.1:{ports.amqp}",
        "distribution.listener.interface = 127.0.0.1",
        "management.tcp.ip = 127.0.0.1",
        f"management.tcp.port = {ports.management}",
        "disk_free_limit.absolute = 50MB",
        "log.file.level = warning",
    ]


def node_environment(
    nodename: str, base_dir: Path, ports: Ports, home: Path | None = None
) -> dict[str, str]:
    """The caller's environment without its RabbitMQ and Erlang settings, and with ours."""
    inherited = {
        key: value
        for key, value in os.environ.items()
        if not key.startswith(("RABBITMQ_", "ERL_", "NOTIFY_SOCKET"))
    }
    return inherited | {
        "HOME": str(home or base_dir / "home"),
        "RABBITMQ_NODENAME": nodename,
        "RABBITMQ_MNESIA_BASE": str(base_dir / "data"),
        "RABBITMQ_LOG_BASE": str(base_dir / "log"),
        "RABBITMQ_PID_FILE": str(base_dir / "pid"),
        "RABBITMQ_ENABLED_PLUGINS_FILE": str(base_dir / "enabled_plugins"),
        "RABBITMQ_CONFIG_FILE": str(base_dir / "rabbitmq.conf"),
        "RABBITMQ_CONFIG_FILES": str(base_dir / "conf.d"),
        "RABBITMQ_ADVANCED_CONFIG_FILE": str(base_dir / "advanced.config"),
        "RABBITMQ_CONF_ENV_FILE": "/dev/null",
        "RABBITMQ_DIST_PORT": str(ports.distribution),
        "ERL_EPMD_PORT": str(ports.epmd),
        "ERL_EPMD_ADDRESS": "127.0.0.1",
        "ERL_CRASH_DUMP": str(base_dir / "erl_crash.dump"),
        # Makes the script become the node instead of waiting for it: its process id is ours.
        "RABBITMQ_ALLOW_INPUT": "1",
        "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-noinput +S 2:2 +sbwt none",
    }
