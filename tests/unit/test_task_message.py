"""The task message: properties, headers and body shapes that workers rely on."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.errors import TaskRefused
from bridge.messages import LockedTask, Publication, TaskBody
from bridge.task_message import Shape, build, message_id

SHAPE = Shape(
    topic="pay", exchange="", routing_key="payments", reply_to="pay.results", expiration_ms=5000
)
VALUES: dict[str, Any] = {"amount": 5, "note": "ä", "order": {"id": "o1"}}
TYPES = {"amount": "Integer", "note": "String", "order": "Json"}


def task(**changes: Any) -> LockedTask:
    known: dict[str, Any] = {
        "id": "t1",
        "topicName": "pay",
        "processInstanceId": "p1",
        "processDefinitionId": "order:1:9",
        "processDefinitionKey": "order",
        "executionId": "x1",
        "activityId": "payIt",
        "businessKey": "bk",
        "tenantId": "ten",
        "createTime": "2026-01-02T03:04:05.678+0000",
        "priority": 7,
        "errorMessage": "the last one",
        "extensionProperties": {"region": "eu"},
        "workerId": "bridge",
        "someThingNew": 1,
    }
    return LockedTask.model_validate(known | changes)


def made(
    locked: LockedTask | None = None, shape: Shape = SHAPE, values: dict[str, Any] = VALUES
) -> Publication:
    types = {name: TYPES.get(name, "String") for name in values}
    return build(
        locked or task(), shape, token="token", values=values, types=types, timestamp=1_800_000_000
    )


# Properties


def test_the_properties_are_those_of_the_contract() -> None:
    """A worker answers by these alone."""
    message = made()

    assert (message.exchange, message.routing_key) == ("", "payments")
    assert message.message_id == "t1:-"
    assert message.correlation_id == "token"
    assert message.reply_to == "pay.results"
    assert message.type == "pay"
    assert message.lane == "pay"
    assert message.content_type == "application/json"
    assert message.content_encoding == "utf-8"
    assert message.timestamp == 1_800_000_000
    assert message.expiration_ms == 5000
    assert message.app_id == "external-task-bridge"
    assert message.priority is None


@pytest.mark.parametrize(("retries", "name"), [(None, "t1:-"), (2, "t1:2"), (0, "t1:0")])
def test_the_message_id_names_the_attempt(retries: int | None, name: str) -> None:
    """Every copy of an attempt's message has it: a worker can tell duplicates by it."""
    assert message_id("t1", retries) == name
    assert made(task(retries=retries)).message_id == name


@pytest.mark.parametrize(("priority", "mapped"), [(-3, 0), (0, 0), (7, 7), (255, 255), (900, 255)])
def test_the_priority_is_mapped_into_amqps_range(priority: int, mapped: int) -> None:
    """Only where the topic asks for it; the engine knows any integer, AMQP one byte."""
    assert made(task(priority=priority), replace(SHAPE, priority=True)).priority == mapped
    assert made(task(priority=priority)).priority is None


# Headers


def test_the_headers_are_flat_scalars() -> None:
    """Brokers route by them and shells read them."""
    assert made(task(retries=2)).headers == {
        "taskId": "t1",
        "topicName": "pay",
        "processInstanceId": "p1",
        "processDefinitionKey": "order",
        "activityId": "payIt",
        "businessKey": "bk",
        "tenantId": "ten",
        "retries": 2,
        "schemaVersion": 1,
    }


def test_what_the_task_does_not_have_is_no_header() -> None:
    """Several clients cannot read a header without a value."""
    bare = task(businessKey=None, tenantId=None, activityId=None, processDefinitionKey=None)

    assert made(bare).headers == {
        "taskId": "t1",
        "topicName": "pay",
        "processInstanceId": "p1",
        "schemaVersion": 1,
    }


@pytest.mark.parametrize(
    ("value", "header"), [("00-4bf9-00f0-01", "00-4bf9-00f0-01"), (5, None), (None, None)]
)
def test_a_trace_goes_on_in_the_worker(value: Any, header: str | None) -> None:
    """W3C trace context, if the process carries it as a text."""
    assert made(values={"traceparent": value}).headers.get("traceparent") == header


# Bodies


def test_the_default_body_holds_the_whole_task() -> None:
    """In the engine's own words, variables plain and their types beside them."""
    body = json.loads(made(task(retries=2)).body)

    assert body == {
        "schemaVersion": 1,
        "taskId": "t1",
        "topicName": "pay",
        "processInstanceId": "p1",
        "processDefinitionKey": "order",
        "activityId": "payIt",
        "businessKey": "bk",
        "tenantId": "ten",
        "retries": 2,
        "priority": 7,
        "createTime": "2026-01-02T03:04:05.678+0000",
        "errorMessage": "the last one",
        "extensionProperties": {"region": "eu"},
        "variables": VALUES,
        "variableTypes": TYPES,
    }


def test_the_default_body_is_what_its_model_says() -> None:
    """The published schema is generated from the model, so the two must be one."""
    body = made().body

    assert TaskBody.model_validate_json(body).model_dump(by_alias=True) == json.loads(body)
    assert {f.alias for f in TaskBody.model_fields.values()} == set(json.loads(body))


