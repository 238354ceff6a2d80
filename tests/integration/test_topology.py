"""The exchanges and queues on a real RabbitMQ: declared, found, left alone, and at work."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from structlog.testing import capture_logs

from bridge import plan
from bridge.broker import BrokerOptions, Exchange, Queue, Topology
from bridge.broker.topology import Mode
from bridge.errors import BrokerUnavailable
from bridge.settings import Settings, load
from deploy.local.choice import Broker
from deploy.local.programs import free_port
from tests.support.amqp import Amqp, Message
from tests.support.bridge import settings, toml
from tests.support.roles import Consuming, Publishing, limited_user
from tests.support.waiting import eventually

QUEUES = ["a", "a.results", "bridge.dead-letters", "bridge.parked", "bridge.wait"]
EXCHANGES = ["bridge.results", "bridge.gone", "bridge.dead", "bridge.wait"]


@pytest.fixture
def configured(tmp_path: Path, amqp_url: str) -> Settings:
    """Settings with the topic `a`, on the test's virtual host."""
    config = tmp_path / "bridge.toml"
    broker = {"broker": {"wait": "1s", "delivery_limit": 2}}
    config.write_text(toml(settings("http://127.0.0.1:1", amqp_url, {"a": {}}, **broker)))
    return load(config, {})


def topology(url: str, parts: list[Exchange | Queue], mode: Mode = "missing") -> Topology:
    return Topology(BrokerOptions((url,)), mode, parts)


def quorum(amqp: Amqp, name: str, **arguments: Any) -> None:
    arguments = {"x-queue-type": "quorum", **arguments}
    amqp.channel.queue_declare(name, durable=True, arguments=arguments)


def declared(url: str, configured: Settings) -> Topology:
    made = topology(url, plan.topology(configured))
    made.ensure()
    return made


# -- declare -------------------------------------------------------------------------------------


def test_everything_in_the_plan_is_declared_and_a_second_look_changes_nothing(
    amqp_url: str, configured: Settings
) -> None:
    """Starting needs no preparation, and starting again is no event."""
    with capture_logs() as logs:
        first = declared(amqp_url, configured)
        second = declared(amqp_url, configured)

    assert (first.problems, second.problems, logs) == ({}, {}, [])
    with Amqp(amqp_url) as amqp:
        assert [amqp.count(queue) for queue in QUEUES] == [0] * len(QUEUES)
        for exchange in EXCHANGES:
            amqp.channel.exchange_declare(exchange, passive=True)


def test_a_queue_with_other_arguments_is_used_as_it_is_and_told_once(
    amqp_url: str, configured: Settings
) -> None:
    """Whoever was there first owns the queue: Celery's are classic.  Never redefine, never nag."""
    with Amqp(amqp_url) as amqp:
        amqp.channel.queue_declare("a", durable=True)
        amqp.send("", "a", b"theirs")

    with capture_logs() as logs:
        made = declared(amqp_url, configured)
        assert made.ensure_lane("a")
        made.ensure_queue("a")

    assert made.problems == {}
    assert [line["event"] for line in logs] == ["used as it is"]
    assert logs[0]["name"] == "a"
    assert "inequivalent arg" in logs[0]["differs"]
    with Amqp(amqp_url) as amqp:
        assert amqp.count("a") == 1
        assert amqp.count("a.results") == 0


def test_a_different_queue_that_is_deleted_is_declared_as_ours(
    amqp_url: str, configured: Settings
) -> None:
    """Deleting the old queue is how an operator moves to the bridge's own arguments."""
    with Amqp(amqp_url) as amqp:
        amqp.channel.queue_declare("a", durable=True)
        made = declared(amqp_url, configured)
        amqp.channel.queue_delete("a")

        assert made.ensure_lane("a")
        quorum_arguments = next(
            part.arguments
            for part in plan.topology(configured)
            if isinstance(part, Queue) and part.name == "a"
        )
        amqp.channel.queue_declare("a", durable=True, arguments=dict(quorum_arguments))


