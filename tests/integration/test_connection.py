"""Connections against a RabbitMQ that is killed, frozen, out of memory, or not there at all."""

from __future__ import annotations

import gc
import os
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

import psutil
import pytest
from pika.exceptions import ConnectionWrongStateError
from structlog.testing import capture_logs

from bridge.broker import Outcome, connection
from bridge.broker.lane import WINDOW_MESSAGES
from bridge.clock import monotonic
from deploy.local.choice import Broker
from deploy.local.programs import PartError
from deploy.local.rabbitmq import BrokerNode, start_rabbitmq
from tests.conftest import missing
from tests.support.amqp import Amqp
from tests.support.proxy import Proxy
from tests.support.roles import Carried, Consuming, Publishing
from tests.support.waiting import eventually, throughout

MIB = 1024 * 1024
CONFIRMED, UNKNOWN, LATE = Outcome.CONFIRMED, Outcome.UNKNOWN, Outcome.LATE
REFUSED = Outcome.REFUSED


@pytest.fixture(scope="module")
def own_node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BrokerNode]:
    """A RabbitMQ that these tests may kill, freeze and starve."""
    limit = f"max_message_size = {MIB}"
    try:
        node = start_rabbitmq(base_dir=tmp_path_factory.mktemp("own"), config_lines=[limit])
    except PartError as error:
        missing(error)
        raise
    with node:
        yield node


@pytest.fixture
def own_url(own_node: BrokerNode, request: pytest.FixtureRequest) -> str:
    """A virtual host of the own node with the quorum queue `q`."""
    url = own_node.add_vhost(request.node.name)
    declare(url)
    return url


def declare(url: str, queue: str = "q") -> None:
    with Amqp(url) as amqp:
        amqp.channel.queue_declare(queue, durable=True, arguments={"x-queue-type": "quorum"})


