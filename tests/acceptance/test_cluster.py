"""Three RabbitMQ nodes, one cluster: nodes die under load, one by one and two at once."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from deploy.local.programs import PartError
from tests.conftest import missing
from tests.support.amqp import Amqp
from tests.support.bridge import Bridge, settings
from tests.support.cluster import Cluster, start_cluster
from tests.support.engine import EngineRest, unique
from tests.support.load import LIMIT, Load, told_by
from tests.support.steady_worker import SteadyWorker
from tests.support.waiting import eventually

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    try:
        started = start_cluster(tmp_path_factory.mktemp("cluster"))
    except PartError as error:
        missing(error)
        raise
    with started:
        yield started


@pytest.fixture
def vhost(cluster: Cluster) -> str:
    """A virtual host of its own for each test, on three nodes that run."""
    cluster.restart([node for node in cluster.nodes if not node.running])
    name = unique("cluster")
    cluster.add_vhost(name)
    return name


def bridge_on(cluster: Cluster, vhost: str, *loads: Load) -> Bridge:
    """A bridge that knows every node; it begins with the first."""
    topics: dict[str, dict[str, Any]] = {load.topic: {} for load in loads}
    made = settings(loads[0].engine.url, "", topics)
    made["broker"] = {**made["broker"], "urls": cluster.urls(vhost)}
    del made["broker"]["url"]
    return Bridge(made, level="info")


def lead_by(url: str, *queues: str) -> None:
    """Declare quorum queues at the node that is to lead them."""
    with Amqp(url) as amqp:
        for queue in queues:
            amqp.channel.queue_declare(queue, durable=True, arguments={"x-queue-type": "quorum"})


def test_the_leader_and_then_our_own_node_die_under_load(
    engine: EngineRest, cluster: Cluster, vhost: str
) -> None:
    """The queues elect another leader and go on at the two that are left, with or without the
    bridge's own connections.
    """
    load = Load(engine, "elected")
    ours, leading, _ = cluster.nodes
    lead_by(leading.url_of(vhost), load.topic, f"{load.topic}.results")
    with (
        bridge_on(cluster, vhost, load) as bridge,
        SteadyWorker(cluster.urls(vhost), load.topic) as worker,
        told_by(bridge),
    ):
        for node in (leading, ours):
            load.start(30)
            node.kill()
            load.start(30)
            load.ends()
            cluster.restart([node])
            eventually(lambda: cluster.members(vhost, load.topic) == 3, LIMIT)

        assert len(worker.message_ids) == load.started
        assert all(name.endswith(":-") for name in worker.message_ids)
        assert worker.published - load.started <= bridge.count(load.topic, "unconfirmed")
        eventually(bridge.is_ready, LIMIT)


def test_without_a_majority_everything_is_held_until_it_is_back(
    engine: EngineRest, cluster: Cluster, vhost: str
) -> None:
    """Nothing is confirmed and no result applied twice or lost; no task pays for it."""
    load = Load(engine, "minority")
    with (
        bridge_on(cluster, vhost, load) as bridge,
        SteadyWorker(cluster.urls(vhost), load.topic) as worker,
        told_by(bridge),
    ):
        load.start(30)
        gone = cluster.nodes[1:]
        for node in gone:
            node.kill()
        load.start(20)
        eventually(lambda: bridge.count(load.topic, "held") > 0, LIMIT, what="locks are held")
        load.cost_nothing()
        assert bridge.count(load.topic, "confirmed") <= 30
        assert load.finished < load.started

        cluster.restart(gone)

        load.ends(90)
        load.start(10)
        load.ends()
        assert len(worker.message_ids) == load.started
        assert worker.published - load.started <= bridge.count(load.topic, "unconfirmed")
        eventually(bridge.is_ready, LIMIT)
