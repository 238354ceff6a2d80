"""From the settings to what each room takes: every filter of fetchAndLock, every queue argument."""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from bridge import plan
from bridge.broker import Exchange, Queue
from bridge.engine.connection import HttpOptions
from bridge.protocol import RetryPolicy
from bridge.results import ReplyRules
from bridge.settings import Settings, load
from bridge.settings.model import TopicKeys
from bridge.topics import Topic

Read = Callable[[str], Settings]


@pytest.fixture
def read(tmp_path: Path) -> Read:
    """The settings that a TOML text means."""

    def read(text: str) -> Settings:
        config = tmp_path / "bridge.toml"
        config.write_text(text, encoding="utf-8")
        return load(config, {})

    return read


def topic(settings: Settings, name: str = "pay") -> Topic:
    return plan.topics(settings)[name]


# The fetch request


def test_a_topic_without_filters_asks_for_its_name_and_window_alone(read: Read) -> None:
    """A member that nobody set may narrow the fetch: `variables = []` would fetch none."""
    request = topic(read("[topics.pay]")).fetch

    assert request == {"topicName": "pay", "lockDuration": 60_000}


FILTERS: list[tuple[str, str, Any]] = [
    ('variables = ["a", "b"]', "variables", ["a", "b"]),
    ("variables = []", "variables", []),
    ("local_variables = true", "localVariables", True),
    ('business_key = "bk"', "businessKey", "bk"),
    ('process_definition_id = "d:1:2"', "processDefinitionId", "d:1:2"),
    ('process_definition_id_in = ["d:1:2", "e"]', "processDefinitionIdIn", ["d:1:2", "e"]),
    ('process_definition_key = "order"', "processDefinitionKey", "order"),
    ('process_definition_key_in = ["a", "b"]', "processDefinitionKeyIn", ["a", "b"]),
    ('process_definition_version_tag = "v1"', "processDefinitionVersionTag", "v1"),
    ('process_variables = {k = "v", n = 5}', "processVariables", {"k": "v", "n": 5}),
    ('tenant_id_in = ["t1", "t2"]', "tenantIdIn", ["t1", "t2"]),
    ("without_tenant_id = true", "withoutTenantId", True),
    ("include_extension_properties = true", "includeExtensionProperties", True),
    ('publish_window = "90s"\nlease = "20m"', "lockDuration", 90_000),
]


@pytest.mark.parametrize(("line", "member", "value"), FILTERS, ids=[row[1] for row in FILTERS])
def test_each_filter_of_the_engine_can_be_set(
    read: Read, line: str, member: str, value: Any
) -> None:
    """All of them, under the engine's own names, and nothing beside them."""
    request = topic(read(f"[topics.pay]\n{line}")).fetch

    expected = {"topicName": "pay", "lockDuration": 60_000} | {member: value}
    assert request == expected


def test_no_filter_of_the_settings_is_forgotten() -> None:
    """A key that is read and not sent would fetch tasks that its owner excluded."""
    tested = {line.split(" ")[0] for line, _, _ in FILTERS}
    filters = {key for key in TopicKeys.model_fields if key in tested or "process_" in key}
    others = set(TopicKeys.model_fields) - filters

    assert "publish_window" in tested
    assert not {key for key in others if "tenant" in key or "variables" in key} - {
        "allowed_variables"
    }
    assert filters == tested


def test_the_order_of_the_fetch(read: Read) -> None:
    """Priority first, then age, unless the settings say otherwise."""
    grace = timedelta(seconds=20)
    first = plan.fetch_options(read("[topics.pay]").engine, grace)
    text = '[engine]\norder = ""\nuse_priority = false\npoll_timeout = "3s"\n[topics.pay]'
    plain = plan.fetch_options(read(text).engine, grace)

    assert first.sorting == ({"sortBy": "createTime", "sortOrder": "asc"},)
    assert (first.use_priority, first.poll_timeout) == (True, 10.0)
    assert (plain.sorting, plain.use_priority, plain.poll_timeout) == ((), False, 3.0)


