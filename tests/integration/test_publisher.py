"""The publisher against a real RabbitMQ: each message gets one outcome, and the true one."""

from __future__ import annotations

import math
import threading
from typing import Any
from urllib.parse import urlsplit

import pytest

from bridge.broker import Outcome
from bridge.broker.lane import WINDOW_MESSAGES
from bridge.clock import monotonic
from deploy.local.choice import Broker
from tests.support.amqp import Amqp
from tests.support.proxy import Proxy
from tests.support.roles import Publishing, limited_user
from tests.support.waiting import eventually, throughout

MIB = 1024 * 1024
CONFIRMED, RETURNED, NACKED = Outcome.CONFIRMED, Outcome.RETURNED, Outcome.NACKED
UNKNOWN, LATE, REFUSED = Outcome.UNKNOWN, Outcome.LATE, Outcome.REFUSED


def declare(url: str, *queues: str, **arguments: Any) -> None:
    """Durable quorum queues."""
    with Amqp(url) as amqp:
        for queue in queues:
            arguments = {"x-queue-type": "quorum", **arguments}
            amqp.channel.queue_declare(queue, durable=True, arguments=arguments)


def test_a_confirmed_message_lies_in_its_queue_with_every_property(amqp_url: str) -> None:
    """What is confirmed is leased and never published again: it must be there, as it was meant."""
    declare(amqp_url, "q")
    properties = {
        "headers": {"taskId": "t", "retries": 3, "deep": {"list": [1, None, True]}},
        "message_id": "t:3",
        "correlation_id": "token",
        "reply_to": "q.results",
        "type": "q",
        "timestamp": 1_700_000_000,
        "priority": 4,
        "app_id": "bridge",
    }

    with Publishing(amqp_url) as publishing:
        publishing.publish(1, "q", b'{"a":1}', expiration_ms=60_000, **properties)
        assert publishing.settled() == {1: CONFIRMED}

    with Amqp(amqp_url) as amqp:
        message = amqp.get("q")
    assert message is not None
    assert message.body == b'{"a":1}'
    message.properties.headers.pop("x-delivery-count")
    assert {k: getattr(message.properties, k) for k in properties} == properties
    assert message.properties.delivery_mode == 2
    assert message.properties.expiration == "60000"
    assert message.properties.content_type == "application/json"


def test_a_message_for_no_queue_is_returned_although_the_broker_confirms_it(amqp_url: str) -> None:
    """RabbitMQ acknowledges what it cannot route; counting that as success would lose the task."""
    with Publishing(amqp_url) as publishing:
        publishing.publish("minded", "nowhere")
        publishing.publish("not minded", "nowhere", mandatory=False)

        assert publishing.settled() == {"minded": RETURNED, "not minded": CONFIRMED}
        assert publishing.detail("minded") == "312 NO_ROUTE"


def test_copies_of_one_message_id_are_told_apart_when_one_is_returned(amqp_url: str) -> None:
    """Two copies of an attempt may be under way: each answers for itself."""
    declare(amqp_url, "q")

    with Publishing(amqp_url) as publishing:
        for n in range(100):
            queue = "nowhere" if n % 3 == 0 else "q"
            publishing.publish((queue, n), queue, lane="one", message_id="t:-")

        for (queue, _), outcome in publishing.settled().items():  # type: ignore[misc]
            assert outcome is (CONFIRMED if queue == "q" else RETURNED)
    with Amqp(amqp_url) as amqp:
        assert len(amqp.drain("q")) == 66


def test_a_full_queue_nacks_and_takes_messages_again_once_there_is_room(amqp_url: str) -> None:
    """A nack is back-pressure: the lane stays usable, and what was nacked is in no queue."""
    declare(amqp_url, "full", **{"x-max-length": 5, "x-overflow": "reject-publish"})

    with Publishing(amqp_url) as publishing, Amqp(amqp_url) as amqp:
        for n in range(300):
            publishing.publish(n, "full")
        outcomes = publishing.settled()
        taken = amqp.drain("full")
        publishing.publish("later", "full")

        assert set(outcomes.values()) == {CONFIRMED, NACKED}
        assert len(taken) == len(publishing.of(CONFIRMED))
        assert publishing.settled()["later"] is CONFIRMED


def test_a_missing_exchange_hurts_only_its_own_lane_which_recovers(amqp_url: str) -> None:
    """The broker closes the channel on a 404: other topics share the connection, not the fate."""
    declare(amqp_url, "good")

    with Publishing(amqp_url) as publishing, Amqp(amqp_url) as amqp:
        for n in range(200):
            publishing.publish(("bad", n), "any", exchange="missing")
            publishing.publish(("good", n), "good")
        outcomes = publishing.settled()
        amqp.channel.exchange_declare("missing", "fanout", durable=True)
        amqp.channel.queue_bind("good", "missing")
        publishing.publish(("bad", "now there"), "any", exchange="missing")

        assert {k[0]: o for k, o in outcomes.items()} == {  # type: ignore[index]
            "bad": UNKNOWN,
            "good": CONFIRMED,
        }
        assert "404" in publishing.detail(("bad", 0))
        assert publishing.settled()["bad", "now there"] is CONFIRMED


