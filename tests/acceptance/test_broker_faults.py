"""What RabbitMQ does to the bridge, one fault after another, on a node that these tests may hurt.

Each fault heals by itself, leaves another topic unharmed, and costs no business retry.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from bridge.broker import Outcome, Topology
from bridge.errors import BrokerUnavailable
from deploy.local.programs import PartError
from deploy.local.rabbitmq import BrokerNode, start_rabbitmq
from tests.conftest import missing
from tests.support.amqp import Amqp
from tests.support.bridge import QUICK, Bridge
from tests.support.broker_faults import (
    Certificate,
    Scene,
    alarm,
    closing_listener,
    declare,
    patience,
)
from tests.support.engine import EngineRest, unique
from tests.support.load import LIMIT, Load, told_by
from tests.support.roles import Publishing
from tests.support.steady_worker import SteadyWorker, done
from tests.support.waiting import eventually, throughout

# Many waits, each of which ends early on an idle machine.
pytestmark = pytest.mark.timeout(300)
MIB = 1024 * 1024


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return Certificate(tmp_path_factory.mktemp("certificate"))


@pytest.fixture(scope="module")
def node(
    tmp_path_factory: pytest.TempPathFactory, certificate: Certificate
) -> Iterator[BrokerNode]:
    """A RabbitMQ that takes no message over 1 MiB and speaks TLS too."""
    config = [f"max_message_size = {MIB}", *certificate.config]
    try:
        started = start_rabbitmq(base_dir=tmp_path_factory.mktemp("hurt"), config_lines=config)
    except PartError as error:
        missing(error)
        raise
    with started:
        yield started


@pytest.fixture
def vhost(node: BrokerNode) -> Iterator[str]:
    """The name of a virtual host of its own for each test."""
    name = unique("faults")
    node.add_vhost(name)
    yield name
    node.delete_vhost(name)


def seconds_between(said: list[dict[str, Any]]) -> list[float]:
    """The gaps between log lines."""
    at = [datetime.fromisoformat(line["timestamp"]) for line in said]
    return [(later - earlier).total_seconds() for earlier, later in pairwise(at)]


# -- connections and channels closed ---------------------------------------------------------------


def connected_again(bridge: Bridge, times: int) -> bool:
    roles = ("publisher", "consumer")
    return all(len(bridge.events("broker connected", connection=r)) > times for r in roles)


def test_connections_closed_by_an_operator_come_back(
    engine: EngineRest, node: BrokerNode, vhost: str
) -> None:
    """Under load and three times in a row: the operator drains a node, nobody loses work."""
    scene = Scene(engine, node.url_of(vhost))
    load = scene.suffering
    with scene.bridge as bridge, SteadyWorker(scene.url, load.topic) as worker:
        for round_ in range(1, 4):
            load.start(40)
            node.ctl("close_all_connections", "--vhost", vhost, "maintenance")
            eventually(partial(connected_again, bridge, round_), LIMIT, what="connected again")
            load.start(10)
        load.ends()
        scene.other_is_unharmed()

        said = bridge.events("broker not connected", connection="publisher")
        assert "320 CONNECTION_FORCED - maintenance" in said[0]["reason"]
        assert len(worker.message_ids) == load.started
        assert worker.published - load.started <= scene.count("unconfirmed")
        eventually(bridge.is_ready)


def test_a_withdrawn_permission_pauses_its_topic_until_it_is_given_back(
    engine: EngineRest, node: BrokerNode, vhost: str
) -> None:
    """403 closes a channel: only one topic's, tried again with growing pauses."""
    url = node.url_of(vhost)

    def permit(write: str) -> None:
        node.ctl("set_permissions", "--vhost", vhost, "demo", ".*", write, ".*")
        # RabbitMQ remembers what a channel may do for as long as it is open.
        node.ctl("close_all_connections", "--vhost", vhost, "new rights")

    node.ctl("add_user", "demo", "demo")
    permit(".*")
    scene = Scene(engine, url.replace("guest:guest", "demo:demo"), exchange="fenced")
    load = scene.suffering
    declare(url, load.topic, "fenced")
    with scene.bridge as bridge, SteadyWorker(url, load.topic) as worker:
        load.start(1)
        load.ends()

        permit("^(?!fenced$).*")
        load.start(1)
        eventually(scene.paused, LIMIT, what="paused")
        scene.other_is_unharmed()
        eventually(lambda: len(bridge.events("publish channel closed")) >= 3, LIMIT)
        load.cost_nothing()
        permit(".*")

        load.ends()
        assert worker.published == 2
        said = bridge.events("publish channel closed", lane=load.topic)
        gaps = seconds_between(said)
        assert "403 ACCESS_REFUSED" in scene.paused()[0]["reason"]
        assert gaps[0] >= 0.75, "the first pause is 1 s, give or take a quarter"
        assert gaps[1] >= 1.5, "the second pause is twice as long"


