"""From the settings to the values that each room takes.  Builds nothing, connects to nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from functools import partial
from typing import Any

from bridge.broker import BrokerOptions, Exchange, Queue
from bridge.dispatcher import FetchOptions
from bridge.engine import oauth2
from bridge.engine.auth import Auth, Basic, BasicFile, Bearer, BearerFile, SecretFile
from bridge.engine.connection import HttpOptions
from bridge.ledger import Timing
from bridge.protocol import RetryPolicy
from bridge.results import ReplyRules
from bridge.settings import BrokerSettings, EngineSettings, Settings, TopicSettings
from bridge.task_message import Shape
from bridge.topics import Topic

# Filters of fetchAndLock that are sent as they are, by their name in the settings.
_FILTERS = {
    "business_key": "businessKey",
    "process_definition_id": "processDefinitionId",
    "process_definition_id_in": "processDefinitionIdIn",
    "process_definition_key": "processDefinitionKey",
    "process_definition_key_in": "processDefinitionKeyIn",
    "process_definition_version_tag": "processDefinitionVersionTag",
    "tenant_id_in": "tenantIdIn",
    "variables": "variables",
}


SIGN_IN_SECONDS = 10.0


def http_options(engine: EngineSettings) -> HttpOptions:
    """How to reach the engine."""
    cert, key = engine.client_cert_file, engine.client_key_file
    options = HttpOptions(
        url=engine.url,
        ca_file=engine.ca_file,
        client_cert=(cert, key) if cert is not None and key is not None else cert,
        connect_timeout=engine.connect_timeout.total_seconds(),
        read_timeout=engine.read_timeout.total_seconds(),
    )
    headers = {name: value.get_secret_value() for name, value in engine.headers.items()}
    return replace(options, auth=_auth(engine, options), headers=headers)


def _auth(engine: EngineSettings, options: HttpOptions) -> Auth | None:
    auth: Auth | None = None
    if engine.username is not None and engine.password_file is not None:
        auth = BasicFile(engine.username, engine.password_file)
    elif engine.username is not None and engine.password is not None:
        auth = Basic(engine.username, engine.password.get_secret_value())
    elif engine.token_file is not None:
        auth = BearerFile(engine.token_file)
    elif engine.token is not None:
        auth = Bearer(engine.token.get_secret_value())
    elif engine.oauth2_token_url is not None:
        auth = _client_credentials(engine, engine.oauth2_token_url, options)
    return auth


def _client_credentials(engine: EngineSettings, url: str, options: HttpOptions) -> Auth:
    """The engine's certificates and patience also serve its authorization server, within limits:
    somebody waits for the token in order to make a call.
    """
    root, path = oauth2.endpoint_of(url)
    secret, file = engine.oauth2_client_secret, engine.oauth2_client_secret_file
    file_key, key = "oauth2_client_secret_file", "oauth2_client_secret"
    client = oauth2.Client(
        endpoint=replace(
            options, url=root, read_timeout=min(options.read_timeout, SIGN_IN_SECONDS)
        ),
        path=path,
        client_id=engine.oauth2_client_id or "",
        secret=SecretFile(file, file_key).line
        if file is not None
        else lambda: secret.get_secret_value() if secret is not None else "",
        secret_key=key if file is None else file_key,
        in_body=engine.oauth2_client_auth == "post",
        scope=engine.oauth2_scope,
        audience=engine.oauth2_audience,
    )
    return oauth2.ClientCredentials(partial(oauth2.sign_in, client))


def fetch_options(engine: EngineSettings, stop_grace: timedelta) -> FetchOptions:
    """How to ask for tasks.  A stop waits for the poll: half of its time is the most."""
    by, _, order = engine.order.partition(":")
    return FetchOptions(
        poll_timeout=min(engine.poll_timeout, stop_grace / 2).total_seconds(),
        use_priority=engine.use_priority,
        sorting=({"sortBy": by, "sortOrder": order},) if by else (),
    )


def broker_options(broker: BrokerSettings) -> BrokerOptions:
    """How to reach RabbitMQ."""
    return BrokerOptions(
        urls=broker.amqp_urls(),
        heartbeat=round(broker.heartbeat.total_seconds()),
        ca_file=broker.ca_file,
        client_cert_file=broker.client_cert_file,
        client_key_file=broker.client_key_file,
        password_file=broker.password_file,
    )


def topics(settings: Settings) -> dict[str, Topic]:
    """The configured topics by name."""
    return {name: _topic(name, keys, settings.broker) for name, keys in settings.topics.items()}


def _topic(name: str, keys: TopicSettings, broker: BrokerSettings) -> Topic:
    return Topic(
        name=name,
        fetch=_fetch(name, keys),
        timing=Timing(
            capacity=keys.max_in_flight,
            publish_window=keys.publish_window.total_seconds(),
            lease_after=keys.lease_after.total_seconds(),
            lease=keys.lease.total_seconds(),
            deadline=keys.deadline.total_seconds(),
        ),
        shape=Shape(
            topic=name,
            exchange=keys.exchange,
            routing_key=keys.routing_key,
            reply_to=keys.result_queue,
            body=keys.body,
            celery_task=keys.celery_task,
            priority=keys.priority,
            expiration_ms=_ms(keys.deadline),
            max_bytes=keys.max_task_bytes,
        ),
        replies=ReplyRules(
            profile=keys.reply,
            result_variable=keys.result_variable,
            local=keys.result_scope == "local",
            max_bytes=broker.max_result_bytes,
        ),
        retries=RetryPolicy(keys.retries, tuple(p.total_seconds() for p in keys.retry_pauses)),
        queue=keys.queue,
        result_queue=keys.result_queue,
        allowed_variables=keys.allowed_variables,
        file_inline_max=keys.file_inline_max,
        wait_for_consumer=keys.wait_for_consumer,
        model_retries=keys.include_extension_properties,
    )


def _fetch(name: str, keys: TopicSettings) -> dict[str, Any]:
    request: dict[str, Any] = {"topicName": name, "lockDuration": _ms(keys.publish_window)}
    for key, wire in _FILTERS.items():
        value = getattr(keys, key)
        if value is not None:
            request[wire] = list(value) if isinstance(value, tuple) else value
    if keys.process_variables:
        request["processVariables"] = dict(keys.process_variables)
    for key, wire in (
        ("local_variables", "localVariables"),
        ("without_tenant_id", "withoutTenantId"),
        ("include_extension_properties", "includeExtensionProperties"),
    ):
        if getattr(keys, key):
            request[wire] = True
    return request


def topology(settings: Settings) -> list[Exchange | Queue]:
    """Every exchange and queue that the bridge uses, in an order in which they can be declared."""
    broker, names = settings.broker, settings.broker.names
    parts: list[Exchange | Queue] = [
        Exchange(names.results_exchange, "topic"),
        Exchange(names.gone_exchange, "topic"),
        Exchange(names.dead_exchange, "fanout"),
        Exchange(names.wait, "fanout"),
        Queue(
            names.dead_letters,
            _quorum(_dead_lettering("", names.parked)),
            ((names.dead_exchange, ""),),
        ),
        Queue(names.parked, _quorum({"x-max-length": broker.parked_max})),
        Queue(names.wait, _wait(broker), ((names.wait, ""),)),
    ]
    for name, keys in settings.topics.items():
        parts += _topic_parts(name, keys, broker)
    return parts


def _topic_parts(name: str, keys: TopicSettings, broker: BrokerSettings) -> list[Exchange | Queue]:
    names = broker.names
    limit = {"x-delivery-limit": broker.delivery_limit}
    parts: list[Exchange | Queue] = []
    if keys.exchange:
        # Somebody else's exchange: where it routes to is its owner's affair.
        parts.append(Exchange(keys.exchange, None, lane=name))
    else:
        dead = _dead_lettering(names.dead_exchange)
        parts.append(Queue(keys.queue, _quorum(limit | dead), lane=name))
    if keys.reply != "none":
        dead = _dead_lettering("", names.parked)
        bindings = ((names.results_exchange, name),)
        parts.append(Queue(keys.result_queue, _quorum(limit | dead), bindings, lane=name))
    return parts


def consumed_queues(settings: Settings) -> list[str]:
    """The queues whose messages the bridge takes: results, and dead letters of task messages."""
    answering = (k.result_queue for k in settings.topics.values() if k.reply != "none")
    return [*answering, settings.broker.names.dead_letters]


def _quorum(more: Mapping[str, Any] | None = None) -> dict[str, Any]:
    return {"x-queue-type": "quorum", "x-overflow": "reject-publish", **(more or {})}


def _dead_lettering(exchange: str, routing_key: str | None = None) -> dict[str, Any]:
    arguments = {"x-dead-letter-exchange": exchange, "x-dead-letter-strategy": "at-least-once"}
    if routing_key is not None:
        arguments["x-dead-letter-routing-key"] = routing_key
    return arguments


def _wait(broker: BrokerSettings) -> dict[str, Any]:
    # Without a routing key of its own a message goes back to the queue it is named after.
    return _quorum({"x-message-ttl": _ms(broker.wait), **_dead_lettering("")})


def _ms(duration: timedelta) -> int:
    return round(duration.total_seconds() * 1000)