def test_a_poll_takes_half_of_the_stop_at_most(read: Read) -> None:
    """A stop waits for the poll under way, and has more to do after it."""
    assert plan.fetch_options(read("[topics.pay]").engine, timedelta(seconds=6)).poll_timeout == 3.0


# A topic


def test_times_are_seconds(read: Read) -> None:
    """The rooms know no timedelta."""
    timing = topic(
        read(
            """
            [topics.pay]
            max_in_flight = 7
            publish_window = "50s"
            lease_after = "2s"
            lease = "30m"
            deadline = "2d"
            """
        )
    ).timing

    assert (timing.capacity, timing.publish_window, timing.lease_after) == (7, 50.0, 2.0)
    assert (timing.lease, timing.deadline) == (1800.0, 172_800.0)


def test_a_message_expires_at_the_deadline(read: Read) -> None:
    """The broker then gives back what nobody consumed."""
    assert topic(read('[topics.pay]\ndeadline = "2h"')).shape.expiration_ms == 7_200_000


def test_the_shape_is_taken_from_the_topic(read: Read) -> None:
    """Where the message goes and what is in it."""
    shape = topic(
        read(
            """
            [topics.pay]
            exchange = "orders"
            routing_key = "{tenantId}.pay"
            body = "variables"
            priority = true
            max_task_bytes = 1000
            """
        )
    ).shape

    assert (shape.topic, shape.exchange, shape.routing_key) == ("pay", "orders", "{tenantId}.pay")
    assert (shape.body, shape.priority, shape.max_bytes) == ("variables", True, 1000)
    assert shape.reply_to == "pay.results"


def test_a_topic_goes_to_the_queue_of_its_name_or_another(read: Read) -> None:
    """By the default exchange."""
    settings = read('[topics.pay]\n[topics.ship]\nqueue = "shipping"')

    assert (topic(settings).queue, topic(settings).shape.routing_key) == ("pay", "pay")
    ship = topic(settings, "ship")
    assert (ship.queue, ship.shape.exchange, ship.shape.routing_key) == ("shipping", "", "shipping")
    assert ship.result_queue == "ship.results"


def test_how_results_are_read(read: Read) -> None:
    """Profile, names and limits."""
    replies = topic(
        read(
            """
            [broker]
            max_result_bytes = 5000
            [topics.pay]
            reply = "spring"
            result_variable = "answer"
            result_scope = "local"
            """
        )
    ).replies

    assert replies == ReplyRules("spring", "answer", local=True, max_bytes=5000)


def test_the_rest_of_a_topic(read: Read) -> None:
    """Nothing that can be set is lost on the way."""
    full = topic(
        read(
            """
            [topics.pay]
            retries = 5
            retry_pauses = ["1s", "2m"]
            allowed_variables = ["status"]
            file_inline_max = 99
            wait_for_consumer = true
            include_extension_properties = true
            reply = "none"
            """
        )
    )
    bare = topic(read("[topics.pay]"))

    assert full.retries == RetryPolicy(5, (1.0, 120.0))
    assert full.allowed_variables == ("status",)
    assert (full.file_inline_max, full.wait_for_consumer) == (99, True)
    assert (full.model_retries, full.answers) == (True, False)
    assert bare.allowed_variables is None
    assert (bare.model_retries, bare.answers, bare.wait_for_consumer) == (False, True, False)


def test_a_celery_topic_names_its_task(read: Read) -> None:
    """And is answered in Celery's way."""
    celery = topic(read('[topics.pay]\nreply = "celery"\ncelery_task = "shop.pay"'))

    assert (celery.shape.celery_task, celery.replies.profile) == ("shop.pay", "celery")


# The engine


def authorization(options: HttpOptions) -> str | None:
    return None if options.auth is None else options.auth()