@pytest.mark.parametrize(
    ("body", "content"),
    [
        ("variables", VALUES),
        ("variable:order", {"id": "o1"}),
        ("variable:amount", 5),
        ("variable:missing", None),
        ("variable:a:b", 1),
    ],
)
def test_an_existing_consumer_gets_what_it_understands(body: str, content: Any) -> None:
    """The bare variables, or one value; a name may hold a colon."""
    values = {**VALUES, "a:b": 1} if body == "variable:a:b" else VALUES

    assert json.loads(made(shape=replace(SHAPE, body=body), values=values).body) == content


def test_the_body_is_utf_8_without_spaces() -> None:
    """Bytes cost; escapes make texts of other languages three times as long."""
    assert made(shape=replace(SHAPE, body="variable:note")).body == '"ä"'.encode()
    assert made(shape=replace(SHAPE, body="variable:order")).body == b'{"id":"o1"}'


def test_half_a_character_travels_as_an_escape() -> None:
    """A database may hold a lone surrogate; the task must not stop there."""
    message = made(shape=replace(SHAPE, body="variables"), values={"a": "\ud800ä"})

    assert message.body == b'{"a":"\\ud800\\u00e4"}'
    assert json.loads(message.body) == {"a": "\ud800ä"}


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_no_json_is_refused(value: float) -> None:
    """No client but Python's reads it."""
    with pytest.raises(TaskRefused):
        made(values={"a": value})


def test_a_body_above_the_limit_is_refused_with_its_size() -> None:
    """The operator reads this in the incident; at the limit it still goes."""
    exact = len(made().body)

    assert made(shape=replace(SHAPE, max_bytes=exact)).body
    with pytest.raises(TaskRefused, match=rf"{exact} bytes.*max_task_bytes \({exact - 1}\)"):
        made(shape=replace(SHAPE, max_bytes=exact - 1))


# Where it goes


def routed(key: str, **changes: Any) -> str:
    shape = replace(SHAPE, exchange="orders", routing_key=key)
    return made(task(**changes), shape).routing_key


@pytest.mark.parametrize(
    ("template", "changes", "key"),
    [
        ("fixed", {}, "fixed"),
        ("{tenantId}.{processDefinitionKey}.{topicName}", {}, "ten.order.pay"),
        ("x.{tenantId}", {"tenantId": None}, "x."),
        ("{processDefinitionKey}", {"processDefinitionKey": None}, ""),
        ("{tenantId}", {"tenantId": "{topicName}"}, "{topicName}"),
    ],
)
def test_the_routing_key_may_name_the_task(
    template: str, changes: dict[str, Any], key: str
) -> None:
    """One exchange serves many tenants; what a value holds is not read again."""
    assert routed(template, **changes) == key


def test_a_routing_key_that_amqp_cannot_carry_is_refused() -> None:
    """255 bytes, counted in UTF-8."""
    assert routed("{tenantId}", tenantId="x" * 255)
    with pytest.raises(TaskRefused, match="255 bytes"):
        routed("{tenantId}", tenantId="ä" * 128)


# Celery


def test_a_celery_worker_gets_its_own_task_message() -> None:
    """Task protocol version 2: arguments by name in the body, the rest in headers."""
    message = made(task(retries=2), replace(SHAPE, celery_task="shop.pay"))

    args, kwargs, embedded = json.loads(message.body)
    assert (args, kwargs) == ([], VALUES)
    assert embedded == {"callbacks": None, "errbacks": None, "chain": None, "chord": None}
    assert message.headers["task"] == "shop.pay"
    assert message.headers["lang"] == "py"
    assert message.headers["taskId"] == "t1"


def test_celerys_id_is_the_token() -> None:
    """After `self.retry` Celery answers with its id as the correlation id, and nothing else."""
    message = made(task(retries=2), replace(SHAPE, celery_task="shop.pay"))

    assert message.headers["id"] == message.headers["root_id"] == message.correlation_id
    assert message.message_id == "t1:2"


def test_celerys_own_count_of_retries_starts_at_zero() -> None:
    """It counts up, the engine counts down: the engine's number would stop a task of Celery."""
    message = made(task(retries=2), replace(SHAPE, celery_task="shop.pay"))

    assert message.headers["retries"] == 0


# Whatever a task holds

texts = st.text(max_size=20)
values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters()),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)  # fmt: skip


@given(
    st.dictionaries(st.text(st.characters(), max_size=10), values, max_size=4),
    st.sampled_from(["task", "variables", "variable:a"]),
    st.none() | texts,
    st.none() | st.integers(0, 2**31 - 1),
)
def test_every_value_arrives_as_it_was(
    variables: dict[str, Any], body: str, business_key: str | None, retries: int | None
) -> None:
    """Nothing is lost between the engine and the worker."""
    locked = task(businessKey=business_key, retries=retries)

    content = json.loads(made(locked, replace(SHAPE, body=body), variables).body)

    if body == "task":
        assert content["variables"] == variables
        assert (content["businessKey"], content["retries"]) == (business_key, retries)
    else:
        assert content == (variables if body == "variables" else variables.get("a"))
