"""The printed contract against what really travels: each message of this bridge is held against
the documents that `external-task-bridge schema` prints for the same settings.
"""

from __future__ import annotations

import base64
import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from tests.support.amqp import Message
from tests.support.contract import Contract, asyncapi_problems
from tests.support.engine import EngineRest, unique
from tests.support.stage import BOUND, EXCHANGE, Case, Stage, Variables, bind_exchange
from tests.support.waiting import eventually

TENANT = unique("tenant")
TOPICS: Mapping[str, Mapping[str, Any]] = {
    "task": {"priority": True, "include_extension_properties": True, "deadline": "1h"},
    "named": {"variables": ["amount"]},
    "variables": {"body": "variables", "variables": ["amount", "order"]},
    "variable": {"body": "variable:order"},
    "celery": {"reply": "celery", "celery_task": "app.charge"},
    "spring": {"reply": "spring", "result_variable": "score"},
    "silent": {"reply": "none"},
    "rate": {"result_variable": "rate"},
    "fenced": {"allowed_variables": ["paid"]},
    "routed": {"exchange": EXCHANGE, "routing_key": "{topicName}.{tenantId}"},
    "one-slot": {"max_in_flight": 1},
}
VARIABLES: Variables = {
    "amount": {"value": 2**53 + 1, "type": "Long"},
    "order": {"value": '{"items":[1,{"a":null}]}', "type": "Json"},
    "due": {"value": "2026-01-31T23:59:59.123+0000", "type": "Date"},
    "blob": {"value": base64.b64encode(b"\x00\xff").decode(), "type": "Bytes"},
    "ratio": {"value": 0.5, "type": "Double"},
    "note": {"value": None, "type": "Null"},
    "traceparent": {
        "value": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        "type": "String",
    },
}
PROPERTIES = (
    "message_id correlation_id reply_to type content_type content_encoding delivery_mode "
    "timestamp expiration app_id priority"
)


@pytest.fixture(scope="module")
def stage(engine: EngineRest, shared_amqp_url: str) -> Iterator[Stage]:
    with Stage(engine, shared_amqp_url, TOPICS, prepare=bind_exchange) as stage:
        yield stage


@pytest.fixture(scope="module")
def contract(stage: Stage) -> Contract:
    """As a worker developer gets it: printed by the command from the bridge's own settings."""

    def printed(form: str) -> Any:
        command = [sys.executable, "-m", "bridge", "schema", "--config", str(stage.bridge.config)]
        done = subprocess.run(
            [*command, "--format", form], capture_output=True, timeout=60, check=True
        )
        return json.loads(done.stdout)

    return Contract(asyncapi=printed("asyncapi"), bundle=printed("json-schema"))


def task_problems(contract: Contract, case: Case, message: Message) -> list[str]:
    """What is wrong with a task message: body, headers, properties."""
    found = {name: getattr(message.properties, name) for name in PROPERTIES.split()}
    return contract.problems(
        f"{case.topic}.task",
        message.json,
        headers=message.headers,
        properties={name: value for name, value in found.items() if value is not None},
    )


def send(
    stage: Stage, message: Message, body: bytes, headers: Mapping[str, Any], **properties: Any
) -> None:
    stage.amqp.send(
        "",
        message.properties.reply_to,
        body,
        correlation_id=message.properties.correlation_id,
        headers=dict(headers),
        **properties,
    )


def test_the_document_of_a_running_bridge_is_asyncapi(contract: Contract) -> None:
    """By AsyncAPI's own schema."""
    assert asyncapi_problems(contract.asyncapi) == []


@pytest.mark.parametrize("short", [name for name in TOPICS if name != "one-slot"])
def test_a_task_message_keeps_the_contract(stage: Stage, contract: Contract, short: str) -> None:
    """In each body shape and reply profile, with every kind of variable."""
    case = stage.begin(
        short,
        VARIABLES,
        business_key="order-1",
        tenant=TENANT,
        queue=BOUND if short == "routed" else None,
        priority="7",
        properties={"sla": "gold"},
    )

    message = case.message()

    assert task_problems(contract, case, message) == []


def test_the_next_attempt_and_a_bare_task_keep_it_too(stage: Stage, contract: Contract) -> None:
    """What may be missing or null: business key, tenant, retries, the last error."""
    case = stage.begin("task")
    first = case.message()
    failed = {"errorMessage": "timeout", "retries": 1, "retryTimeout": 1}
    stage.answer(first, failed, outcome="failure")
    second = case.message()

    assert (first.json["retries"], second.json["retries"]) == (None, 1)
    assert task_problems(contract, case, first) == []
    assert task_problems(contract, case, second) == []
    assert contract.problems(f"{case.topic}.failure", failed, headers={"outcome": "failure"}) == []