def test_the_engine_without_credentials(read: Read) -> None:
    """Camunda Run on a laptop asks for none."""
    options = plan.http_options(read("[topics.pay]").engine)

    assert options.url == "http://localhost:8080/engine-rest"
    assert (options.auth, options.headers, options.client_cert) == (None, {}, None)
    assert (options.connect_timeout, options.read_timeout) == (3.0, 20.0)


def test_each_kind_of_credentials(read: Read, tmp_path: Path) -> None:
    """Basic in UTF-8, a token, either of them in a file that is read again when it changes."""
    token_file, password_file = tmp_path / "token", tmp_path / "password"
    token_file.write_text("from-file\n", encoding="utf-8")
    password_file.write_text("ö\n", encoding="utf-8")

    def sent(keys: str) -> str | None:
        return authorization(plan.http_options(read(f"[engine]\n{keys}\n[topics.pay]").engine))

    assert sent('username = "ä"\npassword = "ö"') == "Basic w6Q6w7Y="
    assert sent(f'username = "ä"\npassword_file = "{password_file}"') == "Basic w6Q6w7Y="
    assert sent('token = "abc"') == "Bearer abc"
    assert sent(f'token_file = "{token_file}"') == "Bearer from-file"


def test_a_password_in_a_file_may_be_rotated(read: Read, tmp_path: Path) -> None:
    """The next call has the new one: no restart, no minute of refused calls."""
    path = tmp_path / "password"
    path.write_text("ö", encoding="utf-8")
    keys = f'[engine]\nusername = "ä"\npassword_file = "{path}"\n[topics.pay]'
    options = plan.http_options(read(keys).engine)
    before = authorization(options)

    path.write_text("ü", encoding="utf-8")
    os.utime(path, (1, 1))

    assert (before, authorization(options)) == ("Basic w6Q6w7Y=", "Basic w6Q6w7w=")


def test_headers_and_certificates_of_the_engine(read: Read, tmp_path: Path) -> None:
    """A gateway's key, a private authority, a client certificate with or without its own key."""
    for name in ("ca.pem", "cert.pem", "key.pem"):
        (tmp_path / name).write_text("x", encoding="utf-8")
    files = f'ca_file = "{tmp_path}/ca.pem"\nclient_cert_file = "{tmp_path}/cert.pem"'
    headers = 'headers = {X-Api-Key = "k"}'

    one = plan.http_options(read(f"[engine]\n{files}\n{headers}\n[topics.pay]").engine)
    two = plan.http_options(
        read(f'[engine]\n{files}\nclient_key_file = "{tmp_path}/key.pem"\n[topics.pay]').engine
    )

    assert one.headers == {"X-Api-Key": "k"}
    assert (one.ca_file, one.client_cert) == (tmp_path / "ca.pem", tmp_path / "cert.pem")
    assert two.client_cert == (tmp_path / "cert.pem", tmp_path / "key.pem")


# The broker


def test_how_to_reach_the_broker(read: Read) -> None:
    """Every address of a cluster, credentials included."""
    options = plan.broker_options(
        read(
            """
            [broker]
            urls = ["amqp://one/%2F", "amqp://two/%2F"]
            username = "me"
            password = "p/w"
            heartbeat = "8s"
            [topics.pay]
            """
        ).broker
    )

    assert options.urls == ("amqp://me:p%2Fw@one/%2F", "amqp://me:p%2Fw@two/%2F")
    assert options.heartbeat == 8


def test_the_brokers_password_file_is_read_again_by_each_connection(
    read: Read, tmp_path: Path
) -> None:
    """A rotated password needs no restart."""
    secret = tmp_path / "password"
    secret.write_text("first\n")
    options = plan.broker_options(
        read(f'[broker]\nusername = "me"\npassword_file = "{secret}"\n[topics.pay]').broker
    )

    secret.write_text("second\n")

    [parameters] = options.parameters("test")
    assert parameters.credentials.password == "second"


def parts(settings: Settings) -> dict[str, Exchange | Queue]:
    listed = plan.topology(settings)
    exchanges = {f"exchange {p.name}": p for p in listed if isinstance(p, Exchange)}
    return exchanges | {p.name: p for p in listed if isinstance(p, Queue)}