def test_an_exchange_deleted_at_run_time_pauses_its_topic_until_it_is_back(
    engine: EngineRest, node: BrokerNode, vhost: str
) -> None:
    """404 closes a channel with everything unconfirmed on it.  The exchange is its owner's affair:
    it is waited for, never made.
    """
    scene = Scene(engine, node.url_of(vhost), exchange="moved")
    load = scene.suffering
    declare(scene.url, load.topic, "moved")
    with scene.bridge as bridge, SteadyWorker(scene.url, load.topic) as worker:
        load.start(10)
        load.ends()

        with Amqp(scene.url) as amqp:
            amqp.channel.exchange_delete("moved")
        load.start(20)
        eventually(scene.paused, LIMIT, what="paused")
        scene.other_is_unharmed()
        eventually(lambda: bridge.events("not usable at the broker", name="moved"), LIMIT)
        load.cost_nothing()
        assert not bridge.is_ready()
        declare(scene.url, load.topic, "moved")

        load.ends()
        assert worker.published == load.started
        assert "404 NOT_FOUND" in scene.paused()[0]["reason"]
        eventually(bridge.is_ready)


def test_a_message_over_the_brokers_limit_is_an_incident_with_its_size(
    engine: EngineRest, node: BrokerNode, vhost: str
) -> None:
    """406 closes the channel; sent again it would do so for ever.  Its neighbours go on."""
    scene = Scene(engine, node.url_of(vhost))
    load, large = scene.suffering, Load(engine, "large", scene.suffering.topic)
    content = base64.b64encode(bytes(MIB)).decode()
    with scene.bridge as bridge, SteadyWorker(scene.url, load.topic) as worker:
        load.start(15)
        large.start(1, {"scan": {"value": content, "type": "Bytes"}})
        load.start(15)

        eventually(lambda: engine.incidents(large.key), LIMIT, what="an incident")
        load.ends()
        scene.other_is_unharmed()

        task = engine.tasks(processDefinitionKey=large.key)[0]
        said = bridge.events("publish channel closed")
        assert "406" in task["errorMessage"]
        size = re.search(r"message size (\d+) is larger", task["errorMessage"])
        assert size is not None
        assert int(size[1]) > len(content)
        assert f"max size {MIB}" in task["errorMessage"]
        assert (task["retries"], large.failures(), len(said)) == (0, 1, 1)
        assert len(worker.message_ids) == load.started
        assert worker.published - load.started <= scene.count("unconfirmed")


# -- alarms ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["memory", "disk"])
def test_an_alarm_stops_fetching_and_lets_results_through(
    engine: EngineRest, node: BrokerNode, vhost: str, kind: str
) -> None:
    """Fetching on would pile tasks up in memory; holding results back would never end an alarm."""
    scene = Scene(engine, node.url_of(vhost), times=QUICK)
    load, answered = scene.suffering, Load(engine, "answered", scene.other.topic)
    with scene.bridge as bridge, Amqp(scene.url) as amqp:
        answered.start(20)
        eventually(lambda: bridge.count(answered.topic, "leased") == 20, LIMIT)
        bridge.stop()
        for message in amqp.drain(answered.topic):
            amqp.answer(message, done(message))

        with alarm(node, kind):
            bridge.start()
            answered.ends()
            load.start(20)
            eventually(lambda: bridge.events("broker blocks publishing"), LIMIT)
            fetched = scene.count("fetched")
            load.start(20)
            throughout(lambda: scene.count("fetched") <= fetched, 2, what="nothing is fetched")
            assert fetched <= 20
            assert not bridge.is_ready()

        with SteadyWorker(scene.url, load.topic) as worker:
            load.ends()
            assert worker.published == len(worker.message_ids) == load.started
        eventually(bridge.is_ready)


# -- queues ----------------------------------------------------------------------------------------


def is_leased(task: Mapping[str, Any]) -> bool:
    """Whether its lock says that its message is out: more than two publish windows are left."""
    expires = task["lockExpirationTime"]
    return (
        bool(expires) and (datetime.fromisoformat(expires) - datetime.now(UTC)).total_seconds() > 30
    )


