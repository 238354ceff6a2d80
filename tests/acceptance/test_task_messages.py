"""What a worker gets: properties, headers and body of a task message, and which tasks come."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from tests.support.amqp import Amqp
from tests.support.bridge import Bridge, settings
from tests.support.engine import EngineRest, unique
from tests.support.stage import BOUND, EXCHANGE, Stage, Variables, bind_exchange
from tests.support.waiting import eventually

OWN_KEY = unique("process")
TENANT = unique("tenant")
TOPICS: Mapping[str, Mapping[str, Any]] = {
    "task": {"deadline": "1h"},
    "queue": {"queue": "mapped.queue"},
    "variables": {"body": "variables", "variables": ["amount", "note"]},
    "variable": {"body": "variable:order"},
    "exchange": {
        "exchange": EXCHANGE,
        "routing_key": "{topicName}.{processDefinitionKey}.{tenantId}",
    },
    "priority": {"priority": True},
    "extension": {"include_extension_properties": True},
    "business_key": {"business_key": "b-1"},
    "process_variables": {"process_variables": {"region": "north"}},
    "process_definition_key": {"process_definition_key": OWN_KEY},
    "process_definition_key_in": {"process_definition_key_in": [OWN_KEY, "other"]},
    "version_tag": {"process_definition_version_tag": "v2"},
    "tenant_id_in": {"tenant_id_in": [TENANT]},
    "without_tenant_id": {"without_tenant_id": True},
    "local_variables": {"local_variables": True},
}


@pytest.fixture(scope="module")
def stage(engine: EngineRest, shared_amqp_url: str) -> Iterator[Stage]:
    with Stage(engine, shared_amqp_url, TOPICS, prepare=bind_exchange) as stage:
        yield stage


def test_the_properties_are_the_contract(stage: Stage) -> None:
    """Existing consumers and tools rely on the standard properties, not on the body."""
    before = int(time.time())
    case = stage.begin("task")
    message = case.message()
    task = case.task()

    properties = message.properties
    assert task is not None
    assert properties.message_id == f"{task['id']}:-"
    assert properties.reply_to == f"{case.topic}.results"
    assert (properties.type, properties.app_id) == (case.topic, "external-task-bridge")
    assert (properties.content_type, properties.content_encoding) == ("application/json", "utf-8")
    assert (properties.delivery_mode, properties.priority) == (2, None)
    assert properties.expiration == "3600000"
    assert before <= properties.timestamp <= time.time()
    assert 0 < len(properties.correlation_id) < 255


def test_the_headers_are_flat_scalars(stage: Stage) -> None:
    """So that a headers exchange and a consumer in any language can use them."""
    trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    variables = {"traceparent": {"value": trace, "type": "String"}}
    case = stage.begin("task", variables, business_key="order-1")

    message = case.message()

    task = case.task()
    assert task is not None
    own = {name: v for name, v in message.headers.items() if not name.startswith("x-")}
    assert own == {  # RabbitMQ adds x-delivery-count
        "taskId": task["id"],
        "topicName": case.topic,
        "processInstanceId": case.instance,
        "processDefinitionKey": case.key,
        "activityId": "task-1",
        "businessKey": "order-1",
        "schemaVersion": 1,
        "traceparent": trace,
    }


def test_the_body_has_the_task_and_plain_values(stage: Stage) -> None:
    """`body = "task"`: the engine's own names, values as any JSON reader knows them."""
    variables: Variables = {
        "amount": {"value": 5, "type": "Long"},
        "order": {"value": '{"items":[1,2]}', "type": "Json"},
    }
    case = stage.begin("task", variables, business_key="order-1", tenant=TENANT)

    body = case.message().json

    task = case.task()
    assert task is not None
    assert body == {
        "schemaVersion": 1,
        "taskId": task["id"],
        "topicName": case.topic,
        "processInstanceId": case.instance,
        "processDefinitionKey": case.key,
        "activityId": "task-1",
        "businessKey": "order-1",
        "tenantId": TENANT,
        "retries": None,
        "priority": 0,
        "createTime": task["createTime"],
        "errorMessage": None,
        "extensionProperties": {},
        "variables": {"amount": 5, "order": {"items": [1, 2]}},
        "variableTypes": {"amount": "Long", "order": "Json"},
    }


def test_the_body_may_be_the_named_variables_alone(stage: Stage) -> None:
    """`body = "variables"`: an existing consumer gets what it already understands."""
    case = stage.begin(
        "variables",
        {
            "amount": {"value": 5, "type": "Integer"},
            "note": {"value": None, "type": "Null"},
            "secret": {"value": "x", "type": "String"},
        },
    )

    assert case.message().json == {"amount": 5, "note": None}


