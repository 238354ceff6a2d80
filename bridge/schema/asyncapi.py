"""The AsyncAPI 3 document of one bridge: its servers, channels and operations on RabbitMQ.

Written from the bridge's side: it sends tasks and receives results.  Bodies come from `bundle`,
messages from `messages`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote, urlsplit

from bridge import __version__, plan
from bridge.schema.bundle import definitions, keys
from bridge.schema.messages import BINDING_VERSION, gone_message, result_messages, task_message
from bridge.schema.models import Schema
from bridge.settings import BrokerSettings, Settings
from bridge.topics import Topic

_ABOUT = """\
External tasks of a BPMN engine as messages. A worker takes a task from the topic's queue, \
publishes its answer to the task's `reply_to` (or to the exchange `{exchange}` with the topic as \
routing key) with the task's `correlation_id`, and acknowledges the task after that."""
_PARAMETERS = {
    "tenantId": "The task's tenant; empty where it has none.",
    "processDefinitionKey": "The key of the task's process definition.",
    "topicName": "The topic.",
}


@dataclass(frozen=True)
class _Channel:
    """A place where messages go, and what the bridge does there."""

    name: str
    place: Schema
    messages: dict[str, Schema]
    action: str
    binding: Schema
    reply: str | None = None


def asyncapi(settings: Settings) -> Schema:
    """A document for AsyncAPI 3.0.0; its schemas are those of `json_schema`, in draft 7."""
    channels: Schema = {}
    operations: Schema = {}
    messages: Schema = {}
    topics = plan.topics(settings)
    for name, key in keys(topics).items():
        answers = result_messages(topics[name], key) if topics[name].answers else {}
        for channel in _channels(topics[name], key, answers, settings.broker):
            channels[f"{key}.{channel.name}"] = _channel(channel, key)
            operations[f"{key}.{channel.action}-{channel.name}"] = _operation(channel, key, answers)
            messages |= {f"{key}.{kind}": message for kind, message in channel.messages.items()}
    about = _ABOUT.format(exchange=settings.broker.names.results_exchange)
    document: Schema = _draft_7(
        {
            "asyncapi": "3.0.0",
            "info": {"title": "External Task Bridge", "version": __version__, "description": about},
            "defaultContentType": "application/json",
            "servers": _servers(settings.broker),
            "channels": channels,
            "operations": operations,
            "components": {"messages": messages, "schemas": definitions(settings)},
        }
    )
    return document


def _servers(broker: BrokerSettings) -> Schema:
    """Every address, without its credentials."""
    servers: Schema = {}
    for number, url in enumerate(broker.amqp_urls(), start=1):
        parts = urlsplit(url)
        port = parts.port or (5671 if parts.scheme == "amqps" else 5672)
        host = parts.netloc.rpartition("@")[2].removesuffix(f":{parts.port}")
        servers["rabbitmq" if number == 1 else f"rabbitmq-{number}"] = {
            "host": f"{host}:{port}",
            "pathname": parts.path or "/",
            "protocol": parts.scheme,
            "protocolVersion": "0-9-1",
        }
    return servers


def _channels(
    topic: Topic, key: str, answers: dict[str, Schema], broker: BrokerSettings
) -> Iterator[_Channel]:
    # As pika reads it: no path at all is the virtual host `/`.
    vhost = unquote(urlsplit(broker.amqp_urls()[0]).path[1:]) or "/"
    task = {"task": task_message(topic, key)}
    sent = {"deliveryMode": 2, "mandatory": True, "timestamp": True}
    if topic.shape.expiration_ms is not None:
        sent["expiration"] = topic.shape.expiration_ms
    reply = "results" if answers else None
    yield _Channel("tasks", _task_place(topic, vhost), task, "send", sent, reply)
    if answers:
        place, fenced = _queue(topic.result_queue, vhost), broker.names.results_exchange
        yield _Channel("results", place, answers, "receive", {"ack": True})
        place = _routed(topic.name, fenced, vhost)
        yield _Channel("results-exchange", place, answers, "receive", {"ack": True})
    place = _routed(topic.name, broker.names.gone_exchange, vhost)
    announced = {"deliveryMode": 2, "mandatory": False}
    yield _Channel("gone", place, {"gone": gone_message()}, "send", announced)


def _task_place(topic: Topic, vhost: str) -> Schema:
    shape = topic.shape
    if not shape.exchange:
        return _queue(topic.queue, vhost)
    parameters = {
        name: {"description": _PARAMETERS[name]}
        for name in re.findall(r"\{(\w+)\}", shape.routing_key)
    }
    return {
        "address": shape.routing_key,
        "description": f"Where the exchange {shape.exchange} routes to is its owner's affair.",
        **({"parameters": parameters} if parameters else {}),
        "bindings": _bindings("routingKey", vhost, exchange={"name": shape.exchange}),
    }


def _queue(name: str, vhost: str) -> Schema:
    queue = {"name": name, "durable": True, "exclusive": False, "autoDelete": False}
    return {"address": name, "bindings": _bindings("queue", vhost, queue=queue)}


def _routed(topic: str, exchange: str, vhost: str) -> Schema:
    about = {"name": exchange, "type": "topic", "durable": True, "autoDelete": False}
    return {"address": topic, "bindings": _bindings("routingKey", vhost, exchange=about)}


def _bindings(kind: str, vhost: str, **what: Schema) -> Schema:
    placed = {name: {**about, "vhost": vhost} for name, about in what.items()}
    return {"amqp": {"is": kind, **placed, **BINDING_VERSION}}


def _channel(channel: _Channel, key: str) -> Schema:
    shared = {kind: {"$ref": f"#/components/messages/{key}.{kind}"} for kind in channel.messages}
    return {**channel.place, "messages": shared}


def _operation(channel: _Channel, key: str, answers: dict[str, Schema]) -> Schema:
    operation = {
        "action": channel.action,
        **_at(f"{key}.{channel.name}", channel.messages),
        "bindings": {"amqp": {**channel.binding, **BINDING_VERSION}},
    }
    if channel.reply is not None:
        operation["reply"] = _at(f"{key}.{channel.reply}", answers)
    return operation


def _at(channel: str, messages: dict[str, Schema]) -> Schema:
    path = f"#/channels/{channel}"
    return {
        "channel": {"$ref": path},
        "messages": [{"$ref": f"{path}/messages/{kind}"} for kind in messages],
    }


def _draft_7(part: Any) -> Any:
    """With references into the components, and the words of the older draft."""
    if isinstance(part, list):
        return [_draft_7(item) for item in part]
    if not isinstance(part, dict):
        return part
    made = {"items" if name == "prefixItems" else name: _draft_7(v) for name, v in part.items()}
    if isinstance(reference := made.get("$ref"), str):
        made["$ref"] = reference.replace("#/$defs/", "#/components/schemas/")
    return made