def unlock(engine: EngineRest, task_id: str) -> None:
    """What an operator does to a task whose message was thrown away."""
    engine.call("POST", f"/external-task/{task_id}/unlock")


def test_queues_deleted_under_load_lose_only_what_lay_in_them(
    engine: EngineRest, node: BrokerNode, vhost: str
) -> None:
    """Deleted while they are published to and consumed: both are there again, the flow goes on,
    and the tasks of the deleted messages keep their locks, for the deadline or an operator.
    """
    scene = Scene(engine, node.url_of(vhost), times=QUICK)
    load = scene.suffering
    with (
        scene.bridge as bridge,
        SteadyWorker(scene.url, load.topic) as worker,
        Amqp(scene.url) as amqp,
    ):
        load.start(30)
        for queue in (load.topic, f"{load.topic}.results"):
            amqp.channel.queue_delete(queue)
            load.start(30)
        eventually(lambda: bridge.events("queue not consumed", queue=f"{load.topic}.results"))
        scene.other_is_unharmed()
        load.start(10)

        eventually(lambda: all(map(is_leased, engine.tasks(topicName=load.topic))), LIMIT)
        load.cost_nothing()
        for task in engine.tasks(topicName=load.topic):
            unlock(engine, task["id"])
        load.ends()
        assert worker.published - load.started <= scene.count("unconfirmed")
        eventually(bridge.is_ready)


def test_a_full_queue_pauses_its_topic_until_there_is_room(
    engine: EngineRest, node: BrokerNode, vhost: str
) -> None:
    """A nack is the broker's back-pressure: what it refused is not in the queue and comes again
    when a worker makes room, once.
    """
    scene = Scene(engine, node.url_of(vhost))
    load = scene.suffering
    declare(scene.url, load.topic, x_max_length=5, x_overflow="reject-publish")
    with scene.bridge as bridge:
        load.start(30)
        eventually(scene.paused, LIMIT, what="paused")
        scene.other_is_unharmed()
        refused = scene.count("nacked")
        eventually(lambda: scene.count("nacked") > refused, LIMIT, what="tried and refused again")
        load.cost_nothing()

        with SteadyWorker(scene.url, load.topic) as worker:
            load.ends()
        assert worker.published == load.started
        assert "full" in scene.paused()[0]["reason"]
        eventually(bridge.is_ready)


def test_a_channel_on_which_a_queue_refused_is_not_used_again(node: BrokerNode, vhost: str) -> None:
    """RabbitMQ 3.10 goes on refusing on a channel that has met a quorum queue without a leader,
    long after the election; only another channel helps.
    """
    url = node.url_of(vhost)
    declare(url, "full", x_queue_type="classic", x_max_length=1, x_overflow="reject-publish")

    def publishing_channels() -> int:
        told = node.ctl("list_channels", "--no-table-headers", "vhost", "confirm")
        return sum(line.split() == [vhost, "true"] for line in told.splitlines())

    with Publishing(url) as publishing:
        publishing.publish("fits", "full")
        publishing.settled()
        assert publishing_channels() == 1

        for n in range(5):
            publishing.publish(n, "full")

        assert Outcome.NACKED in publishing.settled().values()
        eventually(lambda: publishing_channels() == 0, LIMIT, what="the channel is closed")


def test_a_message_held_beyond_the_brokers_patience_comes_again(
    engine: EngineRest, node: BrokerNode, vhost: str
) -> None:
    """RabbitMQ takes a message back from a worker that does not acknowledge for too long; for the
    bridge nothing has happened, and the next worker's answer counts.
    """
    scene = Scene(engine, node.url_of(vhost))
    load = scene.suffering
    with scene.bridge as bridge, patience(node, 1000), Amqp(scene.url) as slow:
        load.start(1)
        channel = slow.channel
        eventually(lambda: channel.basic_get(load.topic)[0], what="a message")

        def taken_back() -> bool:
            slow.connection.process_data_events(0)
            return not channel.is_open

        eventually(taken_back, LIMIT, what="RabbitMQ closes the worker's channel")
        with SteadyWorker(scene.url, load.topic) as worker:
            load.ends()
        assert [message.redelivered for message in worker.seen] == [True]
        assert scene.count("confirmed") == 1
        assert bridge.is_ready()


# -- doors that close while the bridge runs --------------------------------------------------------