def queue(settings: Settings, name: str) -> Queue:
    part = parts(settings)[name]
    assert isinstance(part, Queue)
    return part


QUORUM = {"x-queue-type": "quorum", "x-overflow": "reject-publish"}


def test_a_task_queue_gives_back_what_dies_in_it(read: Read) -> None:
    """At least once, or the death of a message would cost a deadline."""
    part = queue(read('[broker]\nprefix = "b"\ndelivery_limit = 7\n[topics.pay]'), "pay")

    assert part.arguments == QUORUM | {
        "x-delivery-limit": 7,
        "x-dead-letter-exchange": "b.dead",
        "x-dead-letter-strategy": "at-least-once",
    }
    assert (part.bindings, part.lane) == ((), "pay")


def test_a_result_queue_is_bound_for_fenced_workers_and_parks_what_dies(read: Read) -> None:
    """RabbitMQ's topic permissions work on the exchange's routing key."""
    part = queue(read('[broker]\nprefix = "b"\n[topics.pay]'), "pay.results")

    assert part.arguments == QUORUM | {
        "x-delivery-limit": 20,
        "x-dead-letter-exchange": "",
        "x-dead-letter-routing-key": "b.parked",
        "x-dead-letter-strategy": "at-least-once",
    }
    assert part.bindings == (("b.results", "pay"),)


def test_the_bridges_own_queues(read: Read) -> None:
    """Dead letters come in by an exchange, the parked are bounded, the waiting come back."""
    settings = read('[broker]\nprefix = "b"\nparked_max = 50\nwait = "30s"\n[topics.pay]')

    dead, parked, wait = (queue(settings, n) for n in ("b.dead-letters", "b.parked", "b.wait"))
    to_parked = {
        "x-dead-letter-exchange": "",
        "x-dead-letter-routing-key": "b.parked",
        "x-dead-letter-strategy": "at-least-once",
    }
    assert (dead.arguments, dead.bindings) == (QUORUM | to_parked, (("b.dead", ""),))
    assert (parked.arguments, parked.bindings) == (QUORUM | {"x-max-length": 50}, ())
    assert wait.arguments == QUORUM | {
        "x-message-ttl": 30_000,
        "x-dead-letter-exchange": "",
        "x-dead-letter-strategy": "at-least-once",
    }
    assert wait.bindings == (("b.wait", ""),)


def test_the_bridges_own_exchanges(read: Read) -> None:
    """Fanouts keep the routing key for the way back."""
    kinds = {
        part.name: part.type
        for part in parts(read('[broker]\nprefix = "b"\n[topics.pay]')).values()
        if isinstance(part, Exchange)
    }

    assert kinds == {
        "b.results": "topic",
        "b.gone": "topic",
        "b.dead": "fanout",
        "b.wait": "fanout",
    }


def test_every_part_can_be_declared_in_order(read: Read) -> None:
    """A binding needs its exchange, which therefore comes first."""
    seen: set[str] = {""}
    for part in plan.topology(read("[topics.pay]\n[topics.ship]")):
        if isinstance(part, Queue):
            assert {exchange for exchange, _ in part.bindings} <= seen
        seen.add(part.name)


def test_somebody_elses_exchange_is_looked_for_and_never_declared(read: Read) -> None:
    """Where it routes to is its owner's affair: the bridge makes no queue there."""
    found = parts(read('[topics.pay]\nexchange = "orders"\nrouting_key = "k"'))

    assert found["exchange orders"] == Exchange("orders", None, lane="pay")
    assert "pay" not in found
    assert "pay.results" in found


def test_a_topic_that_is_never_answered_has_no_result_queue(read: Read) -> None:
    """Nobody would consume it."""
    settings = read('[topics.pay]\nreply = "none"\n[topics.ship]')

    assert "pay.results" not in parts(settings)
    assert plan.consumed_queues(settings) == ["ship.results", "bridge.dead-letters"]