def test_a_lane_is_repaired_alone(amqp_url: str, configured: Settings) -> None:
    """A paused topic looks for its own parts at each try, not for everybody's."""
    made = declared(amqp_url, configured)

    with Amqp(amqp_url) as amqp:
        amqp.channel.queue_delete("a")
        amqp.channel.queue_delete("bridge.parked")

        assert made.ensure_lane("a")
        assert amqp.count("a") == 0
        assert amqp.count("bridge.parked") is None


def test_somebody_elses_exchange_is_looked_for_and_never_made(amqp_url: str) -> None:
    """Where it routes to is its owner's affair; made by us it would route nowhere."""
    made = topology(amqp_url, [Exchange("theirs", None, lane="a")])

    made.ensure()
    assert not made.ensure_lane("a")
    assert "404" in made.problems["exchange theirs"]

    with Amqp(amqp_url) as amqp:
        amqp.channel.exchange_declare("theirs", "headers", durable=True)
    assert made.ensure_lane("a")
    assert made.problems == {}


def test_passive_mode_looks_and_makes_nothing(amqp_url: str, configured: Settings) -> None:
    """Where an operator declares everything, a typing error must not make a queue."""
    with Amqp(amqp_url) as amqp:
        quorum(amqp, "a", **{"x-max-length": 7})
        made = topology(amqp_url, plan.topology(configured), "passive")
        made.ensure()

        assert "queue a" not in made.problems
        assert set(made.problems) == {
            *(f"queue {queue}" for queue in QUEUES if queue != "a"),
            *(f"exchange {exchange}" for exchange in EXCHANGES),
        }
        assert not made.ensure_lane("a")
        assert amqp.count("a.results") is None


def test_never_mode_does_not_even_connect(configured: Settings) -> None:
    """`never` is for brokers where the bridge may not ask."""
    made = topology("amqp://guest:guest@127.0.0.1:1/%2F", plan.topology(configured), "never")

    made.ensure()

    assert made.ensure_lane("a")
    assert made.problems == {}


def test_without_the_right_to_configure_what_is_there_is_used(
    broker_node: Broker, amqp_url: str, configured: Settings
) -> None:
    """The least rights that a bridge needs are to write and to read."""
    declared(amqp_url, configured)
    url = limited_user(broker_node, amqp_url, configure="^$")

    with capture_logs() as logs:
        made = declared(url, configured)

    assert made.problems == {}
    assert made.ensure_lane("a")
    assert logs == []


def test_without_the_right_to_configure_what_is_missing_is_named_with_the_reason(
    broker_node: Broker, amqp_url: str, configured: Settings
) -> None:
    """The cure is a right or a declaration; the operator must read which, and of what."""
    url = limited_user(broker_node, amqp_url, configure="^$")

    made = declared(url, configured)

    assert len(made.problems) == len(QUEUES) + len(EXCHANGES)
    assert "403" in made.problems["queue a"]
    assert not made.ensure_lane("a")


def test_a_binding_that_we_may_not_make_is_told_once_and_does_not_stop_the_topic(
    broker_node: Broker, amqp_url: str, configured: Settings
) -> None:
    """Binding needs the right to write the queue, which a bridge that only consumes may lack."""
    declared(amqp_url, configured)
    url = limited_user(broker_node, amqp_url, write=r"^(?!a\.results$).*")

    with capture_logs() as logs:
        made = declared(url, configured)
        assert made.ensure_lane("a")

    assert made.problems == {}
    assert [(line["event"], line["name"]) for line in logs] == [("not bound by us", "a.results")]


# -- connect -------------------------------------------------------------------------------------


def _wrong_password(url: str) -> str:
    return url.replace("guest:guest", "guest:s3cret")


def _wrong_vhost(url: str) -> str:
    return urlsplit(url)._replace(path="/s3cret").geturl()


