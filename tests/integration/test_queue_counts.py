"""How full queues are, as RabbitMQ tells it over AMQP and over its management API."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from pydantic import SecretStr

from bridge.errors import BrokerUnavailable
from bridge.queue_counts import QueueCount, count_queues
from bridge.settings import BrokerSettings
from deploy.local import choice
from tests.support.amqp import Amqp, Worker
from tests.support.waiting import eventually

# The management API's numbers are some seconds old.
LIMIT = 60.0


def of(url: str, management_url: str | None = None) -> BrokerSettings:
    return BrokerSettings(url=SecretStr(url), management_url=management_url)


@pytest.fixture
def management_url(broker_node: choice.Broker) -> str:
    """Without the credentials that it has for the tests."""
    parts = urlsplit(broker_node.management_url)
    return f"http://{parts.hostname}:{parts.port}"


@pytest.fixture
def amqp(amqp_url: str) -> Iterator[Amqp]:
    """Queue `pay` with three messages, `idle` with none."""
    with Amqp(amqp_url) as amqp:
        for queue in ("pay", "idle"):
            amqp.channel.queue_declare(queue, durable=True, arguments={"x-queue-type": "quorum"})
        amqp.channel.confirm_delivery()  # else a queue that elects its leader may miss some
        for _ in range(3):
            amqp.send("", "pay", b"{}")
        eventually(lambda: amqp.count("pay") == 3)
        yield amqp


def test_over_amqp_ready_messages_and_consumers_are_counted(amqp: Amqp, amqp_url: str) -> None:
    """Every broker tells that to whoever may use it; a queue that is not there is no error."""
    settings = of(amqp_url)

    counts = count_queues(settings, ["pay", "idle", "none"])

    assert counts == {
        "pay": QueueCount(3, None, 0),
        "idle": QueueCount(0, None, 0),
        "none": None,
    }
    with Worker(amqp_url, "idle", lambda _: None):
        eventually(
            lambda: count_queues(settings, ["idle"]) == {"idle": QueueCount(0, None, 1)}, LIMIT
        )


def test_over_the_management_api_what_is_at_workers_is_counted_too(
    amqp: Amqp, amqp_url: str, management_url: str
) -> None:
    """Only there a message in a worker's hands can be seen."""
    taken: list[object] = []
    amqp.channel.basic_qos(prefetch_count=1)
    amqp.channel.basic_consume("pay", lambda *delivery: taken.append(delivery))

    def known() -> bool:
        amqp.connection.process_data_events(0)
        counts = count_queues(of(amqp_url, management_url), ["pay", "none"])
        return counts == {"pay": QueueCount(2, 1, 1), "none": None}

    eventually(known, LIMIT, what="the management API knows")
    assert len(taken) == 1


@pytest.mark.parametrize("url", ["http://127.0.0.1:9", "http://127.0.0.1:{amqp}/not-an-api"])
def test_without_the_management_api_it_is_asked_over_amqp(
    amqp: Amqp, amqp_url: str, url: str
) -> None:
    """A plugin that is down must not blind anybody; `check` says what is wrong with it."""
    address = url.replace("{amqp}", str(urlsplit(amqp_url).port))

    assert count_queues(of(amqp_url, address), ["pay"]) == {"pay": QueueCount(3, None, 0)}


def test_nothing_is_taken_or_made(amqp: Amqp, amqp_url: str, management_url: str) -> None:
    """Whoever looks changes nothing."""
    for settings in (of(amqp_url), of(amqp_url, management_url)):
        count_queues(settings, ["pay", "none"])

    assert amqp.count("none") is None
    assert [m.redelivered for m in amqp.drain("pay")] == [False, False, False]


def test_no_queues_are_no_question(amqp_url: str) -> None:
    """And no connection either."""
    assert count_queues(of("amqp://guest:guest@127.0.0.1:9/%2F"), []) == {}


def test_a_broker_that_is_away_is_an_error(tmp_path: Path) -> None:
    """Told from a queue that is not there; a password file that is gone is one too."""
    away = of("amqp://guest:guest@127.0.0.1:9/%2F")
    with pytest.raises(BrokerUnavailable):
        count_queues(away, ["pay"])

    with pytest.raises(BrokerUnavailable):
        count_queues(away.model_copy(update={"password_file": tmp_path / "none"}), ["pay"])


def test_of_several_addresses_one_that_answers_will_do(amqp: Amqp, amqp_url: str) -> None:
    """As the bridge itself goes on to the next node of a cluster."""
    urls = (SecretStr("amqp://guest:guest@127.0.0.1:9/%2F"), SecretStr(amqp_url))

    counts = count_queues(BrokerSettings(urls=urls), ["pay"])

    assert counts == {"pay": QueueCount(3, None, 0)}