def test_what_waits_behind_a_message_that_closes_the_channel_is_sent_on_the_next_one(
    amqp_url: str,
) -> None:
    """One bad message may make its window unknown, not all that was still to be sent."""
    declare(amqp_url, "q")

    with Publishing(amqp_url) as publishing:
        publishing.publish("bad", "q", exchange="missing")
        for n in range(1000):
            publishing.publish(n, "q")
        outcomes = publishing.settled()

        assert len(publishing.of(UNKNOWN)) <= WINDOW_MESSAGES
        assert len(publishing.of(CONFIRMED)) >= 1001 - WINDOW_MESSAGES
        assert set(outcomes.values()) == {UNKNOWN, CONFIRMED}


def test_a_withheld_permission_hurts_only_its_own_lane_which_recovers(
    broker_node: Broker, amqp_url: str
) -> None:
    """Rights are changed while the bridge runs; a topic that may not be written is one topic."""
    declare(amqp_url, "open")
    with Amqp(amqp_url) as amqp:
        amqp.channel.exchange_declare("closed", "fanout", durable=True)
    url = limited_user(broker_node, amqp_url, write="^amq.default$")

    with Publishing(url) as publishing:
        for n in range(50):
            publishing.publish(("closed", n), "any", exchange="closed")
            publishing.publish(("open", n), "open")
        outcomes = publishing.settled()
        publishing.publish("again", "open", lane="any")

        assert {k[0]: o for k, o in outcomes.items()} == {  # type: ignore[index]
            "closed": UNKNOWN,
            "open": CONFIRMED,
        }
        assert "403" in publishing.detail(("closed", 0))
        assert "guest" not in publishing.detail(("closed", 0))
        assert publishing.settled()["again"] is CONFIRMED


@pytest.mark.parametrize(
    "bad",
    [
        {"headers": {"x": 1.5}},
        {"headers": {"x": {1, 2}}},
        {"headers": {"x": 2**70}},
        {"headers": {"x": "\ud800"}},
        {"headers": {"k" * 300: 1}},
        {"correlation_id": "c" * 300},
        {"priority": 4711},
        {"exchange": "e" * 300},
        {"routing_key": "\ud800"},
    ],
    ids=lambda bad: next(iter(bad)),
)
def test_a_message_that_amqp_cannot_carry_is_refused_and_the_next_one_is_not(
    amqp_url: str, bad: dict[str, Any]
) -> None:
    """The publish numbers must not drift: a refused message has none."""
    declare(amqp_url, "q")

    with Publishing(amqp_url) as publishing:
        publishing.publish("before", "q")
        publishing.publish("bad", "q", **{"lane": "q", **bad})
        publishing.publish("returned", "nowhere", lane="q")
        publishing.publish("after", "q")

        assert publishing.settled() == {
            "before": CONFIRMED,
            "bad": REFUSED,
            "returned": RETURNED,
            "after": CONFIRMED,
        }


def test_a_message_is_not_sent_after_its_time(amqp_url: str) -> None:
    """After P/2 the lock may lapse and the task be fetched by a peer: late means never."""
    declare(amqp_url, "q")

    with Publishing(amqp_url) as publishing:
        publishing.publish("late", "q", publish_by=monotonic() - 0.001)
        publishing.publish("in time", "q", publish_by=monotonic() + 60)

        assert publishing.settled() == {"late": LATE, "in time": CONFIRMED}
    with Amqp(amqp_url) as amqp:
        assert len(amqp.drain("q")) == 1


def test_what_was_handed_over_before_the_connection_is_sent_once_it_is_open(amqp_url: str) -> None:
    """Nothing handed over may be forgotten, whatever the order of starting."""
    declare(amqp_url, "q")
    publishing = Publishing(amqp_url)
    publishing.publish("early", "q")

    with publishing:
        assert publishing.settled() == {"early": CONFIRMED}


def test_what_was_not_sent_when_the_connection_was_lost_is_sent_on_the_next_one(
    amqp_url: str,
) -> None:
    """A blip of the network makes the window unknown, once each, and delays the rest."""
    declare(amqp_url, "q")

    with Proxy(amqp_url) as proxy, Publishing(proxy.url) as publishing, Amqp(amqp_url) as amqp:
        publishing.publish("first", "q")
        assert publishing.settled() == {"first": CONFIRMED}
        proxy.mute = True
        for n in range(1000):
            publishing.publish(n, "q")
        eventually(lambda: amqp.count("q") == 1 + WINDOW_MESSAGES)
        proxy.cut()
        proxy.mute = False
        publishing.settled()

        assert publishing.of(UNKNOWN) == list(range(WINDOW_MESSAGES))
        assert publishing.of(CONFIRMED) == ["first", *range(WINDOW_MESSAGES, 1000)]
        eventually(lambda: amqp.count("q") == 1001)