@pytest.mark.parametrize(
    ("wrong", "words"),
    [(_wrong_password, "user name or password"), (_wrong_vhost, "virtual host")],
)
def test_wrong_credentials_are_one_sentence_that_does_not_tell_them(
    amqp_url: str, wrong: Any, words: str
) -> None:
    """This is the first line that an operator reads, in a log that many read."""
    with pytest.raises(BrokerUnavailable) as raised:
        topology(wrong(amqp_url), []).ensure()

    assert words in str(raised.value)
    assert "s3cret" not in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_dead_first_address_of_a_cluster_is_passed_over(amqp_url: str) -> None:
    """One node of a cluster may be down whenever we look."""
    urls = ("amqp://guest:guest@127.0.0.1:1/%2F", amqp_url)

    Topology(BrokerOptions(urls), "missing", [Queue("a")]).ensure()

    with Amqp(amqp_url) as amqp:
        assert amqp.count("a") == 0


def test_consumers_are_counted_and_a_missing_queue_has_none(amqp_url: str) -> None:
    """`wait_for_consumer` fetches no task that nobody would take."""
    with Amqp(amqp_url) as amqp:
        quorum(amqp, "a")
    made = topology(amqp_url, [])

    assert made.consumers("a") == made.consumers("missing") == 0
    with Consuming(["a"], amqp_url) as consuming:
        consuming.ready()
        assert made.consumers("a") == 1


def test_counting_consumers_without_a_broker_is_broker_unavailable() -> None:
    """The caller lives on: any other error would end its thread and so the process."""
    made = topology("amqp://guest:guest@127.0.0.1:1/%2F", [])

    with pytest.raises(BrokerUnavailable, match="refused"):
        made.consumers("a")


# -- at work -------------------------------------------------------------------------------------


def publish(url: str, exchange: str, key: str, **properties: Any) -> None:
    with Publishing(url) as publishing:
        publishing.publish(1, key, b"{}", exchange=exchange, **properties)
        outcome = publishing.settled()[1]
    assert outcome.value == "confirmed"


def arrived(amqp: Amqp, queue: str) -> Message:
    eventually(lambda: amqp.count(queue), what=f"a message in {queue}")
    message = amqp.get(queue)
    assert message is not None
    return message


def test_a_result_sent_to_the_results_exchange_reaches_its_topics_queue(
    amqp_url: str, configured: Settings
) -> None:
    """Workers that permissions keep from the default exchange answer there."""
    declared(amqp_url, configured)

    publish(amqp_url, "bridge.results", "a", correlation_id="token")

    with Amqp(amqp_url) as amqp:
        assert arrived(amqp, "a.results").properties.correlation_id == "token"


def test_the_waiting_room_brings_a_message_back_to_the_queue_it_names(
    amqp_url: str, configured: Settings
) -> None:
    """What cannot be applied now must come again, whole, without filling the prefetch."""
    declared(amqp_url, configured)

    publish(
        amqp_url, "bridge.wait", "a.results", correlation_id="token", headers={"outcome": "failure"}
    )

    with Amqp(amqp_url) as amqp:
        assert amqp.count("a.results") == 0
        assert amqp.count("bridge.wait") == 1
        back = arrived(amqp, "a.results")
    assert back.properties.correlation_id == "token"
    assert back.headers["outcome"] == "failure"
    assert back.headers["x-death"][0]["reason"] == "expired"
    assert back.properties.expiration is None


def first_death(message: Message) -> Mapping[str, Any]:
    (death, *_) = message.headers["x-death"]
    return dict(death)


def test_a_task_message_that_a_worker_rejects_becomes_a_dead_letter(
    amqp_url: str, configured: Settings
) -> None:
    """A worker's no is a failure of the task; the bridge reads it off the reason."""
    declared(amqp_url, configured)
    publish(amqp_url, "", "a", correlation_id="token", message_id="t:3")

    with Amqp(amqp_url) as amqp:
        method, _, _ = amqp.channel.basic_get("a")
        amqp.channel.basic_nack(method.delivery_tag, requeue=False)
        dead = arrived(amqp, "bridge.dead-letters")

    assert (first_death(dead)["reason"], first_death(dead)["queue"]) == ("rejected", "a")
    assert (dead.properties.correlation_id, dead.properties.message_id) == ("token", "t:3")