def test_the_body_may_be_one_variable(stage: Stage) -> None:
    """`body = "variable:order"`."""
    case = stage.begin("variable", {"order": {"value": '[1,{"a":"b"}]', "type": "Json"}})

    assert case.message().body == b'[1,{"a":"b"}]'


def test_a_topic_may_have_a_queue_of_another_name(stage: Stage) -> None:
    """The result queue keeps the topic's name: it belongs to the bridge."""
    case = stage.begin("queue", queue="mapped.queue")

    message = case.message()

    assert message.properties.reply_to == f"{case.topic}.results"
    stage.answer(message)
    case.end()


def test_an_exchange_gets_a_routing_key_of_the_tasks_parts(stage: Stage) -> None:
    """Somebody else's exchange decides which queue takes which process."""
    case = stage.begin("exchange", tenant=TENANT, queue=BOUND)
    routed = eventually(lambda: stage.amqp.channel.basic_get(BOUND, auto_ack=True)[0])

    assert routed.routing_key == f"{case.topic}.{case.key}.{TENANT}"


def test_the_engines_priority_becomes_the_messages(stage: Stage) -> None:
    """`priority = true`, within what AMQP can say."""
    high, beyond = (
        stage.begin("priority", priority="7").message(),
        stage.begin("priority", priority="1000").message(),
    )

    assert (high.properties.priority, high.json["priority"]) == (7, 7)
    assert (beyond.properties.priority, beyond.json["priority"]) == (255, 1000)


def test_extension_properties_come_along_and_rule_the_retries(stage: Stage) -> None:
    """What the modeler wrote at the task overrules the topic's policy."""
    properties = {"retries": "6", "retryPauses": "1s, 5m", "sla": "gold"}
    case = stage.begin("extension", properties=properties)
    message = case.message()

    stage.answer(message, {"errorMessage": "once"}, outcome="failure")

    assert message.json["extensionProperties"] == properties
    eventually(lambda: case.retries() == 5)


def test_the_last_failure_travels_with_the_next_attempt(stage: Stage) -> None:
    """A worker can see what it is up against."""
    case = stage.begin("task")
    body = {"errorMessage": "timeout", "retries": 1, "retryTimeout": 1}
    stage.answer(case.message(), body, outcome="failure")

    message = case.message()

    assert (message.json["errorMessage"], message.json["retries"]) == ("timeout", 1)
    assert message.headers["retries"] == 1


def _text(value: str) -> Mapping[str, Any]:
    return {"value": value, "type": "String"}


FILTERS: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("business_key", {"business_key": "b-1"}, {"business_key": "b-2"}),
    (
        "process_variables",
        {"variables": {"region": _text("north")}},
        {"variables": {"region": _text("south")}},
    ),
    ("process_definition_key", {"key": OWN_KEY}, {}),
    ("process_definition_key_in", {"key": OWN_KEY}, {}),
    ("version_tag", {"version_tag": "v2"}, {"version_tag": "v1"}),
    ("tenant_id_in", {"tenant": TENANT}, {}),
    ("without_tenant_id", {}, {"tenant": TENANT}),
]


@pytest.mark.parametrize(("short", "wanted", "other"), FILTERS, ids=[f[0] for f in FILTERS])
def test_a_filter_leaves_other_tasks_to_others(
    stage: Stage, short: str, wanted: dict[str, Any], other: dict[str, Any]
) -> None:
    """Two bridges may share a topic of one engine, each with its own part of the tasks."""
    left = stage.begin(short, **other)
    taken = stage.begin(short, **wanted)

    assert taken.message().headers["processInstanceId"] == taken.instance

    task = left.task()
    assert task is not None
    assert task["workerId"] is None
    assert stage.amqp.count(left.topic) == 0


@pytest.mark.parametrize("many", [False, True])
def test_a_filter_may_name_process_definitions_by_id(
    engine: EngineRest, amqp_url: str, many: bool
) -> None:
    """One version of a process, and no other, goes to these workers."""
    topic = unique("versions")
    old, new = engine.deploy_topics(topic), engine.deploy_topics(topic)
    engine.start(old)
    instance = engine.start(new)
    wanted = engine.call("GET", f"/process-definition/key/{new}")["id"]
    keys = {"process_definition_id_in": [wanted]} if many else {"process_definition_id": wanted}

    with Bridge(settings(engine.url, amqp_url, {topic: keys})) as bridge, Amqp(amqp_url) as amqp:
        message = eventually(lambda: amqp.get(topic))

        assert message is not None
        assert message.headers["processInstanceId"] == instance
        assert bridge.count(topic, "fetched") == 1
    engine.clean(old)
    engine.clean(new)


def test_local_variables_alone_leave_the_process_variables_out(stage: Stage) -> None:
    """`local_variables = true`: only what belongs to the task itself."""
    case = stage.begin("local_variables", {"amount": {"value": 5, "type": "Integer"}})

    assert case.message().json["variables"] == {}