def test_a_task_message_is_told_from_another_topics(stage: Stage, contract: Contract) -> None:
    """A schema that accepts every message would have passed everything above."""
    case = stage.begin("variables", VARIABLES)
    message = case.message()

    other = {name: f"{stage.names[name]}.task" for name in ("task", "named", "celery")}

    assert all(contract.problems(name, message.json) for name in other.values())


THROWN = {"value": None, "exception": {"message": "m", "stackTrace": []}}
Answer = tuple[str, str, Any, Mapping[str, Any], str]
RESULTS: list[Answer] = [
    ("task", "result", {"score": 7, "list": [{"a": None}]}, {}, "completed"),
    ("task", "result", {"total": {"value": "7", "type": "Long"}}, {}, "completed"),
    ("task", "result", {"$outcome": "complete", "variables": {"a": 1}}, {}, "completed"),
    ("task", "complete", {"localVariables": {"a": 1}}, {"outcome": "complete"}, "completed"),
    ("task", "failure", {"errorMessage": "m"}, {"outcome": "failure"}, "failed"),
    ("task", "bpmnError", {"errorCode": "E"}, {"outcome": "bpmnError"}, "bpmn_error"),
    ("task", "extendLock", {"variables": {"percent": 4}}, {"outcome": "extendLock"}, "progress"),
    ("task", "unlock", {}, {"outcome": "unlock"}, "released"),
    ("rate", "result", 0.5, {}, "completed"),
    ("fenced", "result", {"paid": True}, {}, "completed"),
    ("celery", "result", {"status": "SUCCESS", "result": {"paid": True}}, {}, "completed"),
    ("celery", "result", {"status": "STARTED"}, {}, "progress"),
    ("spring", "result", {"score": 7}, {"__TypeId__": "app.Score"}, "completed"),
    ("spring", "exception", THROWN, {"__TypeId__": "app.Score"}, "failed"),
]


@pytest.mark.parametrize("answer", RESULTS, ids=lambda answer: "-".join(answer[:2]))
def test_a_result_that_keeps_the_contract_is_applied(
    stage: Stage, contract: Contract, answer: Answer
) -> None:
    """Each outcome, in each reply profile."""
    short, kind, body, headers, event = answer
    case = stage.begin(short)
    before = stage.count(short, event)
    message = case.message()
    assert contract.problems(f"{case.topic}.{kind}", body, headers=headers) == []

    send(stage, message, json.dumps(body).encode(), headers)

    eventually(lambda: stage.count(short, event) == before + 1, what=event)


def test_a_listeners_text_is_a_result(stage: Stage, contract: Contract) -> None:
    """Spring without a JSON converter: the content type tells."""
    case = stage.begin("spring")
    about = contract.asyncapi["components"]["messages"][f"{case.topic}.text"]

    send(stage, case.message(), b"good", {}, content_type=about["contentType"])

    assert contract.problems(f"{case.topic}.text", "good", headers={}) == []
    case.end()
    assert case.variables()["score"]["value"] == "good"


WRONG: list[Answer] = [
    ("task", "result", [1], {}, "no-result-variable"),
    ("task", "result", {"x": {"value": "maybe", "type": "Boolean"}}, {}, "value-refused"),
    ("task", "bpmnError", {"errorMessage": "no code"}, {"outcome": "bpmnError"}, "bad-body"),
    ("task", "result", {"$outcome": "done"}, {}, "bad-outcome"),
    ("fenced", "result", {"other": 1}, {}, "value-refused"),
    ("celery", "result", {"result": 1}, {}, "bad-body"),
]


@pytest.mark.parametrize("answer", WRONG, ids=lambda answer: "-".join(answer[:2]))
def test_a_result_that_breaks_the_contract_is_parked(
    stage: Stage, contract: Contract, answer: Answer
) -> None:
    """The schema says before what the bridge would say after."""
    short, kind, body, headers, reason = answer
    case = stage.begin(short)
    message = case.message()
    assert contract.problems(f"{case.topic}.{kind}", body, headers=headers)

    send(stage, message, json.dumps(body).encode(), headers)

    parked = stage.parked(message.properties.correlation_id)
    assert parked.headers["reason"] == reason


def test_a_gone_notice_keeps_the_contract(stage: Stage, contract: Contract) -> None:
    """Where the document says that it is announced, with what it says."""
    case = stage.begin("one-slot")
    case.message()
    place = contract.asyncapi["channels"][f"{case.topic}.gone"]
    queue = stage.amqp.channel.queue_declare("", exclusive=True).method.queue
    exchange = place["bindings"]["amqp"]["exchange"]["name"]
    stage.amqp.channel.queue_bind(queue, exchange, place["address"])

    stage.engine.delete(case.instance)

    notice = eventually(lambda: stage.amqp.get(queue), what="a gone notice")
    assert notice is not None
    assert contract.problems(f"{case.topic}.gone", notice.json) == []
    assert contract.problems(f"{case.topic}.gone", {})