def test_the_window_bounds_what_is_unconfirmed_and_the_backlog_counts_it(amqp_url: str) -> None:
    """Confirms that do not come must not let memory, or the doubt after a crash, grow."""
    declare(amqp_url, "q")

    with Proxy(amqp_url) as proxy, Publishing(proxy.url) as publishing, Amqp(amqp_url) as amqp:
        publishing.publish("first", "q")
        publishing.settled()
        proxy.mute = True
        for n in range(500):
            publishing.publish(n, "q", b"x" * 10)
        eventually(lambda: amqp.count("q") == 1 + WINDOW_MESSAGES)
        throughout(lambda: amqp.count("q") == 1 + WINDOW_MESSAGES, 0.3)

        assert publishing.publisher.backlog == 500
        assert publishing.publisher.unsettled("q") == 5000
        proxy.mute = False
        assert set(publishing.settled().values()) == {CONFIRMED}


def test_the_window_is_bounded_in_bytes_too(amqp_url: str) -> None:
    """Two hundred large messages would be gigabytes in pika's output buffer."""
    declare(amqp_url, "q")

    with Proxy(amqp_url) as proxy, Publishing(proxy.url) as publishing, Amqp(amqp_url) as amqp:
        publishing.publish("first", "q")
        publishing.settled()
        proxy.mute = True
        for n in range(6):
            publishing.publish(n, "q", b"x" * 5 * MIB)
        eventually(lambda: amqp.count("q") == 5)  # 1 + 4 x 5 MiB: the fourth passes 16 MiB
        throughout(lambda: amqp.count("q") == 5, 0.3)

        proxy.mute = False
        assert set(publishing.settled().values()) == {CONFIRMED}


def test_messages_of_many_threads_and_topics_each_get_their_outcome_once(amqp_url: str) -> None:
    """Poller, drainer, callers and sidings all publish at the same time."""
    queues = [f"q{n}" for n in range(4)]
    declare(amqp_url, *queues)

    with Publishing(amqp_url) as publishing, Amqp(amqp_url) as amqp:
        publishing.ready()

        def publish(thread: int) -> None:
            for n in range(250):
                publishing.publish((thread, n), queues[n % 4])

        threads = [threading.Thread(target=publish, args=(n,)) for n in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)

        outcomes = publishing.settled()
        assert len(outcomes) == 2000
        assert set(outcomes.values()) == {CONFIRMED}
        assert [len(amqp.drain(queue)) for queue in queues] == [504, 504, 496, 496]


def test_take_back_settles_what_was_not_sent_and_lets_the_rest_go_out(amqp_url: str) -> None:
    """At SIGTERM tasks are released at once; a result being parked must still reach its place."""
    declare(amqp_url, "q", "parked")

    with Proxy(amqp_url) as proxy, Publishing(proxy.url) as publishing, Amqp(amqp_url) as amqp:
        publishing.publish("first", "q")
        publishing.settled()
        proxy.mute = True
        soon = monotonic() + 60
        for n in range(300):
            publishing.publish(n, "q", publish_by=soon)
        eventually(lambda: amqp.count("q") == 1 + WINDOW_MESSAGES)
        publishing.publisher.take_back()
        eventually(lambda: len(publishing.of(LATE)) == 100)
        proxy.mute = False
        publishing.publish("parked", "parked", publish_by=math.inf)
        publishing.publish("too late", "q", publish_by=soon)

        outcomes = publishing.settled()
        assert publishing.of(LATE) == [*range(WINDOW_MESSAGES, 300), "too late"]
        assert outcomes["parked"] is CONFIRMED
        assert amqp.count("q") == 1 + WINDOW_MESSAGES


def test_take_back_needs_no_broker(amqp_url: str) -> None:
    """A bridge that is stopped while RabbitMQ is down must not wait for it."""
    parts = urlsplit(amqp_url)
    nobody = parts._replace(netloc="guest:guest@127.0.0.1:1").geturl()

    with Publishing(nobody) as publishing:
        publishing.publish("task", "q", publish_by=monotonic() + 60)
        publishing.publish("parked", "q")
        eventually(lambda: publishing.connection.problem != "not connected yet")
        publishing.publisher.take_back()

        eventually(lambda: publishing.of(LATE) == ["task"], 3)
        assert not publishing.publisher.ready.is_set()
    assert publishing.settled() == {"task": LATE, "parked": LATE}


def test_no_outcome_is_left_out_when_the_connection_is_stopped(amqp_url: str) -> None:
    """Who waits for an outcome while the bridge stops must not wait for ever."""
    declare(amqp_url, "q")

    with Proxy(amqp_url) as proxy, Publishing(proxy.url) as publishing:
        publishing.publish("first", "q")
        publishing.settled()
        proxy.mute = True
        for n in range(300):
            publishing.publish(n, "q")
        publishing.stop()

        publishing.settled()
        assert len(publishing.of(UNKNOWN)) in range(WINDOW_MESSAGES + 1)
        assert len(publishing.of(LATE)) == 300 - len(publishing.of(UNKNOWN))