def test_a_task_message_that_nobody_took_in_time_becomes_a_dead_letter(
    amqp_url: str, configured: Settings
) -> None:
    """Expired means unconsumed: the task is released, no copy is left behind."""
    declared(amqp_url, configured)

    publish(amqp_url, "", "a", expiration_ms=100)

    with Amqp(amqp_url) as amqp:
        dead = arrived(amqp, "bridge.dead-letters")
        assert amqp.count("a") == 0
    assert first_death(dead)["reason"] == "expired"
    assert dead.properties.expiration is None


def test_a_task_message_that_crashes_its_workers_becomes_a_dead_letter(
    amqp_url: str, configured: Settings
) -> None:
    """The delivery limit ends what would otherwise crash one worker after the other."""
    declared(amqp_url, configured)
    publish(amqp_url, "", "a")

    with Amqp(amqp_url) as amqp:
        for _ in range(3):  # delivery_limit = 2: the third return is one too many
            eventually(lambda: amqp.count("a") == 1)
            method, _, _ = amqp.channel.basic_get("a")
            amqp.channel.basic_nack(method.delivery_tag, requeue=True)
        dead = arrived(amqp, "bridge.dead-letters")

    assert first_death(dead)["reason"] == "delivery_limit"


def test_a_rejected_result_is_parked_and_no_dead_letter_of_a_task(
    amqp_url: str, configured: Settings
) -> None:
    """Dead results are for people to look at; as dead letters they would fail their task."""
    declared(amqp_url, configured)
    publish(amqp_url, "", "a.results", correlation_id="token")

    with Amqp(amqp_url) as amqp:
        method, _, _ = amqp.channel.basic_get("a.results")
        amqp.channel.basic_reject(method.delivery_tag, requeue=False)

        assert arrived(amqp, "bridge.parked").properties.correlation_id == "token"
        assert amqp.count("bridge.dead-letters") == 0


def test_a_full_parking_queue_refuses_instead_of_dropping(amqp_url: str) -> None:
    """Parked results are evidence: `parked_max` stops new ones, and loses no old one."""
    parts: list[Exchange | Queue] = [
        Queue(
            "parked",
            {"x-queue-type": "quorum", "x-overflow": "reject-publish", "x-max-length": 3},
        )
    ]
    topology(amqp_url, parts).ensure()

    with Publishing(amqp_url) as publishing:
        for n in range(20):
            publishing.publish(n, "parked", str(n).encode())
            publishing.settled()
        confirmed = [n for n, outcome in publishing.settled().items() if outcome.value != "nacked"]

    with Amqp(amqp_url) as amqp:
        assert [int(m.body) for m in amqp.drain("parked")] == confirmed
    assert 3 <= len(confirmed) < 20


def test_a_listener_that_never_answers_is_a_broker_away() -> None:
    """pika tells it by an exception outside its own tree, which must not end the loop."""
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        host, port = silent.getsockname()

        with pytest.raises(BrokerUnavailable):
            topology(f"amqp://{host}:{port}/", []).ensure()


def test_a_later_look_declares_what_has_gone_missing_since(
    amqp_url: str, configured: Settings
) -> None:
    """However fresh the last look is; and where something is wrong the next look is soon."""
    made = declared(amqp_url, configured)

    with Amqp(amqp_url) as amqp:
        amqp.channel.queue_delete("bridge.parked")
        amqp.channel.exchange_delete("bridge.results")  # and with it every binding to it
        relaxed = made.ensure_again()

        assert amqp.count("bridge.parked") == 0
        amqp.send("bridge.results", "a", b"bound again")
        eventually(lambda: amqp.count("a.results") == 1)
    troubled = topology(amqp_url, [Exchange("nowhere", None)])
    assert troubled.ensure_again() < relaxed


def test_a_later_look_needs_no_broker(configured: Settings) -> None:
    """It runs as a chore, whose death would be the bridge's."""
    made = topology(f"amqp://guest:guest@127.0.0.1:{free_port()}/%2F", plan.topology(configured))

    assert made.ensure_again() > 0