def test_an_expired_certificate_keeps_new_connections_out_until_it_is_renewed(
    engine: EngineRest, node: BrokerNode, vhost: str, certificate: Certificate
) -> None:
    """What is connected stays connected; the refusal names its reason, and no task is fetched that
    could not be published.
    """
    url = node.url_of(vhost)
    secure = f"amqps://guest:guest@localhost:{certificate.port}/{vhost}"
    scene = Scene(engine, secure, broker={"ca_file": str(certificate.ca_file)})
    load = scene.suffering

    def present(valid: timedelta) -> None:
        certificate.renew(valid)
        node.ctl("eval", "ssl:clear_pem_cache().")

    with scene.bridge as bridge, SteadyWorker(url, load.topic), told_by(bridge):
        present(timedelta(hours=-1))
        load.start(5)
        load.ends()
        assert bridge.is_ready()

        node.ctl("close_all_connections", "--vhost", vhost, "maintenance")
        expired = "certificate has expired"
        eventually(lambda: any(expired in said["reason"] for said in not_connected(bridge)), LIMIT)
        load.start(5)
        load.cost_nothing()
        assert not bridge.is_ready()
        present(timedelta(days=1))

        load.ends()
        eventually(bridge.is_ready)


def not_connected(bridge: Bridge) -> list[dict[str, Any]]:
    return bridge.events("broker not connected", connection="publisher")


def test_a_password_changed_at_run_time_is_read_again(
    node: BrokerNode, vhost: str, tmp_path: Path
) -> None:
    """Rotation must need no restart: the next connection uses what the file holds by then, and a
    file that is not there for a moment is only one more reason to wait.
    """
    user = unique("rotating")
    node.ctl("add_user", user, "first")
    node.ctl("set_permissions", "--vhost", vhost, user, ".*", ".*", ".*")
    secret = tmp_path / "password"
    secret.write_text("first\n")
    url = node.url_of(vhost).replace("guest:guest", f"{user}:unused")

    with Publishing(url, password_file=secret) as publishing:
        publishing.ready()
        node.ctl("change_password", user, "second")
        secret.unlink()
        node.ctl("close_all_connections", "--vhost", vhost, "rotation")
        eventually(lambda: "No such file" in (publishing.connection.problem or ""), LIMIT)
        with pytest.raises(BrokerUnavailable, match="No such file"):
            Topology(publishing.options, "missing", []).consumers("any")
        secret.write_text("first")
        eventually(lambda: "password" in (publishing.connection.problem or ""), LIMIT)

        secret.write_text("second\n")

        eventually(publishing.publisher.ready.is_set, LIMIT, what="connected again")
    node.ctl("delete_user", user)


# -- crashes ---------------------------------------------------------------------------------------


def sync(node: BrokerNode) -> None:
    """Have RabbitMQ write down which quorum queues it has, which it does seconds after they were
    declared; one younger than that comes back from a crash empty and without a leader.
    """
    node.ctl("eval", "[dets:sync(Table) || Table <- dets:all()].")


def test_crashes_in_a_row_lose_nothing_and_double_only_the_unconfirmed(
    engine: EngineRest, node: BrokerNode, vhost: str
) -> None:
    """Killed three times while messages and results flow: every confirmed message is delivered,
    and a message is published a second time only where the first one's confirm was lost.
    """
    scene = Scene(engine, node.url_of(vhost), times=QUICK)
    load = scene.suffering
    with scene.bridge as bridge, SteadyWorker(scene.url, load.topic) as worker:
        sync(node)
        for _ in range(3):
            load.start(30)
            node.kill()
            load.start(10)
            eventually(lambda: not bridge.is_ready(), LIMIT)
            node.restart()
            eventually(bridge.is_ready, LIMIT, what="ready again")
        load.ends()
        assert len(worker.message_ids) == load.started
        assert all(name.endswith(":-") for name in worker.message_ids)
        assert worker.published - load.started <= scene.count("unconfirmed")
        scene.other_is_unharmed()


def test_pauses_between_attempts_grow_to_half_a_minute_and_are_jittered(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A broker that comes back must not meet all its clients in the same moment."""
    pauses: list[tuple[float, float]] = []

    def shortest(low: float, high: float) -> float:
        pauses.append((low, high))
        return 0.0

    monkeypatch.setattr("bridge.broker.connection.random.uniform", shortest)
    with closing_listener() as url, Publishing(url):
        eventually(lambda: len(pauses) >= 12)

    assert [high for _, high in pauses[:9]] == [0.4, 0.8, 1.6, 3.2, 6.4, 12.8, 25.6, 30.0, 30.0]
    assert {low for low, _ in pauses} == {0.05}