def sync(node: BrokerNode) -> None:
    """Have RabbitMQ write down which quorum queues it has.  It does so seconds after a declaration;
    a queue younger than that comes back from a crash empty and without a leader.
    """
    node.ctl("eval", "[dets:sync(Table) || Table <- dets:all()].")


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Short pauses between attempts: a node takes its time to start again."""
    monkeypatch.setattr(connection, "MAX_PAUSE_SECONDS", 1.0)


@contextmanager
def alarm(node: BrokerNode) -> Iterator[None]:
    """The memory alarm: RabbitMQ stops reading from whoever publishes."""
    node.ctl("set_vm_memory_high_watermark", "0.00001")
    try:
        yield
    finally:
        node.ctl("set_vm_memory_high_watermark", "0.6")


@contextmanager
def frozen(node: BrokerNode) -> Iterator[None]:
    """The node's process does not run: its sockets stay open and nobody answers."""
    os.kill(node.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(node.pid, signal.SIGCONT)


def at(url: str, address: str) -> str:
    """The same URL at another host and port."""
    parts = urlsplit(url)
    return parts._replace(netloc=f"{parts.username}:{parts.password}@{address}").geturl()


# -- lost and found ------------------------------------------------------------------------------


def test_a_broken_connection_makes_the_unconfirmed_unknown_once_and_comes_back(
    amqp_url: str,
) -> None:
    """Unknown is the truth: each may be in the queue.  Nobody has to help the connection up."""
    declare(amqp_url)

    with Proxy(amqp_url) as proxy, Publishing(proxy.url) as publishing:
        publishing.publish("before", "q")
        publishing.settled()
        proxy.mute = True
        for n in range(50):
            publishing.publish(n, "q")
        eventually(lambda: publishing.publisher.backlog == 50)
        with Amqp(amqp_url) as amqp:
            eventually(lambda: amqp.count("q") == 51)
        proxy.cut()
        proxy.mute = False
        eventually(lambda: len(publishing.of(UNKNOWN)) == 50)
        publishing.publish("after", "q")

        assert publishing.settled()["after"] is CONFIRMED
        assert publishing.of(UNKNOWN) == list(range(50))


@pytest.mark.usefixtures("impatient")
def test_a_killed_broker_loses_nothing_that_was_confirmed(
    own_node: BrokerNode, own_url: str
) -> None:
    """The confirm is what the lease rests on: it must outlive a crash of the broker."""
    with Publishing(own_url) as publishing:
        publishing.ready()
        sync(own_node)
        for n in range(3000):
            publishing.publish(n, "q", str(n).encode())
        eventually(lambda: len(publishing.of(CONFIRMED)) > 200)
        own_node.kill()
        eventually(lambda: not publishing.publisher.ready.is_set())
        own_node.restart()
        publishing.publish("after", "q", b"after")
        outcomes = publishing.settled()

        with Amqp(own_url) as amqp:
            bodies = [message.body.decode() for message in amqp.drain("q")]
        assert outcomes["after"] is CONFIRMED
        assert {str(key) for key in publishing.of(CONFIRMED)} <= set(bodies)
        assert len(bodies) == len(set(bodies))
        assert len(publishing.of(UNKNOWN)) <= WINDOW_MESSAGES
        assert publishing.of(LATE) == []


@pytest.mark.usefixtures("impatient")
def test_a_consumer_consumes_again_after_the_broker_was_killed(
    own_node: BrokerNode, own_url: str
) -> None:
    """Results must flow again without anybody's help, and none be missing."""
    with Consuming(["q"], own_url) as consuming:
        consuming.ready()
        sync(own_node)
        own_node.kill()
        eventually(lambda: "q" in consuming.consumer.problems())
        own_node.restart()
        with Amqp(own_url) as amqp:
            for n in range(20):
                amqp.send("", "q", str(n).encode())

        assert {int(d.body) for d in consuming.deliveries(20)} == set(range(20))


@pytest.mark.usefixtures("impatient")
def test_a_frozen_broker_is_noticed_by_its_missing_heartbeats(
    own_node: BrokerNode, own_url: str
) -> None:
    """A connection that only looks open would hold tasks until their locks lapse."""
    with Publishing(own_url, heartbeat=1) as publishing:
        publishing.ready()
        with frozen(own_node):
            began = monotonic()
            eventually(lambda: not publishing.publisher.ready.is_set(), 20)

            assert monotonic() - began < 2 * (1 + 5) + 2
        publishing.ready()
        publishing.publish("after", "q")
        assert publishing.settled() == {"after": CONFIRMED}


def test_reconnecting_leaves_no_descriptor_and_no_thread_behind(
    amqp_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A flaky network over weeks must not end in `too many open files`."""
    monkeypatch.setattr(connection, "GOOD_SECONDS", 0.0)  # each one counts as good: short pauses
    declare(amqp_url)
    process = psutil.Process()

    def used() -> tuple[int, int]:
        gc.collect()
        return process.num_fds(), threading.active_count()

    with Proxy(amqp_url) as proxy, Publishing(proxy.url) as publishing:
        for n in range(21):
            publishing.ready()
            publishing.publish(n, "q")
            publishing.settled()
            if n == 0:
                before = used()
            if n < 20:
                proxy.cut()
                eventually(lambda: not publishing.publisher.ready.is_set())

        eventually(lambda: used() <= before, what="as few descriptors and threads as before")
        assert proxy.accepted >= 21


class Clumsy:
    """A role that uses a channel in the wrong moment, once."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def opened(self, connection: Any) -> None:
        self.said.append("opened")

    def lost(self, why: str, final: bool) -> None:
        self.said.append("final" if final else "lost")

    def work(self) -> None:
        if self.said == ["opened"]:
            raise ConnectionWrongStateError("channel is closed")

    def blocked(self, blocked: bool) -> None:
        raise AssertionError("nobody blocks here")


def test_a_slip_in_a_role_costs_the_connection_and_the_role_is_told(amqp_url: str) -> None:
    """A channel may go in the moment it is used: the state behind it must not be kept as alive."""
    clumsy = Clumsy()

    with Carried(clumsy, amqp_url):
        eventually(lambda: clumsy.said == ["opened", "lost", "opened"])

    assert clumsy.said == ["opened", "lost", "opened", "lost", "final"]


# -- alarms --------------------------------------------------------------------------------------


def test_a_blocked_connection_clears_ready_keeps_everything_and_resumes(
    own_node: BrokerNode, own_url: str
) -> None:
    """In an alarm the bridge must stop fetching, and publish what it has when the alarm ends."""
    with Publishing(own_url) as publishing:
        publishing.publish("before", "q")
        publishing.settled()
        with alarm(own_node):
            publishing.publish(0, "q")  # RabbitMQ tells only those who publish
            eventually(lambda: not publishing.publisher.ready.is_set())
            for n in range(1, 500):
                publishing.publish(n, "q")
            throughout(lambda: publishing.publisher.backlog == 500, 0.5)
            assert publishing.connection.problem is None
        publishing.ready()

        assert set(publishing.settled().values()) == {CONFIRMED}
        with Amqp(own_url) as amqp:
            assert amqp.count("q") == 501


def test_what_became_late_while_blocked_is_not_sent_afterwards(
    own_node: BrokerNode, own_url: str
) -> None:
    """An alarm outlasts publish windows; by then the tasks are somebody else's."""
    with Publishing(own_url) as publishing, alarm(own_node):
        publishing.publish("told", "q")
        eventually(lambda: not publishing.publisher.ready.is_set())
        publishing.publish("late", "q", publish_by=monotonic() + 0.2)
        publishing.publish("patient", "q", publish_by=monotonic() + 60)
        threading.Event().wait(0.3)
        own_node.ctl("set_vm_memory_high_watermark", "0.6")

        assert publishing.settled() == {"told": CONFIRMED, "late": LATE, "patient": CONFIRMED}


def test_acknowledgements_go_on_in_an_alarm(own_node: BrokerNode, own_url: str) -> None:
    """Results drain the broker: blocking them too would never end an alarm."""
    with Amqp(own_url) as amqp:
        for n in range(30):
            amqp.send("", "q", str(n).encode())

    with Publishing(own_url) as publishing, alarm(own_node):
        publishing.publish("told", "q", mandatory=False, lane="other")
        eventually(lambda: not publishing.publisher.ready.is_set())
        with Consuming(["q"], own_url, prefetch=5) as consuming:
            acked = 0
            while acked < 30:
                for delivery in consuming.deliveries(acked + 1)[acked:]:
                    consuming.consumer.ack(delivery)
                    acked += 1

            assert len(consuming.seen) == 30


def test_a_connection_that_stays_blocked_is_given_up(own_node: BrokerNode, own_url: str) -> None:
    """Another node of a cluster may have memory left."""
    with Publishing(own_url, blocked_timeout=1.0) as publishing, alarm(own_node):
        publishing.publish("told", "q")

        eventually(lambda: publishing.of(UNKNOWN) == ["told"], 10)
        assert "locked" in publishing.detail("told")


def test_a_message_over_the_brokers_limit_hurts_only_its_own_lane(own_url: str) -> None:
    """RabbitMQ closes the channel on it; the other topics must not notice, and it is known which
    message it was: sent again, it would close the channel again.
    """
    with Publishing(own_url) as publishing:
        publishing.publish("good", "q", lane="other")
        publishing.publish("large", "q", b"x" * (MIB + 1))
        outcomes = publishing.settled()
        publishing.publish("good too", "q")

        assert outcomes == {"good": CONFIRMED, "large": REFUSED}
        assert "406" in publishing.detail("large")
        assert publishing.settled()["good too"] is CONFIRMED


# -- stop ----------------------------------------------------------------------------------------


def test_stopping_a_blocked_connection_takes_seconds(own_node: BrokerNode, own_url: str) -> None:
    """RabbitMQ reads nothing from a blocked connection, its close neither: SIGTERM cannot wait."""
    with Publishing(own_url) as publishing, alarm(own_node):
        publishing.publish("told", "q")
        eventually(lambda: not publishing.publisher.ready.is_set())
        publishing.publish("waiting", "q")
        began = monotonic()
        publishing.stop()

        assert monotonic() - began < 6
        assert publishing.settled() == {"told": UNKNOWN, "waiting": LATE}


def test_stopping_while_the_broker_does_not_answer_takes_seconds() -> None:
    """A listener that says nothing: the handshake has a limit, a stop must not wait for it."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        with Publishing(f"amqp://guest:guest@127.0.0.1:{port}/%2F") as publishing:
            with silent.accept()[0]:
                began = monotonic()
                publishing.stop()

            assert monotonic() - began < 6


# -- why not -------------------------------------------------------------------------------------


def mistakes(broker: Broker, url: str) -> dict[str, tuple[str, str]]:
    """Mistakes in [broker] url, and words that the reason must have."""
    management = urlsplit(broker.management_url)
    wrong_password = urlsplit(url)._replace(
        netloc=f"guest:s3cret-wrong@127.0.0.1:{urlsplit(url).port}"
    )
    return {
        "password": (wrong_password.geturl(), "user name or password"),
        "vhost": (urlsplit(url)._replace(path="/s3cret-vhost").geturl(), "virtual host"),
        "nobody": (at(url, "127.0.0.1:1"), "refused"),
        "http": (at(url, f"127.0.0.1:{management.port}"), "AMQP"),
        "name": (at(url, "no-such-host.invalid:5672"), "not known"),
    }


@pytest.mark.parametrize("mistake", ["password", "vhost", "nobody", "http", "name"])
def test_a_mistake_in_the_address_is_one_clear_sentence_without_credentials(
    broker_node: Broker, amqp_url: str, mistake: str
) -> None:
    """The operator reads this line first; and logs are no place for passwords."""
    url, words = mistakes(broker_node, amqp_url)[mistake]

    with capture_logs() as logs, Publishing(url) as publishing:
        eventually(lambda: publishing.connection.problem != "not connected yet")
        problem = publishing.connection.problem

    assert problem is not None
    assert words in problem
    assert "\n" not in problem
    assert len(problem) < 200
    assert "s3cret" not in problem + str(logs)
    assert "guest" not in problem + str(logs)
    assert [line["event"] for line in logs] == ["broker not connected"]


def test_the_next_address_is_used_where_the_first_is_dead(amqp_url: str) -> None:
    """`urls` names the nodes of a cluster: one may be down when the bridge starts."""
    declare(amqp_url)

    with Publishing(at(amqp_url, "127.0.0.1:1"), amqp_url) as publishing:
        publishing.publish("there", "q")

        assert publishing.settled() == {"there": CONFIRMED}
        assert publishing.connection.problem is None


def test_the_next_address_is_used_when_the_one_in_use_dies(amqp_url: str) -> None:
    """The node in use may be the one that goes."""
    declare(amqp_url)

    with (
        Proxy(amqp_url) as first,
        Proxy(amqp_url) as second,
        Publishing(first.url, second.url) as publishing,
    ):
        publishing.publish("first", "q")
        publishing.settled()
        first.refuse()
        eventually(lambda: second.accepted)
        publishing.publish("second", "q")

        assert publishing.settled() == {"first": CONFIRMED, "second": CONFIRMED}
