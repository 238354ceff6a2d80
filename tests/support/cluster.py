"""Three RabbitMQ nodes on this machine that are one cluster, each of which a test may kill.

They find each other by a port mapper of their own and share no more than its port and a cookie.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Self

from deploy.local.programs import Program, free_port
from deploy.local.rabbitmq import BrokerNode, Together, start_epmd, start_rabbitmq
from tests.support.waiting import eventually

SIZE = 3


class Cluster:
    """A running cluster.  Leaving its `with` block ends all of it."""

    def __init__(self, epmd: Program, nodes: Sequence[BrokerNode]) -> None:
        self._epmd = epmd
        self.nodes = tuple(nodes)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        _end(self._epmd, self.nodes)

    def add_vhost(self, name: str) -> None:
        """Make a virtual host that guest may use, on all nodes that run."""
        asked = next(node for node in self.nodes if node.running)
        asked.ctl("add_vhost", name)
        asked.ctl("set_permissions", "--vhost", name, "guest", ".*", ".*", ".*")

    def urls(self, vhost: str) -> list[str]:
        """The addresses of a virtual host, one for each node."""
        return [node.url_of(vhost) for node in self.nodes]

    def leader(self, vhost: str, queue: str) -> BrokerNode:
        """The node that leads a quorum queue now, as a node that runs sees it."""

        def look() -> BrokerNode | None:
            asked = next(node for node in self.nodes if node.running)
            told = asked.ctl("list_queues", "--vhost", vhost, "name", "leader", "--silent")
            leaders = dict(line.split() for line in told.splitlines() if len(line.split()) == 2)
            running = (node for node in self.nodes if node.running)
            return next((node for node in running if node.nodename == leaders.get(queue)), None)

        found = eventually(look, 60, what=f"{queue} has a leader")
        assert found is not None
        return found

    def members(self, vhost: str, queue: str) -> int:
        """How many nodes carry a quorum queue and are in touch."""
        asked = next(node for node in self.nodes if node.running)
        told = asked.ctl("list_queues", "--vhost", vhost, "name", "online", "--silent")
        line = next(line for line in told.splitlines() if line.startswith(f"{queue}\t"))
        return line.count("@")

    def restart(self, nodes: Iterable[BrokerNode]) -> None:
        """Start killed nodes again, at the same time: they may wait for each other."""
        with ThreadPoolExecutor() as pool:
            list(pool.map(BrokerNode.restart, nodes))


def start_cluster(directory: Path) -> Cluster:
    """Three nodes, joined, each with the management plugin.  Raises PartError when one of them does
    not come up.
    """
    together = Together(directory / "home", free_port())
    name = secrets.token_hex(4)
    epmd = start_epmd(together.epmd, directory)
    nodes: list[BrokerNode] = []

    def start(number: int) -> None:
        seed = f"bridge-{name}-0@localhost"
        backend = "cluster_formation.peer_discovery_backend = classic_config"
        join = (backend, f"cluster_formation.classic_config.nodes.1 = {seed}") if number else ()
        node = start_rabbitmq(
            base_dir=directory / f"node-{number}",
            config_lines=join,
            nodename=f"bridge-{name}-{number}@localhost",
            together=together,
        )
        nodes.append(node)

    try:
        start(0)
        with ThreadPoolExecutor() as pool:
            list(pool.map(start, range(1, SIZE)))
    except BaseException:
        _end(epmd, nodes)
        raise
    return Cluster(epmd, sorted(nodes, key=lambda node: node.nodename))


def _end(epmd: Program, nodes: Iterable[BrokerNode]) -> None:
    for node in nodes:
        node.close()
    epmd.kill()
